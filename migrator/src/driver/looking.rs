//! For those who look on: samples of what runs, events of nodes and services, the stream. Decides nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use broker_adapter::ids::{MigrationId, Position};
use prometheus::{Histogram, HistogramOpts};
use serde::Serialize;
use serde_json::{Value, json};
use sidecar::command::{Announcement, TrafficSlice};
use tokio::sync::broadcast;

use super::Driver;
use crate::events::{EventView, Kind};
use crate::machine::{Migration, Phase};
use crate::recording::{FORMAT, Recording};
use crate::series::{AllLines, Lines};
use crate::view::{self, Forecast};

/// How often what runs is sampled.
const SAMPLE_EVERY: Duration = Duration::from_millis(250);
/// How often nodes and services are compared with what was told last.
const COMPARE_EVERY: Duration = Duration::from_secs(1);

/// A blackout is looked for until so long after the end, ...
const AFTERWARDS_MS: u64 = 1_000;
/// ... and known when everybody has announced what was then.
const SETTLED_AFTER_MS: u64 = 2_000;
/// How long a slice of an ingress is.
const SLICE_MS: u64 = 250;
/// Among how many migrations, the newest first, those are looked for that run or have just ended.
const RECENT_MAX: usize = 128;

/// What is remembered for those who look on; lost with the process.
#[derive(Default)]
pub(super) struct Looking {
    pub lines: AllLines,
    sample_at: Duration,
    compare_at: Duration,
    /// What was told last of each node and shard.
    told: BTreeMap<(&'static str, String), Value>,
    progress: BTreeMap<MigrationId, Option<u64>>,
    /// Ended migrations whose blackout is not known whole yet.
    settling: BTreeSet<MigrationId>,
    pub measured: Measured,
}

/// What is measured of migrations that end in this process, for Prometheus.
#[derive(Clone)]
pub struct Measured {
    /// How long requests waited at most.
    pub blackout: Histogram,
    /// From acceptance to end.
    pub total: Histogram,
}

impl Default for Measured {
    fn default() -> Self {
        let seconds = |name: &str, help: &str| {
            let buckets = prometheus::exponential_buckets(0.001, 2.0, 20).expect("constants");
            Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets)).expect("names are constants")
        };
        Measured {
            blackout: seconds(
                "segue_migration_blackout_seconds",
                "The longest time without a completed request in a move.",
            ),
            total: seconds("segue_migration_seconds", "From a migration's acceptance to its end."),
        }
    }
}

/// What a listener begins with.
pub(crate) struct Listening {
    /// What it missed.
    pub past: Vec<EventView>,
    /// Whether it missed more than is remembered.
    pub is_reset: bool,
    /// The journal's last entry.
    pub position: u64,
    /// What comes.
    pub new: broadcast::Receiver<Arc<EventView>>,
}

fn value<T: Serialize>(view: &T) -> Arc<Value> {
    Arc::new(serde_json::to_value(view).unwrap_or_default())
}

impl Driver {
    /// When to look again: only while there is something to see, or somebody who looks.
    pub(super) fn look_at(&self) -> Option<Duration> {
        (self.events.is_heard() || self.is_moving() || !self.looking.settling.is_empty())
            .then_some(self.looking.sample_at)
    }

    fn is_moving(&self) -> bool {
        self.running.keys().any(|id| self.book.get(*id).is_some_and(|state| !state.has_ended()))
    }

    pub(super) fn look(&mut self) {
        let now = self.hands.shell.now();
        if now < self.looking.sample_at {
            return;
        }
        self.looking.sample_at = now + SAMPLE_EVERY;
        self.sample(now);
        self.settle();
        if self.events.is_heard() && now >= self.looking.compare_at {
            self.looking.compare_at = now + COMPARE_EVERY;
            self.compare(now);
        }
    }

    /// What ingresses tell of clients belongs to the migrations that ran then.
    pub(super) fn traffic(&mut self, announcement: &Announcement) {
        let wall_ms = self.hands.shell.wall_ms();
        for status in announcement.shards.iter().filter(|status| !status.traffic.is_empty()) {
            let recent = self.book.all().rev().take(RECENT_MAX).filter(|state| state.order.shard == status.shard);
            for state in recent {
                let until_ms = state.ended.map_or(u64::MAX, |(_, ended_ms)| ended_ms.saturating_add(AFTERWARDS_MS));
                if until_ms.saturating_add(SETTLED_AFTER_MS) < wall_ms {
                    break;
                }
                let lines = self.looking.lines.of(state.order.id);
                let during =
                    |slice: &&TrafficSlice| slice.at_ms + SLICE_MS > state.order.accepted_ms && slice.at_ms < until_ms;
                status.traffic.iter().filter(during).for_each(|slice| lines.traffic(slice));
            }
        }
    }

