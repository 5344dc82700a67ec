//! The demo's own reader of the service's log: what was applied, in which order, and who owns.
//!
//! It follows from the first record while the run goes on, because an owner may trim what its checkpoints cover. What counts is
//! judged by the fold, as every replica does it.

use std::sync::Arc;

use broker_adapter::fold::{Fold, Verdict};
use broker_adapter::follow::Follower;
use broker_adapter::ids::Position;
use broker_adapter::log::{MessageLog, ReadError};
use broker_adapter::record::{Body, Entry, Message, Record};
use broker_adapter::shell::Shell;
use tokio::sync::{oneshot, watch};

use super::load::REQUEST_HEADER;
use super::verdict::Logged;

/// How far the witness has read.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The last record.
    pub position: Position,
    /// The owner's node.
    pub owner: Option<String>,
}

/// Follows the log.
pub struct Witness {
    /// How far it is.
    pub seen: watch::Receiver<Seen>,
    stop_at: oneshot::Sender<Position>,
    result: oneshot::Receiver<Result<Vec<Logged>, ReadError>>,
}

/// Begins at the first record.
#[must_use]
pub fn start(log: Arc<dyn MessageLog>, shell: &Shell) -> Witness {
    let (seen_sender, seen) = watch::channel(Seen::default());
    let (stop_at, stop) = oneshot::channel();
    let (result_sender, result) = oneshot::channel();
    let follower = Follower::new(log, shell.clone(), Position::ZERO, 0);
    shell.spawn(async move {
        // Whoever asked may be gone.
        let _ = result_sender.send(watch_log(follower, seen_sender, stop).await);
    });
    Witness { seen, stop_at, result }
}

impl Witness {
    /// The applied messages up to `tail`; waits until it has read so far.
    ///
    /// # Errors
    /// If the log has a gap or is damaged, or the process is ending.
    pub async fn finish(self, tail: Position) -> Result<Vec<Logged>, ReadError> {
        // A witness that stopped early has its reason as its result.
        let _ = self.stop_at.send(tail);
        self.result.await.unwrap_or_else(|_| Err(ReadError::Unreachable("the witness was ended".to_owned())))
    }
}

async fn watch_log(
    mut follower: Follower,
    seen: watch::Sender<Seen>,
    mut stop: oneshot::Receiver<Position>,
) -> Result<Vec<Logged>, ReadError> {
    let mut fold = Fold::new();
    let mut applied = Vec::new();
    let mut last = None;
    while last.is_none_or(|last| fold.position() < last) {
        let entry = tokio::select! {
            biased;
            entry = follower.next() => entry?,
            // A witness that nobody waits for any more reads no further.
            tail = &mut stop, if last.is_none() => {
                last = Some(tail.unwrap_or(Position::ZERO));
                continue;
            }
        };
        applied.extend(observe(&mut fold, &entry));
        seen.send_modify(|seen| {
            seen.position = entry.position;
            if matches!(entry.record, Record::Fence(_)) {
                seen.owner = fold.owner().map(|owner| owner.node.to_string());
            }
        });
    }
    Ok(applied)
}

fn observe(fold: &mut Fold, entry: &Entry) -> Option<Logged> {
    let verdict = fold.observe(entry);
    match (&entry.record, verdict) {
        (Record::Message(message), Verdict::Apply) => Some(logged(message)),
        _ => None,
    }
}

fn logged(message: &Message) -> Logged {
    let named = message.request.headers.iter().find(|header| header.name == REQUEST_HEADER);
    let number = named.and_then(|header| std::str::from_utf8(&header.value).ok()?.parse().ok());
    // A flight is far below the size at which bodies are stored elsewhere: an empty line is told as altered.
    let line = match &message.request.body {
        Body::Inline(bytes) => bytes.to_vec(),
        Body::Stored { .. } => Vec::new(),
    };
    Logged { request: number, line }
}

#[cfg(test)]
mod tests {
    use broker_adapter::ids::{Count, Incarnation, MessageName, Replica, Sequence, Session};
    use broker_adapter::record::{Header, Key, Request};
    use broker_adapter::shell::real;

    use super::*;

    fn message(sequence: u64, request: &str) -> Record {
        let first = sequence == 1;
        Record::Message(Box::new(Message {
            name: MessageName { session: Session::from_bits(7), sequence: Sequence(sequence) },
            base: first.then_some(Count(0)),
            key: Key::Own { count: Count(0) },
            source: None,
            ingress: Replica { node: "edge-a".parse().unwrap(), incarnation: Incarnation::from_bits(1) },
            request: Request {
                method: "POST".to_owned(),
                path: "/flights".to_owned(),
                headers: vec![Header { name: REQUEST_HEADER.to_owned(), value: request.to_owned().into() }],
                body: Body::Inline(format!("line {request}").into()),
            },
        }))
    }

    #[test]
    fn only_what_the_fold_applies_is_witnessed() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (shell, _tasks) = real::process();
            let folder = tempfile::tempdir().unwrap();
            let url = format!("embedded:{}", folder.path().display());
            let broker = broker_adapter::connect(&url, &shell).await.unwrap();
            let log = broker.log("delay-board.0").await.unwrap();
            let witness = start(log.clone(), &shell);
            // The second one is there twice, the fourth came before the third.
            let records = [(1, "10"), (2, "11"), (2, "11"), (4, "13"), (3, "12"), (4, "none")];
            log.append(records.map(|(sequence, request)| message(sequence, request)).into()).await.unwrap();
            let applied = witness.finish(log.tail().await.unwrap()).await.unwrap();
            let requests: Vec<Option<usize>> = applied.iter().map(|logged| logged.request).collect();
            assert_eq!(requests, [Some(10), Some(11), Some(12), None]);
            assert_eq!(applied[2].line, b"line 12");
        });
    }
}
