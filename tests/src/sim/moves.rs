//! The migrations of a run: ordered one after the other, each to a node that does not own, some cancelled in the middle.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use broker_adapter::ids::MigrationId;
use broker_adapter::shell::TaskSet;
use migrator::machine::Phase;
use migrator::{MigrationView, MigratorHandle, NewMigration};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::mix::STRATEGIES;
use super::stage::{LOG, Stage};

/// A migration that was refused, because something was away, is ordered again after this.
const ORDER_AGAIN: Duration = Duration::from_millis(300);

/// Migrations under way.
pub struct Moves {
    ended: Option<tokio::sync::oneshot::Receiver<()>>,
    moved: Arc<Mutex<Vec<Moved>>>,
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

/// How one is ordered.
#[derive(Clone, Copy)]
struct Plan {
    pause: Duration,
    cancel: Option<Cancel>,
    /// Which of the nodes that do not own.
    target: usize,
    spoils: bool,
    strategy: &'static str,
}

impl Moves {
    /// Waits for all.
    pub async fn all(&mut self) {
        if let Some(ended) = self.ended.take() {
            // An error: the task is gone, and its migrations are missing.
            let _ = ended.await;
        }
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
    let moved = Arc::<Mutex<Vec<Moved>>>::default();
    let plans: Vec<Plan> = (0..moves).map(|_| plan(rng)).collect();
    let (stage, noted) = (stage.clone(), moved.clone());
    shell.spawn(async move {
        for plan in plans {
            tokio::time::sleep(plan.pause).await;
            let one = one_move(&stage, plan).await;
            noted.lock().expect("nothing panics under this lock").push(one);
        }
        // The run may be over.
        let _ = sender.send(());
    });
    Moves { ended: Some(ended), moved, _tasks: tasks }
}

fn plan(rng: &mut StdRng) -> Plan {
    Plan {
        pause: Duration::from_millis(rng.random_range(0..800)),
        cancel: match rng.random_range(0..10) {
            0 | 1 => Some(Cancel::After(Duration::from_millis(rng.random_range(0..400)))),
            2 => Some(Cancel::AtHandover),
            _ => None,
        },
        target: rng.random_range(0..60),
        spoils: rng.random_ratio(1, 8),
        strategy: STRATEGIES.choose(rng).expect("there is one"),
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
    if let Some(cancel) = plan.cancel {
        match cancel {
            Cancel::After(after) => tokio::time::sleep(after).await,
            Cancel::AtHandover => handing_over(stage, id).await,
        }
        if let Some(handle) = handle_of(stage) {
            // It may have ended, or the migrator may be gone.
            let _ = handle.cancel(id).await;
        }
    }
    let view = loop {
        if let Some(handle) = handle_of(stage)
            && let Ok(Some(view)) = handle.wait_end(id).await
        {
            break view;
        }
        tokio::time::sleep(ORDER_AGAIN).await;
    };
    // What was not loaded wrongly in this migration is not to be in another.
    stage.bench(target).spoil(|faults| faults.corrupt_load = false);
    Moved { view, spoilt }
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
    let others: Vec<&'static str> = stage.names().into_iter().filter(|name| *name != owner.as_str()).collect();
    let to = others[plan.target % others.len()];
    let new = NewMigration {
        strategy: Some(plan.strategy.to_owned()),
        ..NewMigration::new(service.service.clone(), to.parse().ok()?)
    };
    // Only a load as this migration's target may go wrong: an owner that loads wrongly could not be told from a wrong owner.
    let loads_only_as_target = plan.spoils && stage.owner() != Some(to);
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

/// What the log says against the ends of these migrations: one completed if and only if its own fence won.
pub fn denied(stage: &Stage, moved: &[Moved]) -> Vec<String> {
    use broker_adapter::fold::{Fold, Verdict};
    use broker_adapter::record::Cause;
    let mut fold = Fold::new();
    let mut handed_over = std::collections::BTreeSet::new();
    for entry in stage.broker.dump(LOG) {
        if let Verdict::Fenced(fence) = fold.observe(&entry)
            && fence.cause == Cause::Handover
        {
            handed_over.extend(fence.migration);
        }
    }
    let mut wrong = Vec::new();
    for Moved { view, spoilt } in moved {
        let outcome = outcome(view);
        if (outcome == "completed") != handed_over.contains(&view.id) {
            wrong.push(format!("migration {} ended as {outcome}, and the log says otherwise", view.id));
        }
        if outcome == "diverged" && !spoilt {
            wrong.push(format!("migration {} ended as diverged, and nothing differed: {:?}", view.id, view.error));
        }
    }
    wrong
}
