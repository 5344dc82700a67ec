//! What processes tell of themselves: lines on standard error, chosen by `RUST_LOG`, coloured on a terminal only; servers may also
//! export traces.

use std::io::IsTerminal;

use tracing::Subscriber;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::traces::{Traces, TracesError, variables};

/// Begins to log. `default` is what is shown without `RUST_LOG`, as in `info`.
pub fn start(default: &str) {
    tracing_subscriber::registry().with(filter(default)).with(lines()).init();
}

/// Begins to log and, if the `OTEL_*` variables say so, to export traces under this name.
///
/// # Errors
/// [`TracesError`]: what they say cannot be done.
pub fn start_server(name: &'static str) -> Result<Traces, TracesError> {
    let wanted = variables::wanted(|variable| std::env::var(variable).ok())?;
    #[cfg(feature = "otlp")]
    if let Some(wanted) = wanted {
        let (layer, export) = crate::traces::layer(name, wanted)?;
        tracing_subscriber::registry().with(lines().with_filter(filter("info"))).with(layer).init();
        return Ok(Traces(Some(export)));
    }
    let (_without_traces, _nobody) = (wanted, name);
    start("info");
    Ok(Traces::default())
}

fn lines<S>() -> impl Layer<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let is_terminal = std::io::stderr().is_terminal();
    tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(is_terminal)
}

fn filter(default: &str) -> EnvFilter {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    // Spans that are made to be exported are no lines.
    let no_traces = format!("{}=off", sidecar::trace::TARGET).parse().expect("a target and a level are a directive");
    filter.add_directive(no_traces)
}
