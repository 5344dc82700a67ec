//! Section 3, "Poison": attempts, and skips.

use super::*;
use crate::fold::poison::{ATTEMPTS_MAX, SKIPS_MAX};

/// Owned by `a`, with forty records.
fn long() -> Shard {
    let mut shard = Shard::owned(8);
    shard.pass_records_to(40);
    shard
}

/// A restart of `a` as its `n`-th incarnation.
fn restart(shard: &mut Shard, n: u64) -> Writer {
    let writer = writer(n, "a", u128::from(n));
    shard.see(fence(n, writer.replica.clone()));
    writer
}

#[test]
fn attempts_at_a_position_outlive_epochs() {
    let mut shard = long();
    assert_eq!(shard.see(attempt(a(), 5, 20)), Verdict::Noted);
    for n in 2..=3 {
        let again = restart(&mut shard, n);
        assert_eq!(shard.see(attempt(again, 10, 10)), Verdict::Noted);
    }
    assert_eq!([4, 5, 10, 20, 21].map(|position| shard.fold.attempts_at(Position(position))), [0, 1, 3, 1, 0]);
}

#[test]
fn a_counted_digest_clears_the_attempts_below_it() {
    let mut shard = long();
    shard.see(attempt(a(), 5, 10));
    shard.see(attempt(a(), 10, 20));
    shard.see(digest(a(), 10));
    assert_eq!([5, 15].map(|position| shard.fold.attempts_at(Position(position))), [0, 1]);
}

#[test]
fn a_counted_checkpoint_clears_the_attempts_below_it() {
    let mut shard = long();
    shard.see(attempt(a(), 5, 10));
    shard.see(checkpoint(a(), 10));
    assert_eq!(shard.fold.sizes().attempts, 0);
}

#[test]
fn a_higher_attempt_of_the_same_incarnation_clears_what_is_below() {
    let mut shard = long();
    shard.see(attempt(a(), 5, 5));
    let again = restart(&mut shard, 2);
    shard.see(attempt(again.clone(), 5, 5));
    shard.see(attempt(again, 6, 6));
    assert_eq!(shard.fold.attempts_at(Position(5)), 1, "the other incarnation's stands");
    assert_eq!(shard.fold.attempts_at(Position(6)), 1);
}

#[test]
fn an_attempt_names_a_range_that_lies_before_it() {
    let mut shard = long();
    for (from, to) in [(0, 5), (9, 8), (5, 41), (41, 41)] {
        assert_eq!(shard.see(attempt(a(), from, to)), void(Void::Position), "{from}..={to}");
        shard.fold = long().fold;
    }
}

#[test]
fn there_are_at_most_1024_attempts() {
    let mut shard = long();
    for _ in 0..ATTEMPTS_MAX {
        assert_eq!(shard.see(attempt(a(), 5, 20)), Verdict::Noted);
    }
    assert_eq!(shard.see(attempt(a(), 5, 20)), void(Void::Limit));
    assert_eq!(shard.fold.sizes().attempts, 1_024);
}

#[test]
fn a_skipped_message_is_never_delivered() {
    let mut shard = long();
    assert_eq!(shard.see(skip(a(), 5)), Verdict::Noted);
    assert_eq!([4, 5, 6].map(|position| shard.fold.is_skipped(Position(position))), [false, true, false]);
}

#[test]
fn a_skip_is_void_behind_a_counted_digest_at_or_after_its_position() {
    let mut shard = long();
    shard.see(digest(a(), 10));
    assert_eq!(shard.see(skip(a(), 9)), void(Void::Seen));
    assert_eq!(shard.see(skip(a(), 10)), void(Void::Seen));
    assert_eq!(shard.see(skip(a(), 11)), Verdict::Noted);
}

#[test]
fn a_skip_is_void_behind_a_counted_checkpoint_at_or_after_its_position() {
    let mut shard = long();
    shard.see(checkpoint(a(), 10));
    assert_eq!(shard.see(skip(a(), 10)), void(Void::Seen));
    assert_eq!(shard.see(skip(a(), 11)), Verdict::Noted);
}

#[test]
fn a_void_digest_shows_nothing() {
    let mut shard = long();
    shard.see(digest(writer(1, "b", 1), 10));
    assert_eq!(shard.see(skip(a(), 9)), Verdict::Noted);
}

#[test]
fn skips_are_kept_until_they_lie_at_or_below_the_oldest_kept_checkpoint() {
    let mut shard = long();
    shard.see(checkpoint(a(), 3));
    for position in [5, 10, 11] {
        shard.see(skip(a(), position));
    }
    shard.see(checkpoint(a(), 10));
    assert!(shard.fold.is_skipped(Position(5)), "a replica may still load the checkpoint at 3");
    shard.see(checkpoint(a(), 20));
    assert_eq!([5, 10, 11].map(|position| shard.fold.is_skipped(Position(position))), [false, false, true]);
}

#[test]
fn a_skip_names_a_position_before_it() {
    let mut shard = long();
    assert_eq!(shard.see(skip(a(), 0)), void(Void::Position));
    assert_eq!(shard.see(skip(a(), 42)), void(Void::Position));
}

#[test]
fn there_are_at_most_1024_skips() {
    let mut shard = Shard::owned(8);
    shard.pass_records_to(1_100);
    for position in 1..=SKIPS_MAX as u64 {
        assert_eq!(shard.see(skip(a(), position)), Verdict::Noted);
    }
    assert_eq!(shard.see(skip(a(), 1_025)), void(Void::Limit));
    assert_eq!(shard.see(skip(a(), 7)), Verdict::Noted, "again takes no place");
}
