//! What breaks a NATS broker, and what its users may be told then; each test shows that its fault struck.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use broker_adapter::connect;
use broker_adapter::follow::Follower;
use broker_adapter::ids::Position;
use broker_adapter::log::{AppendError, MessageLog, ReadError};
use broker_adapter::nats::NatsOptions;
use broker_adapter::record::Record;
use broker_adapter::shell::{Shell, real};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::join_all;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::proxy::Proxy;
use super::server::{Server, Setup};
use super::settings::{Stage, fill};
use crate::support::{at, copy, mark, message, number};

const STREAM: &str = "SEGUE_a_2E0";

/// Reads to the first error.
async fn until_error(log: &Arc<dyn MessageLog>, from: Position) -> ReadError {
    let mut entries = log.read(from);
    loop {
        if let Err(error) = entries.next().await.expect("an error is told before the end") {
            return error;
        }
    }
}

/// A follower that has read all `last` records.
async fn follower_at(log: &Arc<dyn MessageLog>, shell: &Shell, last: u64) -> Follower {
    let mut follower = Follower::new(log.clone(), shell.clone(), Position::ZERO, 0);
    for expected in 1..=last {
        assert_eq!(number(&follower.next().await.expect("nothing stops it")), expected);
    }
    follower
}

/// Appends `first..=last`, each until it is acknowledged; tells how many attempts failed.
async fn append_each(log: &Arc<dyn MessageLog>, shell: &Shell, first: u64, last: u64) -> u64 {
    let mut failed = 0;
    for at in first..=last {
        while let Err(error) = log.append(vec![mark(at)]).await {
            assert!(error.is_retryable(), "{error}");
            failed += 1;
            shell.sleep(Duration::from_millis(20)).await;
        }
    }
    failed
}

