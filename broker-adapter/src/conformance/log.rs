//! The contract of [`MessageLog`](crate::log::MessageLog).

use futures_util::future::join_all;
use futures_util::{FutureExt, StreamExt};

use super::{Case, Fixture, append, mark, message, number, open, read};
use crate::follow::Follower;
use crate::ids::Position;
use crate::log::{AppendError, RECORD_LEAST_BYTES, ReadError};
use crate::record::wire;

pub const CASES: &[Case] = &[
    ("an empty log has tail 0 and begins at 1", |f| an_empty_log(f).boxed()),
    ("positions begin at 1 and have no gaps", |f| positions_have_no_gaps(f).boxed()),
    ("the records of one append keep their order", |f| one_append_keeps_its_order(f).boxed()),
    ("appends of one handle keep the order of the calls", |f| calls_keep_their_order(f).boxed()),
    ("a dropped future takes nothing back", |f| a_dropped_future_takes_nothing_back(f).boxed()),
    ("only the durable is visible", |f| only_the_durable_is_visible(f).boxed()),
    ("tail covers everything acknowledged before it was called", |f| tail_covers_acknowledged(f).boxed()),
    ("two handles of one name show the same log", |f| two_handles_show_the_same(f).boxed()),
    ("appends of many handles are all there, once", |f| many_handles(f).boxed()),
    ("logs are separate", |f| logs_are_separate(f).boxed()),
    ("a reader waits for the next record", |f| a_reader_waits(f).boxed()),
    ("a reader gets the very records, with their checksums and times", |f| the_very_records(f).boxed()),
    ("a reader behind the tail is told so", |f| a_reader_behind_the_tail(f).boxed()),
    ("a trimmed position is refused by name", |f| a_trimmed_position(f).boxed()),
    ("positions never come back after a trim of everything", |f| positions_never_come_back(f).boxed()),
    ("a reader that is overtaken by the trim is told so", |f| overtaken_by_the_trim(f).boxed()),
    ("a trim before the first record changes nothing", |f| a_trim_of_nothing(f).boxed()),
    ("a message with the largest body passes", |f| the_largest_body(f).boxed()),
    ("a record of the limit that usage tells passes, and no larger one", |f| a_record_of_the_limit(f).boxed()),
    ("usage tells first, tail and durability", |f| usage_tells(f).boxed()),
    ("a follower reads a long log whole while it grows", |f| a_follower_reads_whole(f).boxed()),
];

async fn an_empty_log(fixture: Fixture) {
    let log = open(&fixture, "a.0").await;
    assert_eq!(log.tail().await, Ok(Position::ZERO));
    let usage = log.usage().await.expect("usage is known");
    assert_eq!((usage.first, usage.tail), (Position(1), Position::ZERO));
}

async fn positions_have_no_gaps(fixture: Fixture) {
    let log = open(&fixture, "a.0").await;
    let mut all = Vec::new();
    for number in 0..20 {
        all.extend(append(&log, number..=number + number % 3).await);
    }
    let expected: Vec<Position> = (1..=all.len() as u64).map(Position).collect();
    assert_eq!(all, expected);
    assert_eq!(log.tail().await.ok(), expected.last().copied());
}

async fn one_append_keeps_its_order(fixture: Fixture) {
    let log = open(&fixture, "a.0").await;
    assert_eq!(append(&log, 1..=100).await.len(), 100);
    let numbers: Vec<u64> = read(&log, Position(1), 100).await.iter().map(number).collect();
    assert_eq!(numbers, (1..=100).collect::<Vec<u64>>());
}

async fn calls_keep_their_order(fixture: Fixture) {
    let log = open(&fixture, "a.0").await;
    let mut calls: Vec<_> = (1..=300).map(|number| log.append(vec![mark(number)])).collect();
    // Polled in the wrong order.
    calls.reverse();
    let positions = join_all(calls).await;
    for (at, position) in positions.into_iter().rev().enumerate() {
        assert_eq!(position, Ok(vec![Position(at as u64 + 1)]));
    }
    let numbers: Vec<u64> = read(&log, Position(1), 300).await.iter().map(number).collect();
    assert_eq!(numbers, (1..=300).collect::<Vec<u64>>());
}

async fn a_dropped_future_takes_nothing_back(fixture: Fixture) {
    let log = open(&fixture, "a.0").await;
    drop(log.append(vec![mark(1)]));
    assert_eq!(append(&log, 2..=2).await, [Position(2)]);
    let numbers: Vec<u64> = read(&log, Position(1), 2).await.iter().map(number).collect();
    assert_eq!(numbers, [1, 2]);
}

