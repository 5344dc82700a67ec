//! The oracle against runs with one thing planted in each.

use std::time::Duration;

use broker_adapter::ids::{Epoch, Incarnation, MessageName, Position, Replica, Sequence, Session};

use super::*;

const FIRST_FENCE: u64 = 1;
const HANDOVER_FENCE: u64 = 5;

fn replica(node: &str) -> Replica {
    Replica { node: node.parse().expect("a good name"), incarnation: Incarnation::from_bits(7) }
}

/// A clean run: a fence to `a`, the inputs m1 to m3, a fence to `b`, the inputs m4 to m6; every request answered.
fn clean() -> Evidence {
    let mut evidence = Evidence::default();
    let mut model = Chain::default();
    for (number, place) in [2, 3, 4, 6, 7, 8].into_iter().enumerate() {
        let id = format!("m{}", number + 1);
        let sequence = Sequence(number as u64 + 1);
        let name = MessageName { session: Session::from_bits(1), sequence };
        let (status, body) = model.apply(id.as_bytes());
        let due = Duration::from_millis(number as u64);
        let completed = Some(due + Duration::from_millis(2));
        let outcome = Outcome::Reply { status, body };
        let (epoch, node) = if place < HANDOVER_FENCE { (1, "a") } else { (2, "b") };
        let given = Some(GivenReply { position: Position(place), epoch: Epoch(epoch), replica: replica(node) });
        evidence.observations.push(Observation { id: id.clone(), due, sent: due, completed, outcome, given });
        evidence.applied.push(Applied { position: Position(place), name, body: id.into() });
    }
    for (epoch, place, node) in [(1, FIRST_FENCE, "a"), (2, HANDOVER_FENCE, "b")] {
        let (position, epoch) = (Position(place), Epoch(epoch));
        evidence.fences.push(CountedFence { position, epoch, owner: replica(node) });
    }
    evidence.states.push(state("a", Some(HANDOVER_FENCE), &["m1", "m2", "m3"]));
    evidence.states.push(state("b", Some(HANDOVER_FENCE), &["m1", "m2", "m3"]));
    evidence.states.push(state("b", None, &["m1", "m2", "m3", "m4", "m5", "m6"]));
    evidence
}

fn state(node: &str, after: Option<u64>, ids: &[&str]) -> ServiceState {
    let hash = Chain::of(ids.iter().copied()).value().hash.to_string();
    let ids = ids.iter().map(ToString::to_string).collect();
    ServiceState { replica: node.to_owned(), after: after.map(Position), ids, hash }
}

fn findings(evidence: &Evidence) -> Vec<Finding> {
    check(evidence, &mut Chain::default())
}

#[test]
fn a_clean_run_gives_no_findings() {
    assert_eq!(findings(&clean()), []);
}

#[test]
fn an_acknowledged_input_that_the_log_does_not_apply_is_lost() {
    let mut run = clean();
    run.applied.pop();
    run.states.pop();
    let lost = Finding::Lost { id: "m6".into(), place: "the log".into() };
    assert_eq!(findings(&run), [lost]);
}

#[test]
fn an_input_that_a_service_left_out_is_lost() {
    for after in [None, Some(8)] {
        let mut run = clean();
        run.states.push(state("c", after, &["m1", "m2", "m4", "m5", "m6"]));
        assert_eq!(findings(&run), [Finding::Lost { id: "m3".into(), place: "c".into() }]);
    }
}

#[test]
fn a_service_that_stops_short_of_its_position_lost_the_rest() {
    let mut run = clean();
    run.states.push(state("c", Some(6), &["m1", "m2", "m3"]));
    assert_eq!(findings(&run)[0], Finding::Lost { id: "m4".into(), place: "c".into() });
}

#[test]
fn an_input_applied_twice_by_a_service_is_doubled() {
    let mut run = clean();
    run.states.push(state("c", None, &["m1", "m2", "m2", "m3"]));
    assert_eq!(findings(&run), [Finding::Doubled { id: "m2".into(), place: "c".into(), times: 2 }]);
}

#[test]
fn an_input_applied_under_two_names_is_doubled() {
    let mut run = clean();
    let mut again = run.applied[5].clone();
    again.position = Position(9);
    run.applied.push(again);
    let doubled = Finding::Doubled { id: "m6".into(), place: "the log".into(), times: 2 };
    assert!(findings(&run).contains(&doubled));
}

#[test]
fn a_swap_is_a_reordering() {
    let mut run = clean();
    run.states.push(state("c", None, &["m1", "m3", "m2", "m4"]));
    let swapped = Finding::Reordered { replica: "c".into(), id: "m2".into(), expected: 2, found: 3 };
    assert_eq!(findings(&run), [swapped]);
}

#[test]
fn a_text_that_the_log_does_not_have_is_invented() {
    let mut run = clean();
    run.states.push(state("c", None, &["m1", "x"]));
    assert_eq!(findings(&run), [Finding::Invented { replica: "c".into(), id: "x".into() }]);
}

#[test]
fn a_service_that_ran_past_its_position_is_found() {
    let mut run = clean();
    run.states.push(state("c", Some(3), &["m1", "m2", "m3"]));
    assert_eq!(findings(&run), [Finding::Invented { replica: "c".into(), id: "m3".into() }]);
}

