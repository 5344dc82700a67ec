//! The contract of a broker as code: one suite that every adapter passes.
//!
//! Each line of the contracts in [`log`](crate::log), [`store`](crate::store) and [`mailbox`](crate::mailbox) is a case with the
//! line as its name. An adapter's test calls [`run`] with a function that makes a fresh broker; cases that need a restart
//! run only where the adapter can be restarted on what it stored.

mod log;
mod mail;
mod restart;
mod store;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};

use crate::broker::Broker;
use crate::ids::{Id128, Incarnation, MessageName, NodeName, Position, Replica, Sequence, Session};
use crate::log::MessageLog;
use crate::record::{Body, Entry, Key, Mark, Message, Record, Request};
use crate::shell::Shell;

/// A case that takes longer hangs.
const CASE_LIMIT: Duration = Duration::from_secs(60);

/// Ends the broker as a crash would and opens it again on what it stored. Gets the last handle of the old one.
pub type Restart = Arc<dyn Fn(Arc<dyn Broker>) -> BoxFuture<'static, Arc<dyn Broker>> + Send + Sync>;

/// What one case runs on: a broker of its own, empty.
pub struct Fixture {
    /// The broker.
    pub broker: Arc<dyn Broker>,
    /// The world it runs in.
    pub shell: Shell,
    /// How to restart it, if it can be.
    pub restart: Option<Restart>,
    /// Whatever must live as long: folders, servers.
    pub keep: Box<dyn std::any::Any + Send + Sync>,
}

type Case = (&'static str, fn(Fixture) -> BoxFuture<'static, ()>);

/// Runs all cases, each on what `make` gives.
///
/// # Panics
/// At the first case that fails, naming it.
pub async fn run<F: Future<Output = Fixture>>(make: impl Fn() -> F) {
    run_cases([log::CASES, store::CASES, mail::CASES, restart::CASES].concat(), make).await;
}

/// Runs the cases about the checkpoint store alone, for a store that stands beside any broker.
///
/// # Panics
/// At the first case that fails, naming it.
pub async fn run_store<F: Future<Output = Fixture>>(make: impl Fn() -> F) {
    run_cases([store::CASES, &[restart::OBJECTS]].concat(), make).await;
}

async fn run_cases<F: Future<Output = Fixture>>(cases: Vec<Case>, make: impl Fn() -> F) {
    for (name, case) in cases {
        let fixture = make().await;
        if fixture.restart.is_none() && restart::CASES.iter().any(|(known, _)| *known == name) {
            continue;
        }
        let shell = fixture.shell.clone();
        let ended = shell.within(CASE_LIMIT, AssertUnwindSafe(case(fixture)).catch_unwind()).await;
        match ended {
            Some(Ok(())) => tracing::debug!(case = name, "passed"),
            Some(Err(_)) => panic!("the conformance case `{name}` failed: see the panic before this one"),
            None => panic!("the conformance case `{name}` did not end within {CASE_LIMIT:?}"),
        }
    }
}

/// A small record that names its number.
fn mark(number: u64) -> Record {
    Record::Mark(Mark { id: Id128(u128::from(number)), asker: Incarnation::from_bits(7), state: false })
}

/// The number of a record made by [`mark`].
fn number(entry: &Entry) -> u64 {
    match &entry.record {
        Record::Mark(mark) => u64::try_from(mark.id.0).expect("the suite's numbers are small"),
        other => panic!("expected a mark, got a {}", other.kind()),
    }
}

/// A message with a body of that many bytes.
fn message(body_bytes: usize) -> Record {
    let name = MessageName { session: Session::from_bits(1), sequence: Sequence::FIRST };
    let node: NodeName = "edge-a".parse().expect("it is a name");
    let body: Vec<u8> = (0..body_bytes).map(|at| u8::try_from(at % 251).expect("below 256")).collect();
    Record::Message(Box::new(Message {
        name,
        base: None,
        key: Key::First { name, count: crate::ids::Count(0) },
        source: None,
        ingress: Replica { node, incarnation: Incarnation::from_bits(2) },
        request: Request {
            method: "POST".to_owned(),
            path: "/flights".to_owned(),
            headers: Vec::new(),
            body: Body::Inline(Bytes::from(body)),
        },
    }))
}

async fn open(fixture: &Fixture, name: &str) -> Arc<dyn MessageLog> {
    fixture.broker.log(name).await.expect("the log opens")
}

async fn append(log: &Arc<dyn MessageLog>, numbers: std::ops::RangeInclusive<u64>) -> Vec<Position> {
    log.append(numbers.map(mark).collect()).await.expect("the append succeeds")
}

/// The first `count` entries from `from` on.
async fn read(log: &Arc<dyn MessageLog>, from: Position, count: usize) -> Vec<Entry> {
    let entries: Vec<_> = log.read(from).take(count).collect().await;
    entries.into_iter().map(|entry| entry.expect("the record is readable")).collect()
}
