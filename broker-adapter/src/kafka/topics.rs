//! Topics: what they are called, how they are made, and whether they are what Segue's promises need.
//!
//! | topic | holds |
//! |---|---|
//! | `PREFIX.shards.SERVICE` | a partition per shard whose name is a number: the log `ledger.3` is partition 3 |
//! | `PREFIX.log.NAME` | every other log (the journal, shards with names), one partition |
//! | `PREFIX.names`, `PREFIX.parts` | the checkpoint store: which object is where, and the objects' parts |
//! | `PREFIX.mail` | the mailbox, kept for minutes |
//!
//! A topic that somebody made otherwise is refused, with each setting that does not fit and the command that mends it.

use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::shell::Shell;

use super::client::{OffWorkers, QUESTION_LIMIT, Quiet, Target};

/// The largest record, as it travels; what a topic is made with.
pub const MESSAGE_LIMIT_BYTES: usize = (2 << 20) + FRAME_BYTES;
/// The least that a topic must take, mail and parts of objects too. Larger request bodies go to the checkpoint store.
const MESSAGE_LEAST_BYTES: usize = 1 << 20;
/// What Kafka puts around one record: batch header, key, length fields.
pub const FRAME_BYTES: usize = 1 << 10;
/// Shards with a number from here on have a topic of their own: partitions are made for all numbers below.
const PARTITIONS_LIMIT: u32 = 1_024;
/// A made topic is known to all brokers by then.
const MADE_LIMIT: Duration = Duration::from_secs(10);
const MADE_RETRY: Duration = Duration::from_millis(20);

/// One partition: a log, or one of the store's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub topic: String,
    pub partition: i32,
}

/// Where the log of a name is.
pub fn place_of_log(prefix: &str, log: &str) -> Place {
    let shard = log.rsplit_once('.').and_then(|(service, shard)| {
        let number = shard.parse::<u32>().ok().filter(|number| number.to_string() == shard)?;
        let fits = number < PARTITIONS_LIMIT && !service.is_empty();
        fits.then(|| (service, i32::try_from(number).expect("it is small")))
    });
    match shard {
        Some((service, partition)) => Place { topic: format!("{prefix}.shards.{service}"), partition },
        None => Place { topic: format!("{prefix}.log.{log}"), partition: 0 },
    }
}

/// A topic as it must be.
pub struct Wanted {
    pub topic: String,
    pub partitions: i32,
    pub settings: Vec<Setting>,
}

/// One setting of a topic.
pub struct Setting {
    name: &'static str,
    value: String,
    rule: Rule,
}

enum Rule {
    Equal,
    AtLeast(u64),
    /// Only how it is made.
    Free,
}

impl Wanted {
    /// A topic of logs: nothing is ever deleted but by a trim.
    pub fn log(place: &Place, target: &Target) -> Wanted {
        let mut settings = lasting(target);
        settings.push(equal("cleanup.policy", "delete"));
        settings.push(equal("retention.ms", "-1"));
        settings.push(equal("retention.bytes", "-1"));
        settings.push(equal("message.timestamp.type", "LogAppendTime"));
        Wanted { topic: place.topic.clone(), partitions: place.partition + 1, settings }
    }

    /// One of the store's topics: the last value of each key is kept.
    pub fn kept(topic: String, target: &Target) -> Wanted {
        let mut settings = lasting(target);
        settings.push(equal("cleanup.policy", "compact"));
        Wanted { topic, partitions: 1, settings }
    }

    /// The mailbox's.
    pub fn mail(topic: String) -> Wanted {
        let settings = vec![
            Setting { name: "cleanup.policy", value: "delete".to_owned(), rule: Rule::Free },
            Setting { name: "retention.ms", value: "60000".to_owned(), rule: Rule::Free },
            Setting { name: "segment.ms", value: "60000".to_owned(), rule: Rule::Free },
            Setting { name: "segment.bytes", value: (64 << 20).to_string(), rule: Rule::Free },
            at_least("max.message.bytes", MESSAGE_LIMIT_BYTES, MESSAGE_LEAST_BYTES),
        ];
        Wanted { topic, partitions: 1, settings }
    }
}

