//! Invariant 5 and section 3: which of the messages that count are applied.

use super::*;

#[test]
fn a_repeated_key_counts_and_is_not_applied_again() {
    let mut shard = Shard::owned(100);
    assert_eq!(shard.see(message(1, 1, Some(0), client("order-17"))), Verdict::Apply);
    assert_eq!(shard.see(message(1, 2, None, client("order-17"))), repeat(1, 1, true));
    assert_eq!(shard.see(message(2, 1, Some(0), client("order-17"))), repeat(1, 1, true), "through another ingress");
    assert_eq!(shard.fold.count(), Count(3));
}

#[test]
fn a_key_reused_for_another_request_is_told_apart() {
    let mut shard = Shard::owned(100);
    shard.see(asking(1, 1, Some(0), client("order-17"), "one"));
    assert_eq!(shard.see(asking(1, 2, None, client("order-17"), "two")), repeat(1, 1, false));
}

#[test]
fn headers_do_not_make_another_request() {
    let mut shard = Shard::owned(100);
    shard.see(message(1, 1, Some(0), client("order-17")));
    let Record::Message(mut again) = message(1, 2, None, client("order-17")) else { unreachable!() };
    again.request.headers.push(crate::record::Header { name: "via".to_owned(), value: Bytes::from_static(b"b") });
    assert_eq!(shard.see(Record::Message(again)), repeat(1, 1, true));
}

#[test]
fn a_client_s_key_is_remembered_for_k_counts_and_a_repeat_does_not_renew_it() {
    let mut shard = Shard::owned(4);
    shard.see(message(1, 1, Some(0), client("order-17")));
    shard.pass_counts(2);
    assert_eq!(shard.see(message(1, 2, None, client("order-17"))), repeat(1, 1, true));
    assert_eq!(shard.see(message(1, 3, None, client("order-17"))), repeat(1, 1, true), "K counts later");
    assert_eq!(shard.see(message(1, 4, None, client("order-17"))), Verdict::Apply, "over K counts later");
}

#[test]
fn a_void_message_takes_no_key() {
    let mut shard = Shard::owned(100);
    assert_eq!(shard.see(message(1, 2, None, client("order-17"))), void(Void::SessionUnknown));
    assert_eq!(shard.see(message(1, 1, Some(0), client("order-17"))), Verdict::Apply);
}

#[test]
fn a_message_without_a_key_needs_no_entry() {
    let mut shard = Shard::owned(100);
    shard.pass_counts(10);
    assert_eq!(shard.fold.sizes().keys, 0);
}

#[test]
fn what_did_not_count_in_a_session_given_up_is_applied_once_under_its_first_key() {
    let mut shard = Shard::owned(100);
    shard.see(message(1, 1, Some(0), own(0)));
    shard.see(close(2, 1, Some(1), 1));
    assert_eq!(shard.see(message(2, 2, None, first(name(1, 2), 1))), Verdict::Apply);
    assert_eq!(shard.see(message(1, 2, None, own(1))), void(Void::SessionClosed), "the late original");
    shard.see(close(3, 1, Some(3), 2));
    assert_eq!(shard.see(message(3, 2, None, first(name(1, 2), 1))), repeat(2, 2, true), "given up again");
}

#[test]
fn what_counted_in_its_session_is_not_applied_again_under_its_first_key() {
    let mut shard = Shard::owned(100);
    shard.see(message(1, 1, Some(0), own(0)));
    shard.see(message(1, 2, None, own(0)));
    assert_eq!(shard.see(message(2, 1, Some(2), first(name(1, 2), 0))), repeat(1, 2, true));
    assert_eq!(shard.see(message(2, 2, None, first(name(1, 3), 0))), Verdict::Apply, "that one had not counted");
}

#[test]
fn an_original_that_lands_behind_its_repetition_is_not_applied() {
    let mut shard = Shard::owned(100);
    shard.see(message(1, 1, Some(0), own(0)));
    assert_eq!(shard.see(message(2, 1, Some(1), first(name(1, 2), 1))), Verdict::Apply);
    assert_eq!(shard.see(message(1, 2, None, own(1))), repeat(2, 1, true));
    assert_eq!(shard.see(message(1, 3, None, own(1))), Verdict::Apply, "its session goes on");
}

