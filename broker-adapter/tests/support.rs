//! What the adapters' tests share: records with a number, brokers on a folder, copies of a folder.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use broker_adapter::embedded::{EmbeddedBroker, Options};
use broker_adapter::ids::{Id128, Incarnation, Position};
use broker_adapter::log::MessageLog;
use broker_adapter::record::{Entry, Mark, Record};
use broker_adapter::shell::Shell;
use broker_adapter::{Broker, ConnectError};
use futures_util::StreamExt;

/// A record that names its number.
pub fn mark(number: u64) -> Record {
    Record::Mark(Mark { id: Id128(u128::from(number)), asker: Incarnation::from_bits(7), state: false })
}

/// A message with a body of that many bytes.
#[cfg(feature = "nats")]
pub fn message(body_bytes: usize) -> Record {
    use broker_adapter::ids::{Count, MessageName, Replica, Sequence, Session};
    use broker_adapter::record::{Body, Key, Message, Request};
    let name = MessageName { session: Session::from_bits(1), sequence: Sequence::FIRST };
    let ingress = Replica { node: "edge-a".parse().expect("a name"), incarnation: Incarnation::from_bits(2) };
    let request = Request {
        method: "POST".to_owned(),
        path: "/".to_owned(),
        headers: Vec::new(),
        body: Body::Inline(vec![7; body_bytes].into()),
    };
    Record::Message(Box::new(Message {
        name,
        base: None,
        key: Key::Own { count: Count(1) },
        source: None,
        ingress,
        request,
    }))
}

/// The number of such a record.
pub fn number(entry: &Entry) -> u64 {
    match &entry.record {
        Record::Mark(mark) => mark.id.0.try_into().expect("small numbers"),
        other => panic!("expected a mark, got a {}", other.kind()),
    }
}

/// Opens a broker, waiting for the last owner's tasks to end.
pub async fn open_with(path: &Path, options: Options, shell: &Shell) -> EmbeddedBroker {
    loop {
        match EmbeddedBroker::open(path, options.clone(), shell).await {
            Ok(broker) => return broker,
            Err(error) => assert!(error.to_string().contains("another process has it open"), "{error}"),
        }
        shell.sleep(std::time::Duration::from_millis(5)).await;
    }
}

pub async fn open(path: &Path, shell: &Shell) -> EmbeddedBroker {
    open_with(path, Options::default(), shell).await
}

/// Opens a broker only to look at one log.
pub async fn try_log(path: &Path, shell: &Shell) -> Result<(EmbeddedBroker, Arc<dyn MessageLog>), ConnectError> {
    let broker = open(path, shell).await;
    let log = broker.log("a.0").await?;
    Ok((broker, log))
}

/// Makes a broker whose log `a.0` holds the records 1 to `last`, one append each, and closes it.
pub async fn filled(path: &Path, last: u64, shell: &Shell) {
    let (_broker, log) = try_log(path, shell).await.expect("it opens");
    for number in 1..=last {
        log.append(vec![mark(number)]).await.expect("the append succeeds");
    }
}

/// All numbers in the log.
pub async fn numbers(log: &Arc<dyn MessageLog>) -> Vec<u64> {
    let usage = log.usage().await.expect("usage is known");
    let count = usage.tail.next().records_since(usage.first);
    let entries: Vec<_> = log.read(usage.first).take(usize::try_from(count).expect("small")).collect().await;
    entries.into_iter().map(|entry| number(&entry.expect("it is readable"))).collect()
}

/// Copies a folder, side files first: they may say less than the log, never more.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    let mut entries: Vec<_> = fs::read_dir(from).expect("a folder").map(|entry| entry.expect("an entry")).collect();
    entries.sort_by_key(|entry| (entry.file_name() != "tails", entry.file_name()));
    for entry in entries {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("it can be copied");
        }
    }
}

/// The key of a record's first piece in sled.
pub fn key(position: u64) -> Vec<u8> {
    [position.to_be_bytes().to_vec(), vec![0; 4]].concat()
}

/// Changes what sled holds for the log `a.0`, behind the broker's back.
pub fn tamper(path: &Path, change: impl FnOnce(&sled::Tree)) {
    let began = std::time::Instant::now();
    let db = loop {
        match sled::Config::new().path(path.join("sled")).flush_every_ms(None).open() {
            Ok(db) => break db,
            Err(error) => assert!(began.elapsed().as_secs() < 10, "{error}"),
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    };
    change(&db.open_tree("log:a.0").expect("it opens"));
    db.flush().expect("it flushes");
}

/// Flips a bit of a record's row.
pub fn flip(tree: &sled::Tree, position: u64) {
    let mut row = tree.get(key(position)).expect("sled works").expect("it is there").to_vec();
    let last = row.len() - 1;
    row[last] ^= 1;
    tree.insert(key(position), row).expect("sled works");
}

/// A position, short.
pub fn at(position: u64) -> Position {
    Position(position)
}
