//! The memory broker's own promises: its faults strike and are counted, and the same seed plays the same day.
//! The contract of the three faces is tested by the conformance suite, in `tests/`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;

use super::{Delay, Faults, MemoryBroker};
use crate::broker::Broker;
use crate::ids::{Id128, Incarnation, Position};
use crate::log::{AppendError, MessageLog, ReadError};
use crate::record::{Mark, Record};
use crate::shell::sim::SimWorld;
use crate::shell::{Shell, TaskSet};
use crate::store::StoreError;

/// A broker in a world of its own; the set keeps its tasks alive.
struct Bench {
    broker: Arc<MemoryBroker>,
    shell: Shell,
    _tasks: TaskSet,
}

fn bench(seed: u64, faults: Faults) -> Bench {
    let (shell, tasks) = SimWorld::new(seed).process();
    Bench { broker: MemoryBroker::new(seed, shell.clone(), faults), shell, _tasks: tasks }
}

async fn log(link: &Arc<dyn Broker>) -> Arc<dyn MessageLog> {
    link.log("clock.0").await.unwrap()
}

fn mark(id: u128) -> Record {
    Record::Mark(Mark { id: Id128(id), asker: Incarnation::from_bits(1), state: false })
}

fn ids(bench: &Bench) -> Vec<u128> {
    let id = |record: Record| match record {
        Record::Mark(mark) => mark.id.0,
        other => panic!("{}", other.kind()),
    };
    bench.broker.dump("clock.0").into_iter().map(|entry| id(entry.record)).collect()
}

#[tokio::test(start_paused = true)]
async fn nothing_is_visible_before_it_is_committed() {
    let bench = bench(1, Faults { append_delay: Delay::ms(10, 10), ack_delay: Delay::ms(5, 5), ..Faults::default() });
    let log = log(&bench.broker.connect("a")).await;
    let ack = log.append(vec![mark(1)]);
    bench.shell.sleep(Duration::from_millis(9)).await;
    assert_eq!(log.tail().await.unwrap(), Position(0));
    let entry = log.read(Position(1)).next().await.unwrap().unwrap();
    assert_eq!(bench.shell.now(), Duration::from_millis(10));
    assert_eq!(entry.record, mark(1));
    assert_eq!(ack.await.unwrap(), vec![Position(1)]);
    assert_eq!(bench.shell.now(), Duration::from_millis(15));
}

#[tokio::test(start_paused = true)]
async fn pipelined_appends_keep_the_order_of_the_calls() {
    let bench = bench(2, Faults { append_delay: Delay::ms(0, 50), ack_delay: Delay::ms(0, 50), ..Faults::default() });
    let log = log(&bench.broker.connect("a")).await;
    let mut acks: Vec<_> = (1..=50).map(|id| log.append(vec![mark(id)])).collect();
    acks.reverse();
    for (ack, position) in acks.into_iter().zip((1..=50).rev()) {
        assert_eq!(ack.await.unwrap(), vec![Position(position)]);
    }
    assert_eq!(ids(&bench), (1..=50).collect::<Vec<_>>());
    assert!(bench.shell.now() <= Duration::from_millis(100), "they overlap: {:?}", bench.shell.now());
}

