//! What is freed, and what never is: each line of the drawing above.

use broker_adapter::ids::{Count, Hash, Incarnation, MessageName, Replica, Sequence, Session};
use broker_adapter::record::{Body, Entry, Key, Message, Record, Request};

use super::*;

fn shard() -> ShardId {
    ShardId::whole("s".parse().expect("a good name"))
}

fn name(session: u128, base: u64) -> BodyName {
    let message = MessageName { session: Session::from_bits(session), sequence: Sequence::FIRST };
    BodyName { message, base: Count(base) }
}

/// A log of large messages, and the table of a replica that read all of it.
fn read(sessions: &[u128], from: u64) -> (Fold, BodyTable) {
    let (mut fold, mut table) = (Fold::new(), BodyTable::new(Position(from)));
    for session in sessions {
        let base = fold.count();
        let body = Body::Stored { hash: Hash::of(b"x"), length: 1 };
        let request = Request { method: "POST".to_owned(), path: "/".to_owned(), headers: Vec::new(), body };
        let ingress = Replica { node: "a".parse().expect("a good name"), incarnation: Incarnation::from_bits(1) };
        let key = Key::Own { count: base };
        let message =
            Message { name: name(*session, 0).message, base: Some(base), key, source: None, ingress, request };
        let position = fold.position().next();
        let record = Record::Message(Box::new(message.clone()));
        let verdict = fold.observe(&Entry { position, appended_ms: 0, crc: 0, record });
        if verdict == broker_adapter::fold::Verdict::Apply && position > Position(from) {
            table.add(BodyName::of(&message).expect("it is stored"), position);
        }
    }
    (fold, table)
}

/// Of these bodies, those that are freed.
fn freed(log: &(Fold, BodyTable), before: u64, names: &[BodyName]) -> Vec<u128> {
    let objects = names.iter().flat_map(|name| name.parts(&shard(), 1)).collect();
    let at = Place { shard: &shard(), fold: &log.0, before: Position(before) };
    let free = log.1.unneeded(&at, objects, Rules::default());
    let sessions = free.iter().filter_map(|object| BodyName::parse(&shard(), object));
    sessions.map(|name| name.message.session.0.0).collect()
}

#[test]
fn bodies_go_with_the_trim_and_not_before_it() {
    let log = read(&[1, 2, 3, 4], 0);
    let names = [name(1, 0), name(2, 1), name(3, 2), name(4, 3)];
    assert_eq!(freed(&log, 0, &names), []);
    assert_eq!(freed(&log, 3, &names), [1, 2], "the record at 3 is still in the log");
    assert_eq!(freed(&log, 5, &names), [1, 2, 3, 4]);
}

#[test]
fn a_body_whose_record_may_still_come_stays() {
    let log = read(&[1, 2], 0);
    assert_eq!(freed(&log, 3, &[name(7, 0), name(8, 2), name(9, 30)]), []);
}

#[test]
fn what_was_put_under_a_name_that_counted_otherwise_goes() {
    // Put once more after its record had counted and was trimmed, or by a namesake with another base.
    let log = read(&[1], 0);
    assert_eq!(freed(&log, 2, &[name(1, 0), name(1, 9)]), [1, 1]);
}

#[test]
fn a_replica_that_was_loaded_behind_the_oldest_kept_checkpoint_removes_nothing_yet() {
    let log = read(&[1, 2, 3, 4], 2);
    let names = [name(1, 0), name(2, 1), name(3, 2), name(4, 3)];
    assert_eq!(freed(&log, 1, &names), [], "it does not know what was applied between 1 and 2");
    assert_eq!(freed(&log, 3, &names), [1, 2]);
}

#[test]
fn a_planted_bug_breaks_one_rule() {
    let log = read(&[1, 2], 0);
    let objects: Vec<String> = [name(1, 0), name(7, 0)].iter().flat_map(|name| name.parts(&shard(), 1)).collect();
    let at = Place { shard: &shard(), fold: &log.0, before: Position(2) };
    let of = |bug| log.1.unneeded(&at, objects.clone(), Rules::planting(bug)).len();
    assert_eq!((of(Bug::BodyKeptForEver), of(Bug::BodyFreedInFlight), of(Bug::TrimPastPin)), (0, 2, 1));
}
