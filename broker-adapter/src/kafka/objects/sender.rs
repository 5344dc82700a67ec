//! Sends the store's records, each one's delivery awaited; a producer that failed for good is replaced.

use std::future::Future;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use tokio::sync::oneshot;

use crate::kafka::client::{OffWorkers, QUESTION_LIMIT, Target, log_line};
use crate::shell::Shell;

type Answer = oneshot::Sender<Result<i64, KafkaError>>;
type Producer = Arc<OffWorkers<ThreadedProducer<Reports>>>;

/// One idempotent producer (`acks=all`).
pub struct Sender {
    target: Target,
    message_limit_bytes: usize,
    producer: Mutex<Option<Producer>>,
}

struct Reports;

impl ClientContext for Reports {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, line: &str) {
        log_line(facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka");
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Answer>;

    fn delivery(&self, result: &DeliveryResult<'_>, answer: Box<Answer>) {
        let result = match result {
            Ok(message) => Ok(message.offset()),
            Err((error, _)) => Err(error.clone()),
        };
        // Nobody may wait any more.
        let _ = answer.send(result);
    }
}

impl Sender {
    pub fn new(target: &Target, message_limit_bytes: usize) -> Sender {
        Sender { target: target.clone(), message_limit_bytes, producer: Mutex::new(None) }
    }

    /// The producer; making one starts threads and asks nobody.
    fn producer(&self) -> Result<Producer, KafkaError> {
        let mut known = self.producer.lock().expect("nothing panics under this lock");
        if let Some(producer) = known.as_ref().filter(|producer| producer.client().fatal_error().is_none()) {
            return Ok(producer.clone());
        }
        let made = self
            .target
            .producer(self.message_limit_bytes)
            .create_with_context::<_, ThreadedProducer<Reports>>(Reports)?;
        Ok(known.insert(Arc::new(OffWorkers::new(made))).clone())
    }

    /// Where a topic begins and ends, as its leader says now. Over a connection of its own: one on which a consumer's fetch waits would
    /// answer only behind that.
    pub async fn extent(&self, topic: &str, shell: &Shell) -> Result<(i64, i64), String> {
        let (producer, topic, target) = (self.producer(), topic.to_owned(), self.target.clone());
        let asked = move || {
            let found = producer.and_then(|producer| producer.client().fetch_watermarks(&topic, 0, QUESTION_LIMIT));
            found.map_err(|error| target.tell(&error))
        };
        shell.blocking(asked).await
    }

    /// Hands a record over (no value: a tombstone); gives its offset when all replicas in sync have it.
    pub fn send(
        &self,
        topic: &str,
        key: Vec<u8>,
        value: Option<Bytes>,
    ) -> impl Future<Output = Result<i64, String>> + Send + use<> {
        let (answer, outcome) = oneshot::channel();
        let handed_over = self.producer().and_then(|producer| {
            let mut record: BaseRecord<'_, [u8], [u8], Box<Answer>> =
                BaseRecord::with_opaque_to(topic, Box::new(answer)).partition(0).key(&key[..]);
            record.payload = value.as_deref();
            producer.send(record).map_err(|(error, _)| error)
        });
        let target = self.target.clone();
        async move {
            handed_over.map_err(|error| target.tell(&error))?;
            let delivered = outcome.await.unwrap_or(Err(KafkaError::Canceled));
            delivered.map_err(|error| target.tell(&error))
        }
    }
}
