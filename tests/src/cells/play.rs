//! One cell: a cluster of its own under load, the fault in its phase, the end of the migration, and the oracle.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::time::Duration;

use broker_adapter::fold::Fold;
use broker_adapter::ids::NodeName;
use futures_util::FutureExt;
use serde_json::json;

use super::fault::{Lasting, STOPPED, Struck, strike, take_back};
use super::proof::Seen;
use super::{Cell, Fault, Line, Moment, Victim};
use crate::checker::Finding;
use crate::harness::{Cluster, Hold, Load, Migration, Node, PATIENCE_MS, Recorder, SERVICE, Setup, wait_for};

/// Each of the two ingresses gets so many requests a second.
const RATE_PER_S: u32 = 40;
/// How many replies each ingress gives before the migration and after its end.
const REPLIES: usize = 10;
/// How long starting, loading and saving take in a [`Moment::Working`] cell, and when in it the fault comes.
const WORK_MS: u64 = 700;
const INTO_WORK: Duration = Duration::from_millis(150);
/// A stopped service is found by this, so its state is unknown and it is loaded again.
const DELIVERY_TIMEOUT_MS: u64 = 800;
/// Far longer than any fault here lasts, and far shorter.
const PAUSE_LIMIT_MS: u64 = 30_000;
const SHORT_PAUSE_MS: u64 = 500;
/// A fault may come too late for its phase on a busy machine; then the cell is played once more.
const TRIES: usize = 3;

/// How many findings of one cell are written down.
const FINDINGS_MAX: usize = 5;

/// What went into the log and came of it.
struct End {
    migration: Migration,
    proof: Result<String, String>,
    fences: Vec<String>,
    wrong: Vec<String>,
}

/// Plays it until its fault fell into its phase; `logs` gets what all processes wrote if something was wrong.
#[must_use]
pub fn play(cell: &Cell, logs: Option<&Path>) -> Line {
    let mut line = Line::of(cell);
    for _ in 0..TRIES {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("the operating system gives two threads");
        runtime.block_on(once(cell, &mut line, logs));
        if line.proven || !line.wrong.is_empty() {
            return line;
        }
    }
    line.wrong.push(format!("the fault did not fall into its phase in {TRIES} tries"));
    line
}

async fn once(cell: &Cell, line: &mut Line, logs: Option<&Path>) {
    let slow = if cell.moment == Moment::Working {
        format!("start-takes-ms={WORK_MS},load-takes-ms={WORK_MS},save-takes-ms={WORK_MS}")
    } else {
        String::new()
    };
    let stops_service = matches!(cell.fault, Fault::Stop(Victim::SourceService | Victim::TargetService));
    // A slow save takes longer than that by itself.
    let delivery_timeout_ms = (stops_service && cell.moment == Moment::Held).then_some(DELIVERY_TIMEOUT_MS);
    let node =
        |node: Node| Node { faults: slow.clone(), delivery_timeout_ms, reply_timeout_ms: Some(PATIENCE_MS), ..node };
    let nodes = vec![node(Node::creating("edge-a")), node(Node::named("edge-b"))];
    let mut setup = Setup::nodes(nodes).on(cell.broker).hurting_the_broker();
    if cell.moment == Moment::Held {
        setup = setup.hold(Hold::before(cell.phase));
    }
    let mut cluster = setup.start().await;
    let began = cluster.shell.now();
    let played = AssertUnwindSafe(inside(cell, &mut cluster)).catch_unwind().await;
    line.ms = u64::try_from((cluster.shell.now() - began).as_millis()).unwrap_or(u64::MAX);
    match played {
        Ok(end) => line.take(end.migration, end.proof, end.fences, end.wrong),
        Err(panic) => line.wrong.push(words(panic.as_ref())),
    }
    keep_logs(line, &cluster, logs);
}

/// What a panic said.
pub fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    text.unwrap_or_else(|| "a panic without words".to_owned())
}

/// What all processes of a wrong cell wrote.
pub fn keep_logs(line: &Line, cluster: &Cluster, logs: Option<&Path>) {
    if let (Some(folder), false) = (logs, line.wrong.is_empty()) {
        let file = folder.join(format!("{}.log", line.cell.replace('/', "-")));
        std::fs::write(file, format!("{line:#?}\n{}", cluster.logs())).expect("the folder of logs can be written");
    }
}

/// As many findings as anybody reads.
pub fn told(findings: &[Finding]) -> Vec<String> {
    let mut wrong: Vec<String> = findings.iter().take(FINDINGS_MAX).map(ToString::to_string).collect();
    if findings.len() > FINDINGS_MAX {
        wrong.push(format!("and {} more", findings.len() - FINDINGS_MAX));
    }
    wrong
}

