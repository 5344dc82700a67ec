//! Traces by OTLP, switched on by the usual `OTEL_*` variables; without them nothing here runs and no span is made.
//!
//! ```text
//!   spans of sidecar and migrator (target `otlp`) ──▶ layer ──▶ links ──▶ sampler ──▶ queue ──▶ thread ──▶ collector
//! ```
//! The queue is bounded and whoever makes spans never waits for it: what a collector that is away does not take is dropped.
//! Architecture Invariant: only this module knows OpenTelemetry. Its SDK has a clock, randomness and a thread of its own beside the
//! shell's, which is why: nothing that it does comes back to a decision.

#[cfg(feature = "otlp")]
mod export;
#[cfg(feature = "otlp")]
mod links;
pub mod variables;

use sidecar::trace::Traceparent;
use tokio::signal::unix::{SignalKind, signal};

#[cfg(feature = "otlp")]
pub use export::{Export, layer};
pub use variables::TracesError;

/// What a process of a build without traces has.
#[cfg(not(feature = "otlp"))]
#[derive(Debug)]
pub enum Export {}

#[cfg(not(feature = "otlp"))]
impl Export {
    const TRACEPARENT: Traceparent = |_| None;

    fn flush(&self) {}
}

/// The export of this process, if there is one.
#[derive(Debug, Default)]
pub struct Traces(pub Option<Export>);

impl Traces {
    /// Names spans, where they are exported.
    pub fn traceparent(&self) -> Option<Traceparent> {
        self.0.as_ref().map(|_| Export::TRACEPARENT)
    }

    /// Works until it is done or a signal asks the process to end, and exports what was traced until then. Where nothing is exported,
    /// signals end the process as they always do.
    pub async fn around<T>(&self, work: impl Future<Output = T>) -> T {
        let Some(export) = &self.0 else { return work.await };
        tokio::select! {
            biased;
            done = work => {
                export.flush();
                done
            }
            number = asked_to_end() => {
                export.flush();
                // As a shell tells of a process that a signal ended.
                std::process::exit(128 + number)
            }
        }
    }
}

async fn asked_to_end() -> i32 {
    let (interrupt, terminate) = (SignalKind::interrupt(), SignalKind::terminate());
    let (Ok(mut interrupted), Ok(mut terminated)) = (signal(interrupt), signal(terminate)) else {
        return std::future::pending().await;
    };
    tokio::select! {
        biased;
        _ = interrupted.recv() => interrupt.as_raw_value(),
        _ = terminated.recv() => terminate.as_raw_value(),
    }
}
