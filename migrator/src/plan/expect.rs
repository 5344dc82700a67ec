//! What a migration is expected to take: from past ones of the book, the records that arrive now, the state's last size.
//!
//! Phases that carry the state are scaled by its size; the others are taken as they were. Nothing is made up: what nobody
//! measured is unknown.

use broker_adapter::ids::ShardId;
use sidecar::command::ReplicaState;

use super::checks::{Facts, Wish, shard_of};
use super::{Basis, Check, PlannedPhase, Severity};
use crate::machine::{Ending, Migration, Operation, Phase, Strategy, tables};

/// How many past migrations a median is of.
const PAST_MAX: usize = 8;
/// A replay of fewer records or less time says nothing about a rate.
const REPLAY_RECORDS_MIN: u64 = 100;
const REPLAY_MS_MIN: u64 = 20;

/// What is expected.
#[derive(Debug, Default)]
pub struct Expected {
    pub phases: Vec<PlannedPhase>,
    pub blackout_ms: Option<u64>,
    pub converges: Option<bool>,
    pub converges_in_s: Option<f64>,
    pub arrival_per_s: Option<f64>,
    pub replay_per_s: Option<f64>,
    pub state_bytes: Option<u64>,
}

impl Expected {
    pub fn of(wish: &Wish, facts: &Facts) -> Expected {
        let Some(strategy) = wish.known_strategy() else { return Expected::default() };
        let shard = shard_of(wish);
        let past = Past { strategy, shard: &shard, facts, is_warm: is_warm(wish, strategy, facts) };
        let rates = facts.directory.rates(&shard);
        let mut expected = Expected {
            arrival_per_s: rates.and_then(|rates| rates.records.per_s(facts.now)),
            replay_per_s: past.replay_per_s(),
            state_bytes: past.state_bytes(),
            ..Expected::default()
        };
        expected.phases = rows(strategy).iter().map(|phase| past.phase(*phase, expected.state_bytes)).collect();
        expected.converge(strategy);
        expected.blackout_ms = expected.sum(pausing(strategy));
        expected
    }

    pub fn total_ms(&self) -> Option<u64> {
        let known: Option<u64> = self.phases.iter().map(|phase| phase.expected_ms).sum();
        known.filter(|_| !self.phases.is_empty())
    }

    fn sum(&self, phases: &[Phase]) -> Option<u64> {
        let waits = self.phases.iter().filter(|phase| phases.contains(&phase.name));
        waits.map(|phase| phase.expected_ms).sum::<Option<u64>>().filter(|_| !self.phases.is_empty())
    }

    /// What arrives while the state is carried over waits to be replayed, and more arrives meanwhile.
    fn converge(&mut self, strategy: Strategy) {
        if strategy.carries_state() {
            self.converges = Some(true);
            return;
        }
        let Some(arrival) = self.arrival_per_s else { return };
        if arrival == 0.0 {
            (self.converges, self.converges_in_s) = (Some(true), Some(0.0));
            return;
        }
        let Some(replay) = self.replay_per_s else { return };
        self.converges = Some(replay > arrival);
        let carried = self.sum(&[Phase::Checkpoint, Phase::Transfer, Phase::Restore]);
        if let (true, Some(carried_ms)) = (replay > arrival, carried) {
            let waiting = arrival * carried_ms as f64 / 1_000.0;
            let seconds = (waiting / (replay - arrival) * 100.0).ceil() / 100.0;
            self.converges_in_s = Some(seconds);
            if let Some(phase) = self.phases.iter_mut().find(|phase| phase.name == Phase::Replay) {
                phase.expected_ms = Some((seconds * 1_000.0) as u64);
                phase.basis = Basis::Estimated;
                phase.detail = format!("{waiting:.0} records will wait; {arrival}/s arrive, {replay}/s are replayed");
            }
        }
    }

