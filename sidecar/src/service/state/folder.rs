//! State kind `directory`: a folder as a tar stream, the same bytes for the same folder.
//!
//! Entries are sorted by name, times and owners are left out, permissions are kept. Regular files, folders and symbolic links
//! that stay inside are a state; anything else is refused by name. Links are made last, so that nothing is written through one.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use broker_adapter::shell::{Shell, TaskSet};
use bytes::{Buf, Bytes, BytesMut};
use tar::{Archive, Builder, EntryType, Header};
use tokio::sync::mpsc;

use super::super::ServiceError;
use super::{EARLY_END, LOAD_PIECES, LoadBody, PIECE_BYTES};

const PERMISSIONS: u32 = 0o777;

/// A folder that streams out.
pub(super) struct FolderState {
    folder: PathBuf,
    pieces: mpsc::Receiver<Piece>,
    shell: Shell,
    step_limit: Duration,
    /// What reads it; ends with this.
    _reads: TaskSet,
}

enum Piece {
    Bytes(Bytes),
    End(io::Result<()>),
}

impl FolderState {
    pub fn begin(folder: PathBuf, step_limit: Duration, shell: &Shell) -> FolderState {
        let (sender, pieces) = mpsc::channel(LOAD_PIECES);
        let (reader, reads) = shell.part();
        let (from, worker) = (folder.clone(), shell.clone());
        reader.spawn(async move {
            let to = PieceWriter { sender: sender.clone(), piece: BytesMut::new() };
            let result = worker.blocking(move || pack(&from, to)).await;
            // Nobody may wait any more.
            let _ = sender.send(Piece::End(result)).await;
        });
        FolderState { folder, pieces, shell: shell.clone(), step_limit, _reads: reads }
    }

    pub async fn next(&mut self) -> Result<Option<Bytes>, ServiceError> {
        let reason = match self.shell.within(self.step_limit, self.pieces.recv()).await {
            Some(Some(Piece::Bytes(piece))) => return Ok(Some(piece)),
            Some(Some(Piece::End(Ok(())))) => return Ok(None),
            Some(Some(Piece::End(Err(error)))) => error.to_string(),
            Some(None) => "what reads it has ended".to_owned(),
            None => format!("nothing could be read within {} ms", self.step_limit.as_millis()),
        };
        Err(ServiceError::Folder { folder: self.folder.display().to_string(), what: "saved", reason })
    }
}

/// Replaces a folder's content.
pub(super) async fn load(body: LoadBody, folder: PathBuf, limit: Duration, shell: &Shell) -> Result<(), ServiceError> {
    let failed = |reason: String| ServiceError::Folder { folder: folder.display().to_string(), what: "loaded", reason };
    let from = PieceReader { pieces: body.pieces, piece: Bytes::new(), left: body.length };
    let to = folder.clone();
    match shell.within(limit, shell.blocking(move || unpack(&to, from))).await {
        Some(Ok(())) => Ok(()),
        Some(Err(error)) => Err(failed(error.to_string())),
        None => Err(failed(format!("it took more than {} ms", limit.as_millis()))),
    }
}

struct PieceWriter {
    sender: mpsc::Sender<Piece>,
    piece: BytesMut,
}

impl Write for PieceWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = self.piece.split().freeze();
        self.sender.blocking_send(Piece::Bytes(piece)).map_err(|_| io::Error::other("nobody wants it any more"))
    }
}

struct PieceReader {
    pieces: mpsc::Receiver<Bytes>,
    piece: Bytes,
    left: u64,
}

impl PieceReader {
    /// Waits for the first bytes; whether there are more.
    fn begin(&mut self) -> io::Result<bool> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.piece = piece,
                None if self.left == 0 => return Ok(false),
                None => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, EARLY_END)),
            }
        }
        Ok(true)
    }
}

impl Read for PieceReader {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if !self.begin()? {
            return Ok(0);
        }
        let length = self.piece.len().min(to.len());
        self.piece.copy_to_slice(&mut to[..length]);
        self.left = self.left.saturating_sub(length as u64);
        Ok(length)
    }
}

fn named(path: &Path, error: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("{}: {error}", path.display()))
}

fn pack(folder: &Path, to: PieceWriter) -> io::Result<()> {
    let mut archive = Builder::new(to);
    pack_inside(folder, Path::new(""), &mut archive)?;
    archive.into_inner()?.flush()
}

