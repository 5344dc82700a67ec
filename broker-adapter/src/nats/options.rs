//! What an operator may say about NATS, as the table `[nats]` of a configuration; checked while it is read.
//!
//! No secret stands here: credentials are files, a password stands in the URL and is never shown. Part of every build, so that a
//! configuration reads the same whether the adapter is built in or not.

use std::num::NonZeroU64;
use std::path::PathBuf;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// More replicas than this no stream can have.
const REPLICAS_MAX: u8 = 5;

/// The table `[nats]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NatsOptions {
    /// What an acknowledgement must mean at least; refused at connect if it is known to mean less.
    pub durability: Durability,
    /// The monitoring ports, as `http://HOST:PORT`, comma separated: with them the servers' own word on fsync is read.
    #[serde(deserialize_with = "monitoring", serialize_with = "joined")]
    pub monitoring_url: Vec<String>,
    /// On how many servers each log and the checkpoint store are; one if not said, and an existing stream keeps what it has.
    #[serde(deserialize_with = "replicas")]
    pub replicas: Option<u8>,
    /// Where new streams may be placed.
    pub placement: Placement,
    /// The most that one log may hold; it is full above, nothing is ever deleted for room.
    pub max_bytes: Option<NonZeroU64>,
    /// The most that the checkpoint store may hold.
    pub store_max_bytes: Option<NonZeroU64>,
    /// A `.creds` file.
    pub credentials: Option<PathBuf>,
    /// A file that holds an NKEY seed.
    pub nkey: Option<PathBuf>,
    /// Encryption.
    #[serde(deserialize_with = "tls")]
    pub tls: Tls,
}

/// What an acknowledged record must survive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Durability {
    /// The end of the server process.
    #[default]
    Node,
    /// The server's power cut too.
    Fsync,
    /// That, and the loss of a server.
    QuorumFsync,
}

impl Durability {
    /// As it is written in a configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Durability::Node => "node",
            Durability::Fsync => "fsync",
            Durability::QuorumFsync => "quorum-fsync",
        }
    }
}

/// Where a stream's replicas are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Placement {
    /// Only in this cluster.
    pub cluster: Option<String>,
    /// Only on servers with all of these tags.
    pub tags: Vec<String>,
}

/// TLS; `tls://` in the URL requires it as well.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// Refuses to speak without.
    pub required: bool,
    /// Begins with it, before the server's first line (`handshake_first`).
    pub first: bool,
    /// A PEM file of who may sign the server's certificate, beside those the system trusts.
    pub ca: Option<PathBuf>,
    /// This client's certificate, PEM; with `key`.
    pub certificate: Option<PathBuf>,
    /// Its key, PEM.
    pub key: Option<PathBuf>,
}

fn replicas<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u8>, D::Error> {
    let replicas = Option::<u8>::deserialize(from)?;
    match replicas.is_none_or(|replicas| (1..=REPLICAS_MAX).contains(&replicas)) {
        true => Ok(replicas),
        false => Err(D::Error::custom(format!("replicas must be 1 to {REPLICAS_MAX}, best 1, 3 or 5"))),
    }
}

fn monitoring<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let text = String::deserialize(from)?;
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let addresses: Vec<String> = text.split(',').map(|url| url.trim().trim_end_matches('/').to_owned()).collect();
    for url in &addresses {
        let address = url.strip_prefix("http://").unwrap_or_default();
        let fits = address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        if !fits {
            return Err(D::Error::custom(format!(
                "monitoring_url must be http://HOST:PORT, several of them comma separated, not {url:?}"
            )));
        }
    }
    Ok(addresses)
}

fn joined<S: Serializer>(urls: &[String], to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&urls.join(","))
}

fn tls<'de, D: Deserializer<'de>>(from: D) -> Result<Tls, D::Error> {
    let tls = Tls::deserialize(from)?;
    match tls.certificate.is_some() == tls.key.is_some() {
        true => Ok(tls),
        false => Err(D::Error::custom("certificate and key belong together: set both or none")),
    }
}
