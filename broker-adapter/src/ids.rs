//! The newtypes that cross every function of the system, in the words of design section 1.
//!
//! Owns: how each number or name is written on the wire and shown to people. Decides nothing.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A place in a log. The first record is 1; 0 means "before the first record".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(pub u64);

impl Position {
    /// Before the first record: the place of checkpoint 0.
    pub const ZERO: Position = Position(0);

    /// The place of the next record.
    #[must_use]
    pub fn next(self) -> Position {
        Position(self.0 + 1)
    }

    /// How many records lie between `earlier` and here; 0 if `earlier` is not earlier.
    #[must_use]
    pub fn records_since(self, earlier: Position) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The ownership number of a shard; 0 before the first fence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The only epoch a fence may carry when the fold stands at `self`.
    #[must_use]
    pub fn next(self) -> Epoch {
        Epoch(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The number of counted messages and closes of a log: the clock by which sessions and keys expire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Count(pub u64);

/// A message's number within its session; the first is 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sequence(pub u64);

impl Sequence {
    /// A session's first record.
    pub const FIRST: Sequence = Sequence(1);

    /// The only sequence that may follow.
    #[must_use]
    pub fn next(self) -> Sequence {
        Sequence(self.0 + 1)
    }
}

/// A name that is safe in URLs, file names and broker subjects was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the name {0:?} is not allowed: use 1 to 63 of a-z, A-Z, 0-9, '-' and '_'")]
pub struct BadName(pub String);

fn check_name(name: &str) -> Result<(), BadName> {
    let fits = !name.is_empty()
        && name.len() <= 63
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if fits { Ok(()) } else { Err(BadName(name.to_owned())) }
}

/// What all names of the system share: 1 to 63 characters of `a-z A-Z 0-9 - _`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl TryFrom<String> for Name {
    type Error = BadName;
    fn try_from(name: String) -> Result<Self, BadName> {
        check_name(&name)?;
        Ok(Self(name))
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.0
    }
}

/// A device that runs one sidecar.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeName(Name);

impl NodeName {
    /// The name itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0.0
    }
}

impl FromStr for NodeName {
    type Err = BadName;
    fn from_str(name: &str) -> Result<Self, BadName> {
        Name::try_from(name.to_owned()).map(Self)
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A stateful program.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ServiceName(Name);

impl ServiceName {
    /// The name itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0.0
    }
}

impl FromStr for ServiceName {
    type Err = BadName;
    fn from_str(name: &str) -> Result<Self, BadName> {
        Name::try_from(name.to_owned()).map(Self)
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An independently ordered and migrated part of a service; `0` by default.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ShardName(Name);

impl ShardName {
    /// The name itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0.0
    }
}

impl FromStr for ShardName {
    type Err = BadName;
    fn from_str(name: &str) -> Result<Self, BadName> {
        Name::try_from(name.to_owned()).map(Self)
    }
}

impl fmt::Display for ShardName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One service's shard: what has a log, an owner and checkpoints of its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShardId {
    /// The service.
    pub service: ServiceName,
    /// The part of it.
    pub shard: ShardName,
}

impl ShardId {
    /// The one shard of a service that is not divided.
    #[must_use]
    pub fn whole(service: ServiceName) -> ShardId {
        ShardId { service, shard: ShardName(Name("0".to_owned())) }
    }

    /// The name of this shard's log at a broker: `service.shard`.
    #[must_use]
    pub fn log_name(&self) -> String {
        format!("{}.{}", self.service, self.shard)
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.service, self.shard)
    }
}

/// A text was not 32 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not 32 hexadecimal digits")]
pub struct BadHex(pub String);

/// What all random identities share: 128 bits, shown as 32 hexadecimal digits, 16 bytes on the wire.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id128(pub u128);

impl fmt::Display for Id128 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Id128 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for Id128 {
    type Err = BadHex;
    fn from_str(text: &str) -> Result<Self, BadHex> {
        let fits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        match u128::from_str_radix(text, 16) {
            Ok(number) if fits => Ok(Self(number)),
            _ => Err(BadHex(text.to_owned())),
        }
    }
}

impl Serialize for Id128 {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() { to.collect_str(self) } else { to.serialize_bytes(&self.0.to_be_bytes()) }
    }
}

impl<'de> Deserialize<'de> for Id128 {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        if from.is_human_readable() {
            String::deserialize(from)?.parse().map_err(D::Error::custom)
        } else {
            let bytes = <serde_bytes::ByteArray<16>>::deserialize(from)?;
            Ok(Self(u128::from_be_bytes(bytes.into_array())))
        }
    }
}

/// One run of a sidecar (or of a migrator, for its journal): random.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Incarnation(pub Id128);

impl Incarnation {
    /// From its 128 bits.
    #[must_use]
    pub fn from_bits(bits: u128) -> Self {
        Self(Id128(bits))
    }
}

impl FromStr for Incarnation {
    type Err = BadHex;
    fn from_str(text: &str) -> Result<Self, BadHex> {
        text.parse().map(Self)
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One ingress's numbered stream of messages into one log: random.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Session(pub Id128);

impl Session {
    /// From its 128 bits.
    #[must_use]
    pub fn from_bits(bits: u128) -> Self {
        Self(Id128(bits))
    }
}

impl FromStr for Session {
    type Err = BadHex;
    fn from_str(text: &str) -> Result<Self, BadHex> {
        text.parse().map(Self)
    }
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One migration; its text is the `id` of the REST API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MigrationId(pub Id128);

impl MigrationId {
    /// From its 128 bits.
    #[must_use]
    pub fn from_bits(bits: u128) -> Self {
        Self(Id128(bits))
    }
}

impl FromStr for MigrationId {
    type Err = BadHex;
    fn from_str(text: &str) -> Result<Self, BadHex> {
        text.parse().map(Self)
    }
}

impl fmt::Display for MigrationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A replica's name: one run of one node's sidecar.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Replica {
    /// The device.
    pub node: NodeName,
    /// The run of its sidecar.
    pub incarnation: Incarnation,
}

impl fmt::Display for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{:08x}", self.node, self.incarnation.0.0 >> 96)
    }
}

/// A message's name, and so its reply's: which session sent it, as its how-manieth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MessageName {
    /// The session.
    pub session: Session,
    /// The number within it.
    pub sequence: Sequence,
}

impl fmt::Display for MessageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.session, self.sequence.0)
    }
}

/// A BLAKE3 hash: of a chunk, a manifest, a state, or a running hash.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// The hash of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Hash {
        Hash(*blake3::hash(bytes).as_bytes())
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({self})")
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() { to.collect_str(self) } else { to.serialize_bytes(&self.0) }
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        if from.is_human_readable() {
            let text = String::deserialize(from)?;
            let hash = blake3::Hash::from_hex(&text).map_err(D::Error::custom)?;
            Ok(Hash(*hash.as_bytes()))
        } else {
            Ok(Hash(<serde_bytes::ByteArray<32>>::deserialize(from)?.into_array()))
        }
    }
}
