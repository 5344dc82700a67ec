//! The migrations of a run: ordered one after the other, each to a node that does not own, by any strategy; some are cancelled in
//! the middle, some are undone or retired afterwards, or both is asked for at once.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use broker_adapter::ids::MigrationId;
use broker_adapter::memory::Delay;
use broker_adapter::shell::TaskSet;
use migrator::machine::{Ending, Phase, Strategy};
use migrator::{MigrationView, MigratorHandle, NewMigration};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use sidecar::command::ReplicaState;

use super::stage::{LOG, Stage};

/// A migration that was refused, because something was away, is ordered again after this.
const ORDER_AGAIN: Duration = Duration::from_millis(300);
/// An undo or a retirement that is refused so often will not be taken any more.
const FOLLOW_TRIES: usize = 8;
/// By how much a migrator's fence lands late: mostly more than it takes to cancel.
const LATE_BY: Delay = Delay::ms(20, 500);
/// A fence that is not sent by then will not be.
const SENT_WITHIN: Duration = Duration::from_secs(2);

/// Migrations under way.
pub struct Moves {
    ended: Option<tokio::sync::oneshot::Receiver<()>>,
    moved: Arc<Mutex<Vec<Moved>>>,
    wrong: Arc<Mutex<Vec<String>>>,
    _tasks: TaskSet,
}

/// A migration that has ended.
#[derive(Clone, Debug)]
pub struct Moved {
    pub view: MigrationView,
    /// Whether its target was told to load the state wrongly.
    pub spoilt: bool,
}

/// When somebody cancels it.
#[derive(Clone, Copy)]
enum Cancel {
    After(Duration),
    /// As soon as it is seen to hand over: its own fence and that of the cancel are under way at the same time.
    AtHandover,
}

/// What is asked for once it has completed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    Nothing,
    Undo,
    Retire,
    /// At the same time: one of them is refused.
    Both,
}

/// How one is ordered.
#[derive(Clone, Copy)]
struct Plan {
    pause: Duration,
    cancel: Option<Cancel>,
    /// Which of the nodes that do not own.
    target: usize,
    spoils: bool,
    strategy: Strategy,
    pause_limit_ms: Option<u64>,
    cutoff_ms: Option<u64>,
    keep_standby_s: Option<u64>,
    after: After,
    after_pause: Duration,
    /// When what follows is cancelled.
    after_cancel: Option<Duration>,
    /// Whether it is cancelled as soon as the migrator's fence for it is on its way, which lands late: behind the cancel's.
    late_fence: bool,
}

impl Moves {
    /// Waits for all.
    pub async fn all(&mut self) {
        if let Some(ended) = self.ended.take() {
            // An error: the task is gone, and its migrations are missing.
            let _ = ended.await;
        }
    }

    /// What was begun and should not have been.
    pub fn wrong(&self) -> Vec<String> {
        self.wrong.lock().expect("nothing panics under this lock").clone()
    }

    /// Those that have ended.
    pub fn moved(&self) -> Vec<Moved> {
        self.moved.lock().expect("nothing panics under this lock").clone()
    }
}

/// Orders them.
pub fn start(stage: &Arc<Stage>, moves: usize, rng: &mut StdRng) -> Moves {
    let (shell, tasks) = stage.world.process();
    let (sender, ended) = tokio::sync::oneshot::channel();
    let (moved, wrong) = (Arc::<Mutex<Vec<Moved>>>::default(), Arc::<Mutex<Vec<String>>>::default());
    let plans: Vec<Plan> = (0..moves).map(|_| plan(rng)).collect();
    let (stage, noted, begun_twice) = (stage.clone(), moved.clone(), wrong.clone());
    shell.spawn(async move {
        for plan in plans {
            tokio::time::sleep(plan.pause).await;
            let one = one_move(&stage, plan).await;
            let (id, completed) = (one.view.id, one.view.outcome == Some(Ending::Completed));
            noted.lock().expect("nothing panics under this lock").push(one);
            let follows = if completed { follow(&stage, plan, id).await } else { Vec::new() };
            if follows.len() > 1 {
                let message = format!("both the undo and the retirement of {id} were begun");
                begun_twice.lock().expect("nothing panics under this lock").push(message);
            }
            for id in follows {
                match plan.after_cancel {
                    Some(_) if plan.late_fence => {
                        late_fence_sent(&stage).await;
                        cancel_after(&stage, id, Some(Duration::ZERO)).await;
                    }
                    after => cancel_after(&stage, id, after).await,
                }
                let view = end_of(&stage, id).await;
                noted.lock().expect("nothing panics under this lock").push(Moved { view, spoilt: false });
            }
        }
        // The run may be over.
        let _ = sender.send(());
    });
    Moves { ended: Some(ended), moved, wrong, _tasks: tasks }
}

