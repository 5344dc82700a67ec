//! What only the inside can be asked: reads that meet damage or a trim after the log was opened whole.

use bytes::Bytes;
use futures_util::StreamExt;

use super::row::{self, Row};
use super::state::{LogState, Look};
use super::{EmbeddedBroker, Options};
use crate::broker::Broker;
use crate::ids::{Id128, Incarnation, Position};
use crate::log::{MessageLog, ReadError};
use crate::record::{Mark, Record, wire};
use crate::shell::real;

fn mark(number: u64) -> Record {
    Record::Mark(Mark { id: Id128(u128::from(number)), asker: Incarnation::from_bits(7), state: false })
}

fn row_of(position: u64, frame: Bytes) -> Row {
    Row { position: Position(position), appended_ms: 5, crc: wire::check(&frame).unwrap(), frame }
}

/// A log of these many records, all on disk and none in the ring.
fn stored(folder: &std::path::Path, records: u64) -> LogState {
    let tree = sled::Config::new().path(folder).flush_every_ms(None).open().unwrap().open_tree("log:a.0").unwrap();
    let mut batch = sled::Batch::default();
    for number in 1..=records {
        row::write(&mut batch, &row_of(number, wire::encode(&mark(number)).bytes), Position(number - 1));
    }
    tree.apply_batch(batch).unwrap();
    LogState::new("a.0".to_owned(), tree, Position(1), Position(records))
}

#[test]
fn a_record_damaged_after_the_opening_is_refused_by_position_when_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let log = stored(folder.path(), 10);
    let mut value = log.tree.get(row::key(Position(6), 0)).unwrap().unwrap().to_vec();
    value[30] ^= 4;
    log.tree.insert(row::key(Position(6), 0), value).unwrap();
    let before = log.read_disk(Position(3), Position(10)).unwrap();
    assert_eq!(before.iter().map(|row| row.position.0).collect::<Vec<_>>(), [3, 4, 5]);
    let refused = log.read_disk(Position(6), Position(10)).unwrap_err();
    assert!(matches!(&refused, ReadError::Damaged { position: Position(6), .. }), "{refused}");
}

#[test]
fn a_record_missing_after_the_opening_is_a_gap_when_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let log = stored(folder.path(), 10);
    log.tree.remove(row::key(Position(6), 0)).unwrap();
    let refused = log.read_disk(Position(6), Position(10)).unwrap_err();
    assert_eq!(refused, ReadError::Gap { expected: Position(6), found: Position(7) });
    log.tree.remove(row::key(Position(10), 0)).unwrap();
    let refused = log.read_disk(Position(10), Position(10)).unwrap_err();
    assert!(matches!(&refused, ReadError::Damaged { position: Position(10), .. }), "{refused}");
}

#[test]
fn a_reader_on_disk_that_meets_the_trim_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let log = stored(folder.path(), 10);
    assert!(matches!(log.look(Position(2)), Look::OnDisk(Position(10))));
    log.publish_first(Position(5));
    row::remove(&log.tree, Position(1), Some(Position(5)), 100).unwrap();
    let refused = log.read_disk(Position(2), Position(10)).unwrap_err();
    assert_eq!(refused, ReadError::Trimmed { asked: Position(2), first: Position(5) });
}

#[test]
fn the_ring_gives_the_same_rows_as_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let log = stored(folder.path(), 4);
    let frame = wire::encode(&mark(5)).bytes;
    let mut batch = sled::Batch::default();
    row::write(&mut batch, &row_of(5, frame.clone()), Position(4));
    log.tree.apply_batch(batch).unwrap();
    log.publish(vec![row_of(5, frame)]);
    assert!(matches!(log.look(Position(4)), Look::OnDisk(Position(4))), "only what is not in the ring");
    let Look::Rows(ring) = log.look(Position(5)) else { panic!("the tail is in the ring") };
    assert_eq!(ring, log.read_disk(Position(5), Position(5)).unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trim_while_appends_run_removes_the_rows_in_the_end() {
    let (shell, _process) = real::process();
    let folder = tempfile::tempdir().unwrap();
    let broker = EmbeddedBroker::open(folder.path(), Options::default(), &shell).await.unwrap();
    let log = broker.open_log("a.0").await.unwrap();
    log.append((1..=3_000).map(mark).collect()).await.unwrap();
    log.trim(Position(2_990)).await.unwrap();
    for number in 3_001..=3_050 {
        log.append(vec![mark(number)]).await.unwrap();
    }
    let entries: Vec<_> = log.read(Position(2_990)).take(61).collect().await;
    assert!(entries.iter().all(Result::is_ok));
    while log.state().tree.len() > 62 {
        shell.sleep(std::time::Duration::from_millis(10)).await;
    }
    drop((broker.store(), broker.mailbox()));
}
