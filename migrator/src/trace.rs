//! The spans of a migration, for whoever collects traces: one root, and a child for each phase that it enters.
//!
//! They last as long as this migrator acts: one that takes a migration over begins a new root, and the journal has the whole story.
//! What they are called and who listens: [`sidecar::trace`].

use sidecar::trace::TARGET;
use tracing::Span;
use tracing::field::Empty;

use crate::machine::{Ending, Migration, Phase};

/// The spans of one migration that is not over.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    now: Option<Now>,
}

#[derive(Debug)]
struct Now {
    root: Span,
    phase: Span,
    at: (Phase, u32),
}

impl Trace {
    /// Follows the book; the same state twice changes nothing.
    pub fn follow(&mut self, state: &Migration) {
        let at = (state.phase, state.attempt.number);
        if state.has_ended() {
            if let Some(now) = self.now.take() {
                end(&now, state);
            }
        } else if let Some(now) = self.now.as_mut().filter(|now| now.at != at) {
            blame(&now.phase, state);
            // The old phase ends before the new one begins.
            now.phase = Span::none();
            (now.phase, now.at) = (phase(&now.root, state), at);
        } else if self.now.is_none() {
            let root = root(state);
            self.now = Some(Now { phase: phase(&root, state), root, at });
        }
    }
}

fn root(state: &Migration) -> Span {
    let order = &state.order;
    tracing::trace_span!(
        target: TARGET,
        parent: None,
        "migration",
        otel.status_code = Empty,
        otel.status_description = Empty,
        segue.migration = %order.id,
        segue.service = %order.shard.service,
        segue.shard = %order.shard.shard,
        segue.from = %order.from,
        segue.to = %order.to,
        segue.operation = order.operation.name(),
        segue.strategy = order.strategy.name(),
        segue.outcome = Empty,
        segue.position = Empty,
    )
}

fn phase(root: &Span, state: &Migration) -> Span {
    tracing::trace_span!(
        target: TARGET,
        parent: root,
        "phase",
        otel.name = state.phase.name(),
        otel.status_description = Empty,
        segue.migration = %state.order.id,
        segue.attempt = i64::from(state.attempt.number),
        segue.epoch = i64::try_from(state.attempt.epoch.0).unwrap_or(i64::MAX),
        segue.source = %state.attempt.source.node,
        segue.target = %state.attempt.target.node,
    )
}

/// A phase that failed is one that is rolled back, and nobody asked for it.
fn blame(phase: &Span, state: &Migration) {
    if state.phase == Phase::RollingBack && !state.cancel_requested {
        phase.record("otel.status_description", state.error.as_deref().unwrap_or("it failed"));
    }
}

fn end(now: &Now, state: &Migration) {
    let Some((ending, _)) = state.ended else { return };
    now.root.record("segue.outcome", ending.name());
    if let Some(fence) = &state.decided_by {
        now.root.record("segue.position", i64::try_from(fence.position.0).unwrap_or(i64::MAX));
    }
    match ending {
        Ending::Completed => {
            now.root.record("otel.status_code", "OK");
        }
        // As it was asked for.
        Ending::Cancelled => {}
        Ending::RolledBack | Ending::Failed | Ending::Diverged => {
            now.root.record("otel.status_description", state.error.as_deref().unwrap_or(ending.name()));
        }
    }
}
