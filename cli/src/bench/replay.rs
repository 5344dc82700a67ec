//! How fast a target replays: a log of flights, a broker process, a sidecar process, and its delay board.
//!
//! The log is written directly: what is measured is the way from the log through the applier to the service and back, from the end
//! of the load to the tail, as a migration has it, with nobody served meanwhile.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use broker_adapter::Broker;
use broker_adapter::fold::{Fold, KeptCheckpoint};
use broker_adapter::follow::Follower;
use broker_adapter::ids::{Incarnation, MessageName, Position, Replica, Sequence, Session, ShardId};
use broker_adapter::log::MessageLog;
use broker_adapter::record::{Body, Header, Key, Message, Record, Request};
use broker_adapter::shell::Shell;
use bytes::Bytes;

use super::BenchError;
use super::target::Target;
use crate::args::BenchReplayArguments;
use crate::demo::expected;
use crate::demo::layout::{Layout, NODE_A, NODE_B, SERVICE};
use crate::demo::processes::Processes;

/// How long anything may take before the benchmark gives up.
pub const LIMIT: Duration = Duration::from_secs(300);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Records of one append.
const APPEND_RECORDS: usize = 1_024;

/// Where everything is.
pub(super) struct Place {
    pub shard: ShardId,
    pub broker: Arc<dyn Broker>,
    pub log: Arc<dyn MessageLog>,
    pub shell: Shell,
}

/// Runs it.
pub async fn run(arguments: &BenchReplayArguments, shell: &Shell) -> Result<(), BenchError> {
    let layout = Layout::create(0, shell).await?;
    let mut processes = Processes::default();
    let result = measure(arguments, &layout, &mut processes, shell).await;
    processes.end().await;
    result
}

async fn measure(
    arguments: &BenchReplayArguments,
    layout: &Layout,
    processes: &mut Processes,
    shell: &Shell,
) -> Result<(), BenchError> {
    println!("in {}", layout.folder().display());
    processes.start("broker", "broker", layout)?;
    let broker = connected(layout, shell).await?;
    let shard = ShardId::whole(SERVICE.parse().expect("a constant name is good"));
    let log = broker.log(&shard.log_name()).await?;
    let place = Place { shard, broker, log, shell: shell.clone() };
    let (fold, checkpoint) = founded(layout, &place).await?;
    println!("writing {} records", arguments.records);
    let tail = fill(&place, &fold, arguments.records).await?;
    let with_batch = std::fs::read_to_string(layout.config(NODE_B))?;
    for mode in ["batch", "single"] {
        if mode == "single" {
            without_batch(&layout.config(NODE_B), &with_batch)?;
        }
        for _ in 0..arguments.times {
            let took = replayed(layout, &place, &fold, &checkpoint, tail).await?;
            let rate = tail.records_since(checkpoint.position) as f64 / took.as_secs_f64();
            println!(
                "replay of the delay board, {mode}: {} records in {took:.2?}, {rate:.0} records/s",
                arguments.records
            );
        }
    }
    Ok(())
}

async fn connected(layout: &Layout, shell: &Shell) -> Result<Arc<dyn Broker>, BenchError> {
    let until = shell.now() + LIMIT;
    loop {
        match broker_adapter::connect(&layout.broker_url(), shell).await {
            Ok(broker) => return Ok(broker),
            Err(error) if shell.now() >= until => return Err(error.into()),
            Err(_) => shell.sleep(LOOK_EVERY).await,
        }
    }
}

/// The first owner makes the log and its checkpoint 0, and goes.
async fn founded(layout: &Layout, place: &Place) -> Result<(Fold, KeptCheckpoint), BenchError> {
    let mut owner = Processes::default();
    owner.start(NODE_A, "sidecar", layout)?;
    let mut fold = Fold::new();
    let mut follower = Follower::new(place.log.clone(), place.shell.clone(), Position::ZERO, 0);
    let checkpoint = loop {
        let entry = place.shell.within(LIMIT, follower.next()).await;
        fold.observe(&entry.ok_or(BenchError::Late("checkpoint 0"))??);
        if let Some(newest) = fold.checkpoints().newest() {
            break newest.clone();
        }
    };
    owner.end().await;
    // What it wrote meanwhile.
    let tail = place.log.tail().await?;
    while fold.position() < tail {
        fold.observe(&follower.next().await?);
    }
    Ok((fold, checkpoint))
}

/// Writes flights as an ingress would, one session, and tells the last one's position.
async fn fill(place: &Place, fold: &Fold, records: u64) -> Result<Position, BenchError> {
    let lines = expected::flights()?;
    let session = Session(place.shell.random());
    let ingress = Replica {
        node: NODE_A.parse().expect("a constant name is good"),
        incarnation: Incarnation(place.shell.random()),
    };
    let message = |number: u64| {
        let line = &lines[usize::try_from(number).unwrap_or(0) % lines.len()];
        let count = broker_adapter::ids::Count(fold.count().0 + number);
        Record::Message(Box::new(Message {
            name: MessageName { session, sequence: Sequence(number + 1) },
            base: (number == 0).then_some(count),
            key: Key::Own { count },
            source: None,
            ingress: ingress.clone(),
            request: flight(line),
        }))
    };
    let mut tail = fold.position();
    let mut number = 0;
    while number < records {
        let to = records.min(number + APPEND_RECORDS as u64);
        let positions = place.log.append((number..to).map(message).collect()).await?;
        tail = positions.last().copied().unwrap_or(tail);
        number = to;
    }
    Ok(tail)
}

fn flight(line: &str) -> Request {
    let header =
        |name: &str, value: &'static str| Header { name: name.to_owned(), value: Bytes::from_static(value.as_bytes()) };
    Request {
        method: "POST".to_owned(),
        path: "/flights".to_owned(),
        headers: vec![header("host", "127.0.0.1:20001"), header("content-type", "text/csv")],
        body: Body::Inline(Bytes::copy_from_slice(line.as_bytes())),
    }
}

fn without_batch(config: &Path, text: &str) -> Result<(), BenchError> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("batch ")).collect();
    Ok(std::fs::write(config, lines.join("\n"))?)
}

/// One replay by a new target.
async fn replayed(
    layout: &Layout,
    place: &Place,
    fold: &Fold,
    checkpoint: &KeptCheckpoint,
    tail: Position,
) -> Result<Duration, BenchError> {
    let mut processes = Processes::default();
    processes.start(NODE_B, "sidecar", layout)?;
    let replayed = async {
        let mut target = Target::find(place, NODE_B, fold.epoch().next(), tail).await?;
        target.load(checkpoint).await?;
        let began = place.shell.now();
        target.replay().await?;
        Ok(place.shell.now() - began)
    };
    let result = replayed.await;
    processes.end().await;
    result
}
