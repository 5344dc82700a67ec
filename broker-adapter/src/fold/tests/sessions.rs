//! Section 3, "Sessions and keys": which messages count.

use super::*;
use crate::fold::Bug;

#[test]
fn a_message_counts_if_and_only_if_it_is_its_session_s_last_counted_sequence_plus_one() {
    let mut shard = Shard::owned(100);
    assert_eq!(shard.see(message(1, 1, Some(0), own(0))), Verdict::Apply);
    assert_eq!(shard.see(message(1, 1, Some(0), own(0))), void(Void::Sequence), "doubled");
    assert_eq!(shard.see(message(1, 3, None, own(0))), void(Void::Sequence), "one is missing");
    assert_eq!(shard.see(message(1, 2, None, own(0))), Verdict::Apply);
    assert_eq!(shard.see(message(1, 3, None, own(0))), Verdict::Apply, "sent again behind the missing one");
    assert_eq!(shard.see(message(1, 2, None, own(0))), void(Void::Sequence), "late");
    assert_eq!(shard.fold.count(), Count(3));
    assert_eq!(shard.fold.session(Session::from_bits(1)).unwrap().last, Sequence(3));
}

#[test]
fn a_session_begins_with_sequence_1_and_a_base() {
    let mut shard = Shard::owned(100);
    assert_eq!(shard.see(message(1, 2, Some(0), own(0))), void(Void::SessionUnknown));
    assert_eq!(shard.see(message(1, 1, None, own(0))), void(Void::SessionUnknown));
    assert_eq!(shard.see(message(1, 0, Some(0), own(0))), void(Void::SessionUnknown));
    assert_eq!(shard.see(message(1, 1, Some(0), own(0))), Verdict::Apply);
}

#[test]
fn a_first_record_counts_only_within_k_counts_of_its_base() {
    let mut shard = Shard::owned(4);
    shard.pass_counts(10);
    assert_eq!(shard.see(message(1, 1, Some(6), own(10))), void(Void::SessionUnknown), "K counts back");
    assert_eq!(shard.see(message(1, 1, Some(11), own(10))), void(Void::SessionUnknown), "nobody has read the future");
    assert_eq!(shard.see(message(1, 1, Some(7), own(10))), Verdict::Apply);
    assert_eq!(shard.see(message(2, 1, Some(11), own(11))), Verdict::Apply);
}

#[test]
fn a_session_is_forgotten_k_counts_after_its_last_counted_record() {
    let mut shard = Shard::owned(4);
    shard.see(message(1, 1, Some(0), own(0)));
    shard.pass_counts(4);
    assert!(shard.fold.session(Session::from_bits(1)).is_some());
    shard.pass_counts(1);
    assert_eq!(shard.fold.session(Session::from_bits(1)), None);
    assert_eq!(shard.see(message(1, 2, None, own(6))), void(Void::SessionUnknown));
    assert_eq!(shard.see(message(1, 1, Some(0), own(0))), void(Void::SessionUnknown), "its base is as old as it");
}

#[test]
fn every_counted_record_of_a_session_keeps_it_and_a_void_one_does_not() {
    let mut shard = Shard::owned(4);
    shard.see(message(1, 1, Some(0), own(0)));
    shard.pass_counts(3);
    assert_eq!(shard.see(message(1, 2, None, own(4))), Verdict::Apply);
    shard.pass_counts(4);
    assert_eq!(shard.see(message(1, 2, None, own(4))), void(Void::Sequence));
    shard.pass_counts(1);
    assert_eq!(shard.fold.session(Session::from_bits(1)), None);
}

#[test]
fn a_close_is_the_first_record_of_the_next_session_and_counts() {
    let mut shard = Shard::owned(100);
    shard.see(message(1, 1, Some(0), own(0)));
    assert_eq!(shard.see(close(2, 1, Some(1), 1)), Verdict::Closed);
    assert_eq!(shard.fold.count(), Count(2));
    assert_eq!(shard.see(message(2, 2, None, own(2))), Verdict::Apply);
}

#[test]
fn nothing_of_a_closed_session_counts() {
    let mut shard = Shard::owned(100);
    shard.see(message(1, 1, Some(0), own(0)));
    shard.see(close(2, 1, Some(1), 1));
    assert_eq!(shard.see(message(1, 2, None, own(1))), void(Void::SessionClosed));
    assert!(shard.fold.session(Session::from_bits(1)).unwrap().closed);
}

#[test]
fn a_session_closed_before_any_of_it_counted_never_begins() {
    let mut shard = Shard::owned(4);
    assert_eq!(shard.see(close(2, 1, Some(0), 1)), Verdict::Closed);
    assert_eq!(shard.see(message(1, 1, Some(0), own(0))), void(Void::SessionClosed));
    shard.pass_counts(5);
    assert_eq!(shard.fold.session(Session::from_bits(1)), None, "forgotten K counts after its close");
    assert_eq!(shard.see(message(1, 1, Some(0), own(0))), void(Void::SessionUnknown));
}

#[test]
fn a_void_close_closes_nothing() {
    let mut shard = Shard::owned(100);
    shard.see(message(1, 1, Some(0), own(0)));
    shard.see(message(2, 1, Some(0), own(0)));
    assert_eq!(shard.see(close(2, 1, Some(0), 1)), void(Void::Sequence));
    assert_eq!(shard.see(message(1, 2, None, own(0))), Verdict::Apply);
}

#[test]
fn a_second_close_does_not_renew_a_closed_session() {
    let mut shard = Shard::owned(4);
    shard.see(message(1, 1, Some(0), own(0)));
    shard.see(close(2, 1, Some(1), 1));
    shard.pass_counts(3);
    assert_eq!(shard.see(close(3, 1, Some(5), 1)), Verdict::Closed);
    assert!(shard.fold.session(Session::from_bits(1)).is_some());
    shard.pass_counts(1);
    assert_eq!(shard.fold.session(Session::from_bits(1)), None);
}

#[test]
fn only_messages_and_closes_are_counted() {
    let mut shard = Shard::owned(100);
    shard.see(mark());
    shard.see(digest(a(), 1));
    shard.see(fence(2, replica("b", 1)));
    assert_eq!(shard.fold.count(), Count(0));
}

#[cfg(feature = "test-hooks")]
#[test]
fn without_the_session_rule_a_doubled_message_counts_twice() {
    let mut shard = Shard::owned(100);
    shard.fold = shard.fold.with_rules(Rules::planting(Bug::SequenceGap));
    assert_eq!(shard.see(message(1, 1, Some(0), own(0))), Verdict::Apply);
    assert_eq!(shard.see(message(1, 1, Some(0), own(0))), Verdict::Apply);
}
