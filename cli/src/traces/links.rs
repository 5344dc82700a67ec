//! Parents and links that `tracing` cannot express: spans carry them as `traceparent` in fields (`sidecar::trace`), and here they
//! become what they are before a span begins, so that the sampler sees them.

use std::collections::HashMap;

use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{Link, SpanBuilder, SpanContext, SpanKind, TraceContextExt, TraceId, Tracer};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, SamplingResult, SdkTracer, ShouldSample, Span};
use sidecar::trace::{LINK, LINK_STATE, PARENT, PARENT_STATE};

/// A tracer that reads those fields.
#[derive(Clone, Debug)]
pub struct Linking(pub SdkTracer);

impl Tracer for Linking {
    type Span = Span;

    fn build_with_context(&self, mut builder: SpanBuilder, parent: &Context) -> Span {
        let link = take(&mut builder, LINK, LINK_STATE);
        builder.links.get_or_insert_default().extend(link.map(Link::with_context));
        match take(&mut builder, PARENT, PARENT_STATE) {
            Some(remote) => self.0.build_with_context(builder, &Context::new().with_remote_span_context(remote)),
            None => self.0.build_with_context(builder, parent),
        }
    }
}

/// Takes a context out of the attributes; one that is none is as good as no context (W3C Trace Context, section 2.3).
fn take(builder: &mut SpanBuilder, parent: &str, state: &str) -> Option<SpanContext> {
    let mut headers = HashMap::new();
    if let Some(attributes) = &mut builder.attributes {
        attributes.retain(|KeyValue { key, value, .. }| {
            let header = match key.as_str() {
                key if key == parent => "traceparent",
                key if key == state => "tracestate",
                _ => return true,
            };
            headers.insert(header.to_owned(), value.as_str().into_owned());
            false
        });
    }
    if headers.is_empty() {
        return None;
    }
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &headers);
    let context = context.span().span_context().clone();
    context.is_valid().then_some(context)
}

/// What is linked to a span that is exported is exported too; everything else as its parent, or as any root.
#[derive(Clone, Debug)]
pub struct ByOriginal(pub Sampler);

impl ShouldSample for ByOriginal {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let mut result = self.0.should_sample(parent, trace, name, kind, attributes, links);
        if links.iter().any(|link| link.span_context.is_sampled()) {
            result.decision = SamplingDecision::RecordAndSample;
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanId, TraceFlags, TracerProvider};
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing_opentelemetry::OpenTelemetrySpanExt;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    const TRACE: u128 = 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c;

    /// The context of a span with this parent, made while `sampler` decides.
    fn child_of(parent: Option<&str>, sampler: Sampler) -> SpanContext {
        let provider = SdkTracerProvider::builder().with_sampler(sampler).build();
        let layer = tracing_opentelemetry::layer().with_tracer(Linking(provider.tracer("test")));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::info_span!("child", { PARENT } = parent).context().span().span_context().clone()
        })
    }

    #[test]
    fn a_parent_in_a_field_is_the_parent_and_what_is_none_is_none() {
        let parent = |flags| format!("00-{TRACE:032x}-b7ad6b7169203331-{flags}");
        let by_parent = || Sampler::ParentBased(Box::new(Sampler::AlwaysOn));
        let (sampled, dropped) =
            (child_of(Some(&parent("01")), by_parent()), child_of(Some(&parent("00")), by_parent()));
        assert_eq!((sampled.trace_id(), sampled.is_sampled()), (TraceId::from(TRACE), true));
        assert_eq!((dropped.trace_id(), dropped.is_sampled()), (TraceId::from(TRACE), false));
        for bad in [None, Some(""), Some("00-1-2-3"), Some("no context at all")] {
            let root = child_of(bad, by_parent());
            assert!(root.is_sampled() && root.trace_id() != TraceId::from(TRACE), "{bad:?}");
        }
    }

    #[test]
    fn what_is_linked_to_a_sampled_span_is_sampled() {
        let sampler = ByOriginal(Sampler::ParentBased(Box::new(Sampler::AlwaysOff)));
        let decides = |flags| {
            let linked = SpanContext::new(TRACE.into(), SpanId::from(7), flags, true, Default::default());
            let links = [Link::with_context(linked)];
            sampler.should_sample(None, TraceId::from(1), "replay", &SpanKind::Client, &[], &links).decision
        };
        assert_eq!(decides(TraceFlags::SAMPLED), SamplingDecision::RecordAndSample);
        assert_eq!(decides(TraceFlags::default()), SamplingDecision::Drop);
    }
}
