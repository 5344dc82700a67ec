//! Never two owners in one epoch, and nobody answers who does not own.

use std::collections::BTreeMap;

use broker_adapter::ids::{Epoch, Position, Replica};

use super::{CountedFence, Evidence, Finding};

/// The counted fences raise the epoch one by one, each naming one owner.
pub(super) fn line_of_owners(fences: &[CountedFence]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut owners: BTreeMap<Epoch, &Replica> = BTreeMap::new();
    // A trimmed log begins at any epoch.
    let mut expected = fences.first().map_or(Epoch::default(), |fence| fence.epoch);
    for fence in fences {
        if let Some(first) = owners.get(&fence.epoch) {
            findings.push(Finding::SecondOwner {
                epoch: fence.epoch,
                first: Some((*first).clone()),
                second: fence.owner.clone(),
                reply: None,
            });
            continue;
        }
        if fence.epoch != expected {
            findings.push(Finding::EpochSkipped { position: fence.position, expected, found: fence.epoch });
        }
        owners.insert(fence.epoch, &fence.owner);
        expected = fence.epoch.next();
    }
    findings
}

/// A reply is given out by the owner of its message's position, or by a later owner who was asked for it.
pub(super) fn given_replies(evidence: &Evidence) -> Vec<Finding> {
    let mut findings = Vec::new();
    let observed = evidence.observations.iter().filter_map(|seen| seen.given.as_ref());
    for given in evidence.given.iter().chain(observed) {
        let owner = evidence.fences.iter().find(|fence| fence.epoch == given.epoch).map(|fence| &fence.owner);
        let (at_place, _) = owner_at(&evidence.fences, given.position);
        if owner != Some(&given.replica) || given.epoch < at_place {
            let (epoch, first) = match given.epoch < at_place {
                // A zombie: it answered for a position behind the fence that ended its epoch.
                true => (at_place, owner_at(&evidence.fences, given.position).1),
                false => (given.epoch, owner),
            };
            findings.push(Finding::SecondOwner {
                epoch,
                first: first.cloned(),
                second: given.replica.clone(),
                reply: Some(given.position),
            });
        }
    }
    findings
}

fn owner_at(fences: &[CountedFence], position: Position) -> (Epoch, Option<&Replica>) {
    let behind = fences.partition_point(|fence| fence.position <= position);
    let fence = behind.checked_sub(1).map(|index| &fences[index]);
    fence.map_or((Epoch::default(), None), |fence| (fence.epoch, Some(&fence.owner)))
}