fn lasting(target: &Target) -> Vec<Setting> {
    let least = usize::from(target.options.min_insync());
    vec![
        at_least("min.insync.replicas", least, least),
        equal("unclean.leader.election.enable", "false"),
        at_least("max.message.bytes", MESSAGE_LIMIT_BYTES, MESSAGE_LEAST_BYTES),
    ]
}

fn equal(name: &'static str, value: &str) -> Setting {
    Setting { name, value: value.to_owned(), rule: Rule::Equal }
}

fn at_least(name: &'static str, made_with: usize, least: usize) -> Setting {
    Setting { name, value: made_with.to_string(), rule: Rule::AtLeast(least as u64) }
}

/// What a topic turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    pub replicas: usize,
    pub min_insync: u64,
    /// Whether every record is written to the disk before its acknowledgement.
    pub fsync: bool,
    pub message_limit_bytes: usize,
}

/// Why a topic cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TopicError {
    /// It is otherwise than it must be.
    #[error("the topic {topic:?} is not as it must be: {}; mend it by: {mend}", wrong.join(", "))]
    Mismatch {
        topic: String,
        /// Each setting that does not fit.
        wrong: Vec<String>,
        /// The command.
        mend: String,
    },
    /// The cluster refused or did not answer.
    #[error("{doing} the topic {topic:?} failed: {reason}")]
    Refused { doing: &'static str, topic: String, reason: String },
}

/// Makes and verifies topics.
pub struct Topics {
    target: Target,
    shell: Shell,
    pub admin: OffWorkers<AdminClient<Quiet>>,
}

impl Topics {
    /// # Errors
    /// If a property does not fit.
    pub fn new(target: &Target, shell: &Shell) -> Result<Topics, KafkaError> {
        let admin = target.client().create_with_context(Quiet::default())?;
        Ok(Topics { target: target.clone(), shell: shell.clone(), admin: OffWorkers::new(admin) })
    }

    /// Makes the topic if it is not there, gives it the partitions it lacks, and verifies it.
    ///
    /// # Errors
    /// What does not fit, or what the cluster said.
    pub async fn ensure(self: &std::sync::Arc<Self>, wanted: &Wanted) -> Result<Facts, TopicError> {
        let refused = |doing, reason| TopicError::Refused { doing, topic: wanted.topic.clone(), reason };
        let until = self.shell.now() + MADE_LIMIT;
        loop {
            let found = match self.describe(&wanted.topic).await {
                Ok(Some(found)) => found,
                Ok(None) => {
                    self.make(wanted).await.map_err(|reason| refused("making", reason))?;
                    if self.shell.now() >= until {
                        return Err(refused("making", "it was made, and does not appear".to_owned()));
                    }
                    self.shell.sleep(MADE_RETRY).await;
                    continue;
                }
                Err(reason) => return Err(refused("describing", reason)),
            };
            verify(&self.target, wanted, &found)?;
            match self.partitions(&wanted.topic).await {
                Ok(partitions) if partitions.len() >= usize::try_from(wanted.partitions).expect("not negative") => {
                    self.verify_copies(wanted, &partitions)?;
                    return Ok(facts(&found, partitions.iter().copied().min().unwrap_or(1)));
                }
                Ok(partitions) if !partitions.is_empty() => {
                    self.grow(wanted).await.map_err(|reason| refused("giving more partitions to", reason))?;
                }
                Err(reason) if self.shell.now() >= until => return Err(refused("looking at", reason)),
                // Made just now: not every broker knows it yet, or it has no leader yet.
                Ok(_) | Err(_) => {}
            }
            if self.shell.now() >= until {
                return Err(refused("looking at", "its partitions do not appear, or have no leader".to_owned()));
            }
            self.shell.sleep(MADE_RETRY).await;
        }
    }

    async fn describe(&self, topic: &str) -> Result<Option<ConfigResource>, String> {
        let asked = [ResourceSpecifier::Topic(topic)];
        let answer = self.admin.describe_configs(&asked, &options()).await.map_err(|error| self.target.tell(&error))?;
        match answer.into_iter().next() {
            Some(Ok(found)) if found.entries.is_empty() => Ok(None),
            Some(Ok(found)) => Ok(Some(found)),
            Some(Err(RDKafkaErrorCode::UnknownTopicOrPartition)) => Ok(None),
            Some(Err(code)) => Err(code.to_string()),
            None => Err("the cluster described nothing".to_owned()),
        }
    }

