//! Evidence from a log: the verdicts of a fold with all its rules, whatever rules a test took from the replicas.

use std::collections::{BTreeMap, BTreeSet};

use broker_adapter::fold::{Fold, Verdict};
use broker_adapter::ids::Hash;
use broker_adapter::record::{Body, Entry, Record};
use bytes::Bytes;

use super::{Applied, CountedFence, Evidence};

impl Evidence {
    /// What a whole log (from position 1) says: the counted fences, the applied messages of `path`, and those skipped.
    ///
    /// # Panics
    /// If the entries have a gap.
    #[must_use]
    pub fn from_log(entries: &[Entry], path: &str) -> Evidence {
        Evidence::from_log_and_bodies(entries, path, &BTreeMap::new())
    }

    /// The same, with the bodies that are not in their records.
    ///
    /// # Panics
    /// If the entries have a gap.
    #[must_use]
    pub fn from_log_and_bodies(entries: &[Entry], path: &str, bodies: &BTreeMap<Hash, Bytes>) -> Evidence {
        let mut fold = Fold::new();
        let mut evidence = Evidence::default();
        let mut skipped = BTreeSet::new();
        for entry in entries {
            match (fold.observe(entry), &entry.record) {
                (Verdict::Apply, Record::Message(message)) if message.request.path == path => {
                    let body = match &message.request.body {
                        Body::Inline(bytes) => bytes.clone(),
                        Body::Stored { hash, .. } => {
                            bodies.get(hash).cloned().unwrap_or_else(|| Bytes::from(hash.to_string()))
                        }
                    };
                    evidence.applied.push(Applied { position: entry.position, name: message.name, body });
                }
                (Verdict::Fenced(fence), _) => {
                    let (epoch, owner) = (fence.epoch, fence.owner);
                    evidence.fences.push(CountedFence { position: entry.position, epoch, owner });
                }
                (Verdict::Noted, Record::Skip(skip)) => {
                    skipped.insert(skip.position);
                }
                _ => {}
            }
        }
        let (gone, applied) = evidence.applied.drain(..).partition(|message| skipped.contains(&message.position));
        evidence.applied = applied;
        evidence.skipped = gone;
        evidence
    }
}

#[cfg(test)]
mod tests {
    use broker_adapter::ids::{Count, Epoch, Incarnation, MessageName, Position, Replica, Sequence, Session};
    use broker_adapter::record::{Cause, Fence, Key, Message, Record, Request, Skip, Writer};

    use super::*;

    fn replica(node: &str) -> Replica {
        Replica { node: node.parse().expect("a good name"), incarnation: Incarnation::from_bits(7) }
    }

    fn fence(epoch: u64, node: &str) -> Record {
        let (epoch, owner) = (Epoch(epoch), replica(node));
        Record::Fence(Fence { epoch, owner, cause: Cause::First, migration: None, retires: None })
    }

    fn message(sequence: u64, key: Option<&str>, path: &str) -> Record {
        let name = MessageName { session: Session::from_bits(1), sequence: Sequence(sequence) };
        let key = key.map_or(Key::Own { count: Count(0) }, |key| Key::Client { key: key.to_owned() });
        let body = Body::Inline(format!("m{sequence}").into());
        let request = Request { method: "POST".to_owned(), path: path.to_owned(), headers: Vec::new(), body };
        let base = (sequence == 1).then_some(Count(0));
        Record::Message(Box::new(Message { name, base, key, source: None, ingress: replica("a"), request }))
    }

    fn log(records: Vec<Record>) -> Vec<Entry> {
        let placed = (1..).zip(records);
        placed.map(|(place, record)| Entry { position: Position(place), appended_ms: 0, crc: 0, record }).collect()
    }

    fn ids(messages: &[Applied]) -> Vec<String> {
        messages.iter().map(Applied::id).collect()
    }

    #[test]
    fn only_what_the_fold_applies_is_evidence() {
        let entries = log(vec![
            fence(1, "a"),
            message(1, Some("k"), "/append"),
            message(1, None, "/append"),      // doubled: void
            message(3, None, "/append"),      // a sequence is missing: void
            message(2, Some("k"), "/append"), // a repeat
            message(3, None, "/elsewhere"),
            fence(3, "c"), // skips an epoch: void
            message(4, None, "/append"),
            fence(2, "b"),
        ]);
        let evidence = Evidence::from_log(&entries, "/append");
        assert_eq!(ids(&evidence.applied), ["m1", "m4"]);
        let owners: Vec<_> = evidence.fences.iter().map(|fence| (fence.epoch, fence.owner.clone())).collect();
        assert_eq!(owners, [(Epoch(1), replica("a")), (Epoch(2), replica("b"))]);
    }

    #[test]
    fn a_skip_counts_only_from_the_owner() {
        let skip = |node: &str, place: u64| {
            let writer = Writer { epoch: Epoch(1), replica: replica(node) };
            Record::Skip(Skip { writer, position: Position(place) })
        };
        let entries = log(vec![
            fence(1, "a"),
            message(1, None, "/append"),
            message(2, None, "/append"),
            skip("a", 2),
            skip("zombie", 3),
        ]);
        let evidence = Evidence::from_log(&entries, "/append");
        assert_eq!(ids(&evidence.applied), ["m2"]);
        assert_eq!(ids(&evidence.skipped), ["m1"]);
    }
}
