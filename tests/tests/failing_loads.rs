//! A target whose service does not load, or whose checkpoint store does not answer: tried three times with a new instance, then the
//! migration rolls back.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use broker_adapter::fold::Fold;
use broker_adapter::memory::Faults as BrokerFaults;
use broker_adapter::record::Cause;
use migrator::NewMigration;
use migrator::machine::{Ending, Phase, Strategy};
use segue_tests::checker::{Evidence, check};
use segue_tests::harness::Load;
use segue_tests::ledger::{Chain, Faults};
use serde_json::json;

use super::one_process::{Pair, With, World, order};

/// More than anybody tries.
const MANY: u32 = 100;
/// How often a load asks for its manifest before it fails.
const GETS_OF_A_LOAD: u32 = 6;
/// What nobody calls a stop: a calm broker and a ledger answer within milliseconds.
const SERVED_WITHIN: Duration = Duration::from_millis(100);

fn causes(world: &World) -> Vec<Cause> {
    let mut fold = Fold::new();
    world.broker.dump("ledger.0").iter().for_each(|entry| drop(fold.observe(entry)));
    fold.fences().map(|fence| fence.cause).collect()
}

#[tokio::test(start_paused = true)]
async fn a_load_that_fails_twice_is_tried_a_third_time_with_a_new_instance() {
    for strategy in Strategy::ALL {
        let world = World::new(1, BrokerFaults::calm());
        let _a = world.start("edge-a", true, Faults::default()).await;
        let faults = Arc::new(Mutex::new(Faults { refuse_loads: 2, ..Faults::default() }));
        let b = world.start_sharing("edge-b", false, faults.clone(), json!({})).await;
        let orders = world.migrator().await;
        let load = Load::start(&world.shell, vec!["edge-a:80".into()], 100, "m");
        load.acknowledges(20).await;
        let new = NewMigration { strategy: Some(strategy.name().to_owned()), ..order("edge-b") };
        let id = orders.order(&world.shell, new).await;
        let ended = orders.end(&world.shell, id).await;
        assert_eq!((ended.outcome, ended.attempt), (Some(Ending::Completed), 1), "{ended:?}");
        assert_eq!(faults.lock().expect("nothing panics under this lock").refuse_loads, 0, "both were refused");
        world.serves_cleanly(load, &b, 50).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_load_that_fails_three_times_rolls_the_migration_back_and_the_source_never_stopped() {
    let world = World::new(2, BrokerFaults::calm());
    let _a = world.start("edge-a", true, Faults::default()).await;
    let faults = Arc::new(Mutex::new(Faults { refuse_loads: MANY, ..Faults::default() }));
    let _b = world.start_sharing("edge-b", false, faults.clone(), json!({})).await;
    let orders = world.migrator().await;
    let load = Load::start(&world.shell, vec!["edge-a:80".into()], 100, "m");
    load.acknowledges(20).await;
    let id = orders.order(&world.shell, order("edge-b")).await;
    let ended = orders.end(&world.shell, id).await;
    assert_eq!(ended.outcome, Some(Ending::RolledBack), "{ended:?}");
    let error = ended.error.expect("it says why");
    for words in ["3 times", "PUT /segue/state", "500", "told to refuse to load"] {
        assert!(error.contains(words), "{words}: {error}");
    }
    assert_eq!(MANY - faults.lock().expect("nothing panics under this lock").refuse_loads, 3);
    assert!(!ended.phases.iter().any(|phase| phase.name == Phase::Pause));
    rolled_back_under_load(&world, load).await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_two_loads_is_asked_a_third_time() {
    for strategy in Strategy::ALL {
        let Pair { world, a: _a, b, orders, load } = With::calm(1).start().await;
        world.broker.fail_gets("edge-b", 2 * GETS_OF_A_LOAD);
        let limit = (strategy != Strategy::Live).then_some(30_000);
        let new = NewMigration { strategy: Some(strategy.name().to_owned()), pause_limit_ms: limit, ..order("edge-b") };
        let id = orders.order(&world.shell, new).await;
        let ended = orders.end(&world.shell, id).await;
        assert_eq!((ended.outcome, ended.attempt), (Some(Ending::Completed), 1), "{ended:?}");
        assert_eq!(world.broker.fired()["fail_gets"], u64::from(2 * GETS_OF_A_LOAD), "both loads failed");
        world.serves_cleanly(load, &b, 50).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_three_loads_rolls_the_migration_back_and_the_source_never_stopped() {
    let Pair { world, a: _a, b: _b, orders, load } = With::calm(2).start().await;
    world.broker.fail_gets("edge-b", MANY);
    let id = orders.order(&world.shell, order("edge-b")).await;
    let ended = orders.end(&world.shell, id).await;
    assert_eq!(ended.outcome, Some(Ending::RolledBack), "{ended:?}");
    let error = ended.error.expect("it says why");
    for words in ["3 times", "the checkpoint store cannot be reached"] {
        assert!(error.contains(words), "{words}: {error}");
    }
    assert_eq!(world.broker.fired()["fail_gets"], u64::from(3 * GETS_OF_A_LOAD));
    rolled_back_under_load(&world, load).await;
}

async fn rolled_back_under_load(world: &World, load: Load) {
    assert_eq!(causes(world), [Cause::First, Cause::RollBack]);
    load.acknowledges(50).await;
    let observations = load.finish().await;
    let waited = observations.iter().filter_map(|seen| Some(seen.completed? - seen.due)).max();
    assert!(waited < Some(SERVED_WITHIN), "the source never stopped: {waited:?}");
    let mut evidence = Evidence::from_log(&world.broker.dump("ledger.0"), "/append");
    evidence.observations = observations;
    assert_eq!(check(&evidence, &mut Chain::default()), []);
}
