//! What happened, for people who look on: a bounded memory of events, and a stream of new ones.
//!
//! Events of migrations are the words of the journal: their id is the word's position, they are the same after a restart, and
//! who was away asks for what came after the last id that he saw. Events of nodes and services pass and have no id.

use std::collections::VecDeque;
use std::sync::Arc;

use broker_adapter::ids::{MigrationId, NodeName, Position};
use serde::Serialize;
use serde_json::Value;
use sidecar::command::StepDone;
use tokio::sync::broadcast;
use utoipa::ToSchema;

use crate::book::{Change, Word};
use crate::machine::{Migration, Undo, What};

/// How many lasting events are remembered.
const KEPT_MAX: usize = 4_096;
/// How many new ones a listener may be behind; then it must fetch everything again.
const BEHIND_MAX: usize = 1_024;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A migration; `data` is it.
    Migration,
    /// A node; `data` is it.
    Node,
    /// A shard of a service; `data` is it.
    Service,
    /// Nothing happened, and the stream lives.
    Heartbeat,
    /// What came in between is not remembered: fetch everything again.
    Reset,
}

impl Kind {
    /// As in the stream.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Migration => "migration",
            Kind::Node => "node",
            Kind::Service => "service",
            Kind::Heartbeat => "heartbeat",
            Kind::Reset => "reset",
        }
    }
}

/// Something happened.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = Event)]
pub struct EventView {
    /// Where it stands in the journal; null if it does not last.
    pub id: Option<u64>,
    /// What it is about.
    pub kind: Kind,
    /// Wall milliseconds.
    pub at_ms: u64,
    /// Which migration.
    #[schema(value_type = Option<String>)]
    pub migration: Option<MigrationId>,
    /// Which service and shard.
    pub service: Option<String>,
    /// Which node.
    #[schema(value_type = Option<String>)]
    pub node: Option<NodeName>,
    /// In a few words.
    pub title: String,
    /// In one sentence.
    pub detail: String,
    /// The Migration, Node or Service as it is now; null if there is none (any more).
    #[schema(value_type = Option<Object>)]
    pub data: Arc<Value>,
}

impl EventView {
    /// An event that does not last.
    #[must_use]
    pub fn passing(kind: Kind, at_ms: u64, title: &str) -> EventView {
        let (title, data) = (title.to_owned(), Arc::new(Value::Null));
        let (migration, service, node) = (None, None, None);
        EventView { id: None, kind, at_ms, migration, service, node, title, detail: String::new(), data }
    }
}

/// The memory and the stream.
pub struct Events {
    kept: VecDeque<EventView>,
    /// Events up to here may be forgotten.
    forgotten: Position,
    stream: broadcast::Sender<Arc<EventView>>,
}

impl Default for Events {
    fn default() -> Self {
        let (stream, _) = broadcast::channel(BEHIND_MAX);
        Events { kept: VecDeque::new(), forgotten: Position::ZERO, stream }
    }
}

impl Events {
    /// Keeps what a word of the journal says, without what it is about.
    pub fn word(&mut self, position: Position, word: &Word, change: &Change, state: &Migration) -> EventView {
        let event = told(position, word, change, state);
        if self.kept.len() == KEPT_MAX
            && let Some(oldest) = self.kept.pop_front()
        {
            self.forgotten = Position(oldest.id.unwrap_or_default());
        }
        self.kept.push_back(event.clone());
        event
    }

    /// Tells everybody who listens.
    pub fn publish(&self, event: EventView) {
        // Nobody may be listening.
        let _ = self.stream.send(Arc::new(event));
    }

    /// Whether anybody listens.
    pub fn is_heard(&self) -> bool {
        self.stream.receiver_count() > 0
    }

    /// What comes from now on.
    pub fn listen(&self) -> broadcast::Receiver<Arc<EventView>> {
        self.stream.subscribe()
    }

    /// What was kept behind a position, the oldest first; nothing if some of it may be forgotten.
    pub fn since(&self, position: Position) -> Option<impl Iterator<Item = &EventView>> {
        let is_whole = position >= self.forgotten;
        is_whole.then(|| self.kept.iter().filter(move |event| event.id.is_some_and(|id| id > position.0)))
    }

    /// All that is kept.
    pub fn all(&self) -> impl Iterator<Item = &EventView> {
        self.kept.iter()
    }
}

fn told(position: Position, word: &Word, change: &Change, state: &Migration) -> EventView {
    let order = &state.order;
    let (at_ms, title, detail) = match word {
        Word::Accepted { order, .. } => {
            let how = format!("{} from {} to {} by {}", order.shard, order.from, order.to, order.strategy.name());
            (order.accepted_ms, format!("{} accepted", order.operation.name()), how)
        }
        Word::Happened { event, .. } => {
            let (title, detail) = happened(&event.what);
            (event.at_ms, title, detail)
        }
    };
    let before = change.before.as_ref().map(|before| before.phase);
    let detail = match before {
        Some(before) if before != state.phase => {
            let now = format!("{} is over, now: {}", before.name(), state.phase.name());
            if detail.is_empty() { now } else { format!("{detail}; {now}") }
        }
        _ => detail,
    };
    EventView {
        id: Some(position.0),
        kind: Kind::Migration,
        at_ms,
        migration: Some(order.id),
        service: Some(order.shard.to_string()),
        node: None,
        title,
        detail,
        data: Arc::new(Value::Null),
    }
}

