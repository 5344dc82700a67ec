//! What a migration is to do when nothing goes wrong, and when somebody changes their mind.

use std::collections::BTreeMap;

use segue_tests::harness::{Hold, Process, SERVICE, Setup, binary};

use super::BROKER;
use crate::{RATE_PER_S, ends_clean};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_moves_there_and_back_under_load() {
    let cluster = Setup::two_nodes().on(BROKER).start().await;
    let recorder = cluster.recorder().await;
    let load = cluster.load(&["edge-a", "edge-b"], RATE_PER_S);
    load.acknowledges(100).await;
    let all = ["prepare", "checkpoint", "transfer", "restore", "replay", "verify", "handover"];
    // The way back leads to the standby that the first move left.
    let warm = ["prepare", "replay", "verify", "handover"];
    for (from, to, phases) in [("edge-a", "edge-b", &all[..]), ("edge-b", "edge-a", &warm[..])] {
        let id = cluster.rest.migrate(SERVICE, to).await;
        let ended = cluster.rest.ended(&id).await;
        assert_eq!(ended.outcome.as_deref(), Some("completed"), "{ended:?}");
        assert_eq!(ended.proof.as_deref(), Some("state"), "{ended:?}");
        assert_eq!((ended.from.as_str(), ended.to.as_str()), (from, to));
        let seen: Vec<&str> = ended.phases.iter().map(|time| time.name.as_str()).collect();
        assert_eq!(seen, phases);
        load.acknowledges(100).await;
    }
    ends_clean(&cluster, &recorder, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_migration_leaves_the_service_where_it_was() {
    let cluster = Setup::two_nodes().on(BROKER).hold(Hold::before("replay")).start().await;
    let hold = cluster.hold.clone().expect("the setup has one");
    let recorder = cluster.recorder().await;
    let load = cluster.load(&["edge-a"], RATE_PER_S);
    load.acknowledges(50).await;
    let id = cluster.rest.migrate(SERVICE, "edge-b").await;
    hold.held(&cluster.shell).await;
    assert_eq!(cluster.rest.migration(&id).await.phase, "replay");
    let answer = cluster.rest.cancel(&id).await;
    assert!((200..300).contains(&answer.status), "{} {}", answer.status, answer.text());
    hold.release();
    let ended = cluster.rest.ended(&id).await;
    assert_eq!(ended.outcome.as_deref(), Some("cancelled"), "{ended:?}");
    load.acknowledges(50).await;
    // It moves when it is asked again: the cancel left nothing in the way.
    let again = cluster.rest.migrate(SERVICE, "edge-b").await;
    let ended = cluster.rest.ended(&again).await;
    assert_eq!(ended.outcome.as_deref(), Some("completed"), "{ended:?}");
    ends_clean(&cluster, &recorder, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_comes_through_every_sidecar_whoever_owns() {
    let cluster = Setup::two_nodes().on(BROKER).start().await;
    for (node, id) in [("edge-a", "one"), ("edge-b", "two"), ("edge-a", "three")] {
        let answer = cluster.request(node, ("POST", "/append"), id).await.expect("an ingress answers");
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    for node in ["edge-a", "edge-b"] {
        let read = cluster.request(node, ("GET", "/ids"), "").await.expect("an ingress answers");
        assert_eq!(read.text(), "one\ntwo\nthree", "a fresh read at {node} shows all that was acknowledged before it");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_moves_a_service_and_says_how_it_went() {
    let cluster = Setup::two_nodes().on(BROKER).start().await;
    let migrator = format!("http://{}", cluster.rest.address());
    for (to, code, word) in [("edge-b", 0, "completed"), ("edge-x", 6, "edge-x")] {
        let arguments = ["migrate", SERVICE, "--to", to, "--watch", "--migrator", &migrator];
        let arguments = arguments.into_iter().map(str::to_owned).collect();
        let name = format!("migrate-{to}");
        let mut command = Process::start(cluster.folder(), &name, binary("segue"), arguments, BTreeMap::new());
        let ended = command.ended(&cluster.shell).await;
        assert_eq!(ended.code, Some(code), "{}", ended.log);
        assert!(ended.log.contains(word), "{}", ended.log);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_moves_by_a_strategy_undoes_and_retires() {
    let cluster = Setup::two_nodes().on(BROKER).start().await;
    let recorder = cluster.recorder().await;
    let load = cluster.load(&["edge-a", "edge-b"], RATE_PER_S);
    let migrator = format!("http://{}", cluster.rest.address());
    let segue = async |name: &str, words: &[&str]| {
        let words = [words, &["--watch", "--migrator", &migrator]].concat();
        let words = words.into_iter().map(str::to_owned);
        let mut command = Process::start(cluster.folder(), name, binary("segue"), words.collect(), BTreeMap::new());
        command.ended(&cluster.shell).await
    };
    let move_to_b = ["migrate", SERVICE, "--to", "edge-b", "--strategy"];
    let id = |log: &str| {
        let behind = log.split_once("/v1/migrations/").map(|(_, behind)| behind);
        behind.and_then(|behind| behind.get(..32)).unwrap_or_else(|| panic!("it tells an id: {log}")).to_owned()
    };
    let there = segue("precopy", &[&move_to_b[..], &["precopy"]].concat()).await;
    assert!(there.code == Some(0) && there.log.contains("pause"), "{}", there.log);
    let back = segue("undo", &["migration", "undo", &id(&there.log)]).await;
    assert!(back.code == Some(0) && back.log.contains("edge-b -> edge-a"), "{}", back.log);
    let there = segue("ms2m", &[&move_to_b[..], &["ms2m", "--pause-limit-ms", "30000"]].concat()).await;
    assert!(there.code == Some(0) && there.log.contains("proof       state"), "{}", there.log);
    let retired = segue("retire", &["migration", "retire", &id(&there.log)]).await;
    assert!(retired.code == Some(0) && !retired.log.contains("proof "), "{}", retired.log);
    for (name, word) in [("undo", "followed it"), ("cancel", "ended already")] {
        let refused = segue(&format!("{name}-late"), &["migration", name, &id(&there.log)]).await;
        assert!(refused.code == Some(3) && refused.log.contains(word), "{}", refused.log);
    }
    ends_clean(&cluster, &recorder, load).await;
}