#[tokio::test(start_paused = true)]
async fn a_lost_request_is_unknown_and_never_appended() {
    let bench = bench(3, Faults { append_lost_per_mille: 1000, ..Faults::default() });
    let log = log(&bench.broker.connect("a")).await;
    assert!(matches!(log.append(vec![mark(1)]).await, Err(AppendError::Unknown(_))));
    assert_eq!(log.tail().await.unwrap(), Position(0));
    assert_eq!(bench.broker.fired()["append_lost_per_mille"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_lost_ack_is_unknown_and_the_record_is_there() {
    let bench = bench(4, Faults { ack_lost_per_mille: 1000, ..Faults::default() });
    let log = log(&bench.broker.connect("a")).await;
    assert!(matches!(log.append(vec![mark(1)]).await, Err(AppendError::Unknown(_))));
    assert_eq!(ids(&bench), [1]);
    assert_eq!(bench.broker.fired()["ack_lost_per_mille"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_late_record_lands_behind_what_was_sent_after_it() {
    let late = Faults { append_late_per_mille: 1000, append_late: Delay::ms(3_000, 3_000), ..Faults::default() };
    let bench = bench(5, late);
    let log = log(&bench.broker.connect("a")).await;
    assert!(matches!(log.append(vec![mark(1)]).await, Err(AppendError::Unknown(_))));
    bench.broker.set_faults(Faults::default());
    log.append(vec![mark(2)]).await.unwrap();
    drop(log);
    bench.shell.sleep(Duration::from_secs(4)).await;
    assert_eq!(ids(&bench), [2, 1]);
    assert_eq!(bench.broker.fired()["append_late_per_mille"], 1);
}

#[tokio::test(start_paused = true)]
async fn late_appends_of_one_name_overtake_each_other() {
    let bench = bench(7, Faults::calm());
    let log = log(&bench.broker.connect("edge-a")).await;
    bench.broker.late_appends("edge-a", "clock.0", 20, Delay::ms(1, 200));
    for id in 1..=20 {
        assert!(matches!(log.append(vec![mark(id)]).await, Err(AppendError::Unknown(_))));
    }
    bench.shell.sleep(Duration::from_secs(2)).await;
    log.append(vec![mark(21)]).await.expect("those were all");
    let mut landed = ids(&bench);
    assert_ne!(landed, (1..=21).collect::<Vec<_>>(), "some overtook others");
    landed.sort_unstable();
    assert_eq!(landed, (1..=21).collect::<Vec<_>>());
    assert_eq!(bench.broker.fired()["late_appends"], 20);
}

#[tokio::test(start_paused = true)]
async fn a_dead_process_s_record_lands_seconds_later() {
    let bench =
        bench(6, Faults { append_stall_per_mille: 1000, append_stall: Delay::ms(2_000, 2_000), ..Faults::default() });
    let log = log(&bench.broker.connect("zombie")).await;
    drop(log.append(vec![mark(1)]));
    drop(log);
    bench.shell.sleep(Duration::from_millis(1_999)).await;
    assert_eq!(ids(&bench), [] as [u128; 0]);
    bench.shell.sleep(Duration::from_millis(2)).await;
    assert_eq!(ids(&bench), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_crash_of_the_broker_makes_everything_in_flight_unknown_and_keeps_its_order() {
    let bench = bench(7, Faults { append_delay: Delay::ms(100, 100), ..Faults::default() });
    let log = log(&bench.broker.connect("a")).await;
    let mut stream = log.read(Position(1));
    let acks: Vec<_> = (1..=40).map(|id| log.append(vec![mark(id)])).collect();
    bench.broker.crash_and_restart();
    for ack in acks {
        assert!(matches!(ack.await, Err(AppendError::Unknown(_))));
    }
    assert_eq!(stream.next().await, Some(Err(ReadError::Unreachable("the connection broke".to_owned()))));
    assert_eq!(stream.next().await, None);
    bench.shell.sleep(Duration::from_secs(1)).await;
    let landed = ids(&bench);
    assert!(landed.is_sorted() && !landed.is_empty() && landed.len() < 40, "{landed:?}");
    assert_eq!(log.append(vec![mark(41)]).await.unwrap(), vec![Position(landed.len() as u64 + 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_line_that_is_cut_off_passes_nothing_until_it_is_healed() {
    let bench = bench(8, Faults::calm());
    let (near, far) = (bench.broker.connect("a"), bench.broker.connect("b"));
    let (log, other) = (log(&near).await, log(&far).await);
    let mut stream = log.read(Position(1));
    let mut mail = near.mailbox().subscribe("node/a");
    bench.broker.cut_off("a");
    assert!(matches!(stream.next().await, Some(Err(ReadError::Unreachable(_)))));
    assert!(matches!(log.tail().await, Err(ReadError::Unreachable(_))));
    let refused = log.append(vec![mark(1)]).await.unwrap_err();
    assert!(matches!(refused, AppendError::Unreachable(_) | AppendError::Unknown(_)));
    far.mailbox().send("node/a", Bytes::from_static(b"lost"));
    other.append(vec![mark(2)]).await.unwrap();
    bench.shell.sleep(Duration::from_secs(1)).await;
    bench.broker.heal("a");
    far.mailbox().send("node/a", Bytes::from_static(b"there"));
    assert_eq!(mail.next().await.unwrap(), "there");
    assert_eq!(log.read(Position(1)).next().await.unwrap().unwrap().record, mark(2));
    assert_eq!(log.append(vec![mark(3)]).await.unwrap(), vec![Position(2)]);
}

#[tokio::test(start_paused = true)]
async fn a_stalled_line_passes_everything_later_and_loses_nothing() {
    let bench = bench(9, Faults::calm());
    let (near, far) = (bench.broker.connect("a"), bench.broker.connect("b"));
    let (log, other) = (log(&near).await, log(&far).await);
    let mut stream = log.read(Position(1));
    let mut mail = near.mailbox().subscribe("node/a");
    let before = bench.shell.now();
    bench.broker.stall("a", Duration::from_secs(2));
    other.append(vec![mark(1)]).await.unwrap();
    far.mailbox().send("node/a", Bytes::from_static(b"late"));
    let ack = log.append(vec![mark(2)]);
    assert_eq!(stream.next().await.unwrap().unwrap().record, mark(1));
    assert!(bench.shell.now() >= before + Duration::from_secs(2));
    assert_eq!(mail.next().await.unwrap(), "late");
    assert_eq!(ack.await.unwrap(), vec![Position(2)]);
}

#[tokio::test(start_paused = true)]
async fn a_broken_stream_ends_with_unreachable() {
    let bench = bench(10, Faults { read_broken_per_mille: 1000, ..Faults::default() });
    let log = log(&bench.broker.connect("a")).await;
    log.append(vec![mark(1)]).await.unwrap();
    assert!(matches!(log.read(Position(1)).next().await, Some(Err(ReadError::Unreachable(_)))));
    bench.broker.set_faults(Faults::default());
    assert!(matches!(log.read(Position(1)).next().await, Some(Ok(_))));
    assert_eq!(bench.broker.fired()["read_broken_per_mille"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_record_is_refused_by_its_position() {
    let bench = bench(11, Faults::default());
    let log = log(&bench.broker.connect("a")).await;
    log.append(vec![mark(1), mark(2)]).await.unwrap();
    bench.broker.damage("clock.0", Position(2));
    let found: Vec<_> = log.read(Position(1)).take(2).collect().await;
    assert!(found[0].is_ok());
    assert!(matches!(&found[1], Err(ReadError::Damaged { position: Position(2), .. })), "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn a_rewound_log_is_shorter_than_its_readers_remember() {
    let bench = bench(12, Faults::default());
    let log = log(&bench.broker.connect("a")).await;
    log.append(vec![mark(1), mark(2), mark(3)]).await.unwrap();
    bench.broker.rewind("clock.0", Position(1));
    let found = log.read(Position(3)).next().await.unwrap();
    assert_eq!(found, Err(ReadError::BehindTail { asked: Position(3), tail: Position(1) }));
}

#[tokio::test(start_paused = true)]
async fn a_full_log_refuses_and_takes_again_after_a_trim() {
    let bench = bench(13, Faults::default());
    let log = log(&bench.broker.connect("a")).await;
    bench.broker.limit_logs(2);
    log.append(vec![mark(1), mark(2)]).await.unwrap();
    assert!(matches!(log.append(vec![mark(3)]).await, Err(AppendError::Full(_))));
    log.trim(Position(2)).await.unwrap();
    assert_eq!(log.append(vec![mark(3)]).await.unwrap(), vec![Position(3)]);
    assert_eq!(ids(&bench), [1, 2, 3]);
    assert_eq!(log.usage().await.unwrap().first, Position(2));
}

#[tokio::test(start_paused = true)]
async fn mail_is_lost_doubled_and_overtaken_as_often_as_asked() {
    let faults = Faults {
        mail_lost_per_mille: 300,
        mail_doubled_per_mille: 300,
        mail_delay: Delay::ms(0, 50),
        ..Faults::default()
    };
    let bench = bench(14, faults);
    let link = bench.broker.connect("a");
    let mails = link.mailbox().subscribe("node/a");
    for number in 0..200u8 {
        link.mailbox().send("node/a", Bytes::copy_from_slice(&[number]));
    }
    bench.shell.sleep(Duration::from_secs(1)).await;
    let fired = bench.broker.fired();
    let (lost, doubled) = (fired["mail_lost_per_mille"], fired["mail_doubled_per_mille"]);
    assert!((30..90).contains(&lost) && (20..70).contains(&doubled), "{fired:?}");
    let expected = usize::try_from(200 - lost + doubled).unwrap();
    let arrived: Vec<u8> = mails.take(expected).map(|mail| mail[0]).collect().await;
    assert!(!arrived.is_sorted());
}

#[tokio::test(start_paused = true)]
async fn a_damaged_object_is_an_error_and_never_other_bytes() {
    let bench = bench(15, Faults::default());
    let store = bench.broker.connect("a").store();
    store.put("chunk/ab".to_owned(), Bytes::from_static(b"state")).await.unwrap();
    assert!(bench.broker.damage_object("chunk/ab"));
    assert!(!bench.broker.damage_object("chunk/cd"));
    assert!(matches!(store.get("chunk/ab".to_owned()).await, Err(StoreError::Damaged { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_failed_put_may_have_been_done() {
    let bench = bench(16, Faults { store_failed_per_mille: 1000, ..Faults::default() });
    let store = bench.broker.connect("a").store();
    for number in 0..40 {
        let failed = store.put(format!("chunk/{number}"), Bytes::from_static(b"state")).await;
        assert!(matches!(failed, Err(StoreError::Unreachable(_))));
    }
    bench.broker.set_faults(Faults::default());
    let done = store.list("chunk/".to_owned()).await.unwrap().len();
    assert!((1..40).contains(&done), "{done}");
}

#[tokio::test(start_paused = true)]
async fn append_times_follow_the_broker_s_clock_when_it_jumps() {
    let bench = bench(17, Faults::default());
    let log = log(&bench.broker.connect("a")).await;
    log.append(vec![mark(1)]).await.unwrap();
    bench.broker.jump_clock(-60_000);
    log.append(vec![mark(2)]).await.unwrap();
    let entries = bench.broker.dump("clock.0");
    assert_eq!(entries[1].appended_ms, entries[0].appended_ms - 60_000);
}

/// A rough day of two writers and a reader: what each of them saw, in order.
fn rough_day(seed: u64) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let bench = bench(seed, Faults { call_failed_per_mille: 0, ..Faults::rough() });
        let trace = Arc::new(std::sync::Mutex::new(String::new()));
        for (writer, name) in ["a", "b", "c"].into_iter().enumerate() {
            let log = log(&bench.broker.connect(name)).await;
            let (shell, trace) = (bench.shell.clone(), trace.clone());
            bench.shell.spawn(async move {
                for id in 0..60u128 {
                    let outcome = log.append(vec![mark(1_000 * writer as u128 + id)]).await;
                    let line = format!("{:?} {writer} {id} {outcome:?}\n", shell.now());
                    trace.lock().unwrap().push_str(&line);
                    if id % 20 == 0 {
                        let seen: Vec<_> = log.read(Position(1)).take(3).collect().await;
                        trace.lock().unwrap().push_str(&format!("{:?} {seen:?}\n", shell.now()));
                    }
                }
            });
        }
        bench.shell.sleep(Duration::from_millis(150)).await;
        bench.broker.crash_and_restart();
        bench.shell.sleep(Duration::from_secs(60)).await;
        let all = format!("{}{:?}{:?}", trace.lock().unwrap(), bench.broker.dump("clock.0"), bench.broker.fired());
        all
    })
}

#[test]
fn the_same_seed_plays_the_same_day_byte_for_byte() {
    assert_eq!(rough_day(18), rough_day(18));
    assert_ne!(rough_day(18), rough_day(19));
}

#[tokio::test(start_paused = true)]
async fn a_broker_ends_with_its_handles() {
    let bench = bench(20, Faults::calm());
    let log = log(&bench.broker.connect("a")).await;
    log.append(vec![mark(1)]).await.unwrap();
    let weak = Arc::downgrade(&bench.broker);
    drop((log, bench));
    tokio::task::yield_now().await;
    assert!(weak.upgrade().is_none(), "something in flight keeps the whole broker");
}
