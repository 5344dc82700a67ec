//! What shows that source and target are equal, and what is said when they are not (invariant 8); in one process, paused time.

use std::time::Duration;

use broker_adapter::fold::Fold;
use broker_adapter::memory::{Delay, Faults as BrokerFaults};
use broker_adapter::record::Record;
use migrator::machine::{Ending, Phase, Proof};
use migrator::{MigrationView, NewMigration};
use segue_tests::checker::Evidence;
use segue_tests::harness::{Load, wait_for};
use segue_tests::ledger::Faults;
use serde_json::{Value, json};
use sidecar::command::Differs;

use crate::one_process::{Node, Pair, With, World};

/// Every reply differs in its `hash`, and nothing tells whether the states do.
fn blind() -> Faults {
    Faults { nondeterministic: true, not_canonical: true, ..Faults::default() }
}

/// The settings in the log, in their order.
fn settings(world: &World) -> Vec<String> {
    let entries = world.broker.dump("ledger.0");
    let words = entries.iter().filter_map(|entry| match &entry.record {
        Record::Settings(word) => Some(format!("{}: {:?}", word.writer.replica.node, word.settings.ignore)),
        _ => None,
    });
    words.collect()
}

#[tokio::test(start_paused = true)]
async fn a_part_of_replies_that_is_ignored_keeps_nobody_from_moving() {
    let more = json!({ "settings": { "ignore": ["json:/hash"] } });
    let Pair { world, a: _a, b: _b, orders, load } = With { more, ..With::calm(1) }.faults(&blind()).start().await;
    load.acknowledges(50).await;
    let id = orders.begin(&world.shell, "edge-b").await;
    let ended = orders.end(&world.shell, id).await;
    assert_eq!((ended.outcome, ended.proof), (Some(Ending::Completed), Some(Proof::RepliesOnly)), "{ended:?}");
    load.acknowledges(50).await;
    assert_eq!(settings(&world).len(), 1, "the nodes have the same settings: {:?}", settings(&world));
}