async fn only_the_durable_is_visible(fixture: Fixture) {
    let log = open(&fixture, "a.0").await;
    let reader = open(&fixture, "a.0").await;
    let mut entries = reader.read(Position(1));
    for number in 1..=50 {
        let append = log.append(vec![mark(number)]);
        let entry = entries.next().await.expect("it tails").expect("it is readable");
        let tail = reader.tail().await.expect("the tail is known");
        assert!(tail >= entry.position, "the reader saw {} while the tail was {tail}", entry.position);
        assert_eq!(append.await, Ok(vec![entry.position]));
    }
}

async fn tail_covers_acknowledged(fixture: Fixture) {
    let log = open(&fixture, "a.0").await;
    let other = open(&fixture, "a.0").await;
    for number in 1..=50 {
        let positions = append(&log, number..=number).await;
        let tail = other.tail().await.expect("the tail is known");
        assert!(tail >= positions[0], "{} was acknowledged, the tail is {tail}", positions[0]);
    }
}

async fn two_handles_show_the_same(fixture: Fixture) {
    let (one, two) = (open(&fixture, "a.0").await, open(&fixture, "a.0").await);
    assert_eq!(append(&one, 1..=1).await, [Position(1)]);
    assert_eq!(append(&two, 2..=2).await, [Position(2)]);
    assert_eq!(read(&one, Position(1), 2).await, read(&two, Position(1), 2).await);
}

async fn many_handles(fixture: Fixture) {
    let mut appends = Vec::new();
    for handle in 0..4u64 {
        let log = open(&fixture, "a.0").await;
        appends.extend((1..=50).map(|at| log.append(vec![mark(100 * handle + at)])));
    }
    for append in join_all(appends).await {
        append.expect("the append succeeds");
    }
    let log = open(&fixture, "a.0").await;
    let numbers: Vec<u64> = read(&log, Position(1), 200).await.iter().map(number).collect();
    for handle in 0..4u64 {
        let own: Vec<u64> = numbers.iter().copied().filter(|number| number / 100 == handle).collect();
        assert_eq!(own, (1..=50).map(|at| 100 * handle + at).collect::<Vec<u64>>(), "each handle keeps its order");
    }
    assert_eq!(log.tail().await, Ok(Position(200)));
}

async fn logs_are_separate(fixture: Fixture) {
    let (one, two) = (open(&fixture, "a.0").await, open(&fixture, "a.1").await);
    append(&one, 1..=3).await;
    assert_eq!(append(&two, 9..=9).await, [Position(1)]);
    assert_eq!(number(&read(&two, Position(1), 1).await[0]), 9);
    assert_eq!(one.tail().await, Ok(Position(3)));
}

async fn a_reader_waits(fixture: Fixture) {
    let log = open(&fixture, "a.0").await;
    append(&log, 1..=1).await;
    let mut entries = log.read(Position(2));
    let early = fixture.shell.within(std::time::Duration::from_millis(50), entries.next()).await;
    assert!(early.is_none(), "there is nothing to read yet");
    let appended = log.append(vec![mark(2)]);
    let entry = entries.next().await.expect("it tails").expect("it is readable");
    assert_eq!((entry.position, number(&entry)), (Position(2), 2));
    assert_eq!(appended.await, Ok(vec![Position(2)]));
}

async fn the_very_records(fixture: Fixture) {
    let log = open(&fixture, "a.0").await;
    let records = vec![mark(1), message(300), message(20_000), mark(2)];
    log.append(records.clone()).await.expect("the append succeeds");
    let entries = read(&log, Position(1), 4).await;
    for (entry, record) in entries.iter().zip(&records) {
        assert_eq!(&entry.record, record);
        assert_eq!(entry.crc, wire::encode(record).crc);
        assert!(entry.appended_ms > 0);
    }
    assert!(entries.is_sorted_by_key(|entry| entry.appended_ms), "append times do not go back");
}

async fn a_reader_behind_the_tail(fixture: Fixture) {
    let log = open(&fixture, "a.0").await;
    append(&log, 1..=3).await;
    let mut entries = log.read(Position(5));
    let expected = ReadError::BehindTail { asked: Position(5), tail: Position(3) };
    assert_eq!(entries.next().await, Some(Err(expected)));
    assert_eq!(entries.next().await, None, "an error is the end");
}