    /// What the figures mean for the order.
    pub fn checks(&self, wish: &Wish) -> Vec<Check> {
        let mut checks = vec![self.convergence(), self.blackout(wish)];
        let late = wish.deadline_s.zip(self.total_ms()).filter(|(deadline_s, total)| *total > deadline_s * 1_000);
        if let Some((deadline_s, total_ms)) = late {
            checks.push(Check {
                code: "limits".to_owned(),
                title: "It ends before its deadline".to_owned(),
                ok: false,
                severity: Severity::Warning,
                detail: format!("about {total_ms} ms are expected, and deadline_s is {deadline_s}"),
                hint: Some("it will roll back then; give it more time".to_owned()),
            });
        }
        checks
    }

    fn convergence(&self) -> Check {
        let ok = self.converges != Some(false);
        let detail = match (self.converges, self.arrival_per_s, self.replay_per_s) {
            (Some(false), Some(arrival), Some(replay)) => {
                format!("will not converge: {arrival}/s in, {replay}/s replayed")
            }
            (Some(_), ..) => self.convergence_words(),
            (None, Some(arrival), None) => {
                format!("{arrival}/s arrive; how fast they are replayed was not measured yet")
            }
            _ => "how fast records arrive is not known yet".to_owned(),
        };
        let hint =
            "wait for a calmer time, or take strategy ms2m with cutoff_ms: it stops the source for the last stretch";
        Check {
            code: "converges".to_owned(),
            title: "The target catches up".to_owned(),
            ok,
            severity: if ok { Severity::Info } else { Severity::Warning },
            detail,
            hint: (!ok).then(|| hint.to_owned()),
        }
    }

    fn convergence_words(&self) -> String {
        match self.converges_in_s {
            Some(seconds) => format!("will converge in {seconds} s"),
            None => "nothing is replayed".to_owned(),
        }
    }

    fn blackout(&self, wish: &Wish) -> Check {
        let (ok, detail) = match (self.blackout_ms, wish.max_blackout_ms) {
            (Some(planned), Some(most)) => {
                (planned <= most, format!("about {planned} ms; at most {most} ms are allowed"))
            }
            (Some(planned), None) => (true, format!("requests will wait about {planned} ms")),
            (None, Some(most)) => (true, format!("not measured yet; at most {most} ms are allowed")),
            (None, None) => (true, "not measured yet".to_owned()),
        };
        let hint = "allow more, or take strategy live, which pauses nobody";
        Check {
            code: "blackout".to_owned(),
            title: "Requests wait no longer than allowed".to_owned(),
            ok,
            severity: if wish.max_blackout_ms.is_some() { Severity::Error } else { Severity::Info },
            detail,
            hint: (!ok).then(|| hint.to_owned()),
        }
    }

    pub fn sentence(&self) -> String {
        let mut words = match self.total_ms() {
            Some(total) => format!("will take about {total} ms"),
            None => "may be done; how long it takes was not measured yet".to_owned(),
        };
        if let Some(blackout) = self.blackout_ms {
            words += &format!(", of which requests wait about {blackout} ms");
        }
        match self.converges {
            Some(false) => words += "; the target may not catch up",
            Some(true) if self.converges_in_s.is_some_and(|seconds| seconds > 0.0) => {
                words += &format!("; {}", self.convergence_words());
            }
            _ => {}
        }
        words
    }
}

fn rows(strategy: Strategy) -> Vec<Phase> {
    let rows = match strategy {
        Strategy::Live => tables::LIVE,
        Strategy::Precopy => tables::PRECOPY,
        Strategy::Ms2m => tables::MS2M,
        Strategy::StopAndCopy => tables::STOP_AND_COPY,
    };
    rows.iter().map(|row| row.phase).collect()
}

/// The phases in which requests wait.
fn pausing(strategy: Strategy) -> &'static [Phase] {
    match strategy {
        Strategy::Live => &[Phase::Handover],
        Strategy::Ms2m => &[Phase::Pause, Phase::Handover],
        Strategy::Precopy | Strategy::StopAndCopy => &[Phase::Pause, Phase::Transfer, Phase::Restore, Phase::Handover],
    }
}

/// Whether a phase takes longer with a larger state.
fn carries(phase: Phase, strategy: Strategy) -> bool {
    match phase {
        Phase::Checkpoint | Phase::Transfer | Phase::Restore => true,
        Phase::Pause => strategy.carries_state(),
        _ => false,
    }
}