async fn inside(cell: &Cell, cluster: &mut Cluster) -> End {
    let recorder = cluster.recorder().await;
    let loads = ["edge-a", "edge-b"].map(|node| load(cluster, node));
    for load in &loads {
        load.acknowledges(REPLIES).await;
    }
    let mut order = json!({ "service": SERVICE, "to": "edge-b", "strategy": cell.strategy });
    if cell.strategy != "live" {
        order["pause_limit_ms"] = json!(if cell.short_pause { SHORT_PAUSE_MS } else { PAUSE_LIMIT_MS });
    }
    let id = cluster.rest.order(&order).await;
    let seen = match cell.moment {
        Moment::Held => held(cell, cluster, &id).await,
        Moment::Working => working(cell, cluster, &id).await,
    };
    let migration = cluster.rest.ended(&id).await;
    for load in &loads {
        load.acknowledges(REPLIES).await;
    }
    let mut observations = Vec::new();
    for load in loads {
        observations.extend(load.finish().await);
    }
    let findings = cluster.findings(&recorder, observations).await;
    let mut wrong = told(&findings);
    let (fences, owner) = fences(&recorder).await;
    let proof =
        seen.map_or(Err("it had left the phase before the fault".to_owned()), |seen| seen.verdict(cell, &migration));
    // A fault that came too late asks for nothing.
    wrong.extend(proof.as_ref().ok().and_then(|_| misfit(cell, &migration, owner.as_ref())));
    End { migration, proof, fences, wrong }
}

fn load(cluster: &Cluster, node: &str) -> Load {
    Load::start(&cluster.shell, vec![cluster.ingress(node)], RATE_PER_S, node)
}

/// The driver stands before the phase's commands, and goes on only after the fault has struck.
async fn held(cell: &Cell, cluster: &mut Cluster, id: &str) -> Option<Seen> {
    let hold = cluster.hold.clone().expect("the setup has one");
    hold.held(&cluster.shell).await;
    let mut seen = Seen::before(cluster, id, cell.phase).await?;
    let lasting = hit(cell, cluster, id, &mut seen).await;
    hold.release();
    take_back(cluster, lasting).await;
    Some(seen)
}

/// The fault strikes while the service saves or loads.
async fn working(cell: &Cell, cluster: &mut Cluster, id: &str) -> Option<Seen> {
    let shell = cluster.shell.clone();
    let there = wait_for(&shell, "the phase or one behind it", || async {
        let seen = cluster.rest.told(id, STOPPED).await?;
        (seen.phase == cell.phase || seen.outcome.is_some()).then_some(seen.outcome.is_none())
    });
    if !there.await {
        return None;
    }
    shell.sleep(INTO_WORK).await;
    let mut seen = Seen::before(cluster, id, cell.phase).await?;
    let lasting = hit(cell, cluster, id, &mut seen).await;
    take_back(cluster, lasting).await;
    Some(seen)
}

async fn hit(cell: &Cell, cluster: &mut Cluster, id: &str, seen: &mut Seen) -> Lasting {
    let Struck { lasting, shown, at_ms } = strike(cluster, cell.fault).await;
    seen.victim = shown;
    match cell.fault {
        Fault::Cancel => {
            let answer = cluster.rest.cancel(id).await;
            seen.victim = format!("the cancel was answered {}", answer.status);
            // It ends the phase at once, so what is told after it says nothing; the journal's wall time does.
            assert_eq!(answer.status, 202, "{}", answer.text());
        }
        Fault::PauseRunsOut => {
            cluster.shell.sleep(Duration::from_millis(2 * SHORT_PAUSE_MS)).await;
            seen.victim = format!("nobody came for {} ms", 2 * SHORT_PAUSE_MS);
            seen.after(cluster, id, cluster.shell.wall_ms()).await;
        }
        _ => seen.after(cluster, id, at_ms).await,
    }
    lasting
}

/// The counted fences' causes, and who owns in the end.
pub async fn fences(recorder: &Recorder) -> (Vec<String>, Option<NodeName>) {
    let mut fold = Fold::new();
    recorder.up_to_tail().await.iter().for_each(|entry| drop(fold.observe(entry)));
    let causes = fold.fences().map(|fence| format!("{:?}", fence.cause).to_lowercase()).collect();
    (causes, fold.owner().map(|owner| owner.node.clone()))
}

/// What does not fit the fault, or the log.
fn misfit(cell: &Cell, ended: &Migration, owner: Option<&NodeName>) -> Option<String> {
    let outcome = ended.outcome.as_deref().unwrap_or("none");
    let allowed: &[&str] = match (cell.fault, cell.moment) {
        (Fault::Cancel, _) => &["cancelled"],
        (Fault::PauseRunsOut, _) => &["rolled-back", "failed"],
        _ => &["completed", "rolled-back", "failed"],
    };
    if !allowed.contains(&outcome) {
        return Some(format!("it ended as {outcome}, not as one of {allowed:?}: {:?}", ended.error));
    }
    let expected = if outcome == "completed" { "edge-b" } else { "edge-a" };
    let found = owner.map(ToString::to_string).unwrap_or_default();
    (found != expected).then(|| format!("it ended as {outcome}, and {found:?} owns instead of {expected}"))
}
