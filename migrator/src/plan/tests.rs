//! Plans from made-up facts.

use std::time::Duration;

use broker_adapter::fold::CountedFence;
use broker_adapter::ids::{Epoch, Hash, MigrationId, Position, Replica};
use broker_adapter::record::Cause;
use sidecar::command::{Announcement, ReplicaState, ShardStatus};

use super::*;
use crate::bench::{replica, status, to};
use crate::book::{Book, Word};
use crate::directory::Directory;
use crate::handle::NewMigration;
use crate::machine::{Event, StepEnded, What};

fn announced(node: &str, shard: ShardStatus) -> Announcement {
    Announcement {
        from: replica(node, 1),
        class: "edge".to_owned(),
        arch: "x86_64".to_owned(),
        started_ms: 1,
        admin: String::new(),
        shards: vec![shard],
        leaving: false,
        load: None,
    }
}

fn cold() -> ShardStatus {
    ShardStatus { replica: ReplicaState::None, ..status() }
}

/// Records arrive so fast, as `a` and `b` tell for two seconds.
fn directory(arrival_per_s: u64) -> Directory {
    let mut directory = Directory::default();
    for step in 0..5 {
        let now = Duration::from_millis(step * 500);
        let tail = Position(1_000 + step * arrival_per_s / 2);
        directory.hear(announced("a", ShardStatus { tail, applied: tail, ..status() }), now);
        directory.hear(announced("b", ShardStatus { tail, ..cold() }), now);
    }
    directory
}

/// A move that took 10 ms in each phase, 100 ms in the replay of 500 records, with a state of 1,000 bytes.
fn book() -> Book {
    use sidecar::command::StepDone;
    let mut book = Book::default();
    let id = MigrationId::from_bits(7);
    let mut order = crate::machine::tests::order();
    order.id = id;
    let (source, target) = (replica("a", 1), replica("b", 1));
    let first =
        crate::machine::AttemptStart { number: 1, epoch: Epoch(2), source: source.clone(), target: target.clone() };
    let mut at_ms = order.accepted_ms;
    book.read(&Word::Accepted { order: Box::new(order), first });
    let mut happened = |book: &mut Book, what, ms| {
        at_ms += ms;
        book.read(&Word::Happened { migration: id, event: Event { at_ms, what } }).expect("it says something new");
    };
    let ended = |step: &str, from: &Replica, done| {
        What::StepEnded(StepEnded { attempt: 1, step: step.to_owned(), from: from.clone(), result: Ok(done) })
    };
    let saved = StepDone::Checkpoint {
        position: Position(100),
        manifest: Hash::of(b"m"),
        state_bytes: 1_000,
        stored_bytes: 1,
        reused_bytes: 0,
    };
    let agreed = StepDone::Agreed {
        position: Position(590),
        hash: Hash::default(),
        state: Some(Hash::default()),
        replies_compared: 1,
    };
    happened(&mut book, ended("prepare-source", &source, StepDone::Plain), 5);
    happened(&mut book, ended("prepare-target", &target, StepDone::Prepared { warm: None, differs: false }), 5);
    happened(&mut book, ended("checkpoint", &source, saved), 10);
    happened(&mut book, ended("transfer", &target, StepDone::Plain), 10);
    happened(&mut book, ended("restore", &target, StepDone::Plain), 10);
    happened(&mut book, ended("replay", &target, StepDone::Plain), 100);
    happened(&mut book, ended("verify", &target, agreed), 10);
    let fence = CountedFence {
        position: Position(600),
        epoch: Epoch(2),
        owner: target,
        cause: Cause::Handover,
        migration: Some(id),
        retires: None,
    };
    happened(&mut book, What::FenceRead(fence), 10);
    book
}

fn planned(directory: &Directory, book: &Book, wish: &NewMigration) -> Plan {
    let now = Duration::from_millis(2_000);
    plan(wish, &Facts { directory, book, moving: None, running: (0, 64), owner: None, now })
}

fn failed(plan: &Plan) -> Vec<&str> {
    plan.checks.iter().filter(|check| !check.ok).map(|check| check.code.as_str()).collect()
}

#[test]
fn what_was_never_measured_is_unknown_and_still_allowed() {
    let plan = planned(&directory(0), &Book::default(), &to("b"));
    assert!(plan.ok && failed(&plan).is_empty(), "{:?}", plan.checks);
    assert_eq!((plan.total_ms, plan.blackout_ms, plan.state_bytes), (None, None, None));
    assert!(plan.phases.iter().all(|phase| phase.basis == Basis::Unknown));
    assert_eq!((plan.from.unwrap().as_str(), plan.strategy.as_str()), ("a", "live"));
}