/// What was measured before.
struct Past<'a> {
    strategy: Strategy,
    shard: &'a ShardId,
    facts: &'a Facts<'a>,
    is_warm: bool,
}

/// Whether the target follows the log already: then nothing is carried to it.
fn is_warm(wish: &Wish, strategy: Strategy, facts: &Facts) -> bool {
    let status = facts.directory.node(&wish.to).and_then(|node| node.status(&shard_of(wish)));
    let stands = |state| matches!(state, ReplicaState::Following | ReplicaState::Replaying);
    !strategy.carries_state() && status.is_some_and(|status| stands(status.replica) && status.trouble.is_none())
}

impl Past<'_> {
    /// The newest first; retirements move nothing.
    fn completed(&self) -> impl Iterator<Item = &Migration> {
        let moved = |state: &&Migration| {
            matches!(state.ended, Some((Ending::Completed, _)))
                && !matches!(state.order.operation, Operation::Retire { .. })
        };
        self.facts.book.all().rev().filter(moved)
    }

    fn state_bytes(&self) -> Option<u64> {
        let own = self.completed().filter(|state| state.order.shard == *self.shard);
        own.filter_map(|state| state.taken).map(|taken| taken.state_bytes).next()
    }

    fn replay_per_s(&self) -> Option<f64> {
        let own = self.completed().filter(|state| state.order.shard == *self.shard);
        let rate = |state: &Migration| {
            let records = state.decided_by.as_ref()?.position.records_since(state.taken?.position);
            let ms = took(state, Phase::Replay)?;
            (records >= REPLAY_RECORDS_MIN && ms >= REPLAY_MS_MIN).then(|| records * 1_000 / ms)
        };
        median(own.filter_map(rate).take(PAST_MAX).collect()).map(|rate| rate as f64)
    }

    fn phase(&self, name: Phase, state_bytes: Option<u64>) -> PlannedPhase {
        if self.is_warm && matches!(name, Phase::Checkpoint | Phase::Transfer | Phase::Restore) {
            let detail = "left out: the target stands by already".to_owned();
            return PlannedPhase { name, expected_ms: Some(0), basis: Basis::Measured, detail };
        }
        let same = |state: &&Migration| state.order.shard == *self.shard && state.order.strategy == self.strategy;
        let carried = carries(name, self.strategy);
        let scaled = |state: &Migration| {
            let ms = took(state, name)?;
            let then = state.taken.map(|taken| taken.state_bytes).filter(|bytes| *bytes > 0);
            match (carried, then, state_bytes) {
                (false, ..) => Some(ms),
                (true, Some(then), Some(now)) => {
                    u64::try_from(u128::from(ms) * u128::from(now) / u128::from(then)).ok()
                }
                (true, ..) => (state.order.shard == *self.shard).then_some(ms),
            }
        };
        let own: Vec<u64> = self.completed().filter(same).filter_map(scaled).take(PAST_MAX).collect();
        let count = own.len();
        if let Some(ms) = median(own) {
            let detail = format!("median of {count} before");
            return PlannedPhase { name, expected_ms: Some(ms), basis: Basis::Measured, detail };
        }
        let others: Vec<u64> = self.completed().filter_map(scaled).take(PAST_MAX).collect();
        let count = others.len();
        match median(others) {
            Some(ms) => {
                let how = if carried { ", scaled by the state's size" } else { "" };
                let detail = format!("median of {count} of other strategies or services{how}");
                PlannedPhase { name, expected_ms: Some(ms), basis: Basis::Estimated, detail }
            }
            None => {
                let detail = "nothing was measured yet".to_owned();
                PlannedPhase { name, expected_ms: None, basis: Basis::Unknown, detail }
            }
        }
    }
}

/// How long a phase took in the attempt that completed.
fn took(state: &Migration, phase: Phase) -> Option<u64> {
    let last = state.phases.iter().rev().find(|time| time.phase == phase && time.attempt == state.attempt.number)?;
    Some(last.ended_ms?.saturating_sub(last.began_ms))
}

fn median(mut values: Vec<u64>) -> Option<u64> {
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}
