//! Periodic checkpoints, trimming, and what happens to readers and messages when the log is trimmed or full.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use broker_adapter::broker::Broker;
use broker_adapter::fold::{Fold, KeptCheckpoint};
use broker_adapter::ids::{Position, ShardId};
use broker_adapter::memory::{Delay, Faults as BrokerFaults};
use migrator::NewMigration;
use migrator::machine::{Ending, Phase};
use segue_tests::harness::{HANG_LIMIT, Load, call, wait_for};
use segue_tests::ledger::Faults;
use serde_json::{Value, json};
use sidecar::checkpoint::load::Reader;
use sidecar::command::ReplicaState;

use super::one_process::{Node, World, order};

fn often() -> Value {
    json!({ "checkpoint": { "every_s": 1 } })
}

fn shard() -> ShardId {
    ShardId::whole("ledger".parse().expect("a good name"))
}

impl World {
    async fn start_often(&self, node: &str, create: bool) -> Node {
        self.start_sharing(node, create, Arc::default(), often()).await
    }

    fn fold(&self) -> Fold {
        let mut fold = Fold::new();
        self.broker.dump("ledger.0").iter().for_each(|entry| drop(fold.observe(entry)));
        fold
    }

    fn kept(&self) -> Vec<KeptCheckpoint> {
        self.fold().checkpoints().kept().to_vec()
    }

    fn tester(&self) -> Arc<dyn Broker> {
        self.broker.connect("tester")
    }

    async fn first(&self) -> Position {
        let log = self.tester().log("ledger.0").await.expect("the broker is there");
        log.usage().await.expect("the broker is there").first
    }

    /// Waits until the log was trimmed past `position`.
    async fn trimmed_past(&self, position: Position) {
        wait_for(&self.shell, "the log to be trimmed", || async { (self.first().await > position).then_some(()) })
            .await;
    }

