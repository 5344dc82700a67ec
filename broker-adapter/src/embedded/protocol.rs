//! What goes over a `segue://` connection: length-delimited MessagePack; the first frame says the connection's role.
//!
//! ```text
//! client ─ Opening{role, token} ─▶   ◀─ Welcome ─ server
//!   Appends  ─ Ask{id} … ─▶   ◀─ Answer{id} … ─      pipelined; appends in order
//!   Read                      ◀─ Pushed … ─          TCP is the back pressure
//!   Store    ─ StoreAsk ─▶    ◀─ StoreAnswer ─       one at a time
//!   Mail     ─ MailAsk … ─▶   ◀─ MailPush … ─
//! ```
//! One connection per role, so that nothing big ever stands in front of an append. The server beats every second on
//! roles that can be silent; a silent server counts as gone. Under `segues://` all of it is inside TLS (`crate::tls`).

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

use super::token::Token;

/// Both sides must speak the same.
pub const PROTOCOL: u32 = 1;
/// A connection that sends a longer frame is closed.
pub const FRAME_LIMIT_BYTES: usize = 80 << 20;
/// The same for the first frame, before it is known who sends it.
const OPENING_LIMIT_BYTES: usize = 4 << 10;
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
    /// Without one the frame is the same as before there were tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
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

/// What the other side said in TLS to somebody who does not speak it: how a client's hello and a server's alert begin.
const TLS_BEGINS: [[u8; 2]; 2] = [[0x16, 3], [0x15, 3]];

/// Whether what could not be read as a frame was TLS.
pub fn is_tls(incoming: &Incoming) -> bool {
    incoming.read_buffer().get(..2).is_some_and(|begin| TLS_BEGINS.iter().any(|tls| tls == begin))
}

/// Divides a connection of somebody who has not said yet who he is: a short frame is all that is read.
pub fn strangers_frames(connection: Box<dyn Duplex>) -> (Incoming, Outgoing) {
    let (mut incoming, outgoing) = frames(connection);
    incoming.decoder_mut().set_max_frame_length(OPENING_LIMIT_BYTES);
    (incoming, outgoing)
}

/// From here on frames may have their full length.
pub fn trust(incoming: &mut Incoming) {
    incoming.decoder_mut().set_max_frame_length(FRAME_LIMIT_BYTES);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_token_the_first_frame_is_that_of_releases_without_tokens() {
        #[derive(Debug, Serialize, Deserialize)]
        struct Before {
            protocol: u32,
            role: Role,
        }
        let role = || Role::Appends { log: "a.0".to_owned() };
        let before = encode(&Before { protocol: PROTOCOL, role: role() });
        assert_eq!(before, encode(&Opening { protocol: PROTOCOL, role: role(), token: None }));
        let read: Opening = rmp_serde::from_slice(&before).unwrap();
        assert!(read.token.is_none());
    }
}