/// Every number up to `last` is there, the first of each in order: only what was appended again may be doubled.
async fn nothing_is_lost_or_overtaken(log: &Arc<dyn MessageLog>, shell: &Shell, last: u64) {
    let mut follower = Follower::new(log.clone(), shell.clone(), Position::ZERO, 0);
    let mut seen = 0;
    while seen < last {
        let entry = follower.next().await.expect("nothing stops it");
        if matches!(&entry.record, Record::Mark(mark) if mark.id.0 > u128::from(u64::MAX)) {
            // One that asked for the tail.
            continue;
        }
        let number = number(&entry);
        assert!(number <= seen + 1, "{number} came behind {seen}");
        seen = seen.max(number);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_out_of_range_is_told_with_its_positions() {
    let stage = Stage::new(Setup::default()).await;
    let log = stage.log().await;
    fill(&log, 10).await;
    log.trim(at(4)).await.expect("the trim succeeds");
    assert_eq!(until_error(&log, at(3)).await, ReadError::Trimmed { asked: at(3), first: at(4) });
    for asked in [12, 13, 1_000_000] {
        assert_eq!(until_error(&log, at(asked)).await, ReadError::BehindTail { asked: at(asked), tail: at(10) });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_purged_behind_a_readers_back_is_told_by_positions() {
    let stage = Stage::new(Setup::default()).await;
    let log = stage.log().await;
    // More than the server sends ahead of its reader.
    for _ in 0..12 {
        log.append(vec![message(500_000); 10]).await.expect("the append succeeds");
    }
    let mut entries = log.read(at(1));
    let mut last = entries.next().await.unwrap().unwrap().position;
    stage.api(&format!("STREAM.PURGE.{STREAM}"), json!({ "seq": 119 })).await;
    let error = loop {
        match entries.next().await.expect("an error is told before the end") {
            Ok(entry) => {
                assert_eq!(entry.position, last.next());
                last = entry.position;
            }
            Err(error) => break error,
        }
    };
    assert!(last < at(118), "the server had not sent everything");
    assert_eq!(error, ReadError::Trimmed { asked: last.next(), first: at(119) });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_record_can_be_deleted_from_the_middle() {
    let stage = Stage::new(Setup::default()).await;
    let log = stage.log().await;
    fill(&log, 3).await;
    let call = format!("$JS.API.STREAM.MSG.DELETE.{STREAM}");
    let answer = stage.admin.request(call, json!({ "seq": 2 }).to_string().into()).await.expect("JetStream answers");
    assert!(String::from_utf8_lossy(&answer.payload).contains("not permitted"), "{:?}", answer.payload);
    assert_eq!(log.read(at(1)).take(3).collect::<Vec<_>>().await.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_made_anew_behind_our_back_is_found_by_readers_and_writers() {
    let stage = Stage::new(Setup::default()).await;
    let log = stage.log().await;
    fill(&log, 5).await;
    let mut follower = follower_at(&log, &stage.shell, 5).await;
    stage.api(&format!("STREAM.DELETE.{STREAM}"), Value::Null).await;
    let other =
        connect(&stage.server.url(), &stage.shell).await.expect("it connects").log("a.0").await.expect("it opens");
    fill(&other, 2).await;
    assert_eq!(follower.next().await, Err(ReadError::BehindTail { asked: at(5), tail: at(2) }));
    let error = loop {
        match log.append(vec![mark(6)]).await {
            Err(error @ AppendError::Damaged(_)) => break error,
            Err(AppendError::Unknown(_) | AppendError::Unreachable(_)) => {}
            other => panic!("it took the new stream for the old one: {other:?}"),
        }
    };
    assert!(error.to_string().contains("made anew"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_rewound_to_an_older_copy_of_its_files_is_found() {
    let mut stage = Stage::new(Setup::default()).await;
    let log = stage.log().await;
    fill(&log, 5).await;
    let older = tempfile::tempdir().expect("a folder");
    stage.server.kill();
    copy(&stage.server.store(), older.path());
    stage.server.start_again();
    assert!(append_each(&log, &stage.shell, 6, 10).await < 100);
    let tail = log.tail().await.expect("the tail is known");
    let mut follower = Follower::new(log.clone(), stage.shell.clone(), Position::ZERO, 0);
    let mut crc = 0;
    while follower.position() < tail {
        crc = follower.next().await.expect("nothing stops it").crc;
    }
    rewind(&mut stage.server, older.path());
    let error = follower.next().await.expect_err("the log is shorter than what was read");
    assert_eq!(error, ReadError::BehindTail { asked: tail, tail: at(5) });
    let error = loop {
        match log.append(vec![mark(11)]).await {
            Err(error @ AppendError::Damaged(_)) => break error,
            Err(_) => {}
            Ok(positions) => panic!("it was appended to the older log: {positions:?}"),
        }
    };
    assert!(error.to_string().contains("rewound"), "{error}");
    // Others go on, and the log is longer again: it is still another one.
    let other =
        connect(&stage.server.url(), &stage.shell).await.expect("it connects").log("a.0").await.expect("it opens");
    append_each(&other, &stage.shell, 100, 120).await;
    let mut follower = Follower::new(other, stage.shell.clone(), tail, crc);
    assert!(matches!(follower.next().await, Err(ReadError::Different { position, .. }) if position == tail));
}

fn rewind(server: &mut Server, older: &Path) {
    server.kill();
    std::fs::remove_dir_all(server.store()).expect("it can be removed");
    copy(older, &server.store());
    server.start_again();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_acknowledgement_is_unknown_and_the_record_is_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path());
    let proxy = Proxy::start(server.port.number).await;
    let (shell, _process) = real::process();
    let log = connect(&proxy.url(), &shell).await.expect("it connects").log("a.0").await.expect("it opens");
    fill(&log, 1).await;
    proxy.swallow_answers();
    // Three appends are on their way when the connection is cut.
    let appends: Vec<_> = (2..=4).map(|number| log.append(vec![mark(number)])).collect();
    shell.sleep(Duration::from_millis(200)).await;
    assert!(proxy.cut() > 0, "answers were lost");
    for appended in join_all(appends).await {
        assert!(matches!(appended, Err(AppendError::Unknown(_))), "{appended:?}");
    }
    assert_eq!(append_each(&log, &shell, 5, 5).await, 0, "it waits for the next connection");
    let numbers: Vec<u64> =
        log.read(at(1)).take(5).map(|entry| number(&entry.expect("it is readable"))).collect().await;
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_there_is_unreachable_and_has_no_side_effects() {
    let mut stage = Stage::new(Setup::default()).await;
    let log = stage.log().await;
    fill(&log, 1).await;
    stage.server.kill();
    // The first ones may still find the connection in the moment of its end.
    while log.append(vec![mark(2)]).await.expect_err("nobody is there") == AppendError::Unknown("x".to_owned()) {}
    stage.shell.sleep(Duration::from_millis(100)).await;
    let error = log.append(vec![mark(3)]).await.expect_err("nobody is there");
    assert!(error.has_no_side_effects() && error.is_retryable(), "{error}");
    assert!(log.tail().await.expect_err("nobody is there").is_retryable());
    stage.server.start_again();
    append_each(&log, &stage.shell, 4, 4).await;
    let last = log.read(at(1)).take(2).map(|entry| number(&entry.expect("it is readable"))).collect::<Vec<u64>>().await;
    assert_eq!(last[0], 1);
    assert_ne!(last[1], 3, "what was unreachable did not land");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_log_refuses_deletes_nothing_and_takes_more_after_a_trim() {
    let stage = Stage::new(Setup::default()).await;
    let options = NatsOptions { max_bytes: std::num::NonZeroU64::new(1_000_000), ..NatsOptions::default() };
    let log = stage.connect_with(options).await.expect("it connects").log("small.0").await.expect("it opens");
    let mut taken = 0;
    let error = loop {
        match log.append(vec![message(50_000)]).await {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(&error, AppendError::Full(_)) && error.has_no_side_effects(), "{error}");
    let usage = log.usage().await.expect("usage is known");
    assert_eq!((usage.first, usage.tail), (at(1), at(taken)));
    // A part of it would fit: then nobody can say that nothing was appended.
    let error = log.append(vec![mark(1), message(50_000)]).await.expect_err("it is full");
    assert!(!error.has_no_side_effects(), "{error}");
    log.trim(at(taken / 2)).await.expect("the trim succeeds");
    assert_eq!(log.append(vec![message(50_000)]).await, Ok(vec![at(taken + 2)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_above_the_servers_max_payload_is_refused_as_a_record_and_divided_as_mail() {
    let lines = "max_payload: 140000".to_owned();
    let stage = Stage::new(Setup { lines, ..Setup::default() }).await;
    let log = stage.log().await;
    let error = log.append(vec![mark(1), message(150_000)]).await.expect_err("it is too large");
    assert!(matches!(error, AppendError::TooLarge { bytes: 150_000.., limit_bytes: 140_000 }), "{error}");
    assert_eq!(log.tail().await, Ok(Position::ZERO));
    let mail = stage.broker.mailbox();
    let mut listener = mail.subscribe("node/edge-a");
    let large: Bytes = (0..3_000_000u32).map(|at| at.to_le_bytes()[0]).collect::<Vec<u8>>().into();
    let got = loop {
        mail.send("node/edge-a", large.clone());
        if let Some(got) = stage.shell.within(Duration::from_millis(500), listener.next()).await {
            break got.expect("a subscription never ends");
        }
    };
    assert!(got == large, "it is whole");
    let store = stage.broker.store();
    store.put("chunk/a".to_owned(), large.clone()).await.expect("the put succeeds");
    assert!(store.get("chunk/a".to_owned()).await.expect("it is there") == large);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_object_is_told() {
    let stage = Stage::new(Setup::default()).await;
    let store = stage.broker.store();
    store.put("chunk/a".to_owned(), Bytes::from(vec![7; 700_000])).await.expect("the put succeeds");
    stage.api("STREAM.MSG.DELETE.OBJ_segue", json!({ "seq": 2 })).await;
    let error = store.get("chunk/a".to_owned()).await.expect_err("a part is gone");
    assert!(error.to_string().contains("missing") && !error.is_retryable(), "{error}");
    store.put("chunk/a".to_owned(), Bytes::from(vec![7; 700_000])).await.expect("the put mends it");
    assert_eq!(store.get("chunk/a".to_owned()).await.expect("it is there").len(), 700_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_that_does_not_keep_up_loses_mail_and_goes_on() {
    const SENT: usize = 40_000;
    let stage = Stage::new(Setup::default()).await;
    let mail = stage.broker.mailbox();
    let mut listener = mail.subscribe("node/slow");
    super::first_mail(&stage.shell, &mail, "node/slow", &mut listener).await;
    for number in 0..SENT {
        mail.send("node/slow", Bytes::from(number.to_string()));
    }
    stage.shell.sleep(Duration::from_secs(1)).await;
    let mut got = 0;
    while stage.shell.within(Duration::from_millis(500), listener.next()).await.is_some() {
        got += 1;
    }
    assert!((1_000..SENT).contains(&got), "{got} of {SENT} arrived");
    super::first_mail(&stage.shell, &mail, "node/slow", &mut listener).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_does_not_keep_up_loses_nothing() {
    const RECORDS: u64 = 30_000;
    let stage = Stage::new(Setup { lazy: true, ..Setup::default() }).await;
    let log = stage.log().await;
    let mut entries = log.read(at(1));
    let grow = async {
        for first in (1..=RECORDS).step_by(1_000) {
            log.append((first..first + 1_000).map(mark).collect()).await.expect("the append succeeds");
        }
    };
    let slow = async {
        for expected in 1..=RECORDS {
            let entry = entries.next().await.expect("it tails").expect("nothing is lost");
            assert_eq!(number(&entry), expected);
            if expected % 10_000 == 1 {
                stage.shell.sleep(Duration::from_millis(500)).await;
            }
        }
    };
    futures_util::future::join(grow, slow).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_stopped_for_ten_seconds_loses_and_reorders_nothing() {
    let stage = Stage::new(Setup::default()).await;
    let log = stage.log().await;
    fill(&log, 10).await;
    let stop = async {
        stage.shell.sleep(Duration::from_millis(50)).await;
        stage.server.signal(Signal::STOP);
        stage.shell.sleep(Duration::from_secs(10)).await;
        stage.server.signal(Signal::CONT);
    };
    let longest = async {
        let mut longest = Duration::ZERO;
        let began = stage.shell.now();
        let mut last = 10;
        while stage.shell.now() < began + Duration::from_secs(12) {
            last += 1;
            let at = stage.shell.now();
            append_each(&log, &stage.shell, last, last).await;
            longest = longest.max(stage.shell.now() - at);
        }
        (last, longest)
    };
    let ((), (last, longest)) = futures_util::future::join(stop, longest).await;
    assert!(longest > Duration::from_secs(5), "the server really stood still: {longest:?}");
    nothing_is_lost_or_overtaken(&log, &stage.shell, last).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_in_mid_stream_loses_and_reorders_nothing() {
    let mut stage = Stage::new(Setup::default()).await;
    let log = stage.log().await;
    let shell = stage.shell.clone();
    let (appender, world) = (log.clone(), shell.clone());
    let appending = tokio::spawn(async move {
        let mut failed = 0;
        for first in (1..=2_000).step_by(10) {
            failed += append_each(&appender, &world, first, first + 9).await;
        }
        failed
    });
    for _ in 0..3 {
        shell.sleep(Duration::from_millis(300)).await;
        stage.server.kill();
        stage.server.start_again();
    }
    let failed = appending.await.expect("it does not panic");
    assert!(failed > 0, "the kills struck");
    nothing_is_lost_or_overtaken(&log, &shell, 2_000).await;
}