fn plan(rng: &mut StdRng) -> Plan {
    let strategy = *[Strategy::Live, Strategy::Live, Strategy::Precopy, Strategy::Ms2m, Strategy::StopAndCopy]
        .choose(rng)
        .expect("there are some");
    let some = |rng: &mut StdRng, wanted: bool, ms: std::ops::Range<u64>| {
        let drawn = rng.random_range(ms);
        (rng.random_bool(0.4) && wanted).then_some(drawn)
    };
    Plan {
        pause: Duration::from_millis(rng.random_range(0..800)),
        cancel: match rng.random_range(0..10) {
            0 | 1 => Some(Cancel::After(Duration::from_millis(rng.random_range(0..400)))),
            2 => Some(Cancel::AtHandover),
            _ => None,
        },
        target: rng.random_range(0..60),
        // Only these compare states.
        spoils: rng.random_ratio(1, 8) && !strategy.carries_state(),
        strategy,
        pause_limit_ms: some(rng, strategy != Strategy::Live, 20..1_500),
        cutoff_ms: some(rng, strategy == Strategy::Ms2m, 10..1_000),
        keep_standby_s: some(rng, true, 0..6),
        after: *[After::Nothing, After::Nothing, After::Undo, After::Retire, After::Both].choose(rng).expect("some"),
        after_pause: Duration::from_millis(rng.random_range(0..600)),
        after_cancel: rng.random_bool(0.5).then(|| Duration::from_millis(rng.random_range(0..60))),
        late_fence: rng.random_bool(0.5),
    }
}

/// Orders one migration and waits for its end, over restarts of the migrator.
async fn one_move(stage: &Stage, plan: Plan) -> Moved {
    let (id, target, spoilt) = loop {
        if let Some(handle) = handle_of(stage)
            && let Some(ordered) = order(stage, &handle, plan).await
        {
            break ordered;
        }
        tokio::time::sleep(ORDER_AGAIN).await;
    };
    match plan.cancel {
        Some(Cancel::After(after)) => cancel_after(stage, id, Some(after)).await,
        Some(Cancel::AtHandover) => {
            handing_over(stage, id).await;
            cancel_after(stage, id, Some(Duration::ZERO)).await;
        }
        None => {}
    }
    let view = end_of(stage, id).await;
    // What was not loaded wrongly in this migration is not to be in another.
    stage.bench(target).spoil(|faults| faults.corrupt_load = false);
    Moved { view, spoilt }
}

async fn cancel_after(stage: &Stage, id: MigrationId, after: Option<Duration>) {
    let Some(after) = after else { return };
    tokio::time::sleep(after).await;
    if let Some(handle) = handle_of(stage) {
        // It may have ended, or the migrator may be gone.
        let _ = handle.cancel(id).await;
    }
}