    /// A migration has just ended: what it meant for clients is known a little later.
    pub(super) fn ended(&mut self, id: MigrationId) {
        if self.looking.settling.len() < RECENT_MAX {
            self.looking.settling.insert(id);
        }
    }

    fn settle(&mut self) {
        let wall_ms = self.hands.shell.wall_ms();
        let settled = |id: &MigrationId| {
            let ended = self.book.get(*id).and_then(|state| state.ended);
            ended.is_none_or(|(_, ended_ms)| ended_ms.saturating_add(AFTERWARDS_MS + SETTLED_AFTER_MS) <= wall_ms)
        };
        let ids: Vec<MigrationId> = self.looking.settling.iter().copied().filter(settled).collect();
        for id in ids {
            self.looking.settling.remove(&id);
            if let Some(state) = self.book.get(id)
                && let Some((_, ended_ms)) = state.ended
            {
                let total = Duration::from_millis(ended_ms.saturating_sub(state.order.accepted_ms));
                self.looking.measured.total.observe(total.as_secs_f64());
            }
            if let Some(stall) = self.looking.lines.get(id).and_then(Lines::stall) {
                self.looking.measured.blackout.observe(stall.as_secs_f64());
            }
        }
    }

    fn sample(&mut self, now: Duration) {
        let at_ms = self.hands.shell.wall_ms();
        let ids: Vec<MigrationId> = self.running.keys().copied().collect();
        self.looking.progress.retain(|id, _| ids.contains(id));
        for id in ids {
            let Some(state) = self.book.get(id).filter(|state| !state.has_ended()) else { continue };
            let rates = self.directory.rates(&state.order.shard);
            let arrival = rates.and_then(|rates| rates.records.per_s(now));
            let replay = rates.and_then(|rates| rates.applied.get(&state.order.to)?.per_s(now));
            let lag = self.lag(state);
            let lines = self.looking.lines.of(id);
            // Records are few beside what a float holds.
            lag.into_iter().for_each(|lag| lines.lag.push(at_ms, lag as f64));
            arrival.into_iter().for_each(|rate| lines.arrival.push(at_ms, rate));
            replay.into_iter().for_each(|rate| lines.replay.push(at_ms, rate));
            if self.events.is_heard() && self.looking.progress.insert(id, lag) != Some(lag) {
                let mut event = EventView::passing(Kind::Migration, at_ms, "progress");
                event.detail = lag.map_or_else(String::new, |lag| format!("{lag} records behind"));
                (event.migration, event.service) = (Some(id), Some(self.shard_name(id)));
                self.publish(event);
            }
        }
    }

    fn shard_name(&self, id: MigrationId) -> String {
        self.book.get(id).map(|state| state.order.shard.to_string()).unwrap_or_default()
    }

    /// How far the target of a running migration is behind: as it said last, or as its node announced.
    pub(super) fn lag(&self, state: &Migration) -> Option<u64> {
        let told = self.running.get(&state.order.id).and_then(|running| running.lag_records);
        let replays = matches!(state.phase, Phase::Replay | Phase::Verify | Phase::Handover | Phase::Pause);
        let announced = || {
            let status = self.directory.node(&state.order.to)?.status(&state.order.shard)?;
            Some(status.tail.records_since(status.applied))
        };
        told.or_else(|| replays.then(announced).flatten())
    }

    /// Whether the target of a running migration catches up.
    pub(super) fn forecast(&self, state: &Migration) -> Option<Forecast> {
        if state.has_ended() || !matches!(state.phase, Phase::Replay | Phase::Verify) {
            return None;
        }
        let now = self.hands.shell.now();
        let rates = self.directory.rates(&state.order.shard)?;
        let arrival_per_s = rates.records.per_s(now)?;
        let replay_per_s = rates.applied.get(&state.order.to)?.per_s(now)?;
        let lag = self.lag(state)?;
        let is_near = lag <= state.order.lag_limit_records;
        let converges = is_near || replay_per_s > arrival_per_s;
        let seconds = || (lag as f64 / (replay_per_s - arrival_per_s) * 10.0).ceil() / 10.0;
        let in_s = converges.then(|| if is_near { 0.0 } else { seconds() });
        let sentence = match in_s {
            Some(_) if is_near => "has converged".to_owned(),
            Some(seconds) => format!("will converge in {seconds:.1} s"),
            None => format!("will not converge: {arrival_per_s:.0}/s in, {replay_per_s:.0}/s replayed"),
        };
        Some(Forecast { converges, in_s, arrival_per_s, replay_per_s, sentence })
    }

