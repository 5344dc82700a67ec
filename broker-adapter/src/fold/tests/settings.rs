//! Invariant 1: parameters are records written by the owner; K is fixed in the log's first one.

use super::*;
use crate::settings::{DEFAULT_KEYS_REMEMBERED, KEYS_REMEMBERED_MAX};

#[test]
fn until_the_first_settings_record_the_defaults_of_the_format_version_hold() {
    assert_eq!(Shard::new().fold.settings(), &Settings::default());
    assert_eq!(Settings::default().keys_remembered, DEFAULT_KEYS_REMEMBERED);
}

#[test]
fn k_is_fixed_in_the_log_s_first_settings_record() {
    let mut shard = Shard::owned(16);
    let later = Settings { keys_remembered: 64, replies_kept: 9, ..Settings::default() };
    assert_eq!(shard.see(settings_by(a(), later)), Verdict::Noted);
    assert_eq!(shard.fold.settings().keys_remembered, 16);
    assert_eq!(shard.fold.settings().replies_kept, 9, "everything else changes");
}

#[test]
fn a_void_settings_record_fixes_nothing() {
    let mut shard = Shard::new();
    shard.see(fence(1, replica("a", 1)));
    let small = |writer| settings_by(writer, Settings { keys_remembered: 8, ..Settings::default() });
    assert_eq!(shard.see(small(writer(1, "b", 1))), void(Void::NotOwner));
    assert_eq!(shard.fold.settings().keys_remembered, DEFAULT_KEYS_REMEMBERED);
    assert_eq!(shard.see(small(a())), Verdict::Noted);
    assert_eq!(shard.fold.settings().keys_remembered, 8);
}

#[test]
fn k_is_bounded_whatever_the_record_says() {
    for (asked, got) in [(0, 1), (u64::MAX, KEYS_REMEMBERED_MAX)] {
        let mut shard = Shard::owned(asked);
        assert_eq!(shard.fold.settings().keys_remembered, got);
        shard.pass_counts(3);
    }
}

#[test]
fn behind_the_first_count_k_is_only_lowered() {
    for (asked, got) in [(1 << 20, DEFAULT_KEYS_REMEMBERED), (16, 16)] {
        let mut shard = Shard::new();
        shard.see(fence(1, replica("a", 1)));
        shard.pass_counts(1);
        shard.see(settings_by(a(), Settings { keys_remembered: asked, ..Settings::default() }));
        assert_eq!(shard.fold.settings().keys_remembered, got, "what is forgotten already would be applied again");
    }
}
