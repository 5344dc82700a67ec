//! What an operator may set for `kafka://`: the table `[kafka]` of a configuration. Part of every build, so that a
//! configuration is checked (and named wrong) even by a program without the feature.
//!
//! Secrets stand in `properties`: its `Debug` shows keys only, and no error repeats a value.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

/// How Segue uses a Kafka cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub struct KafkaOptions {
    /// The first part of every topic's name; the URL's path goes before it.
    pub prefix: Prefix,
    /// Copies of each record, when a topic is made; verified afterwards.
    pub replicas: Replicas,
    /// How many copies must have a record before it is acknowledged; not given: 2 where there are more, else 1.
    pub min_insync_replicas: Option<Replicas>,
    /// Settings of librdkafka, passed through: `security.protocol`, `sasl.username`, `ssl.ca.location`, …
    pub properties: Properties,
}

/// As it stands in a file.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    prefix: Prefix,
    replicas: Replicas,
    min_insync_replicas: Option<Replicas>,
    properties: Properties,
}

/// A number of copies, 1 to [`REPLICAS_LIMIT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u16")]
pub struct Replicas(u16);

/// No cluster keeps more copies of one record.
pub const REPLICAS_LIMIT: u16 = 15;

/// The first part of topic names: 1 to 64 of `a-z 0-9 -`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Prefix(String);

const PREFIX_LIMIT: usize = 64;

/// Settings of librdkafka by name.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>")]
pub struct Properties(BTreeMap<String, String>);

/// What the adapter's promises rest on: it sets these itself.
const OURS: &[&str] = &[
    "acks",
    "allow.auto.create.topics",
    "auto.offset.reset",
    "bootstrap.servers",
    "check.crcs",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.gapless.guarantee",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "isolation.level",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "message.max.bytes",
    "message.send.max.retries",
    "metadata.broker.list",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.messages",
    "request.required.acks",
    "retries",
    "transactional.id",
];

impl Default for KafkaOptions {
    fn default() -> KafkaOptions {
        KafkaOptions {
            prefix: Prefix("segue".to_owned()),
            replicas: Replicas(1),
            min_insync_replicas: None,
            properties: Properties::default(),
        }
    }
}

impl KafkaOptions {
    /// How many copies must have a record.
    #[must_use]
    pub fn min_insync(&self) -> u16 {
        self.min_insync_replicas.map_or_else(|| self.replicas.0.min(2), |least| least.0)
    }
}

impl Default for Written {
    fn default() -> Written {
        let KafkaOptions { prefix, replicas, min_insync_replicas, properties } = KafkaOptions::default();
        Written { prefix, replicas, min_insync_replicas, properties }
    }
}

impl TryFrom<Written> for KafkaOptions {
    type Error = String;
    fn try_from(written: Written) -> Result<KafkaOptions, String> {
        let Written { prefix, replicas, min_insync_replicas, properties } = written;
        let options = KafkaOptions { prefix, replicas, min_insync_replicas, properties };
        let (least, all) = (options.min_insync(), replicas.0);
        match least > all {
            true => Err(format!(
                "kafka.min_insync_replicas = {least} is above kafka.replicas = {all}: no append could ever succeed"
            )),
            false => Ok(options),
        }
    }
}

impl Replicas {
    /// The number.
    #[must_use]
    pub fn get(self) -> u16 {
        self.0
    }
}

impl TryFrom<u16> for Replicas {
    type Error = String;
    fn try_from(number: u16) -> Result<Replicas, String> {
        match (1..=REPLICAS_LIMIT).contains(&number) {
            true => Ok(Replicas(number)),
            false => Err(format!("{number} is no number of copies: use 1 to {REPLICAS_LIMIT}")),
        }
    }
}

impl Prefix {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Prefix {
    type Error = String;
    fn try_from(text: String) -> Result<Prefix, String> {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        match !text.is_empty() && text.len() <= PREFIX_LIMIT && text.bytes().all(fits) {
            true => Ok(Prefix(text)),
            false => Err(format!("{text:?} cannot begin topic names: use 1 to {PREFIX_LIMIT} of a-z, 0-9, '-'")),
        }
    }
}

impl Properties {
    /// In the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// A text in which no secret value of these properties stands any more.
    #[must_use]
    pub fn redact(&self, text: &str) -> String {
        let secret = |name: &str| {
            ["password", "secret", "token", "key", "jaas", "pem", "config"].iter().any(|part| name.contains(part))
        };
        let values = self.iter().filter(|(name, value)| secret(name) && !value.is_empty());
        values.fold(text.to_owned(), |text, (_, value)| text.replace(value, "***"))
    }
}

impl TryFrom<BTreeMap<String, String>> for Properties {
    type Error = String;
    fn try_from(all: BTreeMap<String, String>) -> Result<Properties, String> {
        match all.keys().find(|name| OURS.contains(&name.as_str())) {
            None => Ok(Properties(all)),
            Some(name) => Err(format!("the adapter sets {name:?} itself, its promises rest on it: remove it")),
        }
    }
}

impl Serialize for Properties {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.keys().map(|name| (name, "***")))
    }
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.keys().map(|name| (name, "***"))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(pairs: &[(&str, &str)]) -> Result<Properties, String> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect::<BTreeMap<_, _>>()
            .try_into()
    }

    #[test]
    fn a_secret_is_never_shown() {
        let secret = properties(&[("sasl.password", "hunter2"), ("sasl.username", "segue")]).unwrap();
        let options = KafkaOptions { properties: secret, ..KafkaOptions::default() };
        let shown = format!("{options:?}");
        assert!(shown.contains("sasl.password") && !shown.contains("hunter2"), "{shown}");
        assert_eq!(options.properties.redact("bad value hunter2"), "bad value ***");
    }

    #[test]
    fn what_the_promises_rest_on_cannot_be_set() {
        let refused = properties(&[("acks", "1")]).unwrap_err();
        assert!(refused.contains("\"acks\""), "{refused}");
        assert!(properties(&[("linger.ms", "1")]).is_ok());
    }

    #[test]
    fn two_of_more_copies_must_have_a_record_unless_told_otherwise() {
        let of = |replicas, least: Option<u16>| {
            let written = Written {
                replicas: Replicas(replicas),
                min_insync_replicas: least.map(Replicas),
                ..Written::default()
            };
            KafkaOptions::try_from(written).map(|options| options.min_insync())
        };
        assert_eq!([1, 2, 3].map(|replicas| of(replicas, None)), [Ok(1), Ok(2), Ok(2)]);
        assert_eq!(of(3, Some(3)), Ok(3));
        assert!(of(1, Some(2)).unwrap_err().contains("min_insync_replicas"));
    }

    #[test]
    fn a_prefix_and_a_number_of_copies_are_checked() {
        for bad in ["", "a.b", "A", "a_b"] {
            assert!(Prefix::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
        assert!(Replicas::try_from(0).is_err() && Replicas::try_from(16).is_err());
    }
}