    /// Tells of nodes and shards that are not as they were told last.
    fn compare(&mut self, now: Duration) {
        let at_ms = self.hands.shell.wall_ms();
        let mut present = BTreeMap::new();
        let mut events = Vec::new();
        for node in view::nodes(&self.directory, now) {
            let data = value(&node);
            let mut lasting = Value::clone(&data);
            if let Some(fields) = lasting.as_object_mut() {
                // These change with every announcement; the services tell what is new in them.
                ["heard_ms_ago", "shards", "load"].iter().for_each(|field| drop(fields.remove(*field)));
            }
            let name = node.name.to_string();
            let title = if node.silent { "node silent" } else { "node alive" };
            let event = EventView { node: Some(node.name), data, ..EventView::passing(Kind::Node, at_ms, title) };
            events.push((("node", name.clone()), event));
            present.insert(("node", name), lasting);
        }
        for service in view::services(&self.directory, &self.book, now) {
            let data = value(&service);
            let name = format!("{}/{}", service.service, service.shard);
            let owner = service.owner.map_or_else(|| "nobody".to_owned(), |owner| owner.to_string());
            let event = EventView {
                service: Some(name.clone()),
                detail: format!("{owner} owns it since epoch {}", service.epoch),
                data: data.clone(),
                ..EventView::passing(Kind::Service, at_ms, "service")
            };
            events.push((("service", name.clone()), event));
            present.insert(("service", name), Value::clone(&data));
        }
        for (key, event) in events {
            if self.looking.told.get(&key) != present.get(&key) {
                self.events.publish(event);
            }
        }
        for (kind, name) in self.looking.told.keys().filter(|key| !present.contains_key(key)) {
            let mut event = EventView::passing(if *kind == "node" { Kind::Node } else { Kind::Service }, at_ms, "gone");
            event.node = (*kind == "node").then(|| name.parse().ok()).flatten();
            event.service = (*kind == "service").then(|| name.clone());
            self.events.publish(event);
        }
        self.looking.told = present;
    }

    /// With the migration as it is now.
    pub(super) fn publish(&self, mut event: EventView) {
        if self.events.is_heard() {
            if let Some(view) = event.migration.and_then(|id| self.view(id)) {
                event.data = value(&view);
            }
            self.events.publish(event);
        }
    }

    pub(super) fn listen(&self, after: Option<u64>, of: Option<MigrationId>) -> Listening {
        let new = self.events.listen();
        let position = self.journal.position().0;
        let since = after.map(|after| self.events.since(Position(after)));
        let is_reset = matches!(since, Some(None));
        let past: Vec<EventView> = match (since, of) {
            (Some(Some(since)), _) => since.filter(|event| of.is_none() || event.migration == of).cloned().collect(),
            (None, Some(of)) => self.events.all().filter(|event| event.migration == Some(of)).cloned().collect(),
            _ => Vec::new(),
        };
        Listening { past: self.with_data(past), is_reset, position, new }
    }

    /// Each migration is shown once, however many events it has.
    fn with_data(&self, mut events: Vec<EventView>) -> Vec<EventView> {
        let mut shown: BTreeMap<MigrationId, Arc<Value>> = BTreeMap::new();
        for event in &mut events {
            let Some(id) = event.migration else { continue };
            let data = shown.entry(id).or_insert_with(|| self.view(id).map(|view| value(&view)).unwrap_or_default());
            event.data = data.clone();
        }
        events
    }

    pub(super) fn recording(&self, id: MigrationId) -> Option<Recording> {
        let state = self.book.get(id)?;
        let migration = self.view(id)?;
        let order = &state.order;
        let decisions = state.decided_by.iter().chain(&state.voided_by).map(|fence| {
            json!({ "epoch": fence.epoch, "position": fence.position, "owner": fence.owner.node, "cause": fence.cause,
                "migration": fence.migration })
        });
        Some(Recording {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION"),
            exported_ms: self.hands.shell.wall_ms(),
            plan: migration.plan.clone(),
            hashes: migration.hashes.clone(),
            config: json!({
                "strategy": order.strategy, "lag_limit_records": order.lag_limit_records, "require_proof": order.require_proof,
                "pause_limit_ms": order.pause_limit_ms, "cutoff_ms": order.cutoff_ms, "precopy_rounds": order.precopy_rounds,
                "keep_standby_ms": order.keep_standby_ms, "max_blackout_ms": order.max_blackout_ms,
                "deadline_s": order.deadline_s, "deadlines": self.config.deadlines,
            }),
            migration,
            events: self.events.all().filter(|event| event.migration == Some(id)).cloned().collect(),
            series: self.looking.lines.told(id),
            decisions: decisions.collect(),
        })
    }
}
