//! The fold under random logs ([`steps`](super::steps)): against a slow model, and sentence by sentence.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::Index;

use super::model::{Identity, Model, identity};
use super::steps::{play, steps};
use super::*;
use crate::fold::{checkpoints, ownership, poison, sources};

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(400))]

    #[test]
    fn the_fold_judges_every_record_as_the_slow_model_does(k in 1..8u64, steps in steps()) {
        let mut model = Model::new();
        play(k, &steps, |fold, entry, verdict| {
            match (model.judge(&entry.record), &entry.record) {
                (Some(expected), _) => assert_eq!(verdict, &expected, "{entry:?}"),
                (None, Record::Fence(fence)) => {
                    let Verdict::Fenced(counted) = verdict else { panic!("void: {entry:?}") };
                    assert_eq!((counted.epoch, &counted.owner), (fence.epoch, &fence.owner));
                    assert_eq!(fold.owner(), Some(&fence.owner));
                }
                (None, _) => assert!(
                    matches!(verdict, Verdict::Noted | Verdict::Void(Void::Position | Void::Seen | Void::Limit)),
                    "{verdict:?} for the owner's {entry:?}"
                ),
            }
            assert_eq!(fold.epoch(), model.epoch());
        });
    }

    #[test]
    fn a_request_is_applied_once_per_first_name_and_once_in_k_counts_per_client_s_key(k in 1..8u64, steps in steps()) {
        let mut applied: BTreeMap<Identity, u64> = BTreeMap::new();
        play(k, &steps, |fold, entry, verdict| {
            let (Record::Message(message), Verdict::Apply) = (&entry.record, verdict) else { return };
            let identity = identity(message);
            let before = applied.insert(identity.clone(), fold.count().0);
            let is_old = |before: u64| matches!(identity, Identity::Client(_)) && fold.count().0 - before > k;
            assert!(before.is_none_or(is_old), "{identity:?} was applied at count {before:?} already");
        });
    }

    #[test]
    fn epochs_rise_by_exactly_one_at_counted_fences_and_nowhere_else(k in 1..8u64, steps in steps()) {
        let (mut epoch, mut owner) = (Epoch(0), None);
        play(k, &steps, |fold, _, verdict| {
            if let Verdict::Fenced(counted) = verdict {
                epoch = epoch.next();
                owner = Some(counted.owner.clone());
            }
            assert_eq!((fold.epoch(), fold.owner()), (epoch, owner.as_ref()));
        });
    }

    #[test]
    fn a_void_record_changes_nothing_but_the_place(k in 1..8u64, steps in steps()) {
        let mut before = Fold::new();
        play(k, &steps, |fold, _, verdict| {
            if matches!(verdict, Verdict::Void(_)) {
                // Pins expire by records, void ones too.
                let mut skipped = before.clone();
                skipped.observe(&Entry { record: mark(), ..entry(before.position().next(), mark()) });
                assert_eq!(fold.count(), skipped.count());
                assert_eq!(fold.sizes(), skipped.sizes());
                assert_eq!(fold.checkpoints(), skipped.checkpoints());
                assert_eq!(fold.settings(), skipped.settings());
                assert_eq!((fold.epoch(), fold.last_digest()), (skipped.epoch(), skipped.last_digest()));
            }
            before = fold.clone();
        });
    }

    #[test]
    fn a_fold_saved_and_loaded_anywhere_goes_on_as_the_one_that_went_through(k in 1..8u64, steps in steps(), cut in any::<Index>()) {
        let mut verdicts = Vec::new();
        let (whole, entries) = play(k, &steps, |_, _, verdict| verdicts.push(verdict.clone()));
        let cut = cut.index(entries.len() + 1);
        let mut fold = Fold::new();
        let mut again: Vec<_> = entries[..cut].iter().map(|entry| fold.observe(entry)).collect();
        let bytes = rmp_serde::to_vec_named(&fold).unwrap();
        let mut loaded: Fold = rmp_serde::from_slice(&bytes).unwrap();
        assert_eq!(loaded, fold);
        assert_eq!(rmp_serde::to_vec_named(&loaded).unwrap(), bytes, "the same fold has the same bytes");
        again.extend(entries[cut..].iter().map(|entry| loaded.observe(entry)));
        assert_eq!(loaded, whole);
        assert_eq!(again, verdicts);
    }

    #[test]
    fn everything_in_the_fold_is_bounded(k in 1..8u64, steps in steps()) {
        play(k, &steps, |fold, _, _| {
            let (sizes, k) = (fold.sizes(), usize::try_from(k).unwrap());
            assert!(sizes.fences <= ownership::FENCES_REMEMBERED, "{sizes:?}");
            assert!(sizes.sessions <= 2 * k + 2, "{sizes:?}");
            assert!(sizes.keys <= k + 1, "{sizes:?}");
            assert!(sizes.sources <= sources::SOURCES_MAX, "{sizes:?}");
            assert!(sizes.pins <= checkpoints::PINS_MAX, "{sizes:?}");
            assert!(sizes.checkpoints <= checkpoints::KEPT_UNPINNED + sizes.pins, "{sizes:?}");
            assert!(sizes.attempts <= poison::ATTEMPTS_MAX && sizes.skips <= poison::SKIPS_MAX, "{sizes:?}");
        });
    }

    #[test]
    fn the_newest_two_counted_checkpoints_and_all_pinned_ones_are_kept_and_no_other(k in 1..8u64, steps in steps()) {
        let mut counted = Vec::new();
        play(k, &steps, |fold, entry, verdict| {
            if let (Record::Checkpoint(checkpoint), Verdict::Noted) = (&entry.record, verdict) {
                counted.push(checkpoint.position);
            }
            let kept: Vec<_> = fold.checkpoints().kept().iter().map(|kept| kept.position).collect();
            let newest = &counted[counted.len().saturating_sub(2)..];
            assert!(kept.is_sorted() && kept.ends_with(newest), "{kept:?} of {counted:?}");
            let pins: Vec<_> = fold.checkpoints().pins().iter().map(|pin| pin.checkpoint).collect();
            assert!(pins.iter().all(|pin| kept.contains(pin)), "{pins:?} in {kept:?}");
            assert!(kept.iter().all(|kept| newest.contains(kept) || pins.contains(kept)), "{kept:?} and {pins:?}");
        });
    }

    #[test]
    fn no_skip_is_remembered_at_or_below_the_oldest_kept_checkpoint(k in 1..8u64, steps in steps()) {
        play(k, &steps, |fold, _, _| {
            let Some(oldest) = fold.checkpoints().oldest() else { return };
            for position in 1..=oldest.position.0 {
                assert!(!fold.is_skipped(Position(position)), "{position} with the oldest at {}", oldest.position);
            }
        });
    }
}

#[test]
fn the_random_logs_reach_every_verdict_and_every_reason() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    for k in (1..8).cycle().take(300) {
        let steps = steps().new_tree(&mut runner).unwrap().current();
        play(k, &steps, |_, _, verdict| {
            let kind = match verdict {
                Verdict::Void(reason) => format!("{reason:?}"),
                Verdict::Repeat(repeated) => format!("Repeat of the same: {}", repeated.same_request),
                other => format!("{other:?}").split(['(', ' ']).next().unwrap().to_owned(),
            };
            *seen.entry(kind).or_default() += 1;
        });
    }
    let expected = [
        "Apply",
        "Closed",
        "Expired",
        "Fenced",
        "NotOwner",
        "Noted",
        "Position",
        "Repeat of the same: false",
        "Repeat of the same: true",
        "Seen",
        "Sequence",
        "SessionClosed",
        "SessionUnknown",
        "SourcePosition",
        "StaleFence",
    ];
    for kind in expected {
        assert!(seen.get(kind).copied().unwrap_or(0) >= 30, "{kind} is too rare: {seen:?}");
    }
}