    /// Damages what only the newest checkpoint has of the service's state.
    async fn damage_newest(&self) {
        let kept = self.kept();
        let reader = Reader { store: self.tester().store(), shell: self.shell.clone() };
        let newest = kept.last().expect("there is one");
        let manifest = reader.manifest(&shard(), newest.position, newest.manifest).await.expect("it is whole");
        assert!(!manifest.state.is_empty());
        for chunk in &manifest.state {
            assert!(self.broker.damage_object(&chunk.name(&shard())));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_owner_trims_its_log_and_removes_old_checkpoints() {
    let world = World::new(1, BrokerFaults::calm());
    let owner = world.start_often("edge-a", true).await;
    let load = Load::start(&world.shell, vec!["edge-a:80".into()], 100, "m");
    world.trimmed_past(Position(200)).await;
    let kept = world.kept();
    assert_eq!(kept.len(), 2);
    assert!(world.first().await <= kept[0].position, "the record at the oldest kept checkpoint is kept");
    world.shell.sleep(Duration::from_millis(900)).await;
    let manifests = world.tester().store().list("manifest/".into()).await.expect("it lists");
    assert!(manifests.len() <= 3, "two kept, one perhaps under way: {manifests:?}");
    let chunks = world.tester().store().list("chunk/".into()).await.expect("it lists");
    assert!(chunks.len() <= 9, "of each a fold, replies and a state: {chunks:?}");
    drop(owner);
    let owner = world.start_often("edge-a", false).await;
    world.serves_cleanly(load, &owner, 100).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_saved_while_nothing_is_applied() {
    let world = World::new(1, BrokerFaults::calm());
    let _owner = world.start_often("edge-a", true).await;
    let load = Load::start(&world.shell, vec!["edge-a:80".into()], 100, "m");
    load.acknowledges(150).await;
    load.finish().await;
    world.shell.sleep(Duration::from_secs(5)).await;
    let before = world.broker.dump("ledger.0").len();
    world.shell.sleep(Duration::from_secs(120)).await;
    assert_eq!(world.broker.dump("ledger.0").len(), before);
}

#[tokio::test(start_paused = true)]
async fn an_ingress_and_a_standby_that_the_trim_overtook_go_on() {
    for seed in 1..=5 {
        let world = World::new(seed, BrokerFaults::calm());
        let a = world.start_often("edge-a", true).await;
        let b = world.start_often("edge-b", false).await;
        let orders = world.migrator().await;
        let id = orders.begin(&world.shell, "edge-b").await;
        let ended = orders.end(&world.shell, id).await;
        assert_eq!(ended.outcome, Some(Ending::Completed), "seed {seed}: {ended:?}");
        let load = Load::start(&world.shell, vec!["edge-a:80".into(), "edge-b:80".into()], 100, "m");
        load.acknowledges(50).await;
        world.broker.cut_off("edge-a");
        let tail = world.fold().position();
        world.trimmed_past(Position(tail.0 + 100)).await;
        let views = a.sidecar.admin.shards.values().next().expect("it has one").clone();
        assert!(views.tail.borrow().position < world.first().await, "seed {seed}: the ingress was overtaken");
        world.broker.heal("edge-a");
        wait_for(&world.shell, "the standby to follow again", || async {
            let view = views.replica.borrow().clone();
            let follows = view.state == ReplicaState::Following && view.applied > Position(tail.0 + 100);
            follows.then_some(())
        })
        .await;
        world.serves_cleanly(load, &b, 100).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_log_refuses_messages_until_a_checkpoint_makes_room() {
    let world = World::new(1, BrokerFaults::calm());
    let faults = Arc::new(Mutex::new(Faults::default()));
    let more = json!({ "checkpoint": { "every_s": 1 }, "log_high_mark_records": 600 });
    let owner = world.start_sharing("edge-a", true, faults.clone(), more).await;
    faults.lock().expect("nothing panics under this lock").refuse_save = true;
    let refused = wait_for(&world.shell, "the log to be full", || async {
        for number in 0..20 {
            let body = format!("x-{}-{number}", world.fold().position());
            let answer = call(&world.shell, "edge-a:80", ("POST", "/append"), body, HANG_LIMIT).await.ok()?;
            if answer.status != 200 {
                return Some(answer);
            }
        }
        None
    })
    .await;
    assert_eq!(refused.status, 503);
    assert!(refused.text().contains("log-full"), "{}", refused.text());
    let counted = world.fold().count();
    let (_, said) = owner.sidecar.admin.conditions();
    assert!(said.contains("log-full") && said.contains("refuse to save"), "the alarm says until when and why: {said}");
    world.shell.sleep(Duration::from_secs(3)).await;
    assert_eq!(world.fold().count(), counted, "no message is appended while it is full");
    faults.lock().expect("nothing panics under this lock").refuse_save = false;
    world.trimmed_past(Position(300)).await;
    let load = Load::start(&world.shell, vec!["edge-a:80".into()], 50, "m");
    load.acknowledges(100).await;
    load.finish().await;
    let (_, said) = owner.sidecar.admin.conditions();
    assert!(!said.contains("log-full"), "the alarm is over: {said}");
}

#[tokio::test(start_paused = true)]
async fn while_the_checkpoint_store_is_full_serving_goes_on_the_log_is_kept_and_an_alarm_says_until_when() {
    let world = World::new(1, BrokerFaults::calm());
    let owner = world.start_often("edge-a", true).await;
    let load = Load::start(&world.shell, vec!["edge-a:80".into()], 100, "m");
    world.trimmed_past(Position(200)).await;
    world.broker.fill_store(true);
    let alarm = wait_for(&world.shell, "the alarm", || async {
        let (_, said) = owner.sidecar.admin.conditions();
        said.contains("serving goes on").then_some(said)
    })
    .await;
    for words in ["the test filled it", "the log is kept", "records more fit into it", "503 log-full"] {
        assert!(alarm.contains(words), "{words}: {alarm}");
    }
    let (kept, first) = (world.kept(), world.first().await);
    load.acknowledges(1_000).await;
    assert_eq!(
        (world.kept(), world.first().await),
        (kept, first),
        "nothing is trimmed behind the last whole checkpoint"
    );
    assert!(world.broker.fired()["fill_store"] > 0);
    world.broker.fill_store(false);
    world.trimmed_past(Position(first.0 + 1_000)).await;
    let (_, said) = owner.sidecar.admin.conditions();
    assert!(!said.contains("serving goes on"), "the alarm is over: {said}");
    world.serves_cleanly(load, &owner, 50).await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_passes_a_damaged_checkpoint_over() {
    let world = World::new(1, BrokerFaults::calm());
    let owner = world.start_often("edge-a", true).await;
    let load = Load::start(&world.shell, vec!["edge-a:80".into()], 100, "m");
    world.trimmed_past(Position(200)).await;
    drop(owner);
    world.damage_newest().await;
    let owner = world.start_often("edge-a", false).await;
    world.serves_cleanly(load, &owner, 100).await;
    assert!(world.broker.fired()["damage_object"] > 0);
}

#[tokio::test(start_paused = true)]
async fn a_target_takes_an_older_checkpoint_if_the_newest_is_damaged() {
    let world = World::new(1, BrokerFaults::calm());
    let _a = world.start_often("edge-a", true).await;
    let b = world.start_often("edge-b", false).await;
    let load = Load::start(&world.shell, vec!["edge-a:80".into()], 100, "m");
    world.trimmed_past(Position(200)).await;
    load.finish().await;
    // The last periodic one: nothing is applied any more.
    world.shell.sleep(Duration::from_secs(5)).await;
    let kept = world.kept();
    world.damage_newest().await;
    let orders = world.migrator().await;
    let id = orders.begin(&world.shell, "edge-b").await;
    let ended = orders.end(&world.shell, id).await;
    assert_eq!(ended.outcome, Some(Ending::Completed), "{ended:?}");
    assert_eq!(world.kept(), kept, "the periodic checkpoint was recent enough: none was taken for the migration");
    let marks = world.tester().store().list("suspect/".into()).await.expect("it lists");
    assert!(!marks.is_empty(), "the target met the damaged one");
    let load = Load::start(&world.shell, vec!["edge-b:80".into()], 100, "n");
    load.acknowledges(200).await;
    load.finish().await;
    let ids = b.runner.latest().expect("the owner runs an instance").chain().ids().len();
    assert!(ids >= 400, "{ids}");
}

#[tokio::test(start_paused = true)]
async fn neither_log_nor_store_lose_what_a_pin_keeps() {
    let world = World::new(1, BrokerFaults::calm());
    let a = world.start_often("edge-a", true).await;
    let _b = world.start_often("edge-b", false).await;
    let load = Load::start(&world.shell, vec!["edge-a:80".into()], 50, "m");
    let orders = world.migrator().await;
    let id = orders.begin(&world.shell, "edge-b").await;
    let pinned = wait_for(&world.shell, "the pin", || async {
        world.fold().checkpoints().pins().first().map(|pin| pin.checkpoint)
    })
    .await;
    world.broker.cut_off("edge-b");
    // Longer than the target tries to load.
    world.shell.sleep(Duration::from_secs(12)).await;
    let kept = world.kept();
    assert_eq!(kept.len(), 3, "two, and the pinned one");
    assert_eq!(kept[0].position, pinned);
    assert!(world.first().await <= pinned, "the record at the pinned checkpoint is kept");
    let reader = Reader { store: world.tester().store(), shell: world.shell.clone() };
    let manifest = reader.manifest(&shard(), pinned, kept[0].manifest).await.expect("it is whole");
    reader.fold(&manifest, kept[0].manifest).await.expect("its chunks are there");
    world.broker.heal("edge-b");
    let ended = orders.end(&world.shell, id).await;
    assert_eq!(ended.outcome, Some(Ending::RolledBack), "{ended:?}");
    world.trimmed_past(pinned).await;
    world.serves_cleanly(load, &a, 50).await;
}

#[tokio::test(start_paused = true)]
async fn a_paused_source_that_the_new_owners_trim_overtook_learns_that_its_pause_is_over() {
    let world = World::new(7, BrokerFaults::calm());
    let a = world.start_often("edge-a", true).await;
    let slow = Arc::new(Mutex::new(Faults { load_takes: Duration::from_secs(2), ..Faults::default() }));
    let b = world.start_sharing("edge-b", false, slow, often()).await;
    let orders = world.migrator().await;
    let load = Load::start(&world.shell, vec!["edge-b:80".into()], 100, "m");
    load.acknowledges(20).await;
    let new = NewMigration { strategy: Some("stop-and-copy".into()), ..order("edge-b") };
    let id = orders.order(&world.shell, new).await;
    wait_for(&world.shell, "the transfer", || async {
        let view = orders.migrator.get(id).await.expect("it runs").expect("it is known");
        (view.phase == Phase::Transfer).then_some(())
    })
    .await;
    world.broker.cut_off("edge-a");
    let ended = orders.end(&world.shell, id).await;
    assert_eq!(ended.outcome, Some(Ending::Completed), "{ended:?}");
    let fence = world.fold().last_fence().expect("there is one").position;
    world.trimmed_past(fence).await;
    world.broker.heal("edge-a");
    let view = || a.sidecar.admin.shards.values().next().expect("it has one").replica.borrow().clone();
    wait_for(&world.shell, "the source to drop what was carried away", || async {
        (view().state == ReplicaState::None).then_some(())
    })
    .await;
    world.serves_cleanly(load, &b, 100).await;
}

/// Found by seed 75 of the simulation: everything that the ingress had sent counted while it was away.
#[tokio::test(start_paused = true)]
async fn an_ingress_that_the_trim_overtook_behind_all_of_its_messages_sends_new_ones() {
    let late = BrokerFaults { read_delay: Delay::ms(200, 200), ..BrokerFaults::calm() };
    let world = World::new(8, late);
    let a = world.start_often("edge-a", true).await;
    let _b = world.start_often("edge-b", false).await;
    let (shell, tasks) = world.sim.process();
    let clients = shell.clone();
    shell.spawn(async move {
        for number in 0..3 {
            let clients = clients.clone();
            let body = format!("x-7-{number}");
            clients
                .clone()
                .spawn(async move { drop(call(&clients, "edge-b:80", ("POST", "/append"), body, HANG_LIMIT).await) });
        }
    });
    let before = world.fold().count();
    wait_for(&world.shell, "them to count", || async { (world.fold().count().0 == before.0 + 3).then_some(()) }).await;
    world.broker.cut_off("edge-b");
    let load = Load::start(&world.shell, vec!["edge-a:80".into()], 100, "m");
    let tail = world.fold().position();
    world.trimmed_past(Position(tail.0 + 10)).await;
    world.broker.heal("edge-b");
    world.shell.sleep(Duration::from_secs(2)).await;
    let answer = call(&world.shell, "edge-b:80", ("POST", "/append"), "x-7-9", HANG_LIMIT).await;
    assert_eq!(answer.expect("the ingress answers").status, 200);
    drop(tasks);
    world.serves_cleanly(load, &a, 50).await;
}
