//! Section 3: bridges from other logs carry (previous, this) source position; previous must be the last counted.

use super::*;
use crate::fold::sources::SOURCES_MAX;

#[test]
fn a_bridged_message_counts_only_behind_the_last_counted_one_of_its_source() {
    let mut shard = Shard::owned(100);
    assert_eq!(shard.see(bridged(1, 1, "orders", 4, 5)), void(Void::SourcePosition), "a source begins at 0");
    assert_eq!(shard.see(bridged(1, 1, "orders", 0, 5)), Verdict::Apply);
    assert_eq!(shard.see(bridged(1, 2, "orders", 0, 5)), void(Void::SourcePosition), "doubled under a new name");
    assert_eq!(shard.see(bridged(1, 2, "orders", 6, 7)), void(Void::SourcePosition), "one is missing");
    assert_eq!(shard.see(bridged(1, 2, "orders", 5, 5)), void(Void::SourcePosition));
    assert_eq!(shard.see(bridged(1, 2, "orders", 5, 9)), Verdict::Apply);
    assert_eq!(shard.see(bridged(1, 3, "other", 0, 1)), Verdict::Apply, "each source by itself");
}

#[test]
fn a_bridged_message_that_its_session_voids_moves_nothing() {
    let mut shard = Shard::owned(100);
    assert_eq!(shard.see(bridged(1, 2, "orders", 0, 5)), void(Void::SessionUnknown));
    assert_eq!(shard.see(bridged(1, 1, "orders", 0, 5)), Verdict::Apply);
}

#[test]
fn there_are_at_most_64_sources() {
    let mut shard = Shard::owned(1_000);
    for number in 0..SOURCES_MAX as u64 {
        assert_eq!(shard.see(bridged(1, number + 1, &format!("s{number}"), 0, 1)), Verdict::Apply);
    }
    assert_eq!(shard.see(bridged(1, 65, "one-more", 0, 1)), void(Void::Limit));
    assert_eq!(shard.see(bridged(1, 65, "s7", 1, 2)), Verdict::Apply);
    assert_eq!(shard.fold.sizes().sources, SOURCES_MAX);
}
