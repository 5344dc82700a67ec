//! Saving and loading a service's state, whatever its kind: nobody outside of this folder asks which it is.
//!
//! ```text
//!   save:  [`save`] ─▶ [`SavedState`], piece after piece      checkpoints, proofs
//!   load:  pieces ─▶ [`LoadBody`] ─▶ [`load`] ─▶ [`Running`]   an instance that holds the state, and is ready
//! ```
//! Nothing is delivered between [`save`] and its return, and before the last piece only if the state is `fixed`.

mod folder;
mod http;
mod load;
mod program;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use broker_adapter::shell::Shell;
use bytes::Bytes;
use tokio::sync::mpsc;

use super::contract::StateConfig;
use super::{Connection, ServiceError};
use crate::config::ServiceConfig;
use crate::runner::Place;
use folder::FolderState;
use http::HttpState;
use program::ProgramState;

pub use load::{Running, begin_empty, load};

/// How many pieces of a state may wait between the store and the service.
const LOAD_PIECES: usize = 4;
/// How large a piece is that we make.
const PIECE_BYTES: usize = 64 << 10;

/// A state that streams out of the service.
pub struct SavedState {
    /// Requests may be delivered while it streams.
    pub fixed: bool,
    /// Equal states give equal bytes.
    pub canonical: bool,
    source: Source,
    /// For an attached service without a token: was open before the save, and must still be at its end.
    witness: Option<Witness>,
    seen: Option<Arc<Mutex<blake3::Hasher>>>,
}

enum Source {
    Http(HttpState),
    Program(Box<ProgramState>),
    Folder(FolderState),
}

struct Witness {
    connection: Connection,
    ready: String,
    limit: std::time::Duration,
}

/// Asks an instance for its state. `connection` is the one over which requests are delivered.
///
/// # Errors
/// What was tried and what came of it; or that it is not the instance that was loaded.
pub async fn save(
    config: &ServiceConfig,
    place: &Place,
    connection: &mut Connection,
    shell: &Shell,
) -> Result<SavedState, ServiceError> {
    let limit = config.start_timeout();
    let witness = match place.attached && connection.token().is_none() {
        true => Some(Witness::beside(connection, place, config, shell).await?),
        false => None,
    };
    let (fixed, canonical, source) = match kind(config)? {
        StateConfig::Http { path } => {
            let (state, can) = HttpState::begin(&place.address, path, connection.token(), limit, shell).await?;
            (can.fixed, can.canonical, Source::Http(state))
        }
        StateConfig::Command { save, canonical, .. } => {
            let state = ProgramState::begin(place, save, limit, shell)?;
            (false, *canonical, Source::Program(Box::new(state)))
        }
        StateConfig::Directory { path, before_save, canonical } => {
            if !before_save.is_empty() {
                program::run(place, before_save, limit, shell).await?;
            }
            let state = FolderState::begin(PathBuf::from(place.fill(path)), limit, shell);
            (false, *canonical, Source::Folder(state))
        }
    };
    Ok(SavedState { fixed, canonical, source, witness, seen: None })
}

/// What is in a folder that is no instance's own; `None` if that is nothing.
pub async fn folder(path: &Path, config: &ServiceConfig, shell: &Shell) -> Option<SavedState> {
    let at = path.to_owned();
    let holds = move || std::fs::read_dir(at).is_ok_and(|mut entries| entries.next().is_some());
    if !shell.blocking(holds).await {
        return None;
    }
    let state = FolderState::begin(path.to_owned(), config.start_timeout(), shell);
    Some(SavedState { fixed: false, canonical: true, source: Source::Folder(state), witness: None, seen: None })
}

fn kind(config: &ServiceConfig) -> Result<&StateConfig, ServiceError> {
    config.state.as_ref().ok_or_else(|| ServiceError::Folder {
        folder: config.name.to_string(),
        what: "saved or loaded",
        reason: "the service's configuration has no `state`".to_owned(),
    })
}

impl Witness {
    /// A connection that was accepted by the process that has the other one.
    async fn beside(
        known: &mut Connection,
        place: &Place,
        config: &ServiceConfig,
        shell: &Shell,
    ) -> Result<Witness, ServiceError> {
        let limit = config.start_timeout();
        let mut connection = Connection::open(&place.address, shell).await?;
        connection.probe(&config.ready, limit).await?;
        known.probe(&config.ready, limit).await?;
        Ok(Witness { connection, ready: config.ready.clone(), limit })
    }
}

impl SavedState {
    /// The next piece of the state; `None` at its end.
    ///
    /// # Errors
    /// The service broke off or took too long, or is not the same any more.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ServiceError> {
        let piece = match &mut self.source {
            Source::Http(state) => state.next().await?,
            Source::Program(state) => state.next().await?,
            Source::Folder(state) => state.next().await?,
        };
        if let (Some(piece), Some(seen)) = (&piece, &self.seen) {
            seen.lock().expect("nothing panics under this lock").update(piece);
        }
        if piece.is_none()
            && let Some(mut witness) = self.witness.take()
        {
            witness.connection.probe(&witness.ready, witness.limit).await?;
        }
        Ok(piece)
    }

    /// What hashes all that passes from now on.
    #[must_use]
    pub fn hashed(&mut self) -> Arc<Mutex<blake3::Hasher>> {
        self.seen.get_or_insert_default().clone()
    }
}

/// A state on its way into a service.
pub struct LoadBody {
    pieces: mpsc::Receiver<Bytes>,
    length: u64,
}

/// Where the pieces go in, and the body that they make; `length` is that of all of them.
#[must_use]
pub fn load_channel(length: u64) -> (mpsc::Sender<Bytes>, LoadBody) {
    let (sender, pieces) = mpsc::channel(LOAD_PIECES);
    (sender, LoadBody { pieces, length })
}

/// Why a state that is loaded ends early: who sends it knows more.
const EARLY_END: &str = "the state ended early";

fn broken_off(what: &str) -> ServiceError {
    ServiceError::Broken { request: what.to_owned(), reason: EARLY_END.to_owned() }
}

#[cfg(test)]
mod tests;
