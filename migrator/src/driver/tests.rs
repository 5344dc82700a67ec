//! The driver on the memory broker, with sidecars that only answer commands: creation, recovery, two migrators, lost mail.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use broker_adapter::broker::Broker;
use broker_adapter::fold::{Fold, Verdict};
use broker_adapter::ids::{Hash, Incarnation, Position, Replica, ShardId};
use broker_adapter::memory::{Faults, MemoryBroker};
use broker_adapter::record::{Cause, Fence, Record};
use broker_adapter::shell::sim::SimWorld;
use broker_adapter::shell::{Shell, TaskSet};
use futures_util::StreamExt;
use sidecar::command::{
    ANNOUNCE_ADDRESS, Announcement, Command, FailureCode, NodeMail, Outcome, ReplicaState, ShardStatus, Step, StepDone,
    StepFailure, StepStatus, decode, encode, node_address,
};

use crate::config::{Config, Deadlines};
use crate::driver::Migrator;
use crate::handle::{CancelError, CreateError, MigratorHandle, NewMigration};
use crate::journal::JOURNAL_LOG;
use crate::machine::{Ending, Phase, Proof};
use crate::view::MigrationView;

/// How a sidecar of these tests differs from one that does everything at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Good,
    /// Never answers this step.
    SilentAt(&'static str),
    /// Answers this step with a failure.
    FailsAt(&'static str, FailureCode),
}

struct Bench {
    world: Arc<SimWorld>,
    broker: Arc<MemoryBroker>,
    shell: Shell,
    told: Arc<Mutex<Vec<(String, Command)>>>,
    sidecars: Vec<TaskSet>,
    _tasks: TaskSet,
}

fn shard() -> ShardId {
    ShardId::whole("board".parse().unwrap())
}

fn replica(node: &str, run: u128) -> Replica {
    Replica { node: node.parse().unwrap(), incarnation: Incarnation::from_bits(run) }
}

fn status() -> ShardStatus {
    ShardStatus {
        shard: shard(),
        epoch: broker_adapter::ids::Epoch(1),
        owner: Some(replica("a", 1)),
        tail: Position(1),
        replica: ReplicaState::Following,
        applied: Position(1),
        checkpoint: None,
        messages_counted: 0,
        listen: "127.0.0.1:1".to_owned(),
        trouble: None,
    }
}

fn done(step: &Step) -> StepDone {
    match step {
        Step::Checkpoint => StepDone::Checkpoint { position: Position(1), manifest: Hash::of(b"m"), state_bytes: 1 },
        Step::Verify { .. } => StepDone::Agreed {
            position: Position(1),
            hash: Hash::default(),
            state: Some(Hash::default()),
            replies_compared: 1,
        },
        _ => StepDone::Plain,
    }
}

impl Bench {
    async fn new(seed: u64, faults: Faults) -> Bench {
        let world = SimWorld::new(seed);
        let (shell, tasks) = world.process();
        let broker = MemoryBroker::new(seed, shell.clone(), faults);
        let told = Arc::default();
        let bench = Bench { world, broker, shell, told, sidecars: Vec::new(), _tasks: tasks };
        bench.fence(1, replica("a", 1), Cause::First).await;
        bench
    }

    async fn fence(&self, epoch: u64, owner: Replica, cause: Cause) {
        let link = self.broker.connect("test");
        let fence = Fence { epoch: broker_adapter::ids::Epoch(epoch), owner, cause, migration: None };
        while self.fold().epoch().0 < epoch {
            if let Ok(log) = link.log(&shard().log_name()).await {
                let _ = log.append(vec![Record::Fence(fence.clone())]).await;
            }
            self.shell.sleep(Duration::from_millis(5)).await;
        }
    }

    fn fold(&self) -> Fold {
        let mut fold = Fold::new();
        if self.broker.logs().contains(&shard().log_name()) {
            self.broker.dump(&shard().log_name()).iter().for_each(|entry| drop(fold.observe(entry)));
        }
        fold
    }

    fn sidecar(&mut self, me: Replica, manner: Manner) -> usize {
        self.sidecar_of(me, vec![status()], manner)
    }

    fn sidecar_of(&mut self, me: Replica, shards: Vec<ShardStatus>, manner: Manner) -> usize {
        let (shell, tasks) = self.world.process();
        let link = self.broker.connect(me.node.as_str());
        let announcement = Announcement {
            from: me.clone(),
            class: "edge".to_owned(),
            arch: "x86_64".to_owned(),
            started_ms: shell.wall_ms(),
            admin: String::new(),
            shards,
            leaving: false,
        };
        let (mailbox, announcer) = (link.mailbox(), shell.clone());
        shell.spawn(async move {
            loop {
                mailbox.send(ANNOUNCE_ADDRESS, encode(&announcement));
                announcer.sleep(Duration::from_millis(500)).await;
            }
        });
        let mut mail = link.mailbox().subscribe(&node_address(&me.node));
        let told = self.told.clone();
        shell.spawn(async move {
            while let Some(bytes) = mail.next().await {
                let Some(NodeMail::Command(command)) = decode(&bytes) else { continue };
                told.lock().unwrap().push((me.node.to_string(), command.clone()));
                obey(&link, &me, manner, command).await;
            }
        });
        self.sidecars.push(tasks);
        self.sidecars.len() - 1
    }

    fn good_pair(&mut self) {
        self.sidecar(replica("a", 1), Manner::Good);
        self.sidecar(replica("b", 2), Manner::Good);
    }

    /// A migrator's process; dropping the set kills it.
    async fn migrator(&self, name: &str) -> (MigratorHandle, TaskSet) {
        let (shell, tasks) = self.world.process();
        let deadlines = Deadlines { prepare_ms: 5_000, replay_ms: 5_000, handover_ms: 5_000, ..Deadlines::default() };
        let config = Config { name: name.parse().unwrap(), deadlines, ..Config::new("memory:") };
        let handle = Migrator::start(config, self.broker.connect(name), shell).await.unwrap();
        // Until the nodes were heard.
        self.shell.sleep(Duration::from_millis(1_500)).await;
        (handle, tasks)
    }

    /// The journal as any reader judges it: how many entries count, and how many do not.
    fn journal_verdicts(&self) -> (usize, usize) {
        let mut fold = Fold::new();
        let verdicts: Vec<Verdict> = self.broker.dump(JOURNAL_LOG).iter().map(|entry| fold.observe(entry)).collect();
        let count = |wanted: fn(&Verdict) -> bool| verdicts.iter().filter(|verdict| wanted(verdict)).count();
        (count(|verdict| *verdict == Verdict::Noted), count(|verdict| matches!(verdict, Verdict::Void(_))))
    }
}

async fn obey(link: &Arc<dyn Broker>, me: &Replica, manner: Manner, command: Command) {
    let step = command.step.name();
    let status = match manner {
        Manner::SilentAt(silent) if silent == step => return,
        Manner::FailsAt(fails, code) if fails == step => {
            StepStatus::Failed(StepFailure { code, message: "it was planned".to_owned() })
        }
        _ if command.to != *me => {
            StepStatus::Failed(StepFailure { code: FailureCode::WrongIncarnation, message: String::new() })
        }
        _ => StepStatus::Done(done(&command.step)),
    };
    if matches!((&command.step, &status), (Step::Handover { .. }, StepStatus::Done(_))) {
        let migration = Some(command.migration);
        let fence = Fence { epoch: command.epoch, owner: me.clone(), cause: Cause::Handover, migration };
        let Ok(log) = link.log(&command.shard.log_name()).await else { return };
        let _ = log.append(vec![Record::Fence(fence)]).await;
    }
    let Command { migration, attempt, .. } = command;
    let outcome = Outcome { migration, attempt, step: step.to_owned(), from: me.clone(), status };
    link.mailbox().send(&command.answer_to, encode(&outcome));
}

fn to(node: &str) -> NewMigration {
    let (service, to) = ("board".parse().unwrap(), node.parse().unwrap());
    NewMigration { service, shard: None, to, reason: None, strategy: None }
}

async fn moved(handle: &MigratorHandle, node: &str) -> MigrationView {
    let id = handle.create(to(node)).await.unwrap();
    handle.wait_end(id).await.unwrap().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_shard_moves_there_and_back() {
    let mut bench = Bench::new(1, Faults::calm()).await;
    bench.good_pair();
    let (handle, _migrator) = bench.migrator("migrator").await;
    let there = moved(&handle, "b").await;
    assert_eq!((there.outcome, there.proof, there.error), (Some(Ending::Completed), Some(Proof::State), None));
    assert!(there.total_ms.is_some_and(|ms| ms < 1_000), "{:?}", there.total_ms);
    let names: Vec<Phase> = there.phases.iter().map(|phase| phase.name).collect();
    assert_eq!(names.len(), 7);
    let back = moved(&handle, "a").await;
    assert_eq!((back.outcome, back.epoch.0), (Some(Ending::Completed), 3));
    assert_eq!(bench.fold().owner(), Some(&replica("a", 1)));
}

#[tokio::test(start_paused = true)]
async fn bad_wishes_are_refused_with_what_is_known() {
    let mut bench = Bench::new(2, Faults::calm()).await;
    bench.sidecar(replica("a", 1), Manner::Good);
    bench.sidecar(replica("b", 2), Manner::SilentAt("replay"));
    bench.sidecar_of(replica("empty", 3), Vec::new(), Manner::Good);
    let (handle, _migrator) = bench.migrator("migrator").await;
    let refused = |new: NewMigration| {
        let handle = handle.clone();
        async move { handle.create(new).await.unwrap_err() }
    };
    let other = NewMigration { service: "bord".parse().unwrap(), ..to("b") };
    assert!(matches!(refused(other).await, CreateError::UnknownService { known, .. } if known == ["board"]));
    assert!(matches!(refused(to("z")).await, CreateError::UnknownNode { known, .. } if known == ["a", "b", "empty"]));
    assert!(matches!(refused(to("a")).await, CreateError::TargetIsSource { .. }));
    let without = refused(to("empty")).await;
    assert!(matches!(without, CreateError::TargetWithoutService { known, .. } if known == ["a", "b"]));
    let strategy = Some("precopy".to_owned());
    assert!(matches!(refused(NewMigration { strategy, ..to("b") }).await, CreateError::UnknownStrategy(_)));
    let id = handle.create(to("b")).await.unwrap();
    let second = refused(to("b")).await;
    assert!(matches!(second, CreateError::AlreadyMoving { running, .. } if running == id));
    bench.sidecars.clear();
    assert_eq!(handle.wait_end(id).await.unwrap().unwrap().outcome, Some(Ending::RolledBack));
    assert!(matches!(refused(to("b")).await, CreateError::NodeSilent(_)));
    assert_eq!(handle.cancel(id).await.unwrap_err(), CancelError::Ended { id, outcome: "rolled-back" });
}

#[tokio::test(start_paused = true)]
async fn a_cancel_is_acknowledged_behind_its_journal_entry_and_ends_behind_its_fence() {
    let mut bench = Bench::new(3, Faults::calm()).await;
    bench.sidecar(replica("a", 1), Manner::Good);
    bench.sidecar(replica("b", 2), Manner::SilentAt("replay"));
    let (handle, _migrator) = bench.migrator("migrator").await;
    let id = handle.create(to("b")).await.unwrap();
    bench.shell.sleep(Duration::from_millis(500)).await;
    assert_eq!(handle.get(id).await.unwrap().unwrap().phase, Phase::Replay);
    assert!(handle.cancel(id).await.unwrap().cancel_requested);
    let end = handle.wait_end(id).await.unwrap().unwrap();
    assert_eq!(end.outcome, Some(Ending::Cancelled));
    let fence = bench.fold().last_fence().unwrap().clone();
    assert_eq!((fence.cause, fence.owner, fence.epoch), (Cause::Cancel, replica("a", 1), end.epoch));
    bench.shell.sleep(Duration::from_secs(1)).await;
    let told: Vec<(String, &'static str)> =
        bench.told.lock().unwrap().iter().map(|(node, command)| (node.clone(), command.step.name())).collect();
    assert!(told.contains(&("b".to_owned(), "discard")) && told.contains(&("a".to_owned(), "release")));
    assert_eq!(handle.status().await.unwrap().running, 0, "its after-care is over");
}

#[tokio::test(start_paused = true)]
async fn a_failed_step_rolls_back_and_says_why() {
    for (code, ending) in [(FailureCode::Service, Ending::RolledBack), (FailureCode::Diverged, Ending::Diverged)] {
        let mut bench = Bench::new(4, Faults::calm()).await;
        bench.sidecar(replica("a", 1), Manner::Good);
        bench.sidecar(replica("b", 2), Manner::FailsAt("verify", code));
        let (handle, _migrator) = bench.migrator("migrator").await;
        let end = moved(&handle, "b").await;
        assert_eq!(end.outcome, Some(ending));
        assert!(end.error.unwrap().contains("verify at b: it was planned"));
        assert_eq!(bench.fold().owner(), Some(&replica("a", 1)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_restarts_gets_a_new_attempt_under_the_epoch_of_its_fence() {
    let mut bench = Bench::new(5, Faults::calm()).await;
    let old = bench.sidecar(replica("a", 1), Manner::SilentAt("checkpoint"));
    bench.sidecar(replica("b", 2), Manner::Good);
    let (handle, _migrator) = bench.migrator("migrator").await;
    let id = handle.create(to("b")).await.unwrap();
    bench.shell.sleep(Duration::from_millis(500)).await;
    drop(bench.sidecars.remove(old));
    bench.sidecar(replica("a", 11), Manner::Good);
    bench.shell.sleep(Duration::from_millis(700)).await;
    assert_eq!(handle.get(id).await.unwrap().unwrap().attempt, 1, "its restart counts only by its fence");
    bench.fence(2, replica("a", 11), Cause::Restart).await;
    let end = handle.wait_end(id).await.unwrap().unwrap();
    assert_eq!((end.outcome, end.attempt, end.epoch.0), (Some(Ending::Completed), 2, 3));
}

#[tokio::test(start_paused = true)]
async fn a_target_that_restarts_is_noticed_by_its_announcement() {
    let mut bench = Bench::new(6, Faults::calm()).await;
    bench.sidecar(replica("a", 1), Manner::Good);
    let old = bench.sidecar(replica("b", 2), Manner::SilentAt("transfer"));
    let (handle, _migrator) = bench.migrator("migrator").await;
    let id = handle.create(to("b")).await.unwrap();
    bench.shell.sleep(Duration::from_millis(500)).await;
    drop(bench.sidecars.remove(old));
    bench.sidecar(replica("b", 12), Manner::SilentAt("transfer"));
    let end = handle.wait_end(id).await.unwrap().unwrap();
    assert_eq!(end.outcome, Some(Ending::RolledBack));
    assert!(end.error.unwrap().contains("restarted"));
}

#[tokio::test(start_paused = true)]
async fn a_killed_migrator_s_successor_goes_on_from_the_journal_and_the_log() {
    for silent in ["prepare-source", "checkpoint", "transfer", "restore", "replay", "verify", "handover"] {
        let mut bench = Bench::new(7, Faults::calm()).await;
        let source = bench.sidecar(replica("a", 1), Manner::SilentAt(silent));
        let target = bench.sidecar(replica("b", 2), Manner::SilentAt(silent));
        let (handle, first) = bench.migrator("migrator").await;
        let id = handle.create(to("b")).await.unwrap();
        bench.shell.sleep(Duration::from_millis(500)).await;
        let before = handle.get(id).await.unwrap().unwrap();
        drop(first);
        drop(bench.sidecars.remove(target));
        drop(bench.sidecars.remove(source));
        bench.good_pair();
        let (handle, _second) = bench.migrator("migrator").await;
        let end = handle.wait_end(id).await.unwrap().unwrap();
        assert_eq!(end.outcome, Some(Ending::Completed), "killed in {:?}", before.phase);
        assert_eq!((end.epoch, end.accepted_ms), (before.epoch, before.accepted_ms));
        assert_eq!(end.phases[..before.phases.len() - 1], before.phases[..before.phases.len() - 1]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_handover_that_counted_while_no_migrator_was_there_is_read_from_the_log() {
    let mut bench = Bench::new(8, Faults::calm()).await;
    bench.sidecar(replica("a", 1), Manner::Good);
    bench.sidecar(replica("b", 2), Manner::SilentAt("handover"));
    let (handle, first) = bench.migrator("migrator").await;
    let id = handle.create(to("b")).await.unwrap();
    bench.shell.sleep(Duration::from_millis(800)).await;
    assert_eq!(handle.get(id).await.unwrap().unwrap().phase, Phase::Handover);
    drop(first);
    let link = bench.broker.connect("b");
    let epoch = broker_adapter::ids::Epoch(2);
    let fence = Fence { epoch, owner: replica("b", 2), cause: Cause::Handover, migration: Some(id) };
    link.log(&shard().log_name()).await.unwrap().append(vec![Record::Fence(fence)]).await.unwrap();
    // Others follow: the one that decided is remembered by the fold.
    bench.fence(3, replica("b", 22), Cause::Restart).await;
    let (handle, _second) = bench.migrator("migrator").await;
    let end = handle.wait_end(id).await.unwrap().unwrap();
    assert_eq!(end.outcome, Some(Ending::Completed));
}

#[tokio::test(start_paused = true)]
async fn the_older_of_two_migrators_stops_and_says_why_and_its_words_are_void() {
    let mut bench = Bench::new(9, Faults::calm()).await;
    bench.sidecar(replica("a", 1), Manner::Good);
    bench.sidecar(replica("b", 2), Manner::SilentAt("replay"));
    let (old, _old_tasks) = bench.migrator("one").await;
    let id = old.create(to("b")).await.unwrap();
    bench.shell.sleep(Duration::from_millis(500)).await;
    // Paused: it hears nothing of the other one, and what it writes meanwhile lands later.
    bench.broker.stall("one", Duration::from_secs(3));
    let other = bench.migrator("two");
    let (cancelled, (new, _new_tasks)) = futures_util::future::join(old.cancel(id), other).await;
    assert!(matches!(cancelled, Err(CancelError::Stopped(_))), "{cancelled:?}");
    let why = old.stopped().await.to_string();
    assert!(why.contains("two@") && why.contains("took the journal"), "{why}");
    assert!(bench.journal_verdicts().1 > 0, "the older one did write");
    let present = new.get(id).await.unwrap().unwrap();
    assert_eq!((present.phase, present.cancel_requested), (Phase::Replay, false));
}

#[tokio::test(start_paused = true)]
async fn migrations_end_on_a_rough_broker_and_every_end_is_the_log_s() {
    let mut fired = 0;
    for seed in 0..20 {
        let mut bench = Bench::new(seed, Faults::rough()).await;
        bench.good_pair();
        let (mut handle, mut tasks) = bench.migrator("migrator").await;
        for node in ["b", "a", "b"] {
            let id = match handle.create(to(node)).await {
                Ok(id) => id,
                Err(CreateError::TargetIsSource { .. }) => continue,
                Err(error) => panic!("seed {seed}: {error}"),
            };
            if node == "a" {
                drop(tasks);
                (handle, tasks) = bench.migrator("migrator").await;
            }
            let limit = Duration::from_secs(600);
            let end = bench.shell.within(limit, handle.wait_end(id)).await;
            let end = end.unwrap_or_else(|| panic!("seed {seed}: {node} hangs")).unwrap().unwrap();
            let fold = bench.fold();
            let fence = fold.fences().find(|fence| fence.epoch == end.epoch).unwrap();
            let is_own = fence.cause == Cause::Handover && fence.migration == Some(id);
            assert_eq!(end.outcome == Some(Ending::Completed), is_own, "seed {seed}: {end:?}");
        }
        assert!(bench.journal_verdicts().0 > 0);
        fired += bench.broker.fired().values().sum::<u64>();
        drop(tasks);
    }
    assert!(fired > 100, "only {fired} faults struck");
}
