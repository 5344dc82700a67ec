//! How librdkafka is set up: one place for every client's settings, and for what its errors are called.
//!
//! Durable means: `acks=all` with idempotence, so that the leader answers when all replicas in sync have the record. Every client
//! is made, and dropped, on a thread that may block.

use std::ops::Deref;
use std::sync::Mutex;
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::shell::real;

use super::options::KafkaOptions;

/// One question to a broker (a position, a setting) is answered by then.
pub const QUESTION_LIMIT: Duration = Duration::from_secs(5);
/// An append that is not acknowledged by then is unknown: longer than a broker's restart and a pause of ten seconds.
const APPEND_LIMIT_MS: &str = "20000";
/// A request that is not answered by then breaks its connection.
const ANSWER_LIMIT_MS: &str = "10000";

/// Where the cluster is, and how it is used.
#[derive(Clone)]
pub struct Target {
    /// `HOST:PORT[,HOST:PORT]`.
    pub servers: String,
    /// The beginning of all topic names.
    pub prefix: String,
    pub options: KafkaOptions,
}

impl Target {
    pub fn url(&self) -> String {
        match self.prefix == self.options.prefix.as_str() {
            true => format!("kafka://{}", self.servers),
            false => format!("kafka://{}/{}", self.servers, self.prefix),
        }
    }

    /// What all clients share.
    pub fn client(&self) -> ClientConfig {
        self.with(&[], &[])
    }

    /// A producer for records and objects, in batches of whatever waits while five requests are on their way.
    pub fn producer(&self, message_limit_bytes: usize) -> ClientConfig {
        let limit = message_limit_bytes.to_string();
        self.with(
            &[
                ("linger.ms", "0"),
                ("batch.num.messages", "10000"),
                ("message.timeout.ms", APPEND_LIMIT_MS),
                // A producer names its topic, not its identity: only the metadata tells it that the topic was made anew.
                ("topic.metadata.refresh.interval.ms", "5000"),
            ],
            &[
                ("acks", "all"),
                ("enable.idempotence", "true"),
                ("message.max.bytes", &limit),
                // Our own bounds are below these.
                ("queue.buffering.max.messages", "1000000"),
                ("queue.buffering.max.kbytes", "1048576"),
            ],
        )
    }

    /// A producer for what may be lost.
    pub fn loose_producer(&self, message_limit_bytes: usize) -> ClientConfig {
        let limit = message_limit_bytes.to_string();
        self.with(
            &[("linger.ms", "0"), ("message.timeout.ms", "2000"), ("retries", "1")],
            &[("acks", "1"), ("message.max.bytes", &limit)],
        )
    }

    /// A consumer that is assigned its place and belongs to no group: the name is asked for by librdkafka, never joined.
    pub fn consumer(&self, ahead_kbytes: usize) -> ClientConfig {
        let ahead = ahead_kbytes.to_string();
        self.with(
            // A fetch that was put off because enough waits must not sleep for the second that is the default.
            &[
                ("fetch.queue.backoff.ms", "2"),
                ("fetch.error.backoff.ms", "50"),
                ("queued.max.messages.kbytes", &ahead),
            ],
            &[
                ("group.id", &format!("{}-none", self.prefix)),
                ("enable.auto.commit", "false"),
                ("enable.auto.offset.store", "false"),
                ("auto.offset.reset", "error"),
                ("isolation.level", "read_uncommitted"),
                ("check.crcs", "true"),
            ],
        )
    }

    fn with(&self, tunable: &[(&str, &str)], ours: &[(&str, &str)]) -> ClientConfig {
        let shared = [
            ("client.id", "segue"),
            ("socket.keepalive.enable", "true"),
            ("socket.timeout.ms", ANSWER_LIMIT_MS),
            ("socket.connection.setup.timeout.ms", "5000"),
            ("reconnect.backoff.ms", "20"),
            ("reconnect.backoff.max.ms", "500"),
            ("retry.backoff.ms", "20"),
            ("retry.backoff.max.ms", "500"),
            ("topic.metadata.refresh.fast.interval.ms", "20"),
            ("enable.metrics.push", "false"),
        ];
        let always = [("bootstrap.servers", self.servers.as_str()), ("allow.auto.create.topics", "false")];
        let mut config = ClientConfig::new();
        let given = self.options.properties.iter();
        for (name, value) in
            shared.iter().chain(tunable).copied().chain(given).chain(ours.iter().chain(&always).copied())
        {
            config.set(name, value);
        }
        // See `tells_new_topic`; a few lines with each refresh of the metadata, which go to our log as `debug`.
        let more = self.options.properties.iter().find(|(name, _)| *name == "debug").map(|(_, more)| more);
        config.set("debug", more.map_or("topic".to_owned(), |more| format!("topic,{more}")));
        config.set_log_level(RDKafkaLogLevel::Debug);
        config
    }

    /// An error's text without a secret.
    pub fn tell(&self, error: &KafkaError) -> String {
        let text = match error {
            KafkaError::ClientConfig(_, reason, name, _) => {
                format!("the property {name:?} does not fit: {reason}; see kafka.properties in the configuration")
            }
            KafkaError::ClientCreation(reason) => format!("{reason}; see kafka.properties in the configuration"),
            other => other.rdkafka_error_code().map_or_else(|| other.to_string(), |code| code.to_string()),
        };
        self.options.properties.redact(&text)
    }
}

/// Of a client whose events nobody waits for: its lines go to our log, and its last error is kept for people.
#[derive(Default)]
pub struct Quiet {
    last_error: Mutex<Option<String>>,
}

impl Quiet {
    pub fn last_error(&self) -> Option<String> {
        self.last_error.lock().expect("nothing panics under this lock").clone()
    }
}

impl ConsumerContext for Quiet {}

impl ClientContext for Quiet {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, line: &str) {
        log_line(facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka");
        // That all are down says less than why one of them is.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            *self.last_error.lock().expect("nothing panics under this lock") = Some(reason.to_owned());
        }
    }
}

pub fn log_line(facility: &str, line: &str) {
    tracing::debug!(facility, line, "librdkafka");
}

/// Whether a line says that a topic is another one of the same name. librdkafka notices, reads on at the same offset in the new
/// one, and tells nobody but its log: with `debug=topic`, in the same queue and before anything of the new topic.
pub fn tells_new_topic(line: &str) -> bool {
    // At first it knows no identity: zeros.
    line.split_once(" changed id from ").is_some_and(|(_, ids)| !ids.starts_with("AAAAAAAAAAAAAAAAAAAAAA "))
}

/// Whether an error only says that a connection broke or is not there.
pub fn is_transport(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::Resolve
            | RDKafkaErrorCode::OperationTimedOut
            | RDKafkaErrorCode::RequestTimedOut
    )
}

/// A client whose end may block: it is dropped on a thread of its own, never on a worker.
pub struct OffWorkers<T: Send + 'static>(Option<T>);

impl<T: Send + 'static> OffWorkers<T> {
    pub fn new(client: T) -> OffWorkers<T> {
        OffWorkers(Some(client))
    }
}

impl<T: Send + 'static> Deref for OffWorkers<T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.0.as_ref().expect("it is taken by drop only")
    }
}

impl<T: Send + 'static> Drop for OffWorkers<T> {
    fn drop(&mut self) {
        let client = self.0.take();
        // Without a thread left it ends here, later than it should.
        drop(real::start_thread("kafka-end", move || drop(client)));
    }
}
