//! Gets parts by their offsets: a few consumers on threads of their own, each assigned where the next part is.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use bytes::Bytes;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::oneshot;

use crate::kafka::client::Target;
use crate::kafka::reads::Events;
use crate::shell::real;

/// Consumers at a time.
const FETCHERS: usize = 4;
const POLL_LIMIT: Duration = Duration::from_millis(100);
/// So many polls without a record: the part does not come.
const EMPTY_POLLS_LIMIT: u32 = 100;
/// Parts of others that are read over rather than jumped over.
const READ_OVER_RECORDS: i64 = 8;
const AHEAD_KBYTES: usize = 8 << 10;

type Parts = Result<Vec<Option<Bytes>>, String>;

struct Job {
    offsets: Vec<i64>,
    done: oneshot::Sender<Parts>,
}

/// The threads end when this does.
pub struct Fetchers {
    target: Target,
    topic: String,
    jobs: mpsc::Sender<Job>,
    waiting: Arc<Mutex<mpsc::Receiver<Job>>>,
    started: AtomicUsize,
}

impl Fetchers {
    pub fn new(target: &Target, topic: String) -> Fetchers {
        let (jobs, waiting) = mpsc::channel();
        let waiting = Arc::new(Mutex::new(waiting));
        Fetchers { target: target.clone(), topic, jobs, waiting, started: AtomicUsize::new(0) }
    }

    /// The records at these offsets, in order; `None` where there is none any more.
    pub async fn fetch(&self, offsets: Vec<i64>) -> Parts {
        if self.started.fetch_add(1, Ordering::Relaxed) < FETCHERS {
            let (target, topic, waiting) = (self.target.clone(), self.topic.clone(), self.waiting.clone());
            let work = move || run(&target, &topic, &waiting);
            real::start_thread("kafka-parts", work).map_err(|error| format!("no thread is left: {error}"))?;
        }
        let (done, parts) = oneshot::channel();
        self.jobs.send(Job { offsets, done }).map_err(|_| "the fetchers ended".to_owned())?;
        parts.await.unwrap_or_else(|_| Err("the fetcher ended".to_owned()))
    }
}

fn run(target: &Target, topic: &str, waiting: &Mutex<mpsc::Receiver<Job>>) {
    let mut consumer = None;
    loop {
        let next = waiting.lock().expect("nothing panics under this lock").recv();
        let Ok(job) = next else { return };
        let parts = attempt(target, topic, &mut consumer, &job.offsets);
        if parts.is_err() {
            consumer = None;
        }
        // Nobody may wait any more.
        let _ = job.done.send(parts);
    }
}

fn attempt(target: &Target, topic: &str, known: &mut Option<BaseConsumer<Events>>, offsets: &[i64]) -> Parts {
    let tell = |error: KafkaError| target.tell(&error);
    let consumer = match known {
        Some(consumer) => consumer,
        None => {
            let mut config = target.consumer(AHEAD_KBYTES);
            // The end must be told; and a fetch that waits there must not hold up the next place.
            config.set("enable.partition.eof", "true").set("fetch.wait.max.ms", "5");
            known.insert(config.create_with_context(Events::default()).map_err(tell)?)
        }
    };
    let mut parts = Vec::new();
    let mut at = None;
    for wanted in offsets {
        if at.is_none_or(|at| *wanted < at || *wanted > at + READ_OVER_RECORDS) {
            let mut places = TopicPartitionList::new();
            places.add_partition_offset(topic, 0, Offset::Offset(*wanted)).map_err(tell)?;
            consumer.assign(&places).map_err(tell)?;
        }
        let (part, next) = part(consumer, *wanted).map_err(tell)?;
        parts.push(part);
        at = next;
    }
    consumer.unassign().map_err(tell)?;
    Ok(parts)
}

/// The record at an offset, and where the consumer stands behind it, if it can go on from there.
fn part(consumer: &BaseConsumer<Events>, wanted: i64) -> Result<(Option<Bytes>, Option<i64>), KafkaError> {
    let mut empty = 0;
    loop {
        match consumer.poll(POLL_LIMIT) {
            Some(Ok(message)) if message.offset() < wanted => {}
            Some(Ok(message)) if message.offset() == wanted => {
                return Ok((message.payload().map(Bytes::copy_from_slice), Some(wanted + 1)));
            }
            Some(Ok(_) | Err(KafkaError::PartitionEOF(_))) => return Ok((None, None)),
            Some(Err(error)) => match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::AutoOffsetReset) | None => return Err(error),
                // librdkafka tries again.
                Some(_) => empty += 1,
            },
            None => empty += 1,
        }
        if empty >= EMPTY_POLLS_LIMIT {
            return Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut));
        }
    }
}