#[test]
fn a_message_over_k_counts_after_its_first_sending_is_not_applied() {
    let mut shard = Shard::owned(4);
    shard.pass_counts(10);
    assert_eq!(shard.see(message(1, 1, Some(10), own(6))), Verdict::Expired, "the eleventh count");
    assert_eq!(shard.see(message(1, 2, None, own(8))), Verdict::Apply);
    assert_eq!(shard.see(message(2, 1, Some(12), first(name(9, 9), 8))), Verdict::Expired);
    assert_eq!(shard.see(message(2, 2, None, first(name(9, 9), 10))), Verdict::Apply);
    assert_eq!(shard.fold.count(), Count(14), "they all count");
}

#[test]
fn a_first_name_is_never_applied_twice_however_late_its_repetition() {
    for later in 0..12 {
        let mut shard = Shard::owned(4);
        shard.see(message(1, 1, Some(0), own(0)));
        shard.pass_counts(later);
        let count = shard.fold.count().0;
        let verdict = shard.see(message(2, 1, Some(count), first(name(1, 1), 0)));
        assert_ne!(verdict, Verdict::Apply, "{later} counts later");
    }
}

#[test]
fn a_client_s_key_and_a_message_s_name_are_never_the_same() {
    let mut shard = Shard::owned(100);
    let text = name(1, 2).to_string();
    assert_eq!(shard.see(message(1, 1, Some(0), client(&text))), Verdict::Apply);
    assert_eq!(shard.see(message(1, 2, None, own(0))), Verdict::Apply);
    assert_eq!(shard.see(message(2, 1, Some(0), first(name(7, 7), 0))), Verdict::Apply);
    assert_eq!(shard.see(message(2, 2, None, client(&name(7, 7).to_string()))), Verdict::Apply);
}

#[test]
fn a_message_that_claims_a_count_nobody_can_have_read_is_not_applied() {
    let mut shard = Shard::owned(4);
    shard.pass_counts(2);
    assert_eq!(shard.see(message(1, 1, Some(2), first(name(9, 9), 3))), Verdict::Expired);
    assert_eq!(shard.see(message(1, 2, None, first(name(9, 9), u64::MAX))), Verdict::Expired);
    assert_eq!(shard.see(message(1, 3, None, first(name(9, 9), 4))), Verdict::Apply);
}

#[test]
fn a_message_whose_first_name_is_its_own_is_applied_once() {
    let mut shard = Shard::owned(100);
    assert_eq!(shard.see(message(1, 1, Some(0), first(name(1, 1), 0))), Verdict::Apply);
    assert_eq!(shard.see(message(2, 1, Some(1), first(name(1, 1), 0))), repeat(1, 1, true));
}

#[test]
fn a_key_is_found_under_the_name_that_was_applied() {
    let mut shard = Shard::owned(4);
    let find = |shard: &Shard, key: Key| shard.fold.find(&key);
    assert_eq!(find(&shard, client("order-17")), Found::Unknown);
    shard.see(message(1, 1, Some(0), client("order-17")));
    shard.see(message(2, 1, Some(0), client("order-17")));
    assert_eq!(find(&shard, client("order-17")), Found::Counted(name(1, 1)), "the first of two");
    shard.see(message(1, 2, None, own(2)));
    assert_eq!(find(&shard, first(name(1, 2), 2)), Found::Counted(name(1, 2)), "under its own name");
    assert_eq!(find(&shard, first(name(1, 3), 2)), Found::Unknown, "it did not count yet");
    shard.see(message(2, 2, None, first(name(1, 3), 2)));
    assert_eq!(find(&shard, first(name(1, 3), 2)), Found::Counted(name(2, 2)), "repeated at another ingress");
    shard.pass_counts(10);
    assert_eq!(find(&shard, first(name(1, 3), 2)), Found::Expired);
    assert_eq!(find(&shard, client("order-17")), Found::Unknown, "forgotten");
}
