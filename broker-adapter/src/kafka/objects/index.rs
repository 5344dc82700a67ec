//! Which object is where: the names' topic in memory, read from its beginning and followed on a thread of its own.
//!
//! A question asks the leader where the topic ends, and waits until that much was read. Compaction may take away the last record
//! of what was there before this process; so each reader first writes a record without a name, behind which nothing it
//! waits for can go before it was read.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::watch;

use crate::kafka::client::{OffWorkers, Target};
use crate::kafka::reads::Events;
use crate::shell::{Shell, real};

use super::Stored;
use super::sender::Sender;

const POLL_LIMIT: Duration = Duration::from_millis(100);
/// Without a record for so long, a reader that lacks some begins anew.
const PROGRESS_LIMIT: Duration = Duration::from_secs(5);
const AHEAD_KBYTES: usize = 4 << 10;

type Names = Arc<Mutex<BTreeMap<String, Stored>>>;
type Reader = BaseConsumer<Events>;

/// The names, as far as they were read.
pub struct Index {
    target: Target,
    topic: String,
    shell: Shell,
    running: tokio::sync::Mutex<Option<Arc<Running>>>,
    names: Mutex<Names>,
}

/// One reader; its thread ends with it.
struct Running {
    /// The next offset to be read; closed when the reader failed.
    next: watch::Receiver<i64>,
    stop: Arc<AtomicBool>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Index {
    pub fn new(target: &Target, topic: String, shell: &Shell) -> Index {
        Index {
            target: target.clone(),
            topic,
            shell: shell.clone(),
            running: tokio::sync::Mutex::new(None),
            names: Mutex::default(),
        }
    }

    pub fn find(&self, name: &str) -> Option<Stored> {
        let names = self.names();
        let names = names.lock().expect("nothing panics under this lock");
        names.get(name).cloned()
    }

    pub fn list(&self, prefix: &str) -> Vec<String> {
        let names = self.names();
        let names = names.lock().expect("nothing panics under this lock");
        names
            .range(prefix.to_owned()..)
            .map(|(name, _)| name)
            .take_while(|name| name.starts_with(prefix))
            .cloned()
            .collect()
    }

    fn names(&self) -> Names {
        self.names.lock().expect("nothing panics under this lock").clone()
    }

    /// Reads everything that was acknowledged before the call.
    pub async fn refresh(&self, sender: &Sender) -> Result<(), String> {
        let running = self.running(sender).await?;
        let (_, high) = sender.extent(&self.topic, &self.shell).await?;
        let reached = self.reach(&running, high).await;
        if reached.is_err() {
            // The next question begins anew.
            let mut known = self.running.lock().await;
            if known.as_ref().is_some_and(|known| Arc::ptr_eq(known, &running)) {
                *known = None;
            }
        }
        reached
    }

    async fn reach(&self, running: &Running, high: i64) -> Result<(), String> {
        let mut next = running.next.clone();
        let mut seen = *next.borrow_and_update();
        if seen > high {
            return Err(format!("{} ends at {high}, {seen} records of it were read: it was made anew", self.topic));
        }
        while seen < high {
            match self.shell.within(PROGRESS_LIMIT, next.changed()).await {
                Some(Ok(())) => seen = *next.borrow_and_update(),
                Some(Err(_)) => return Err(format!("the reader of {} ended", self.topic)),
                None => return Err(format!("the records of {} from {seen} on do not come", self.topic)),
            }
        }
        Ok(())
    }

    async fn running(&self, sender: &Sender) -> Result<Arc<Running>, String> {
        let mut known = self.running.lock().await;
        if let Some(running) = known.as_ref() {
            return Ok(running.clone());
        }
        sender.send(&self.topic, Vec::new(), None).await?;
        // By number: librdkafka takes a second to find a beginning that is called so.
        let (first, _) = sender.extent(&self.topic, &self.shell).await?;
        let names = Names::default();
        let running = Arc::new(self.start(&names, first)?);
        *self.names.lock().expect("nothing panics under this lock") = names;
        Ok(known.insert(running).clone())
    }

    fn start(&self, names: &Names, first: i64) -> Result<Running, String> {
        let tell = |error: KafkaError| self.target.tell(&error);
        let consumer =
            self.target.consumer(AHEAD_KBYTES).create_with_context::<_, BaseConsumer<Events>>(Events::default());
        let reader = OffWorkers::new(consumer.map_err(tell)?);
        let mut places = TopicPartitionList::new();
        places.add_partition_offset(&self.topic, 0, Offset::Offset(first)).map_err(tell)?;
        reader.assign(&places).map_err(tell)?;
        let (progress, next) = watch::channel(0);
        let stop = Arc::new(AtomicBool::new(false));
        let (names, stopped, topic) = (names.clone(), stop.clone(), self.topic.clone());
        let work = move || follow(&reader, &names, &progress, &stopped, &topic);
        real::start_thread("kafka-names", work).map_err(|error| format!("no thread is left: {error}"))?;
        Ok(Running { next, stop })
    }
}

/// Ends when nobody needs it any more, or when a record cannot be read.
fn follow(consumer: &Reader, names: &Names, progress: &watch::Sender<i64>, stop: &AtomicBool, topic: &str) {
    while !stop.load(Ordering::Relaxed) {
        let event = consumer.poll(POLL_LIMIT);
        if consumer.context().take_new_topic() {
            return;
        }
        let message = match event {
            None => continue,
            Some(Ok(message)) => message,
            Some(Err(error)) => match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::AutoOffsetReset) | None => return,
                // librdkafka tries again.
                Some(_) => continue,
            },
        };
        let mut known: MutexGuard<'_, _> = names.lock().expect("nothing panics under this lock");
        let name = String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned();
        match message.payload() {
            None => drop(known.remove(&name)),
            Some(value) => match rmp_serde::from_slice::<Stored>(value) {
                Ok(stored) => drop(known.insert(name, stored)),
                Err(error) => {
                    tracing::error!(topic, offset = message.offset(), %error, "a name in the store is damaged");
                    return;
                }
            },
        }
        drop(known);
        progress.send_replace(message.offset() + 1);
    }
}
