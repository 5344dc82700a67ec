//! Several standbys of one shard: each stays until its own retirement, whatever became of the others.

use std::time::Duration;

use broker_adapter::ids::MigrationId;
use broker_adapter::memory::Faults as BrokerFaults;
use migrator::machine::Ending;
use migrator::{CreateError, NewMigration};
use segue_tests::harness::Load;
use segue_tests::ledger::Faults;
use sidecar::command::ReplicaState::{Following, None as Gone};

use super::one_process::{Node, Orders, World, order};

/// A service that moved from edge-a over edge-b to edge-c.
struct Chain {
    world: World,
    nodes: [Node; 3],
    orders: Orders,
    load: Load,
}

async fn chain(seed: u64, first: NewMigration, second: NewMigration) -> (Chain, [MigrationId; 2]) {
    let world = World::new(seed, BrokerFaults::calm());
    let a = world.start("edge-a", true, Faults::default()).await;
    let b = world.start("edge-b", false, Faults::default()).await;
    let c = world.start("edge-c", false, Faults::default()).await;
    let orders = world.migrator().await;
    let load = Load::start(&world.shell, vec!["edge-a:80".into(), "edge-c:80".into()], 100, "m");
    load.acknowledges(20).await;
    let chain = Chain { world, nodes: [a, b, c], orders, load };
    let ids = [chain.completes(first).await, chain.completes(second).await];
    (chain, ids)
}

impl Chain {
    async fn completes(&self, new: NewMigration) -> MigrationId {
        let id = self.orders.order(&self.world.shell, new).await;
        self.ends(id).await;
        id
    }

    async fn ends(&self, id: MigrationId) {
        let ended = self.orders.end(&self.world.shell, id).await;
        assert_eq!(ended.outcome, Some(Ending::Completed), "{ended:?}");
        // Whoever the fence names or retires has read it then.
        self.world.shell.sleep(Duration::from_secs(1)).await;
    }

    fn states(&self) -> [sidecar::command::ReplicaState; 3] {
        self.nodes.each_ref().map(|node| {
            let shard = node.sidecar.admin.shards.values().next().expect("it has a shard");
            shard.replica.borrow().state
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_retirement_leaves_the_standbys_of_other_nodes() {
    let for_long = |to| NewMigration { keep_standby_s: Some(1_000_000), ..order(to) };
    let (chain, [first, second]) = chain(1, for_long("edge-b"), for_long("edge-c")).await;
    assert_eq!(chain.states(), [Following; 3]);
    let undo = chain.orders.migrator.undo(first).await;
    assert!(matches!(undo, Err(CreateError::NotLeft { .. })), "the shard has moved on: {undo:?}");
    let retire = chain.orders.migrator.retire(second).await.expect("edge-b stands by");
    chain.ends(retire).await;
    assert_eq!(chain.states(), [Following, Gone, Following]);
    let retire = chain.orders.migrator.retire(first).await.expect("edge-a stands by");
    chain.ends(retire).await;
    assert_eq!(chain.states(), [Gone, Gone, Following]);
    let again = chain.orders.migrator.retire(first).await;
    assert!(matches!(again, Err(CreateError::NotLeft { .. })), "it is retired: {again:?}");
    let Chain { world, nodes, load, .. } = chain;
    world.serves_cleanly(load, &nodes[2], 100).await;
}

#[tokio::test(start_paused = true)]
async fn each_standby_goes_when_its_own_time_is_over() {
    let keeping = |to, keep_standby_s| NewMigration { keep_standby_s: Some(keep_standby_s), ..order(to) };
    let (chain, _) = chain(2, keeping("edge-b", 60), keeping("edge-c", 20)).await;
    assert_eq!(chain.states(), [Following; 3]);
    chain.world.shell.sleep(Duration::from_secs(30)).await;
    assert_eq!(chain.states(), [Following, Gone, Following]);
    chain.world.shell.sleep(Duration::from_secs(40)).await;
    assert_eq!(chain.states(), [Gone, Gone, Following]);
    let Chain { world, nodes, load, .. } = chain;
    world.serves_cleanly(load, &nodes[2], 100).await;
}
