//! First contact: a known log never overwrites state of unknown origin (design section 3).
//!
//! A service that the sidecar starts from nothing needs no question. One that is attached, or whose state is a folder of its
//! own, may hold what nobody has saved. Until this node has loaded it once (`origin/<log>/node-…` in the checkpoint store), its
//! state must be empty, or the one that became checkpoint 0 (`origin/<log>/first-…`), or may be replaced after a copy was kept.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use broker_adapter::ids::Hash;
use broker_adapter::store::StoreError;
use bytes::Bytes;

use crate::checkpoint::{CheckpointError, manifest_prefix};
use crate::service::state::{self, SavedState, begin_empty};
use crate::service::{ServiceError, contract::StateConfig};
use crate::shard::Context;

const RETRIES: u32 = 5;
const RETRY_WAIT: Duration = Duration::from_millis(100);
const NOT_FOUND: u16 = 404;

/// What a service holds before the first load.
struct Present {
    hash: Hash,
    bytes: u64,
}

/// Where the state is that may be somebody's.
enum Holder {
    Service,
    Folder(PathBuf),
}

/// This state is becoming checkpoint 0, and this node's service has it.
pub(super) async fn adopted(context: &Context, state: Hash) -> Result<(), CheckpointError> {
    put(context, format!("{}first-{state}", prefix(context))).await?;
    loaded(context).await
}

/// This node has loaded its service: from now on its state is the log's.
pub(super) async fn loaded(context: &Context) -> Result<(), CheckpointError> {
    if holder(context).is_some() { put(context, marker(context)).await } else { Ok(()) }
}

/// Whether a load may overwrite what the service holds; keeps a copy if it was told to `replace` it.
pub(super) async fn check(context: &Context, replace: bool) -> Result<(), CheckpointError> {
    let Some(holder) = holder(context) else { return Ok(()) };
    if is_marked(context).await? {
        return Ok(());
    }
    let Some(state) = holder.open(context).await? else { return Ok(()) };
    let present = read(state, None, context).await?;
    let first = format!("{}first-{}", prefix(context), present.hash);
    if present.bytes == 0 || list(context).await?.contains(&first) {
        return Ok(());
    }
    if !replace {
        let reason = format!("{} bytes, hash {}", present.bytes, present.hash);
        return Err(CheckpointError::Origin { shard: context.shard.clone(), node: context.me.node.clone(), reason });
    }
    let copy = holder.copy_path(context);
    if let Some(state) = holder.open(context).await? {
        read(state, Some(copy.clone()), context).await?;
        tracing::warn!(shard = %context.shard, copy = %copy.display(), bytes = present.bytes,
            "the service held a state of unknown origin; it is replaced, and this is a copy of it");
    }
    Ok(())
}

fn holder(context: &Context) -> Option<Holder> {
    if context.config.attach.is_some() {
        return Some(Holder::Service);
    }
    match &context.config.state {
        Some(StateConfig::Directory { path, .. }) if !path.contains(crate::service::contract::DATA) => {
            Some(Holder::Folder(PathBuf::from(path)))
        }
        _ => None,
    }
}

impl Holder {
    /// What it holds; `None` if that is nothing.
    async fn open(&self, context: &Context) -> Result<Option<SavedState>, ServiceError> {
        match self {
            Holder::Folder(folder) => Ok(state::folder(folder, &context.config, &context.shell).await),
            Holder::Service => {
                let mut running = begin_empty(context.runner.as_ref(), &context.config, &context.shell).await?;
                match running.save(&context.config, &context.shell).await {
                    Ok(state) => Ok(Some(state)),
                    Err(ServiceError::Refused { status: NOT_FOUND, .. }) => Ok(None),
                    Err(error) => Err(error),
                }
            }
        }
    }

    fn copy_path(&self, context: &Context) -> PathBuf {
        let unique = context.shell.random();
        match self {
            Holder::Folder(folder) => {
                let mut name = folder.file_name().unwrap_or_default().to_os_string();
                name.push(format!(".replaced-{unique}.tar"));
                folder.with_file_name(name)
            }
            Holder::Service => {
                context.config.copies.join(format!("segue-replaced-{}-{unique}.state", context.config.name))
            }
        }
    }
}

/// Reads a state to its end, and writes it to a file if one is named.
async fn read(mut state: SavedState, to: Option<PathBuf>, context: &Context) -> Result<Present, ServiceError> {
    let failed = |path: &PathBuf, error: std::io::Error| ServiceError::Folder {
        folder: path.display().to_string(),
        what: "written as the copy of the state that is replaced",
        reason: error.to_string(),
    };
    let hasher = state.hashed();
    let mut bytes = 0;
    let mut file = match &to {
        None => None,
        Some(path) => {
            let at = path.clone();
            let made = context.shell.blocking(move || File::create_new(at)).await;
            Some((made.map_err(|error| failed(path, error))?, path))
        }
    };
    while let Some(piece) = state.next().await? {
        bytes += piece.len() as u64;
        if let Some((mut open, path)) = file.take() {
            let written = context.shell.blocking(move || open.write_all(&piece).map(|()| open)).await;
            file = Some((written.map_err(|error| failed(path, error))?, path));
        }
    }
    if let Some((open, path)) = file {
        context.shell.blocking(move || open.sync_all()).await.map_err(|error| failed(path, error))?;
    }
    let hash = Hash(*hasher.lock().expect("nothing panics under this lock").finalize().as_bytes());
    Ok(Present { hash, bytes })
}

fn prefix(context: &Context) -> String {
    manifest_prefix(&context.shard).replacen("manifest/", "origin/", 1)
}

/// Names of nodes may hold what names of objects must not.
fn marker(context: &Context) -> String {
    format!("{}node-{}", prefix(context), Hash::of(context.me.node.as_str().as_bytes()))
}

async fn is_marked(context: &Context) -> Result<bool, StoreError> {
    Ok(list(context).await?.contains(&marker(context)))
}

async fn list(context: &Context) -> Result<Vec<String>, StoreError> {
    let mut tries = 0;
    loop {
        match context.store.list(prefix(context)).await {
            Err(error) if error.is_retryable() && tries < RETRIES => {
                tries += 1;
                context.shell.sleep(RETRY_WAIT * tries).await;
            }
            result => return result,
        }
    }
}

async fn put(context: &Context, name: String) -> Result<(), CheckpointError> {
    let mut tries = 0;
    loop {
        match context.store.put(name.clone(), Bytes::from_static(b"segue")).await {
            Err(error) if error.is_retryable() && tries < RETRIES => {
                tries += 1;
                context.shell.sleep(RETRY_WAIT * tries).await;
            }
            result => return result.map_err(CheckpointError::Store),
        }
    }
}
