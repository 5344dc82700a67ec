//! Invariant 7: which checkpoints are kept, and what a pin does.

use super::*;
use crate::fold::checkpoints::PINS_MAX;

fn kept(shard: &Shard) -> Vec<u64> {
    shard.fold.checkpoints().kept().iter().map(|kept| kept.position.0).collect()
}

/// Owned, with `pin_limit_records` as given and forty records.
fn long(pin_limit_records: u64) -> Shard {
    let mut shard = Shard::owned(8);
    shard.see(settings_by(a(), Settings { pin_limit_records, ..Settings::default() }));
    shard.pass_records_to(40);
    shard
}

#[test]
fn the_fold_keeps_the_last_two_counted_checkpoints_and_the_pinned_ones() {
    let mut shard = long(1_000);
    for position in [0, 10] {
        assert_eq!(shard.see(checkpoint(a(), position)), Verdict::Noted);
    }
    assert_eq!(shard.see(pin(a(), 1, 0)), Verdict::Noted);
    for position in [20, 30] {
        shard.see(checkpoint(a(), position));
    }
    assert_eq!(kept(&shard), [0, 20, 30]);
    assert_eq!(shard.fold.checkpoints().oldest().unwrap().position, Position(0));
    assert_eq!(shard.fold.checkpoints().newest().unwrap().position, Position(30));
}

#[test]
fn a_checkpoint_counts_only_if_it_is_newer_than_the_last_one_and_older_than_its_record() {
    let mut shard = long(1_000);
    assert_eq!(shard.see(checkpoint(a(), 41)), void(Void::Position), "its own place");
    assert_eq!(shard.see(checkpoint(a(), 20)), Verdict::Noted);
    assert_eq!(shard.see(checkpoint(a(), 20)), void(Void::Position));
    assert_eq!(shard.see(checkpoint(a(), 19)), void(Void::Position));
    assert_eq!(kept(&shard), [20]);
}

#[test]
fn a_kept_checkpoint_tells_its_manifest_and_its_record_s_checksum() {
    let mut shard = long(1_000);
    shard.see(checkpoint(a(), 20));
    let newest = shard.fold.checkpoints().newest().unwrap();
    assert_eq!((newest.manifest, newest.record_crc, newest.at), (Hash::of(&20u64.to_be_bytes()), 7, Position(41)));
}

#[test]
fn a_pin_counts_only_on_a_checkpoint_kept_at_its_place() {
    let mut shard = long(1_000);
    for position in [0, 10, 20] {
        shard.see(checkpoint(a(), position));
    }
    assert_eq!(shard.see(pin(a(), 1, 0)), void(Void::Position), "dropped already");
    assert_eq!(shard.see(pin(a(), 1, 15)), void(Void::Position), "never taken");
    assert_eq!(shard.see(pin(a(), 1, 10)), Verdict::Noted);
}

#[test]
fn a_pin_ends_by_its_holder_s_release_and_only_by_that() {
    let mut shard = long(1_000);
    for record in [checkpoint(a(), 0), pin(a(), 1, 0), pin(a(), 2, 0), checkpoint(a(), 10), checkpoint(a(), 20)] {
        assert_eq!(shard.see(record), Verdict::Noted);
    }
    assert_eq!(shard.see(release(a(), 3, 0)), void(Void::Position));
    shard.see(release(a(), 1, 0));
    assert_eq!(kept(&shard), [0, 10, 20], "another holds it still");
    shard.see(release(a(), 2, 0));
    assert_eq!(kept(&shard), [10, 20]);
    assert_eq!(shard.see(release(a(), 2, 0)), void(Void::Position));
}

#[test]
fn a_pin_ends_after_pin_limit_records() {
    let mut shard = long(10);
    for record in [checkpoint(a(), 0), pin(a(), 1, 0), checkpoint(a(), 10), checkpoint(a(), 20)] {
        shard.see(record);
    }
    shard.pass_records_to(42 + 10);
    assert_eq!(kept(&shard), [0, 10, 20]);
    shard.pass_records_to(42 + 11);
    assert_eq!(kept(&shard), [10, 20]);
    assert_eq!(shard.fold.checkpoints().pins(), []);
}

#[test]
fn skips_are_forgotten_too_when_a_pin_s_end_moves_the_oldest_kept_checkpoint() {
    let mut shard = long(10);
    for record in [checkpoint(a(), 0), pin(a(), 1, 0), skip(a(), 5), checkpoint(a(), 10), checkpoint(a(), 20)] {
        assert_eq!(shard.see(record), Verdict::Noted);
    }
    assert!(shard.fold.is_skipped(Position(5)));
    shard.pass_records_to(42 + 11);
    assert!(!shard.fold.is_skipped(Position(5)));
}

#[test]
fn there_are_at_most_16_pins() {
    let mut shard = long(1_000);
    shard.see(checkpoint(a(), 0));
    for holder in 0..PINS_MAX as u128 {
        assert_eq!(shard.see(pin(a(), holder, 0)), Verdict::Noted);
    }
    assert_eq!(shard.see(pin(a(), 99, 0)), void(Void::Limit));
    assert_eq!(shard.see(pin(a(), 3, 0)), Verdict::Noted, "renewing takes no place");
    assert_eq!(shard.fold.sizes().pins, PINS_MAX);
}

#[test]
fn a_digest_counts_only_for_a_position_before_its_own() {
    let mut shard = long(1_000);
    assert_eq!(shard.see(digest(a(), 41)), void(Void::Position));
    assert_eq!(shard.see(digest(a(), 41)), Verdict::Noted);
    assert_eq!(shard.fold.last_digest().unwrap().digest.position, Position(41));
    assert_eq!(shard.fold.last_digest().unwrap().at, Position(42));
}