fn happened(what: &What) -> (String, String) {
    let plain = |title: &str, detail: String| (title.to_owned(), detail);
    match what {
        What::AttemptBegun(start) => (
            format!("attempt {} begins", start.number),
            format!("under epoch {}, from {}", start.epoch, start.source.node),
        ),
        What::StepEnded(step) => match &step.result {
            Ok(done) => (format!("{} done at {}", step.step, step.from.node), brought(done)),
            Err(failure) => (format!("{} failed at {}", step.step, step.from.node), failure.message.clone()),
        },
        What::DeadlinePassed { phase, limit_ms, .. } => {
            plain("a phase took too long", format!("{} has a limit of {limit_ms} ms", phase.name()))
        }
        What::OrderTooLate { limit_s } => plain("its deadline passed", format!("{limit_s} s after its acceptance")),
        What::CutoffPassed { .. } => {
            plain("its cutoff passed", "the source is stopped for the last stretch".to_owned())
        }
        What::TargetLost { .. } => plain("the target restarted", "its replica is gone".to_owned()),
        What::LogUnreadable { reason, .. } => plain("its log cannot be read", reason.clone()),
        What::CancelRequested => plain("cancel requested", "how it ends, its fence decides".to_owned()),
        What::FenceRead(fence) => (
            format!("fence {} counted", fence.epoch),
            format!("{:?} at position {}: {} owns", fence.cause, fence.position, fence.owner.node),
        ),
        What::FenceForgotten { epoch } => plain("its fence is forgotten", format!("epoch {epoch} has passed")),
        What::CareDone(Undo::Discard) => plain("cleaned up", "the target dropped its replica".to_owned()),
        What::CareDone(Undo::ReleaseAtSource) => {
            plain("cleaned up", "the source keeps its checkpoint for this no longer".to_owned())
        }
        What::CareDone(Undo::ReleaseAtOwner) => {
            plain("cleaned up", "the owner keeps a checkpoint for this no longer".to_owned())
        }
        What::CareGivenUp => plain("cleaning up given up", "a node did not answer in time".to_owned()),
    }
}

fn brought(done: &StepDone) -> String {
    match done {
        StepDone::Plain => String::new(),
        StepDone::Prepared { warm: None, .. } => "it begins with nothing".to_owned(),
        StepDone::Prepared { warm: Some(position), .. } => format!("it stands by at {position} already"),
        StepDone::Paused { position } => format!("the source stands still behind {position}"),
        StepDone::Checkpoint { position, state_bytes, stored_bytes, reused_bytes, .. } => format!(
            "state of {state_bytes} bytes behind record {position}; {stored_bytes} bytes stored, {reused_bytes} there already"
        ),
        StepDone::Agreed { position, hash, state: Some(state), .. } => {
            format!("states are equal at {position}: {state} (replies: {hash})")
        }
        StepDone::Agreed { position, hash, state: None, replies_compared } => {
            format!("{replies_compared} replies are equal up to {position}: {hash}")
        }
        StepDone::Fenced { position } => format!("its fence stands at {position}"),
    }
}

#[cfg(test)]
mod tests {
    use broker_adapter::ids::Epoch;

    use super::*;
    use crate::book::Book;
    use crate::machine::{AttemptStart, Event};

    #[test]
    fn who_was_away_too_long_is_told_so_and_who_was_not_gets_what_came() {
        let (mut book, mut events) = (Book::default(), Events::default());
        let order = crate::machine::tests::order();
        let (id, replica) = (order.id, crate::bench::replica("a", 1));
        let first = AttemptStart { number: 1, epoch: Epoch(2), source: replica.clone(), target: replica };
        let accepted = Word::Accepted { order: Box::new(order), first };
        let change = book.read(&accepted).unwrap();
        let state = book.get(id).unwrap();
        for position in 1..=(KEPT_MAX as u64 + 10) {
            events.word(Position(position), &accepted, &change, state);
        }
        assert!(events.kept.len() == KEPT_MAX && events.since(Position(9)).is_none());
        let ids: Vec<u64> = events.since(Position(KEPT_MAX as u64 + 8)).unwrap().filter_map(|event| event.id).collect();
        assert_eq!(ids, [KEPT_MAX as u64 + 9, KEPT_MAX as u64 + 10]);
        let cancel = Word::Happened { migration: id, event: Event { at_ms: 7, what: What::CancelRequested } };
        let change = book.read(&cancel).unwrap();
        let told = events.word(Position(9_999), &cancel, &change, book.get(id).unwrap());
        assert_eq!((told.at_ms, told.title.as_str()), (7, "cancel requested"));
        assert!(told.detail.contains("now: rolling-back"), "{}", told.detail);
    }
}
