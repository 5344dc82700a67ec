//! `segue checkpoint export|import` by way of the migrator: a checkpoint as one file, checked on this side too.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use broker_adapter::ids::Hash;
use broker_adapter::shell::Shell;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use sidecar::checkpoint::Manifest;
use sidecar::checkpoint::archive::{Archive, ArchiveError};

use super::Operator;
use super::args::{ExportArguments, ImportArguments};
use super::ask::{encode, with_query};
use super::failure::OperateError;
use super::show::{Out, bytes, text};
use super::watch::nobody_reads;

/// How long an import may take in all: the migrator gives up much sooner if nothing comes.
const IMPORT_LIMIT: Duration = Duration::from_secs(4 * 3_600);
const PIECE_BYTES: usize = 256 << 10;

/// `export`: the migrator streams the archive.
///
/// # Errors
/// [`OperateError`].
pub async fn export(arguments: &ExportArguments, operator: &mut Operator) -> Result<(), OperateError> {
    let checkpoint = arguments.position.map_or("newest".to_owned(), |position| position.to_string());
    let path = format!("{}/{checkpoint}/export", checkpoints(&arguments.shard.service));
    let path = with_query(&path, &[("shard", arguments.shard.shard.clone())]);
    let shell = operator.asker.shell.clone();
    let opened = operator.asker.rest.begin(&path).await?;
    if opened.status() != 200 {
        return Err(OperateError::of_answer(&opened.read().await.map_err(OperateError::Strange)?));
    }
    let mut file = NewFile::create(&arguments.to)?;
    let mut opened = opened;
    while let Some(piece) = opened.piece(&shell).await.map_err(broke_off)? {
        file.write(&piece)?;
    }
    let written = file.finish()?;
    told(&arguments.to, written, &shell, &mut operator.out).await
}

fn broke_off(reason: String) -> OperateError {
    OperateError::Unsound(format!(
        "the export broke off ({reason}): nothing was kept; the migrator's log says more, and `segue checkpoint verify` looks at the store"
    ))
}

fn checkpoints(service: &str) -> String {
    format!("/v1/services/{}/checkpoints", encode(service))
}

/// A file that is removed again unless it is finished: half an archive must not be taken for one.
pub(super) struct NewFile<'a> {
    path: &'a Path,
    file: File,
    written: u64,
    is_finished: bool,
}

impl<'a> NewFile<'a> {
    /// The file must not exist.
    ///
    /// # Errors
    /// [`OperateError::File`].
    pub fn create(path: &'a Path) -> Result<NewFile<'a>, OperateError> {
        let file = OpenOptions::new().write(true).create_new(true).open(path).map_err(|reason| failed(path, reason))?;
        Ok(NewFile { path, file, written: 0, is_finished: false })
    }

    /// Adds to it.
    ///
    /// # Errors
    /// [`OperateError::File`].
    pub fn write(&mut self, piece: &[u8]) -> Result<(), OperateError> {
        self.written += piece.len() as u64;
        self.file.write_all(piece).map_err(|reason| failed(self.path, reason))
    }

    /// It is whole, and durable; how many bytes it has.
    ///
    /// # Errors
    /// [`OperateError::File`].
    pub fn finish(mut self) -> Result<u64, OperateError> {
        self.file.sync_all().map_err(|reason| failed(self.path, reason))?;
        self.is_finished = true;
        Ok(self.written)
    }
}

impl Drop for NewFile<'_> {
    fn drop(&mut self) {
        if !self.is_finished {
            // It is ours: it was made anew.
            let _ = fs::remove_file(self.path);
        }
    }
}

fn failed(path: &Path, reason: std::io::Error) -> OperateError {
    OperateError::File { what: "cannot write", path: path.display().to_string(), reason }
}

/// Reads the archive that was written, and tells what it holds.
///
/// # Errors
/// It cannot be read, or is not what it should be.
pub(super) async fn told(path: &Path, written: u64, shell: &Shell, out: &mut Out) -> Result<(), OperateError> {
    let (manifest, hash) = read_back(path, shell).await?;
    let value = json!({
        "service": manifest.shard.service, "shard": manifest.shard.shard, "position": manifest.position,
        "hash": hash.to_string(), "state_bytes": manifest.state_bytes(), "archive_bytes": written,
        "file": path.display().to_string(),
    });
    let lines = [
        ("service", manifest.shard.to_string()),
        ("position", text(&value, "/position")),
        ("hash", text(&value, "/hash").chars().take(16).collect()),
        ("state", bytes(&value, "/state_bytes")),
        ("archive", bytes(&value, "/archive_bytes")),
        ("file", text(&value, "/file")),
    ];
    out.one(&value, &lines).map_err(nobody_reads)
}

async fn read_back(path: &Path, shell: &Shell) -> Result<(Manifest, Hash), OperateError> {
    let unreadable = |reason| OperateError::File { what: "cannot read", path: path.display().to_string(), reason };
    let file = File::open(path).map_err(unreadable)?;
    let pieces = stream::unfold(file, |mut file| async move {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        match (&mut file).take(PIECE_BYTES as u64).read_to_end(&mut piece) {
            Ok(0) => None,
            Ok(_) => Some((Ok(Bytes::from(piece)), file)),
            Err(error) => Some((Err(ArchiveError::Unreadable(error.to_string())), file)),
        }
    });
    let unsound = |error: ArchiveError| OperateError::Unsound(format!("{}: {error}", path.display()));
    let mut archive = Archive::open(pieces.boxed(), u64::MAX, shell).await.map_err(unsound)?;
    while archive.next().await.map_err(unsound)?.is_some() {}
    let (manifest, _, hash) = archive.into_manifest();
    Ok((manifest, hash))
}

/// `import`.
///
/// # Errors
/// [`OperateError`].
pub async fn import(arguments: &ImportArguments, operator: &mut Operator) -> Result<(), OperateError> {
    let path = arguments.file.display().to_string();
    let unreadable = |reason| OperateError::File { what: "cannot read", path: path.clone(), reason };
    let file = File::open(&arguments.file).map_err(unreadable)?;
    let length = file.metadata().map_err(unreadable)?.len();
    let mut query = vec![("shard", arguments.shard.clone())];
    let flags = [("validate_only", arguments.dry_run), ("replace_state", arguments.replace_state)];
    query.extend(flags.iter().filter(|(_, is_set)| *is_set).map(|(name, _)| (*name, "true".to_owned())));
    let named = [("from", &arguments.from), ("node", &arguments.node)];
    query.extend(named.iter().filter_map(|(name, value)| Some((*name, (*value).clone()?))));
    let target = with_query(&format!("{}/import", checkpoints(&arguments.service)), &query);
    let answer = operator.asker.rest.upload(&target, file, length, IMPORT_LIMIT).await?;
    if answer.status != 200 {
        return Err(OperateError::of_answer(&answer));
    }
    let value: Value = answer.json();
    let lines = [
        ("service", format!("{}/{}", text(&value, "/service"), text(&value, "/shard"))),
        ("archive", format!("of {}, after {}", text(&value, "/from"), text(&value, "/position"))),
        ("hash", text(&value, "/hash").chars().take(16).collect()),
        ("state", bytes(&value, "/state_bytes")),
        ("parts", format!("{}, {} of them not in the store", text(&value, "/chunks"), text(&value, "/missing"))),
        (if arguments.dry_run { "checked" } else { "done" }, text(&value, "/sentence")),
    ];
    operator.out.one(&value, &lines).map_err(nobody_reads)
}