#[test]
fn the_times_are_those_of_the_moves_before() {
    let plan = planned(&directory(1_000), &book(), &to("b"));
    let times: Vec<_> = plan.phases.iter().map(|phase| (phase.name.name(), phase.expected_ms.unwrap())).collect();
    // 1,000/s for 30 ms wait, and 4,000/s more are replayed than arrive.
    let wanted = [
        ("prepare", 10),
        ("checkpoint", 10),
        ("transfer", 10),
        ("restore", 10),
        ("replay", 10),
        ("verify", 10),
        ("handover", 10),
    ];
    assert_eq!(times, wanted);
    assert_eq!((plan.total_ms, plan.blackout_ms, plan.state_bytes), (Some(70), Some(10), Some(1_000)));
    assert_eq!((plan.converges, plan.replay_per_s, plan.arrival_per_s), (Some(true), Some(5_000.0), Some(1_000.0)));
    assert!(plan.ok && plan.sentence.starts_with("will take about 70 ms"), "{}", plan.sentence);
}

#[test]
fn more_than_is_replayed_does_not_converge_and_is_a_warning() {
    let plan = planned(&directory(6_000), &book(), &to("b"));
    assert_eq!((plan.converges, failed(&plan)), (Some(false), vec!["converges"]));
    let check = plan.checks.iter().find(|check| check.code == "converges").unwrap();
    assert_eq!(check.detail, "will not converge: 6000/s in, 5000/s replayed");
    assert!(plan.ok && check.severity == Severity::Warning && check.hint.is_some());
}

#[test]
fn a_longer_blackout_than_allowed_is_an_error() {
    let wish = NewMigration { max_blackout_ms: Some(9), ..to("b") };
    let plan = planned(&directory(0), &book(), &wish);
    assert!(!plan.ok && failed(&plan) == ["blackout"], "{:?}", plan.checks);
    let plan = planned(&directory(0), &book(), &NewMigration { max_blackout_ms: Some(10), ..to("b") });
    assert!(plan.ok);
    let paused = NewMigration { strategy: Some("precopy".to_owned()), max_blackout_ms: Some(30), ..to("b") };
    assert_eq!(planned(&directory(0), &book(), &paused).blackout_ms, None, "a pause was never measured");
}

#[test]
fn checks_that_need_one_that_failed_are_left_out() {
    let plan = planned(&directory(0), &Book::default(), &to("c"));
    assert_eq!(failed(&plan), ["node-known"]);
    assert!(!plan.ok && plan.sentence.starts_with("refused: there is no node c"), "{}", plan.sentence);
    assert!(plan.checks.iter().all(|check| check.code != "target-runs-service" && check.code != "blackout"));
    assert_eq!(failed(&planned(&directory(0), &Book::default(), &to("a"))), ["target-is-not-owner"]);
    let all = planned(&directory(0), &Book::default(), &to("b"));
    let codes: Vec<&str> = all.checks.iter().map(|check| check.code.as_str()).collect();
    let wanted = [
        "strategy-known",
        "limits",
        "service-known",
        "node-known",
        "target-runs-service",
        "not-moving",
        "node-alive",
        "capacity",
        "owner-known",
        "target-is-not-owner",
        "source-alive",
        "converges",
        "blackout",
    ];
    assert_eq!(codes, wanted);
}

#[test]
fn a_node_that_is_silent_is_named_with_what_to_do() {
    let mut directory = directory(0);
    directory.hear(announced("a", status()), Duration::from_secs(20));
    let facts = Facts {
        directory: &directory,
        book: &Book::default(),
        moving: None,
        running: (0, 64),
        owner: None,
        now: Duration::from_secs(20),
    };
    let plan = plan(&to("b"), &facts);
    let check = plan.checks.iter().find(|check| check.code == "node-alive").unwrap();
    assert!(!check.ok && check.hint.as_ref().unwrap().contains("look at the sidecar of b"), "{check:?}");
}

#[test]
fn a_target_that_stands_by_needs_nothing_carried() {
    let mut directory = directory(0);
    directory.hear(announced("b", status()), Duration::from_millis(1_900));
    let plan = planned(&directory, &Book::default(), &to("b"));
    let carried = plan.phases.iter().find(|phase| phase.name == Phase::Transfer).unwrap();
    assert_eq!((carried.expected_ms, carried.detail.contains("stands by")), (Some(0), true));
}