#[test]
fn two_fences_of_one_epoch_are_a_second_owner() {
    let mut run = clean();
    let (position, epoch) = (Position(9), Epoch(2));
    run.fences.push(CountedFence { position, epoch, owner: replica("c") });
    let second = Finding::SecondOwner { epoch, first: Some(replica("b")), second: replica("c"), reply: None };
    assert_eq!(findings(&run), [second]);
}

#[test]
fn a_fence_that_skips_an_epoch_is_found() {
    let mut run = clean();
    let (position, epoch) = (Position(9), Epoch(4));
    run.fences.push(CountedFence { position, epoch, owner: replica("a") });
    assert_eq!(findings(&run), [Finding::EpochSkipped { position, expected: Epoch(3), found: epoch }]);
}

#[test]
fn a_zombies_reply_behind_the_fence_is_a_second_owner() {
    let mut run = clean();
    run.given.push(GivenReply { position: Position(6), epoch: Epoch(1), replica: replica("a") });
    let (epoch, reply) = (Epoch(2), Some(Position(6)));
    let second = Finding::SecondOwner { epoch, first: Some(replica("b")), second: replica("a"), reply };
    assert_eq!(findings(&run), [second]);
}

#[test]
fn a_reply_that_its_client_got_from_a_zombie_is_a_second_owner() {
    let mut run = clean();
    run.observations[3].given = Some(GivenReply { position: Position(6), epoch: Epoch(1), replica: replica("a") });
    assert!(matches!(&findings(&run)[..], [Finding::SecondOwner { epoch: Epoch(2), .. }]));
}

#[test]
fn a_standbys_reply_is_a_second_owner() {
    let mut run = clean();
    run.given.push(GivenReply { position: Position(2), epoch: Epoch(1), replica: replica("b") });
    let (epoch, reply) = (Epoch(1), Some(Position(2)));
    let second = Finding::SecondOwner { epoch, first: Some(replica("a")), second: replica("b"), reply };
    assert_eq!(findings(&run), [second]);
}

#[test]
fn a_later_owner_may_give_out_an_earlier_reply() {
    let mut run = clean();
    run.given.push(GivenReply { position: Position(2), epoch: Epoch(2), replica: replica("b") });
    assert_eq!(findings(&run), []);
}

#[test]
fn an_answer_that_belongs_to_another_input_is_wrong() {
    let mut run = clean();
    run.observations[1].outcome = run.observations[2].outcome.clone();
    assert!(matches!(&findings(&run)[..], [Finding::WrongReply { id, .. }] if id == "m2"));
}

#[test]
fn a_right_body_with_a_wrong_status_is_wrong() {
    let mut run = clean();
    let Outcome::Reply { status, .. } = &mut run.observations[0].outcome else { panic!("a clean run has replies") };
    *status = 500;
    assert!(matches!(&findings(&run)[..], [Finding::WrongReply { id, .. }] if id == "m1"));
}

#[test]
fn states_that_differ_at_the_fence_are_found() {
    let mut run = clean();
    run.states[1].hash = "other".into();
    let after = format!("position {HANDOVER_FENCE}");
    let from = |right: &str| Finding::StateDiffers { left: "b".into(), right: right.into(), after: after.clone() };
    assert_eq!(findings(&run), [from("the model"), from("a")]);
}

#[test]
fn a_refused_input_that_is_applied_all_the_same_is_found() {
    let mut run = clean();
    run.observations[3].outcome = Outcome::Refused { status: 503 };
    assert_eq!(findings(&run), [Finding::RefusedButApplied { id: "m4".into(), status: 503 }]);
}

#[test]
fn an_input_refused_first_and_accepted_when_repeated_is_in_order() {
    let mut run = clean();
    let mut refused = run.observations[3].clone();
    refused.outcome = Outcome::Refused { status: 503 };
    run.observations.push(refused);
    assert_eq!(findings(&run), []);
}

#[test]
fn an_unknown_outcome_fits_an_applied_and_a_missing_input() {
    let mut run = clean();
    let mut never_appended = run.observations[3].clone();
    run.observations[3].outcome = Outcome::Unknown;
    never_appended.id = "never appended".into();
    never_appended.outcome = Outcome::Unknown;
    run.observations.push(never_appended);
    assert_eq!(findings(&run), []);
}

#[test]
fn a_hanging_request_is_not_answered() {
    let mut run = clean();
    run.observations[3].outcome = Outcome::Hung;
    assert_eq!(findings(&run), [Finding::NotAnswered { id: "m4".into(), sent_ms: 3 }]);
}

#[test]
fn a_skipped_input_deserves_an_error() {
    let mut run = clean();
    let skipped = run.applied.remove(5);
    run.skipped.push(skipped);
    run.states.pop();
    assert!(matches!(&findings(&run)[..], [Finding::WrongReply { id, .. }] if id == "m6"));
    run.observations[5].outcome = Outcome::Reply { status: 500, body: "poisoned".into() };
    assert_eq!(findings(&run), []);
}