fn pack_inside(folder: &Path, inside: &Path, archive: &mut Builder<PieceWriter>) -> io::Result<()> {
    let at = folder.join(inside);
    let entries = fs::read_dir(&at).map_err(|error| named(&at, error))?;
    let mut names = entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
    names.sort_by(|one, other| one.as_bytes().cmp(other.as_bytes()));
    for name in names {
        let inside = inside.join(&name);
        let path = folder.join(&inside);
        pack_entry(&path, &inside, archive).map_err(|error| named(&path, error))?;
        if path.symlink_metadata()?.is_dir() {
            pack_inside(folder, &inside, archive)?;
        }
    }
    Ok(())
}

fn pack_entry(path: &Path, inside: &Path, archive: &mut Builder<PieceWriter>) -> io::Result<()> {
    let metadata = path.symlink_metadata()?;
    let mut header = Header::new_gnu();
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mode(metadata.permissions().mode() & PERMISSIONS);
    header.set_size(0);
    if metadata.is_dir() {
        header.set_entry_type(EntryType::Directory);
        archive.append_data(&mut header, inside, io::empty())
    } else if metadata.is_symlink() {
        let target = fs::read_link(path)?;
        check_link(inside, &target)?;
        header.set_entry_type(EntryType::Symlink);
        header.set_mode(PERMISSIONS);
        archive.append_link(&mut header, inside, target)
    } else if metadata.is_file() {
        let file = File::open(path)?;
        header.set_entry_type(EntryType::Regular);
        header.set_size(metadata.len());
        archive.append_data(&mut header, inside, Exactly { file, left: metadata.len() })
    } else {
        Err(io::Error::other("it is neither a file nor a folder nor a symbolic link, and cannot be part of a state"))
    }
}

/// A file of the length that it had.
struct Exactly {
    file: File,
    left: u64,
}

impl Read for Exactly {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(to.len());
        let read = self.file.read(&mut to[..length])?;
        if read == 0 && self.left > 0 && !to.is_empty() {
            return Err(io::Error::other(
                "it became shorter while it was saved: nothing may be written between requests",
            ));
        }
        self.left -= read as u64;
        Ok(read)
    }
}

fn unpack(folder: &Path, mut from: PieceReader) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    // An earlier load that was given up may still be at it, in a thread that nobody can end.
    let lock = File::open(folder)?;
    lock.lock()?;
    from.begin()?;
    empty(folder)?;
    let mut archive = Archive::new(from);
    let (mut links, mut folders) = (Vec::new(), Vec::new());
    for entry in archive.entries()? {
        let mut entry = entry?;
        let inside = entry.path()?.into_owned();
        check_inside(&inside)?;
        let path = folder.join(&inside);
        let mode = Permissions::from_mode(entry.header().mode()? & PERMISSIONS);
        match entry.header().entry_type() {
            EntryType::Directory => {
                fs::create_dir(&path).map_err(|error| named(&path, error))?;
                folders.push((path, mode));
            }
            EntryType::Regular => {
                let mut file = File::create_new(&path).map_err(|error| named(&path, error))?;
                io::copy(&mut entry, &mut file).map_err(|error| named(&path, error))?;
                file.set_permissions(mode)?;
            }
            EntryType::Symlink => {
                let target = entry.link_name()?.ok_or_else(|| named(&inside, "it links to nothing"))?.into_owned();
                check_link(&inside, &target)?;
                links.push((path, target));
            }
            other => return Err(named(&inside, format!("a tar entry of type {other:?} is no part of a state"))),
        }
    }
    for (path, target) in links {
        symlink(target, &path).map_err(|error| named(&path, error))?;
    }
    // A folder may be read-only: the deepest ones first, and only when all is in them.
    for (path, mode) in folders.into_iter().rev() {
        fs::set_permissions(&path, mode).map_err(|error| named(&path, error))?;
    }
    // The sender is done when all was read, behind the archive's end too.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map(|_| ())
}

fn empty(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        let removed = if entry.file_type()?.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(|error| named(&path, error))?;
    }
    Ok(())
}

fn check_inside(inside: &Path) -> io::Result<()> {
    let good = inside.components().all(|part| matches!(part, Component::Normal(_)));
    if good && inside.components().next().is_some() {
        return Ok(());
    }
    Err(named(inside, "this path leads out of the folder"))
}

/// A link's target, seen from the link's own folder, must stay inside, however it is followed: `..` only at its beginning.
fn check_link(inside: &Path, target: &Path) -> io::Result<()> {
    let mut depth = inside.components().count().saturating_sub(1);
    let mut down = false;
    for part in target.components() {
        match part {
            Component::Normal(_) => down = true,
            Component::CurDir => {}
            Component::ParentDir if depth > 0 && !down => depth -= 1,
            _ => {
                let reason = format!("it is a link to {}, which leads out of the folder", target.display());
                return Err(io::Error::other(reason));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "folder_tests.rs"]
mod tests;