async fn a_trimmed_position(fixture: Fixture) {
    let log = open(&fixture, "a.0").await;
    append(&log, 1..=10).await;
    log.trim(Position(4)).await.expect("the trim succeeds");
    let refused = log.read(Position(3)).next().await;
    assert_eq!(refused, Some(Err(ReadError::Trimmed { asked: Position(3), first: Position(4) })));
    let numbers: Vec<u64> = read(&log, Position(4), 7).await.iter().map(number).collect();
    assert_eq!(numbers, (4..=10).collect::<Vec<u64>>());
    assert_eq!(log.usage().await.expect("usage is known").first, Position(4));
}

async fn positions_never_come_back(fixture: Fixture) {
    let log = open(&fixture, "a.0").await;
    append(&log, 1..=5).await;
    log.trim(Position(6)).await.expect("the trim succeeds");
    let usage = log.usage().await.expect("usage is known");
    assert_eq!((usage.first, usage.tail), (Position(6), Position(5)));
    assert_eq!(append(&log, 6..=6).await, [Position(6)]);
    assert_eq!(number(&read(&log, Position(6), 1).await[0]), 6);
}

async fn overtaken_by_the_trim(fixture: Fixture) {
    let log = open(&fixture, "a.0").await;
    append(&log, 1..=10).await;
    log.trim(Position(8)).await.expect("the trim succeeds");
    let mut follower = Follower::new(log, fixture.shell.clone(), Position(2), 0);
    let error = follower.next().await.expect_err("it cannot go on");
    assert_eq!(error, ReadError::Trimmed { asked: Position(2), first: Position(8) });
}

async fn a_trim_of_nothing(fixture: Fixture) {
    let log = open(&fixture, "a.0").await;
    append(&log, 1..=5).await;
    log.trim(Position(3)).await.expect("the trim succeeds");
    log.trim(Position(2)).await.expect("an older trim is no error");
    assert_eq!(log.usage().await.expect("usage is known").first, Position(3));
}

async fn the_largest_body(fixture: Fixture) {
    let log = open(&fixture, "a.0").await;
    let record = message(512 << 10);
    log.append(vec![record.clone(), mark(1)]).await.expect("the append succeeds");
    let entries = read(&log, Position(1), 2).await;
    assert!(entries[0].record == record, "the large record comes back whole");
    assert_eq!(number(&entries[1]), 1);
}

async fn a_record_of_the_limit(fixture: Fixture) {
    const BODY_BYTES: usize = 100_000;
    let log = open(&fixture, "a.0").await;
    let limit = log.usage().await.expect("usage is known").record_limit_bytes;
    let limit = usize::try_from(limit).expect("records are small");
    assert!(limit >= RECORD_LEAST_BYTES, "every kind of record fits into {limit} bytes");
    let around = wire::encode(&message(BODY_BYTES)).bytes.len() - BODY_BYTES;
    let largest = message(limit - around);
    assert_eq!(wire::encode(&largest).bytes.len(), limit);
    let refused = log.append(vec![mark(1), message(limit - around + 1)]).await;
    let (bytes, limit_bytes) = (limit as u64 + 1, limit as u64);
    assert_eq!(refused, Err(AppendError::TooLarge { bytes, limit_bytes }));
    assert_eq!(
        log.append(vec![largest.clone()]).await,
        Ok(vec![Position(1)]),
        "of the refused call nothing was appended"
    );
    assert!(read(&log, Position(1), 1).await[0].record == largest, "it comes back whole");
}

async fn usage_tells(fixture: Fixture) {
    let log = open(&fixture, "a.0").await;
    append(&log, 1..=5).await;
    let usage = log.usage().await.expect("usage is known");
    assert_eq!((usage.first, usage.tail), (Position(1), Position(5)));
    assert!(!usage.durability.is_empty(), "it says what an acknowledgement means");
}

async fn a_follower_reads_whole(fixture: Fixture) {
    const RECORDS: u64 = 3_000;
    let log = open(&fixture, "a.0").await;
    append(&log, 1..=RECORDS / 2).await;
    let mut follower = Follower::new(log.clone(), fixture.shell.clone(), Position::ZERO, 0);
    let grow = async {
        for at in RECORDS / 2 + 1..=RECORDS {
            append(&log, at..=at).await;
        }
    };
    let follow = async {
        for at in 1..=RECORDS {
            let entry = follower.next().await.expect("nothing stops it");
            assert_eq!((entry.position, number(&entry)), (Position(at), at));
        }
    };
    futures_util::future::join(grow, follow).await;
}
