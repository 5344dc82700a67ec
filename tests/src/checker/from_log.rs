//! Evidence from a log: the fold's verdicts as the oracle takes them.

use std::collections::BTreeSet;

use broker_adapter::fold::{Fold, Verdict};
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
        let mut fold = Fold::new();
        let mut evidence = Evidence::default();
        let mut skipped = BTreeSet::new();
        for entry in entries {
            match (fold.observe(entry), &entry.record) {
                (Verdict::Apply, Record::Message(message)) if message.request.path == path => {
                    let body = match &message.request.body {
                        Body::Inline(bytes) => bytes.clone(),
                        Body::Stored { hash, .. } => Bytes::from(hash.to_string()),
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