#[tokio::test(start_paused = true)]
async fn new_settings_of_the_owner_come_into_force_once_and_a_node_without_any_leaves_them() {
    let Pair { world, a, b: _b, orders, load } = With::rough(1).faults(&blind()).start().await;
    load.acknowledges(50).await;
    drop(a);
    let more = json!({ "settings": { "ignore": ["json:/hash", "header:Set-Cookie"], "keys_remembered": 7 } });
    let _a = world.start_with("edge-a", true, blind(), more).await;
    load.acknowledges(200).await;
    let id = orders.begin(&world.shell, "edge-b").await;
    let ended = orders.end(&world.shell, id).await;
    assert_eq!((ended.outcome, ended.proof), (Some(Ending::Completed), Some(Proof::RepliesOnly)), "{ended:?}");
    load.acknowledges(100).await;
    let mut words = settings(&world);
    // What was appended twice counts once.
    words.dedup();
    assert_eq!(words, ["edge-a: []", r#"edge-a: [Json("/hash"), Header("set-cookie")]"#]);
}

/// Moves once under load to `edge-b` and tells how that ended.
async fn moved(faults: Faults, more: Value, allow_unproven: bool) -> MigrationView {
    let Pair { world, a: _a, b: _b, orders, load } = With { more, ..With::calm(1) }.faults(&faults).start().await;
    load.acknowledges(50).await;
    let id = wait_for(&world.shell, "the order to be accepted", || async {
        let (service, to) = ("ledger".parse().expect("a good name"), "edge-b".parse().expect("a good name"));
        let order = NewMigration { allow_unproven, ..NewMigration::new(service, to) };
        orders.migrator.create(order).await.ok()
    })
    .await;
    let ended = orders.end(&world.shell, id).await;
    load.acknowledges(50).await;
    ended
}

#[tokio::test(start_paused = true)]
async fn what_is_compared_is_chosen_per_service() {
    let proved = async |proof: &str| {
        let ended = moved(Faults::default(), json!({ "proof": proof }), false).await;
        (ended.outcome, ended.proof)
    };
    assert_eq!(proved("state").await, (Some(Ending::Completed), Some(Proof::State)));
    assert_eq!(proved("replies").await, (Some(Ending::Completed), Some(Proof::RepliesOnly)));
    assert_eq!(proved("none").await, (Some(Ending::RolledBack), Some(Proof::Unproven)));
}

#[tokio::test(start_paused = true)]
async fn an_unproven_migration_is_refused_with_ways_on_and_may_be_allowed() {
    let ended = moved(Faults::default(), json!({ "proof": "none" }), false).await;
    let error = ended.error.unwrap();
    for way in ["canonical", "state_hash", "precopy", "allow_unproven", "require_proof"] {
        assert!(error.contains(way), "{way}: {error}");
    }
    let allowed = moved(Faults::default(), json!({ "proof": "none" }), true).await;
    assert_eq!((allowed.outcome, allowed.proof), (Some(Ending::Completed), Some(Proof::Unproven)));
}

#[tokio::test(start_paused = true)]
async fn replies_that_differ_end_a_migration_whatever_proof_is_demanded() {
    let ended = moved(Faults { nondeterministic: true, ..Faults::default() }, json!({ "proof": "none" }), true).await;
    assert_eq!(ended.outcome, Some(Ending::Diverged), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn a_state_hash_proves_states_whose_saves_are_not_canonical_and_finds_what_replies_hide() {
    let hash = json!({ "state_hash": { "http": "/ids" } });
    let ended = moved(Faults { not_canonical: true, ..Faults::default() }, hash, false).await;
    assert_eq!((ended.outcome, ended.proof), (Some(Ending::Completed), Some(Proof::State)), "{ended:?}");
    let hidden = json!({ "settings": { "ignore": ["json:/hash"] }, "state_hash": { "http": "/value" } });
    let ended = moved(blind(), hidden, false).await;
    assert_eq!(ended.outcome, Some(Ending::Diverged), "{ended:?}");
    assert!(ended.error.as_ref().unwrap().contains("states"), "{ended:?}");
    let missing = json!({ "state_hash": { "http": "/nowhere" } });
    let ended = moved(Faults::default(), missing, false).await;
    assert_eq!((ended.outcome, ended.proof), (Some(Ending::Completed), Some(Proof::RepliesOnly)), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn a_divergence_tells_its_first_record_and_part_and_keeps_both_replies() {
    let Pair { world, a: _a, b: _b, orders, load } =
        With::calm(1).faults(&Faults { nondeterministic: true, ..Faults::default() }).start().await;
    load.acknowledges(30).await;
    let id = orders.begin(&world.shell, "edge-b").await;
    let ended = orders.end(&world.shell, id).await;
    assert_eq!(ended.outcome, Some(Ending::Diverged), "{ended:?}");
    let divergence = ended.divergence.clone().expect("it tells where");
    assert_eq!((divergence.what, divergence.field.as_deref()), (Differs::Replies, Some("json:/hash")), "{ended:?}");
    assert_ne!(divergence.owner, divergence.target);
    let position = divergence.position.expect("the owner told it");
    let evidence = Evidence::from_log(&world.broker.dump("ledger.0"), "/append");
    let behind = evidence.applied.iter().find(|message| message.position > divergence.after).expect("there is a load");
    assert_eq!(position, behind.position, "the first message behind the checkpoint: {divergence:?}");
    assert!(position <= divergence.upto, "{divergence:?}");
    let error = ended.error.expect("it says why");
    let object = divergence.replies.expect("both replies are kept");
    assert!(error.contains("json:/hash") && error.contains("Segue-Seed") && error.contains(&object), "{error}");
    let kept = world.broker.connect("reader").store().get(object).await.expect("it is in the store");
    let kept: Value = serde_json::from_slice(&kept).expect("it is JSON");
    let body = |whose: &str| kept[whose]["body"].as_str().expect("a text").to_owned();
    assert!(body("owners_reply").contains(divergence.owner.unwrap().trim_matches('"')), "{kept}");
    assert!(body("replicas_reply").contains(divergence.target.unwrap().trim_matches('"')), "{kept}");
}

#[tokio::test(start_paused = true)]
async fn a_divergence_is_told_even_if_the_owner_s_mail_is_lost() {
    let mut exact = 0;
    for seed in 1..=6 {
        let Pair { world, a: _a, b: _b, orders, load } = With::rough(seed).faults(&blind()).start().await;
        load.acknowledges(30).await;
        let id = orders.begin(&world.shell, "edge-b").await;
        let ended = orders.end(&world.shell, id).await;
        assert_eq!(ended.outcome, Some(Ending::Diverged), "seed {seed}: {ended:?}");
        let divergence = ended.divergence.expect("it tells the range at least");
        assert!(divergence.after < divergence.upto, "seed {seed}: {divergence:?}");
        exact += usize::from(divergence.field.is_some());
        load.acknowledges(30).await;
    }
    assert!(exact > 3, "mail that is lost is asked for again: {exact} of 6");
}

fn trouble(node: &Node) -> Option<String> {
    node.sidecar.admin.shards.values().find_map(|views| views.replica.borrow().trouble.clone())
}

/// The proof was made at a mark; what comes between it and the fence, only the source can find.
#[tokio::test(start_paused = true)]
async fn a_source_that_differs_from_the_new_owner_raises_an_alarm_and_keeps_its_replica() {
    // No digest comes by time or count between the mark and the fence.
    let more = json!({ "settings": { "digest_every_ms": 60_000, "digest_every_records": 1_000_000 } });
    let Pair { world, a, b, orders, load } = With { more, ..With::calm(1) }.start().await;
    load.acknowledges(30).await;
    let slow = Duration::from_millis(250);
    world.broker.set_faults(BrokerFaults { append_delay: Delay { min: slow, max: slow }, ..BrokerFaults::calm() });
    let id = orders.begin(&world.shell, "edge-b").await;
    wait_for(&world.shell, "the handover", || async {
        let view = orders.migrator.get(id).await.expect("the migrator runs").expect("the migration is known");
        (view.phase == Phase::Handover).then_some(())
    })
    .await;
    b.runner.misbehave(Faults { nondeterministic: true, ..Faults::default() });
    let ended = orders.end(&world.shell, id).await;
    assert_eq!(ended.outcome, Some(Ending::Completed), "it was proven at its mark: {ended:?}");
    let alarm = wait_for(&world.shell, "the exact alarm", || async {
        trouble(&a).filter(|trouble| trouble.contains("json:/hash"))
    })
    .await;
    for word in ["new owner edge-b", "is kept", "undo"] {
        assert!(alarm.contains(word), "{word}: {alarm}");
    }
    assert_eq!(trouble(&b), None);
    load.acknowledges(50).await;
    let replica = a.sidecar.admin.shards.values().next().unwrap().replica.borrow().clone();
    assert!(replica.reader.is_some() && !replica.may_answer, "kept, and answers nobody: {replica:?}");
    let told = orders.migrator.services().await.unwrap();
    let of_a = told[0].replicas.iter().find(|replica| replica.node.as_str() == "edge-a").unwrap();
    assert!(of_a.trouble.as_ref().is_some_and(|trouble| trouble.contains("undo")), "{of_a:?}");
    let undo = orders.migrator.undo(id).await.expect("its source was kept");
    let ended = orders.end(&world.shell, undo).await;
    assert_eq!((ended.outcome, ended.proof), (Some(Ending::Completed), Some(Proof::Unproven)), "{ended:?}");
    let phases: Vec<Phase> = ended.phases.iter().map(|phase| phase.name).collect();
    assert_eq!(phases, [Phase::Prepare, Phase::Replay, Phase::Handover], "its own state goes on");
    load.acknowledges(50).await;
    wait_for(&world.shell, "the alarm to end", || async { trouble(&a).is_none().then_some(()) }).await;
    // Now the other one differs; what is retired has no trouble any more.
    wait_for(&world.shell, "the alarm of the standby", || async { trouble(&b) }).await;
    let retire = orders.migrator.retire(undo).await.expect("a standby was left");
    assert_eq!(orders.end(&world.shell, retire).await.outcome, Some(Ending::Completed));
    wait_for(&world.shell, "its end", || async { trouble(&b).is_none().then_some(()) }).await;
}

#[tokio::test(start_paused = true)]
async fn digests_that_are_lost_are_written_again_at_a_mark_and_behind_a_fence() {
    for seed in 1..=10 {
        let Pair { world, a: _a, b, orders, load } = With::calm(seed).start().await;
        load.finish().await;
        world.broker.set_faults(BrokerFaults { append_lost_per_mille: 500, ..BrokerFaults::calm() });
        let id = orders.begin(&world.shell, "edge-b").await;
        let ended = orders.end(&world.shell, id).await;
        assert_eq!(ended.outcome, Some(Ending::Completed), "seed {seed}: {ended:?}");
        let shown = || async {
            let mut fold = Fold::new();
            world.broker.dump("ledger.0").iter().for_each(|entry| drop(fold.observe(entry)));
            let digest = &fold.last_digest()?.digest;
            let fence = fold.last_fence()?;
            (digest.writer.replica == b.sidecar.me && digest.position >= fence.position).then_some(())
        };
        wait_for(&world.shell, "the new owner's digest", shown).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_owner_whose_replay_contradicts_its_digests_says_so_and_goes_on() {
    let world = World::new(1, BrokerFaults::calm());
    let faults = Faults { nondeterministic: true, ..Faults::default() };
    let a = world.start("edge-a", true, faults).await;
    let load = Load::start(&world.shell, vec!["edge-a:80".into()], 100, "m");
    load.acknowledges(100).await;
    assert_eq!(trouble(&a), None);
    assert!(a.runner.kill(), "it runs a service");
    load.acknowledges(50).await;
    let alarm = wait_for(&world.shell, "the alarm", || async { trouble(&a) }).await;
    assert!(alarm.contains("contradicts the shard's own digests") && alarm.contains("Segue-Seed"), "{alarm}");
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_does_not_own_answers_reads_only_after_it_agreed_with_a_digest() {
    let more = json!({ "settings": { "digest_every_ms": 60_000, "digest_every_records": 1_000_000 } });
    let Pair { world, a, b, orders, load } = With { more, ..With::calm(1) }.start().await;
    load.acknowledges(30).await;
    let id = orders.begin(&world.shell, "edge-b").await;
    let states = |node: &Node| node.sidecar.admin.shards.values().next().unwrap().replica.borrow().clone();
    let mut silent = 0;
    while orders.migrator.get(id).await.unwrap().unwrap().outcome.is_none() {
        let replica = states(&b);
        let fold_owner = orders.migrator.services().await.unwrap()[0].owner.clone();
        let asked = orders.migrator.get(id).await.unwrap().unwrap().proof.is_some();
        if replica.reader.is_some() && !asked && fold_owner.is_some_and(|owner| owner.as_str() == "edge-a") {
            silent += usize::from(!replica.may_answer);
        }
        world.shell.sleep(Duration::from_millis(1)).await;
    }
    assert!(silent > 0, "the target was seen before it agreed, and it might not answer then");
    assert!(states(&b).may_answer, "it owns");
    // The old owner is a standby: the new owner's first word is a digest at its fence.
    wait_for(&world.shell, "the old owner to agree", || async { states(&a).may_answer.then_some(()) }).await;
}
