//! The leader of the service's log killed many times in a row, in a cluster of three, beside a raw client of the same cluster whose
//! log has the same leader.
//!
//! An outage is the longest time in which no client was answered, from a second before a kill until the next one: the same for both.

use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::time::Duration;

use futures_util::FutureExt;
use serde::{Deserialize, Serialize};

use super::raw::{Raw, one_leader};
use crate::cells::Line;
use crate::cells::play::{keep_logs, told, words};
use crate::checker::{Observation, Outcome};
use crate::harness::{BrokerKind, Cluster, Load, Setup, wait_for};

/// The service gets as many requests a second as the raw log.
const RATE_PER_S: u32 = 50;
/// Both are served again before the next leader dies.
const ACKNOWLEDGED: usize = 50;
/// The killed server is away a little longer than its successor needs.
const AWAY: Duration = Duration::from_secs(2);
/// So many requests may be on their way when a leader dies: what comes in half a second.
const FEW: usize = 25;
const BEFORE: Duration = Duration::from_secs(1);
/// What the issue allows above the raw client.
pub const ALLOWED_MS: u64 = 1_000;

/// One death.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kill {
    /// How long no raw message was acknowledged.
    pub raw_ms: u64,
    /// On NATS: how long nobody led the service's own log, as a raw client of it saw it.
    pub same_log_ms: Option<u64>,
    /// How long no client of the service was answered.
    pub segue_ms: u64,
}

/// All of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deaths {
    /// `nats-cluster` or `kafka-cluster`.
    pub broker: String,
    /// Each.
    pub kills: Vec<Kill>,
    /// Requests sent, and answered.
    pub messages: usize,
    /// Of these, by the service.
    pub replies: usize,
    /// What the oracle found, and whatever else was wrong.
    pub wrong: Vec<String>,
}

/// Kills so many leaders; `logs` gets what all processes wrote if something was wrong.
#[must_use]
pub fn die(broker: BrokerKind, times: usize, logs: Option<&Path>) -> Deaths {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("the operating system gives two threads");
    runtime.block_on(async {
        let cluster = Setup::two_nodes().on(broker).hurting_the_broker().start();
        let mut deaths =
            Deaths { broker: broker.to_string(), kills: Vec::new(), messages: 0, replies: 0, wrong: Vec::new() };
        let mut cluster = match AssertUnwindSafe(cluster).catch_unwind().await {
            Ok(cluster) => cluster,
            Err(panic) => {
                deaths.wrong.push(words(panic.as_ref()));
                return deaths;
            }
        };
        if let Err(panic) = AssertUnwindSafe(kill_all(&mut cluster, times, &mut deaths)).catch_unwind().await {
            deaths.wrong.push(words(panic.as_ref()));
        }
        let mut line = Line::of(&format!("{broker}/deaths"));
        line.wrong.clone_from(&deaths.wrong);
        if !deaths.is_good() {
            line.wrong.push(format!("{deaths:?}"));
        }
        keep_logs(&line, &cluster, logs);
        deaths
    })
}

async fn kill_all(cluster: &mut Cluster, times: usize, deaths: &mut Deaths) {
    let shell = cluster.shell.clone();
    let recorder = cluster.recorder().await;
    let load = Load::start(&shell, vec![cluster.ingress("edge-a")], RATE_PER_S, "m");
    load.acknowledges(ACKNOWLEDGED).await;
    let raw = Raw::start(cluster).await;
    let mut killed = Vec::new();
    for _ in 0..times {
        let what = "all copies to be up to date, and one leader of both logs";
        let leader = wait_for(&shell, what, || one_leader(&cluster.broker, &shell)).await;
        served(cluster, &load, &raw).await;
        // What was asked before would be answered while nobody leads, and hide the outage.
        wait_for(&shell, "nobody to wait any more", || async { (load.outstanding() <= FEW).then_some(()) }).await;
        cluster.broker.kill_one(leader);
        killed.push(shell.now());
        shell.sleep(AWAY).await;
        served(cluster, &load, &raw).await;
        cluster.broker.restart_one(leader);
    }
    let end = shell.now();
    let (raw_completed, same_log) = (raw.completed(), raw.same_log());
    drop(raw);
    let observations = load.finish().await;
    let completed = completions(&observations);
    let ends = killed.iter().skip(1).copied().map(|next| next - BEFORE).chain([end]);
    for (at, until) in killed.iter().zip(ends) {
        let [raw_ms, segue_ms] = [&raw_completed, &completed].map(|all| longest_gap_ms(all, *at - BEFORE, until));
        let same_log_ms = same_log.as_ref().map(|all| longest_gap_ms(all, *at - BEFORE, until));
        deaths.kills.push(Kill { raw_ms, same_log_ms, segue_ms });
    }
    deaths.messages = observations.len();
    deaths.replies = completed.len();
    if deaths.replies < deaths.messages {
        deaths.wrong.push(format!("{} of {} clients got no reply", deaths.messages - deaths.replies, deaths.messages));
    }
    deaths.wrong.extend(told(&cluster.findings(&recorder, observations).await));
}

/// Waits until both clients are served again.
async fn served(cluster: &Cluster, load: &Load, raw: &Raw) {
    let wanted = raw.completed().len() + ACKNOWLEDGED;
    load.acknowledges(ACKNOWLEDGED).await;
    let what = "the raw client to be served";
    wait_for(&cluster.shell, what, || async { (raw.completed().len() >= wanted).then_some(()) }).await;
}

fn completions(observations: &[Observation]) -> Vec<Duration> {
    let replied = observations.iter().filter(|seen| matches!(seen.outcome, Outcome::Reply { .. }));
    let mut completed: Vec<Duration> = replied.filter_map(|seen| seen.completed).collect();
    completed.sort_unstable();
    completed
}

/// The longest time without a completion between two moments.
fn longest_gap_ms(completed: &[Duration], from: Duration, until: Duration) -> u64 {
    let inside = completed.iter().copied().filter(|at| (from..until).contains(at));
    let all: Vec<Duration> = [from].into_iter().chain(inside).chain([until]).collect();
    let longest = all.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default();
    u64::try_from(longest.as_millis()).unwrap_or(u64::MAX)
}

impl Deaths {
    /// Nothing lost, and no kill cost more than a second above the raw client.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.wrong.is_empty()
            && !self.kills.is_empty()
            && self.kills.iter().all(|kill| kill.more_ms() <= i128::from(ALLOWED_MS))
    }
}

impl Kill {
    /// How much longer the service's clients waited than a raw client of a log with the same leader.
    #[must_use]
    pub fn more_ms(&self) -> i128 {
        i128::from(self.segue_ms) - i128::from(self.same_log_ms.unwrap_or(self.raw_ms))
    }
}
