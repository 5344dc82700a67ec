//! What must survive the end of a broker: everything acknowledged.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;

use super::mail::send_until;
use super::{Case, Fixture, append, message, number, open, read};
use crate::broker::Broker;
use crate::follow::Follower;
use crate::ids::Position;

pub const CASES: &[Case] = &[
    ("acknowledged records survive a restart", |f| records_survive(f).boxed()),
    ("positions go on after a restart", |f| positions_go_on(f).boxed()),
    ("a trim survives a restart", |f| a_trim_survives(f).boxed()),
    ("a follower goes on after a restart", |f| a_follower_goes_on(f).boxed()),
    OBJECTS,
    ("mail flows again after a restart", |f| mail_flows_again(f).boxed()),
];

/// The one about the checkpoint store.
pub const OBJECTS: Case = ("objects survive a restart", |f| objects_survive(f).boxed());

/// Restarts; all other handles of the old broker must be gone.
async fn restart(fixture: Fixture) -> Fixture {
    let again = fixture.restart.clone().expect("only restartable brokers come here");
    let broker: Arc<dyn Broker> = again(fixture.broker).await;
    Fixture { broker, ..fixture }
}

async fn records_survive(fixture: Fixture) {
    let log = open(&fixture, "a.0").await;
    append(&log, 1..=500).await;
    log.append(vec![message(100_000)]).await.expect("the append succeeds");
    let before = read(&log, Position(1), 501).await;
    drop(log);
    let fixture = restart(fixture).await;
    let log = open(&fixture, "a.0").await;
    assert_eq!(log.tail().await, Ok(Position(501)));
    assert!(read(&log, Position(1), 501).await == before, "the very same entries, times and checksums too");
}

async fn positions_go_on(mut fixture: Fixture) {
    for round in 0..3 {
        let log = open(&fixture, "a.0").await;
        let first = 10 * round + 1;
        let positions = append(&log, first..=first + 9).await;
        assert_eq!(positions, (first..=first + 9).map(Position).collect::<Vec<_>>());
        drop(log);
        fixture = restart(fixture).await;
    }
}

async fn a_trim_survives(fixture: Fixture) {
    let log = open(&fixture, "a.0").await;
    append(&log, 1..=10).await;
    log.trim(Position(11)).await.expect("the trim succeeds");
    drop(log);
    let fixture = restart(fixture).await;
    let log = open(&fixture, "a.0").await;
    let usage = log.usage().await.expect("usage is known");
    assert_eq!((usage.first, usage.tail), (Position(11), Position(10)));
    assert_eq!(append(&log, 11..=11).await, [Position(11)]);
}

async fn a_follower_goes_on(fixture: Fixture) {
    let log = open(&fixture, "a.0").await;
    append(&log, 1..=20).await;
    let mut follower = Follower::new(log.clone(), fixture.shell.clone(), Position::ZERO, 0);
    let mut crc = 0;
    for _ in 1..=10 {
        crc = follower.next().await.expect("nothing stops it").crc;
    }
    drop((follower, log));
    let fixture = restart(fixture).await;
    let log = open(&fixture, "a.0").await;
    let mut follower = Follower::new(log, fixture.shell.clone(), Position(10), crc);
    for at in 11..=20 {
        assert_eq!(number(&follower.next().await.expect("nothing stops it")), at);
    }
}

async fn objects_survive(fixture: Fixture) {
    let bytes = Bytes::from(vec![7; 100_000]);
    fixture.broker.store().put("chunk/a".to_owned(), bytes.clone()).await.expect("the put succeeds");
    let fixture = restart(fixture).await;
    assert_eq!(fixture.broker.store().get("chunk/a".to_owned()).await, Ok(bytes));
}

async fn mail_flows_again(fixture: Fixture) {
    let fixture = restart(fixture).await;
    let mail = fixture.broker.mailbox();
    let mut listener = mail.subscribe("node/edge-a");
    send_until(&fixture.shell, &mail, "node/edge-a", &Bytes::from_static(b"hello"), &mut listener).await;
}
