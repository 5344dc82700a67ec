//! Exactly once and in log order: in the log itself, and in every service.

use std::collections::BTreeMap;

use super::replies::Deserved;
use super::{Applied, Evidence, Finding, ServiceState};

/// No input is applied under two names.
pub(super) fn in_the_log(applied: &[Applied]) -> Vec<Finding> {
    let ids: Vec<String> = applied.iter().map(Applied::id).collect();
    doubled(&ids, "the log")
}

/// Every service holds a beginning of what the log applies, and equal places hold equal states.
pub(super) fn in_the_services(evidence: &Evidence, deserved: &Deserved) -> Vec<Finding> {
    let log: Vec<String> = evidence.applied.iter().map(Applied::id).collect();
    let mut findings = Vec::new();
    for state in &evidence.states {
        let upto = match state.after {
            Some(after) => evidence.applied.partition_point(|message| message.position <= after),
            None => state.ids.len().min(log.len()),
        };
        let found = one_service(state, &log, upto);
        let sound = found.is_empty();
        findings.extend(found);
        let expected = deserved.state_hash_after(upto);
        if sound && expected != state.hash {
            findings.push(differs(state, "the model"));
        }
    }
    findings.extend(equal_where_comparable(&evidence.states));
    findings
}

/// `state` against the first `upto` of what the log applies.
fn one_service(state: &ServiceState, log: &[String], upto: usize) -> Vec<Finding> {
    let mut findings = doubled(&state.ids, &state.replica);
    let places: BTreeMap<&str, usize> = log.iter().enumerate().map(|(place, id)| (id.as_str(), place)).collect();
    let mut held = vec![false; log.len()];
    let mut highest = None;
    let mut reordered = false;
    for (found, id) in state.ids.iter().enumerate() {
        let Some(&expected) = places.get(id.as_str()) else {
            findings.push(Finding::Invented { replica: state.replica.clone(), id: id.clone() });
            continue;
        };
        // The first place out of order tells enough; a second sight of an id is a doubling, not an order.
        if !held[expected] && highest.is_some_and(|highest| expected < highest) && !reordered {
            reordered = true;
            let (expected, found) = (expected + 1, found + 1);
            let replica = state.replica.clone();
            findings.push(Finding::Reordered { replica, id: id.clone(), expected, found });
        }
        highest = highest.max(Some(expected));
        held[expected] = true;
    }
    // Where it is not known how far the service came, it came at least as far as its last input.
    let came_to = if state.after.is_some() { upto } else { highest.map_or(0, |highest| highest + 1) };
    for (id, _) in log[..came_to].iter().zip(&held).filter(|(_, held)| !**held) {
        findings.push(Finding::Lost { id: id.clone(), place: state.replica.clone() });
    }
    for (id, _) in log[came_to..].iter().zip(&held[came_to..]).filter(|(_, held)| **held) {
        findings.push(Finding::Invented { replica: state.replica.clone(), id: id.clone() });
    }
    findings
}

fn doubled(ids: &[String], place: &str) -> Vec<Finding> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for id in ids {
        *counts.entry(id).or_default() += 1;
    }
    let more = counts.into_iter().filter(|(_, times)| *times > 1);
    more.map(|(id, times)| Finding::Doubled { id: id.to_owned(), place: place.to_owned(), times }).collect()
}

/// Source and target are equal at the fence, and so is everybody else who stands at one position.
fn equal_where_comparable(states: &[ServiceState]) -> Vec<Finding> {
    let mut at: BTreeMap<_, &ServiceState> = BTreeMap::new();
    let mut findings = Vec::new();
    for state in states {
        let Some(after) = state.after else { continue };
        let first = at.entry(after).or_insert(state);
        if (&first.ids, &first.hash) != (&state.ids, &state.hash) {
            findings.push(differs(state, &first.replica));
        }
    }
    findings
}

fn differs(state: &ServiceState, right: &str) -> Finding {
    let after = match state.after {
        Some(position) => format!("position {position}"),
        None => format!("{} inputs", state.ids.len()),
    };
    Finding::StateDiffers { left: state.replica.clone(), right: right.to_owned(), after }
}