/// Waits until a fence that lands late is on its way.
async fn late_fence_sent(stage: &Stage) {
    let sent = async {
        while stage.broker.owes_late_appends("migrator") {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    // An undo's fence is not the migrator's.
    let _ = tokio::time::timeout(SENT_WITHIN, sent).await;
}

async fn end_of(stage: &Stage, id: MigrationId) -> MigrationView {
    loop {
        if let Some(handle) = handle_of(stage)
            && let Ok(Some(view)) = handle.wait_end(id).await
        {
            return view;
        }
        tokio::time::sleep(ORDER_AGAIN).await;
    }
}

/// Asks for what comes after a completed migration; says what was begun.
async fn follow(stage: &Stage, plan: Plan, id: MigrationId) -> Vec<MigrationId> {
    tokio::time::sleep(plan.after_pause).await;
    for _ in 0..FOLLOW_TRIES {
        if plan.late_fence && plan.after_cancel.is_some() {
            stage.broker.late_appends("migrator", LOG, 1, LATE_BY);
        }
        let begun: Vec<MigrationId> = match (plan.after, handle_of(stage)) {
            (After::Nothing, _) => return Vec::new(),
            (After::Undo, Some(handle)) => handle.undo(id).await.into_iter().collect(),
            (After::Retire, Some(handle)) => handle.retire(id).await.into_iter().collect(),
            (After::Both, Some(handle)) => {
                let (undo, retire) = futures_util::future::join(handle.undo(id), handle.retire(id)).await;
                undo.into_iter().chain(retire).collect()
            }
            (_, None) => Vec::new(),
        };
        if !begun.is_empty() {
            return begun;
        }
        tokio::time::sleep(ORDER_AGAIN).await;
    }
    Vec::new()
}

/// All that the migrator knows of and nobody here asked for: standbys that went by themselves.
pub async fn unasked(stage: &Stage, moved: &[Moved]) -> Vec<Moved> {
    let Some(handle) = handle_of(stage) else { return Vec::new() };
    let mut all = handle.list().await.unwrap_or_default();
    all.retain(|view| moved.iter().all(|known| known.view.id != view.id));
    // The oldest first.
    all.into_iter().rev().map(|view| Moved { view, spoilt: false }).collect()
}

/// Waits until a migration hands over, has ended, or cannot be seen.
async fn handing_over(stage: &Stage, id: MigrationId) {
    while let Some(handle) = handle_of(stage)
        && let Ok(Some(view)) = handle.get(id).await
        && view.outcome.is_none()
        && view.phase != Phase::Handover
    {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn order(stage: &Stage, handle: &MigratorHandle, plan: Plan) -> Option<(MigrationId, &'static str, bool)> {
    let services = handle.services().await.ok()?;
    let service = services.first()?;
    let owner = service.owner.clone()?;
    let may_move = |name: &&'static str| *name != owner.as_str() && !stage.is_gate(name);
    let others: Vec<&'static str> = stage.names().into_iter().filter(may_move).collect();
    let to = others[plan.target % others.len()];
    let new = NewMigration {
        strategy: Some(plan.strategy.name().to_owned()),
        pause_limit_ms: plan.pause_limit_ms,
        cutoff_ms: plan.cutoff_ms,
        keep_standby_s: plan.keep_standby_s,
        ..NewMigration::new(service.service.clone(), to.parse().ok()?)
    };
    // Only a load as this migration's target may go wrong: an owner that loads wrongly could not be told from a wrong owner. One that
    // stands by already might load first when it owns (seed 5580 of 2026-11-22).
    let is_none = stage.replica(to).is_some_and(|(_, state)| state == ReplicaState::None);
    let loads_only_as_target = plan.spoils && is_none;
    stage.bench(to).spoil(|faults| faults.corrupt_load = loads_only_as_target);
    match handle.create(new).await {
        Ok(id) => Some((id, to, loads_only_as_target)),
        Err(_) => {
            stage.bench(to).spoil(|faults| faults.corrupt_load = false);
            None
        }
    }
}

fn handle_of(stage: &Stage) -> Option<MigratorHandle> {
    let place = stage.migrator.lock().expect("nothing panics under this lock");
    place.as_ref().map(|running| running.handle.clone())
}

/// How a migration ended, in a word.
pub fn outcome(view: &MigrationView) -> String {
    view.outcome.map_or("running".to_owned(), |ending| {
        serde_json::to_value(ending).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default()
    })
}

/// What it was and how it ended.
pub fn kind_and_outcome(view: &MigrationView) -> String {
    let kind = if view.operation == "move" { view.strategy.name() } else { view.operation };
    format!("{kind}: {}", outcome(view))
}