    async fn make(&self, wanted: &Wanted) -> Result<(), String> {
        let replicas = i32::from(self.target.options.replicas.get());
        let mut topic = NewTopic::new(&wanted.topic, wanted.partitions, TopicReplication::Fixed(replicas));
        for setting in &wanted.settings {
            topic = topic.set(setting.name, &setting.value);
        }
        let made = self.admin.create_topics([&topic], &options()).await.map_err(|error| self.target.tell(&error))?;
        match made.into_iter().next() {
            // Another process was first.
            Some(Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(()),
            Some(Err((_, RDKafkaErrorCode::InvalidReplicationFactor))) => Err(format!(
                "there are fewer brokers than kafka.replicas = {replicas}: start more, or lower it in the configuration"
            )),
            Some(Err((_, code))) => Err(code.to_string()),
            None => Err("the cluster made nothing".to_owned()),
        }
    }

    async fn grow(&self, wanted: &Wanted) -> Result<(), String> {
        let count = usize::try_from(wanted.partitions).expect("not negative");
        let asked = [NewPartitions::new(&wanted.topic, count)];
        let grown = self.admin.create_partitions(&asked, &options()).await.map_err(|error| self.target.tell(&error))?;
        match grown.into_iter().next() {
            // Another process was first.
            Some(Ok(_) | Err((_, RDKafkaErrorCode::InvalidPartitions))) => Ok(()),
            Some(Err((_, code))) => Err(code.to_string()),
            None => Err("the cluster made nothing".to_owned()),
        }
    }

    /// How many copies each partition has; empty while one has no leader.
    async fn partitions(self: &std::sync::Arc<Self>, topic: &str) -> Result<Vec<usize>, String> {
        let (topics, topic) = (self.clone(), topic.to_owned());
        let asked = move || {
            let found = topics.admin.inner().fetch_metadata(Some(&topic), QUESTION_LIMIT);
            let found = found.map_err(|error| topics.target.tell(&error))?;
            let partitions = found.topics().first().map_or(&[][..], |topic| topic.partitions());
            let led = partitions.iter().all(|partition| partition.leader() >= 0 && partition.error().is_none());
            Ok(if led { partitions.iter().map(|partition| partition.replicas().len()).collect() } else { Vec::new() })
        };
        self.shell.blocking(asked).await
    }

    fn verify_copies(&self, wanted: &Wanted, copies: &[usize]) -> Result<(), TopicError> {
        let least = usize::from(self.target.options.replicas.get());
        let Some(partition) = copies.iter().position(|copies| *copies < least) else { return Ok(()) };
        let wrong = format!("partition {partition} has {} replicas, must have {least}", copies[partition]);
        let mend = format!(
            "kafka-reassign-partitions.sh --bootstrap-server {} --execute, with {least} replicas for every partition \
             of {}; or lower kafka.replicas in the configuration",
            self.target.servers, wanted.topic
        );
        Err(TopicError::Mismatch { topic: wanted.topic.clone(), wrong: vec![wrong], mend })
    }
}

/// Compares each setting.
fn verify(target: &Target, wanted: &Wanted, found: &ConfigResource) -> Result<(), TopicError> {
    let mut wrong = Vec::new();
    let mut mend = Vec::new();
    for setting in &wanted.settings {
        let value = found.get(setting.name).and_then(|entry| entry.value.as_deref()).unwrap_or("");
        let fits = match setting.rule {
            Rule::Free => true,
            Rule::Equal => value == setting.value,
            Rule::AtLeast(least) => value.parse::<u64>().is_ok_and(|value| value >= least),
        };
        if !fits {
            let expected = match setting.rule {
                Rule::AtLeast(least) => format!("at least {least}"),
                _ => setting.value.clone(),
            };
            wrong.push(format!("{} is {value:?}, must be {expected}", setting.name));
            mend.push(format!("{}={}", setting.name, setting.value));
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let mend = format!(
        "kafka-configs.sh --bootstrap-server {} --alter --entity-type topics --entity-name {} --add-config {}",
        target.servers,
        wanted.topic,
        mend.join(",")
    );
    Err(TopicError::Mismatch { topic: wanted.topic.clone(), wrong, mend })
}

fn facts(found: &ConfigResource, replicas: usize) -> Facts {
    let number =
        |name: &str| found.get(name).and_then(|entry| entry.value.as_deref()).and_then(|value| value.parse().ok());
    let limit = number("max.message.bytes").unwrap_or(MESSAGE_LEAST_BYTES as u64);
    Facts {
        replicas,
        min_insync: number("min.insync.replicas").unwrap_or(1),
        fsync: number("flush.messages") == Some(1),
        message_limit_bytes: usize::try_from(limit).unwrap_or(usize::MAX).min(MESSAGE_LIMIT_BYTES),
    }
}

pub fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(QUESTION_LIMIT)).operation_timeout(Some(QUESTION_LIMIT))
}

impl Facts {
    /// What an acknowledgement means.
    pub fn durability(&self) -> String {
        let (all, least) = (self.replicas, self.min_insync);
        let where_it_is = match all {
            1 => "by its only broker".to_owned(),
            _ => format!("by every replica in sync, at least {least} of {all}"),
        };
        match self.fsync {
            true => format!("acks=all: written {where_it_is}, each with fsync before the acknowledgement"),
            false => format!(
                "acks=all: taken {where_it_is}; Kafka acknowledges before fsync, so the end of a process loses nothing, \
                 a power cut at all of them at a time may"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_with_a_number_is_a_partition_of_its_service() {
        let place = |topic: &str, partition| Place { topic: topic.to_owned(), partition };
        assert_eq!(place_of_log("segue", "ledger.0"), place("segue.shards.ledger", 0));
        assert_eq!(place_of_log("segue", "ledger.12"), place("segue.shards.ledger", 12));
        for named in ["segue-journal", "ledger.eu", "ledger.01", "ledger.+1", "ledger.1024", "ledger.-1"] {
            assert_eq!(place_of_log("segue", named), place(&format!("segue.log.{named}"), 0));
        }
    }

    #[test]
    fn too_few_copies_in_sync_are_a_mismatch() {
        let options = super::super::options::KafkaOptions {
            replicas: 3.try_into().unwrap(),
            ..super::super::options::KafkaOptions::default()
        };
        let target = Target { servers: "a:1".to_owned(), prefix: "segue".to_owned(), options };
        let wanted = Wanted::log(&place_of_log("segue", "ledger.0"), &target);
        let with = |least: &str| ConfigResource {
            specifier: rdkafka::admin::OwnedResourceSpecifier::Topic(wanted.topic.clone()),
            entries: wanted
                .settings
                .iter()
                .map(|setting| {
                    entry(setting.name, if setting.name == "min.insync.replicas" { least } else { &setting.value })
                })
                .collect(),
        };
        assert!(verify(&target, &wanted, &with("2")).is_ok() && verify(&target, &wanted, &with("3")).is_ok());
        let refused = verify(&target, &wanted, &with("1")).unwrap_err().to_string();
        assert!(refused.contains("min.insync.replicas is \"1\", must be at least 2"), "{refused}");
    }

    fn entry(name: &str, value: &str) -> rdkafka::admin::ConfigEntry {
        rdkafka::admin::ConfigEntry {
            name: name.to_owned(),
            value: Some(value.to_owned()),
            source: rdkafka::admin::ConfigSource::DynamicTopic,
            is_read_only: false,
            is_default: false,
            is_sensitive: false,
        }
    }

    #[test]
    fn durability_says_what_an_acknowledgement_means() {
        let facts = Facts { replicas: 3, min_insync: 2, fsync: false, message_limit_bytes: 0 };
        assert!(facts.durability().contains("at least 2 of 3") && facts.durability().contains("before fsync"));
        assert!(Facts { fsync: true, ..facts }.durability().contains("with fsync"));
    }
}
