//! What goes over a `segue://` connection: length-delimited MessagePack; the first frame says the connection's role.
//!
//! ```text
//! client ─ Opening{role} ─▶   ◀─ Welcome ─ server
//!   Appends  ─ Ask{id} … ─▶   ◀─ Answer{id} … ─      pipelined; appends in order
//!   Read                      ◀─ Pushed … ─          TCP is the back pressure
//!   Store    ─ StoreAsk ─▶    ◀─ StoreAnswer ─       one at a time
//!   Mail     ─ MailAsk … ─▶   ◀─ MailPush … ─
//! ```
//! One connection per role, so that nothing big ever stands in front of an append. The server beats every second on
//! roles that can be silent; a silent server counts as gone.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{ReadHalf, WriteHalf};
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec};

use crate::broker::ConnectError;
use crate::ids::Position;
use crate::log::{AppendError, ReadError, Usage};
use crate::shell::Duplex;
use crate::store::StoreError;

/// Both sides must speak the same.
pub const PROTOCOL: u32 = 1;
/// A connection that sends a longer frame is closed.
pub const FRAME_LIMIT_BYTES: usize = 80 << 20;
/// How often a server shows that it is there.
pub const BEAT: Duration = Duration::from_secs(1);
/// How long a client believes in a silent server.
pub const SILENCE_LIMIT: Duration = Duration::from_secs(5);

/// The receiving half of a connection.
pub type Incoming = FramedRead<ReadHalf<Box<dyn Duplex>>, LengthDelimitedCodec>;
/// The sending half of a connection.
pub type Outgoing = FramedWrite<WriteHalf<Box<dyn Duplex>>, LengthDelimitedCodec>;

/// The first frame of a connection.
#[derive(Debug, Serialize, Deserialize)]
pub struct Opening {
    pub protocol: u32,
    pub role: Role,
}

/// What a connection is for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Role {
    Appends { log: String },
    Read { log: String, from: Position },
    Store,
    Mail,
}

/// The server's first frame.
#[derive(Debug, Serialize, Deserialize)]
pub enum Welcome {
    Ready,
    Damaged { log: String, reason: String },
    Refused(String),
}

/// What a client asks of a log.
#[derive(Debug, Serialize, Deserialize)]
pub enum Ask {
    Append { id: u64, frames: Vec<Bytes> },
    Tail { id: u64 },
    Trim { id: u64, before: Position },
    Usage { id: u64 },
}

/// What it gets.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// The first position; the others follow without gaps.
    Appended {
        id: u64,
        first: Result<Position, AppendError>,
    },
    Tail {
        id: u64,
        tail: Result<Position, ReadError>,
    },
    Trimmed {
        id: u64,
        done: Result<(), ReadError>,
    },
    Usage {
        id: u64,
        usage: Result<Usage, ReadError>,
    },
    Beat,
}

/// What a reader gets.
#[derive(Debug, Serialize, Deserialize)]
pub enum Pushed {
    Rows(Vec<WireRow>),
    Ended(ReadError),
    Beat,
}

/// A record at its place, not decoded.
#[derive(Debug, Serialize, Deserialize)]
pub struct WireRow {
    pub position: Position,
    pub appended_ms: u64,
    pub frame: Bytes,
}

/// What a client asks of the checkpoint store.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum StoreAsk {
    Put { name: String, bytes: Bytes },
    Get { name: String },
    List { prefix: String },
    Delete { name: String },
}

/// What it gets.
#[derive(Debug, Serialize, Deserialize)]
pub enum StoreAnswer {
    Done(Result<(), StoreError>),
    Got(Result<Bytes, StoreError>),
    Names(Result<Vec<String>, StoreError>),
}

/// What a client's mailbox says.
#[derive(Debug, Serialize, Deserialize)]
pub enum MailAsk {
    Send { to: String, message: Bytes },
    Subscribe { address: String },
    Unsubscribe { address: String },
}

/// What it gets.
#[derive(Debug, Serialize, Deserialize)]
pub enum MailPush {
    Message { address: String, message: Bytes },
    Beat,
}

/// Divides a connection.
pub fn frames(connection: Box<dyn Duplex>) -> (Incoming, Outgoing) {
    let codec = LengthDelimitedCodec::builder().max_frame_length(FRAME_LIMIT_BYTES).new_codec();
    let (reader, writer) = tokio::io::split(connection);
    let mut outgoing = FramedWrite::new(writer, codec.clone());
    outgoing.set_backpressure_boundary(256 << 10);
    (FramedRead::new(reader, codec), outgoing)
}

/// Puts a message into the buffer; goes out with the next flush or when the buffer is full.
pub async fn feed<M: Serialize>(to: &mut Outgoing, message: &M) -> io::Result<()> {
    to.feed(encode(message)).await
}

/// Sends a message at once.
pub async fn send<M: Serialize>(to: &mut Outgoing, message: &M) -> io::Result<()> {
    to.send(encode(message)).await
}

/// Sends what was put into the buffer.
pub async fn flush(to: &mut Outgoing) -> io::Result<()> {
    SinkExt::<Bytes>::flush(to).await
}

fn encode(message: &impl Serialize) -> Bytes {
    rmp_serde::to_vec(message).expect("writing to memory does not fail").into()
}

/// The next message; an end of the connection is an error.
pub async fn receive<M: DeserializeOwned>(from: &mut Incoming) -> io::Result<M> {
    let Some(frame) = from.next().await else {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the other side closed the connection"));
    };
    rmp_serde::from_slice(&frame?).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
}

impl Welcome {
    /// What it means to a client that asked for a log.
    pub fn into_result(self, url: &str) -> Result<(), ConnectError> {
        match self {
            Welcome::Ready => Ok(()),
            Welcome::Damaged { log, reason } => Err(ConnectError::Damaged { log, reason }),
            Welcome::Refused(reason) => Err(ConnectError::Unreachable { url: url.to_owned(), reason }),
        }
    }
}
