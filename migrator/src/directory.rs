//! The directory: which nodes there are and what they tell, from their announcements alone.
//!
//! Nothing in it decides an ownership; it finds targets, names what is known, and notices a node that runs anew.

use std::collections::BTreeMap;
use std::time::Duration;

use broker_adapter::ids::{NodeName, Replica, ServiceName, ShardId};
use sidecar::command::{Announcement, ShardStatus};

use crate::rates::Rates;

/// A node that was not heard for so long is silent: nothing is moved to or from it.
pub const SILENT_AFTER: Duration = Duration::from_secs(5);
/// A node that was not heard for so long is forgotten.
pub const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);
/// How many nodes are remembered; the ones beyond are not taken up.
pub const NODES_MAX: usize = 10_000;
/// Of how many shards rates are measured.
const RATES_MAX: usize = 10_000;
/// Of how many nodes each.
const RATES_NODES_MAX: usize = 256;

/// A node as it announced itself last.
#[derive(Clone, Debug)]
pub struct Known {
    /// What it told.
    pub announcement: Announcement,
    /// When, by [`broker_adapter::shell::Shell::now`].
    pub heard_at: Duration,
}

impl Known {
    /// Whether it was not heard for [`SILENT_AFTER`].
    #[must_use]
    pub fn is_silent(&self, now: Duration) -> bool {
        now.saturating_sub(self.heard_at) >= SILENT_AFTER
    }

    /// What it told of a shard.
    #[must_use]
    pub fn status(&self, shard: &ShardId) -> Option<&ShardStatus> {
        self.announcement.shards.iter().find(|status| status.shard == *shard)
    }
}

/// All known nodes.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    nodes: BTreeMap<NodeName, Known>,
    rates: BTreeMap<ShardId, Rates>,
}

impl Directory {
    /// Takes up what a node tells. Of two runs of one name the one that began later counts, unless it is silent: late mail of
    /// an older run must not hide the present one.
    pub fn hear(&mut self, announcement: Announcement, now: Duration) {
        self.nodes.retain(|_, known| now.saturating_sub(known.heard_at) < FORGOTTEN_AFTER);
        let name = announcement.from.node.clone();
        if let Some(known) = self.nodes.get(&name) {
            let present = &known.announcement;
            let is_older = announcement.from != present.from && announcement.started_ms < present.started_ms;
            if is_older && !known.is_silent(now) {
                return;
            }
        } else if self.nodes.len() >= NODES_MAX {
            return;
        }
        announcement.shards.iter().for_each(|status| self.measure(&name, status, now));
        if announcement.leaving {
            self.nodes.remove(&name);
        } else {
            self.nodes.insert(name, Known { announcement, heard_at: now });
        }
    }

    /// The node that has read most tells the shard's numbers; what is behind would make them go back.
    fn measure(&mut self, node: &NodeName, status: &ShardStatus, now: Duration) {
        if !self.rates.contains_key(&status.shard) && self.rates.len() >= RATES_MAX {
            return;
        }
        let newest = self.nodes.values().filter_map(|known| known.status(&status.shard));
        let is_newest = newest.map(|status| status.tail).max().is_none_or(|tail| tail <= status.tail);
        let rates = self.rates.entry(status.shard.clone()).or_default();
        if is_newest {
            rates.messages.sample(status.messages_counted, now);
            rates.records.sample(status.tail.0, now);
        }
        if let Some(checkpoint) = status.checkpoint.filter(|now| rates.checkpoint.is_none_or(|(was, _)| was < *now)) {
            rates.checkpoint = Some((checkpoint, now));
        }
        if rates.applied.len() < RATES_NODES_MAX || rates.applied.contains_key(node) {
            rates.applied.entry(node.clone()).or_default().sample(status.applied.0, now);
        }
    }

    /// How fast a shard's numbers grow.
    #[must_use]
    pub fn rates(&self, shard: &ShardId) -> Option<&Rates> {
        self.rates.get(shard)
    }

    /// How long ago the last checkpoint of a shard was told first.
    #[must_use]
    pub fn checkpoint_age(&self, shard: &ShardId, now: Duration) -> Option<Duration> {
        let (_, at) = self.rates.get(shard)?.checkpoint?;
        Some(now.saturating_sub(at))
    }

    /// What a node told last.
    #[must_use]
    pub fn node(&self, name: &NodeName) -> Option<&Known> {
        self.nodes.get(name)
    }

    /// Which run of a node there is now.
    #[must_use]
    pub fn replica(&self, name: &NodeName) -> Option<&Replica> {
        self.nodes.get(name).map(|known| &known.announcement.from)
    }

    /// All nodes, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Known> {
        self.nodes.values()
    }

    /// All shards that some node tells of, by name.
    #[must_use]
    pub fn shards(&self) -> Vec<ShardId> {
        let mut shards: Vec<ShardId> = self.statuses().map(|status| status.shard.clone()).collect();
        shards.sort();
        shards.dedup();
        shards
    }

    /// Whether some node tells of this service.
    #[must_use]
    pub fn knows_service(&self, service: &ServiceName) -> bool {
        self.statuses().any(|status| status.shard.service == *service)
    }

    fn statuses(&self) -> impl Iterator<Item = &ShardStatus> {
        self.nodes.values().flat_map(|known| &known.announcement.shards)
    }
}

#[cfg(test)]
mod tests {
    use broker_adapter::ids::Incarnation;

    use super::*;

    fn announced(run: u128, started_ms: u64) -> Announcement {
        Announcement {
            from: Replica { node: "a".parse().unwrap(), incarnation: Incarnation::from_bits(run) },
            class: "edge".to_owned(),
            arch: "x86_64".to_owned(),
            started_ms,
            admin: "127.0.0.1:1".to_owned(),
            shards: Vec::new(),
            leaving: false,
            load: None,
        }
    }

    fn run(directory: &Directory) -> Option<u128> {
        directory.replica(&"a".parse().unwrap()).map(|replica| replica.incarnation.0.0)
    }

    #[test]
    fn late_mail_of_an_older_run_does_not_hide_the_present_one() {
        let mut directory = Directory::default();
        directory.hear(announced(2, 200), Duration::from_secs(1));
        directory.hear(announced(1, 100), Duration::from_secs(2));
        assert_eq!(run(&directory), Some(2));
        directory.hear(Announcement { leaving: true, ..announced(1, 100) }, Duration::from_secs(2));
        assert_eq!(run(&directory), Some(2));
        // Its clock went back while it was away: the run that was there is silent by now.
        directory.hear(announced(3, 50), Duration::from_secs(7));
        assert_eq!(run(&directory), Some(3));
    }

    #[test]
    fn a_node_is_silent_after_five_seconds_and_gone_when_it_says_goodbye() {
        let mut directory = Directory::default();
        directory.hear(announced(1, 100), Duration::from_secs(1));
        let known = directory.node(&"a".parse().unwrap()).unwrap();
        assert!(!known.is_silent(Duration::from_millis(5_900)) && known.is_silent(Duration::from_secs(6)));
        directory.hear(Announcement { leaving: true, ..announced(1, 100) }, Duration::from_secs(7));
        assert_eq!(run(&directory), None);
    }
}
