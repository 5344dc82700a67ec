//! The way of spans to the collector: layer, sampler, queue, exporter.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry::{Key, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, SpanData};
use sidecar::trace::{TARGET, Traceparent};
use tracing::level_filters::LevelFilter;
use tracing::{Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::registry::LookupSpan;

use super::links::{ByOriginal, Linking};
use super::variables::{TracesError, Wanted};

/// How long the end of a process waits for its last spans.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// A running export.
#[derive(Debug)]
pub struct Export(SdkTracerProvider);

impl Export {
    /// Names spans that are exported.
    pub const TRACEPARENT: Traceparent = traceparent;

    /// Exports what is queued and ends.
    pub fn flush(&self) {
        // What does not go out in time is lost, as it would have been without.
        let _ = self.0.shutdown_with_timeout(FLUSH_LIMIT);
    }
}

fn traceparent(span: &Span) -> Option<String> {
    let context = span.context();
    let context = context.span().span_context().clone();
    let named = context.is_valid() && context.is_sampled();
    named.then(|| format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags().to_u8()))
}

/// What collects spans, and their export; `service` is the process's name where `OTEL_SERVICE_NAME` gives it none.
///
/// # Errors
/// [`TracesError::Export`].
pub fn layer<S>(service: &'static str, wanted: Wanted) -> Result<(impl Layer<S>, Export), TracesError>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    // Whoever was first has set the same one: there is no other in this program.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let exporter = SpanExporter::builder().with_http().with_protocol(Protocol::HttpBinary).build();
    let exporter = exporter.map_err(|error| TracesError::Export(error.to_string()))?;
    let Wanted { collector, sampling } = wanted;
    let told = Told { exporter, collector, fails: AtomicBool::new(false) };
    let builder = SdkTracerProvider::builder().with_resource(resource(service)).with_batch_exporter(told);
    let root = Sampler::TraceIdRatioBased(sampling.ratio);
    let provider = if sampling.by_parent {
        builder.with_sampler(ByOriginal(Sampler::ParentBased(Box::new(root)))).build()
    } else {
        builder.with_sampler(root).build()
    };
    let layer = tracing_opentelemetry::layer()
        .with_tracer(Linking(provider.tracer("segue")))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_context_activation(false);
    Ok((layer.with_filter(Targets::new().with_target(TARGET, LevelFilter::TRACE)), Export(provider)))
}

/// `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, and what this program is.
fn resource(service: &'static str) -> Resource {
    let name = Key::from_static_str("service.name");
    let given = Resource::builder().build().get(&name).map(|name| name.as_str().into_owned());
    // So says the SDK where nobody gave one.
    let given = given.filter(|given| !given.starts_with("unknown_service"));
    let version = Key::from_static_str("service.version");
    let mut builder = Resource::builder();
    if Resource::builder().build().get(&version).is_none() {
        builder = builder.with_attribute(KeyValue::new(version, env!("CARGO_PKG_VERSION")));
    }
    builder.with_service_name(given.unwrap_or_else(|| service.to_owned())).build()
}

/// An exporter that tells once when it fails, and once when it works again.
#[derive(Debug)]
struct Told<E> {
    exporter: E,
    collector: String,
    fails: AtomicBool,
}

impl<E: opentelemetry_sdk::trace::SpanExporter> opentelemetry_sdk::trace::SpanExporter for Told<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let result = self.exporter.export(batch).await;
        let collector = &self.collector;
        match &result {
            Err(error) if !self.fails.swap(true, Ordering::Relaxed) => {
                tracing::warn!(
                    collector,
                    %error,
                    "traces cannot be exported and are dropped, everything else goes on: is the collector there, does it take OTLP over \
                     HTTP, and are OTEL_EXPORTER_OTLP_ENDPOINT and _HEADERS right?"
                );
            }
            Ok(()) if self.fails.swap(false, Ordering::Relaxed) => {
                tracing::info!(collector, "traces are exported again")
            }
            _ => {}
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
