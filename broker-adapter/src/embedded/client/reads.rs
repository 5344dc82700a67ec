//! Reading through a connection of its own; its end is the stream's end, and the follower above reads again.

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};

use crate::broker::ConnectError;
use crate::embedded::protocol::{Incoming, Outgoing, Pushed, Role, SILENCE_LIMIT, WireRow, receive};
use crate::embedded::row::Row;
use crate::ids::Position;
use crate::log::ReadError;

use super::{OpenError, Target};

enum State {
    Closed(Position),
    // The sending half is kept, because its drop closes the connection.
    Open(Box<(Incoming, Outgoing)>),
    Ended,
}

/// Rows from `from` on, not decoded.
pub fn rows(target: Target, log: String, from: Position) -> BoxStream<'static, Result<Vec<Row>, ReadError>> {
    stream::unfold((State::Closed(from), target, log), |(state, target, log)| async move {
        let (item, next) = match step(state, &target, &log).await? {
            Ok((rows, next)) => (Ok(rows), next),
            Err(error) => (Err(error), State::Ended),
        };
        Some((item, (next, target, log)))
    })
    .boxed()
}

async fn step(state: State, target: &Target, log: &str) -> Option<Result<(Vec<Row>, State), ReadError>> {
    let (mut incoming, outgoing) = match state {
        State::Ended => return None,
        State::Open(connection) => *connection,
        State::Closed(from) => match target.open(&Role::Read { log: log.to_owned(), from }).await {
            Ok(connection) => connection,
            Err(OpenError::Io(error)) => return Some(Err(ReadError::Unreachable(error.to_string()))),
            Err(OpenError::Refused(ConnectError::Damaged { reason, .. })) => {
                return Some(Err(ReadError::Damaged { position: from, reason }));
            }
            Err(OpenError::Refused(error)) => return Some(Err(ReadError::Unreachable(error.to_string()))),
        },
    };
    loop {
        let pushed = match target.shell.within(SILENCE_LIMIT, receive(&mut incoming)).await {
            None => return Some(Err(ReadError::Unreachable("the broker is silent".to_owned()))),
            Some(Err(error)) => return Some(Err(ReadError::Unreachable(error.to_string()))),
            Some(Ok(pushed)) => pushed,
        };
        match pushed {
            Pushed::Beat => {}
            Pushed::Ended(error) => return Some(Err(error)),
            Pushed::Rows(rows) => {
                let rows = rows.into_iter().map(row).collect();
                return Some(Ok((rows, State::Open(Box::new((incoming, outgoing))))));
            }
        }
    }
}

/// The checksum is not known before the frame is decoded; see [`crate::embedded::handle::entry`].
fn row(row: WireRow) -> Row {
    let frame: Bytes = row.frame;
    Row { position: row.position, appended_ms: row.appended_ms, crc: 0, frame }
}
