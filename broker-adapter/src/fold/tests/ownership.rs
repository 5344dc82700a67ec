//! Invariant 2: the log is the lock.

use super::*;
use crate::fold::Bug;
use crate::fold::ownership::FENCES_REMEMBERED;

#[test]
fn nobody_owns_before_the_first_fence_and_nobody_s_word_counts() {
    let mut shard = Shard::new();
    assert_eq!(shard.fold.owner(), None);
    assert_eq!(shard.see(digest(writer(0, "a", 1), 0)), void(Void::NotOwner));
    assert_eq!(shard.see(fence(0, replica("a", 1))), void(Void::StaleFence));
    assert_eq!(shard.fold.epoch(), Epoch(0));
}

#[test]
fn a_fence_counts_if_and_only_if_its_epoch_is_the_current_one_plus_one_at_its_place() {
    let mut shard = Shard::owned(8);
    for stale in [0, 1, 3, u64::MAX] {
        assert_eq!(shard.see(fence(stale, replica("b", 1))), void(Void::StaleFence), "{stale}");
    }
    assert_eq!((shard.fold.epoch(), shard.fold.is_owner(&replica("a", 1))), (Epoch(1), true));
    let Verdict::Fenced(counted) = shard.see(fence(2, replica("b", 1))) else { panic!("it is void") };
    assert_eq!((counted.epoch, &counted.owner, counted.position), (Epoch(2), &replica("b", 1), Position(7)));
    assert_eq!((shard.fold.epoch(), shard.fold.owner()), (Epoch(2), Some(&replica("b", 1))));
}

#[test]
fn of_all_fences_that_compete_for_an_epoch_exactly_one_wins() {
    let mut shard = Shard::owned(8);
    let competing = ["b", "c", "a", "b"].map(|node| shard.see(fence(2, replica(node, 1))));
    assert!(matches!(competing[0], Verdict::Fenced(_)));
    assert!(competing[1..].iter().all(|verdict| *verdict == void(Void::StaleFence)));
}

#[test]
fn a_fence_names_the_migration_it_completes_and_a_stale_one_leaves_no_trace() {
    let mut shard = Shard::owned(8);
    let of = |migration: u128| {
        let migration = Some(MigrationId::from_bits(migration));
        Record::Fence(Fence {
            epoch: Epoch(2),
            owner: replica("b", 1),
            cause: Cause::Handover,
            migration,
            retires: None,
        })
    };
    shard.see(of(1));
    shard.see(of(2));
    assert_eq!(shard.fold.last_fence().unwrap().migration, Some(MigrationId::from_bits(1)));
    assert_eq!(shard.fold.fences().count(), 2);
}

#[test]
fn a_zombie_s_words_are_void() {
    let mut shard = Shard::owned(8);
    shard.pass_records_to(5);
    shard.see(fence(2, replica("a", 2)));
    shard.see(checkpoint(writer(2, "a", 2), 0));
    let zombies = [
        writer(1, "a", 1), // the old epoch and incarnation
        writer(2, "a", 1), // the old incarnation, which has read the new epoch
        writer(1, "a", 2), // the new incarnation under the old epoch
        writer(3, "a", 2), // under an epoch that nobody has fenced
        writer(2, "b", 2), // another node
    ];
    for zombie in zombies {
        let before = shard.fold.clone();
        let entry_event = crate::record::JournalEntry { writer: zombie.clone(), event: Bytes::new() };
        let words = [
            digest(zombie.clone(), 3),
            checkpoint(zombie.clone(), 3),
            pin(zombie.clone(), 1, 0),
            attempt(zombie.clone(), 3, 4),
            skip(zombie.clone(), 3),
            settings_by(zombie.clone(), Settings { replies_kept: 1, ..Settings::default() }),
            Record::Entry(entry_event),
        ];
        for word in words {
            let kind = word.kind();
            assert_eq!(shard.see(word), void(Void::NotOwner), "{kind} of {zombie:?}");
        }
        assert_eq!(shard.fold.sizes(), before.sizes());
        assert_eq!(shard.fold.settings(), before.settings());
        assert_eq!(shard.fold.last_digest(), before.last_digest());
    }
}

#[test]
fn what_counted_under_an_earlier_owner_stays_counted() {
    let mut shard = Shard::owned(8);
    shard.pass_records_to(4);
    assert_eq!(shard.see(digest(a(), 3)), Verdict::Noted);
    shard.see(checkpoint(a(), 0));
    shard.see(fence(2, replica("b", 1)));
    assert_eq!(shard.fold.last_digest().unwrap().digest.writer, a());
    assert_eq!(shard.fold.checkpoints().kept().len(), 1);
}

#[test]
fn the_last_256_counted_fences_are_kept() {
    let mut shard = Shard::new();
    for epoch in 1..=300 {
        shard.see(fence(epoch, replica("a", 1)));
    }
    assert_eq!(FENCES_REMEMBERED, 256);
    let kept: Vec<_> = shard.fold.fences().map(|fence| fence.epoch.0).collect();
    assert_eq!(kept, (45..=300).collect::<Vec<_>>());
}

#[test]
fn a_message_counts_whoever_owns_and_even_if_nobody_does() {
    let mut shard = Shard::new();
    assert_eq!(shard.see(message(1, 1, Some(0), own(0))), Verdict::Apply);
}

#[test]
fn the_kinds_that_are_only_reserved_are_void() {
    let mut shard = Shard::owned(8);
    let tick = Record::Tick(crate::record::Tick { writer: a(), time_ms: 1 });
    assert_eq!(shard.see(tick), void(Void::Reserved));
}

#[test]
fn the_time_of_a_log_never_goes_back() {
    let mut shard = Shard::new();
    let mut at = |position, appended_ms| {
        let entry = Entry { appended_ms, ..entry(Position(position), mark()) };
        shard.fold.observe(&entry);
        shard.fold.time_ms()
    };
    assert_eq!([at(1, 500), at(2, 300), at(3, 501)], [500, 500, 501]);
}

#[test]
#[should_panic(expected = "records are folded in order")]
fn a_gap_is_never_folded() {
    Fold::new().observe(&entry(Position(2), mark()));
}

#[cfg(feature = "test-hooks")]
#[test]
fn without_the_fence_rule_a_stale_fence_takes_ownership() {
    let mut shard = Shard::owned(8);
    shard.fold = shard.fold.with_rules(Rules::planting(Bug::FenceOfAnyEpoch));
    assert!(matches!(shard.see(fence(1, replica("b", 1))), Verdict::Fenced(_)));
    assert!(shard.fold.is_owner(&replica("b", 1)));
}
