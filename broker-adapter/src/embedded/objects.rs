//! The second face of the embedded broker: one file per object, its BLAKE3 hash in front.
//!
//! A put writes a temporary file, renames it, then syncs file and folder: one commit of the file system's journal for both, because
//! the log's syncs wait for each. What a power cut leaves of a put that was not acknowledged may be damaged; its hash shows that.
//! Never in sled: large values there cost appends 100 ms and more. A file's name ends with `~`, which no object's name may hold, so
//! that `a` and `a/b` can both exist. The same files are the store of `checkpoints = "file:///PATH"`, which many processes share.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{self, BoxFuture};

use crate::ids::Hash;
use crate::shell::Shell;
use crate::store::{CheckpointStore, OBJECT_LIMIT_BYTES, StoreError};

const HASH_BYTES: usize = 32;
const NAME_LIMIT_BYTES: usize = 512;
const SEGMENT_LIMIT_BYTES: usize = 200;
const FILE_SUFFIX: char = '~';

/// The objects under one folder.
#[derive(Clone)]
pub struct ObjectFiles {
    folders: Arc<Folders>,
    shell: Shell,
}

struct Folders {
    objects: PathBuf,
    incoming: PathBuf,
    /// Folders whose own names are durable: each sync of a folder costs the log's next sync a journal commit.
    placed: Mutex<BTreeSet<PathBuf>>,
}

impl ObjectFiles {
    /// Opens or makes the folders under the broker's; forgets what was not put whole.
    pub fn open(broker: &Path, shell: Shell) -> io::Result<ObjectFiles> {
        let folders = Folders::under(broker);
        if folders.incoming.exists() {
            fs::remove_dir_all(&folders.incoming)?;
        }
        folders.make()?;
        Ok(ObjectFiles { folders: Arc::new(folders), shell })
    }

    /// Opens a folder that other processes use too, maybe on other machines; forgets what nobody is putting any more. The folder
    /// must exist: it is not made, so that a file system that is not mounted is noticed.
    pub fn open_shared(folder: &Path, shell: Shell) -> io::Result<ObjectFiles> {
        if !fs::metadata(folder)?.is_dir() {
            return Err(io::Error::from(io::ErrorKind::NotADirectory));
        }
        let folders = Folders::under(folder);
        folders.make()?;
        File::open(folder)?.sync_all()?;
        folders.forget_leftovers()?;
        Ok(ObjectFiles { folders: Arc::new(folders), shell })
    }

    fn run<T: Send + 'static>(
        &self,
        name: String,
        work: impl FnOnce(&Folders, &str) -> Result<T, StoreError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, StoreError>> {
        let (folders, shell) = (self.folders.clone(), self.shell.clone());
        async move { shell.blocking(move || work(&folders, &name)).await }.boxed()
    }
}

/// Whether this can name an object: segments of `a-z A-Z 0-9 - _ .` divided by `/`, none of them only dots.
pub fn check_name(name: &str) -> Result<(), StoreError> {
    let segment_fits = |segment: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        (1..=SEGMENT_LIMIT_BYTES).contains(&segment.len())
            && segment.bytes().all(allowed)
            && segment.bytes().any(|byte| byte != b'.')
    };
    let fits = name.len() <= NAME_LIMIT_BYTES && name.split('/').all(segment_fits);
    if fits { Ok(()) } else { Err(StoreError::BadName(name.to_owned())) }
}

impl Folders {
    fn under(folder: &Path) -> Folders {
        Folders { objects: folder.join("objects"), incoming: folder.join("incoming"), placed: Mutex::default() }
    }

    fn make(&self) -> io::Result<()> {
        fs::create_dir_all(&self.incoming)?;
        fs::create_dir_all(&self.objects)
    }

    /// Who writes a file holds its lock: one that is free was left by a process that ended. Where the file system knows no locks
    /// all stay.
    fn forget_leftovers(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.incoming)? {
            let path = entry?.path();
            // It may have been put whole, or removed by another process, since the folder was read.
            let Ok(file) = File::options().write(true).open(&path) else { continue };
            if file.try_lock().is_ok() {
                let _ = fs::remove_file(&path);
            }
        }
        Ok(())
    }

    /// What it means that there is no such file.
    fn absent(&self, name: &str) -> StoreError {
        if self.objects.is_dir() { StoreError::Missing(name.to_owned()) } else { self.gone() }
    }

    fn gone(&self) -> StoreError {
        let folder = self.objects.display();
        StoreError::Unreachable(format!("the folder {folder} is gone: is its file system mounted?"))
    }

    fn failed(&self, error: &io::Error) -> StoreError {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full(error.to_string()),
            io::ErrorKind::NotFound if !self.objects.is_dir() => self.gone(),
            _ => StoreError::Unreachable(error.to_string()),
        }
    }

    fn file(&self, name: &str) -> Result<PathBuf, StoreError> {
        check_name(name)?;
        Ok(self.objects.join(format!("{name}{FILE_SUFFIX}")))
    }

    fn put(&self, name: &str, bytes: &[u8], temporary: &str) -> Result<(), StoreError> {
        let path = self.file(name)?;
        // The same again: nothing to write, but neither it nor its name may be synced yet, if somebody crashed or is at it.
        let known = self.get(name).is_ok_and(|known| known == bytes);
        if known {
            File::open(&path).and_then(|file| file.sync_all()).map_err(|error| self.failed(&error))?;
        } else {
            let temporary = self.incoming.join(temporary);
            let mut file = File::create_new(&temporary).map_err(|error| self.failed(&error))?;
            // Says that it is no leftover. If somebody was quicker and removes it, the rename fails, and the put with it.
            let _ = file.try_lock();
            let written = file.write_all(&Hash::of(bytes).0).and_then(|()| file.write_all(bytes));
            let placed = written.and_then(|()| {
                self.make_folder(path.parent().expect("an object lies in a folder"))?;
                fs::rename(&temporary, &path)?;
                file.sync_all()
            });
            if let Err(error) = placed {
                // The error says why; a leftover is removed at the next open.
                let _ = fs::remove_file(&temporary);
                return Err(self.failed(&error));
            }
        }
        self.sync_folders(&path).map_err(|error| self.failed(&error))
    }

    /// A folder that has to be made is not durable, whatever is remembered: another file system may have been mounted.
    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        if folder.is_dir() {
            return Ok(());
        }
        self.placed.lock().expect("nothing panics under this lock").remove(folder);
        fs::create_dir_all(folder)
    }

    /// Syncs the object's folder, and those above it up to that of all objects unless that was done before: no folder is
    /// ever removed.
    fn sync_folders(&self, path: &Path) -> io::Result<()> {
        let folder = path.parent().expect("an object lies in a folder");
        File::open(folder)?.sync_all()?;
        if self.placed.lock().expect("nothing panics under this lock").contains(folder) {
            return Ok(());
        }
        for above in folder.ancestors().skip(1).take_while(|above| above.starts_with(&self.objects)) {
            File::open(above)?.sync_all()?;
        }
        self.placed.lock().expect("nothing panics under this lock").insert(folder.to_owned());
        Ok(())
    }

    fn get(&self, name: &str) -> Result<Bytes, StoreError> {
        let mut bytes = match fs::read(self.file(name)?) {
            Ok(bytes) => Bytes::from(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(self.absent(name)),
            Err(error) => return Err(self.failed(&error)),
        };
        let damaged = |reason: &str| StoreError::Damaged { name: name.to_owned(), reason: reason.to_owned() };
        if bytes.len() < HASH_BYTES {
            return Err(damaged("it is shorter than its hash"));
        }
        let hash = bytes.split_to(HASH_BYTES);
        if Hash::of(&bytes).0[..] == hash[..] { Ok(bytes) } else { Err(damaged("its bytes do not have its hash")) }
    }

    fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let mut names = Vec::new();
        let mut folders = vec![String::new()];
        while let Some(folder) = folders.pop() {
            let entries = fs::read_dir(self.objects.join(&folder)).map_err(|error| self.failed(&error))?;
            for entry in entries {
                let entry = entry.map_err(|error| self.failed(&error))?;
                let Ok(segment) = entry.file_name().into_string() else { continue };
                let name = if folder.is_empty() { segment } else { format!("{folder}/{segment}") };
                match name.strip_suffix(FILE_SUFFIX) {
                    Some(object) if object.starts_with(prefix) => names.push(object.to_owned()),
                    Some(_) => {}
                    None if prefix.starts_with(&name) || name.starts_with(prefix) => folders.push(name),
                    None => {}
                }
            }
        }
        names.sort();
        Ok(names)
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        let path = self.file(name)?;
        match fs::remove_file(&path) {
            Ok(()) => File::open(path.parent().expect("an object lies in a folder"))
                .and_then(|folder| folder.sync_all())
                .map_err(|error| self.failed(&error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => match self.absent(name) {
                StoreError::Missing(_) => Ok(()),
                unreachable => Err(unreachable),
            },
            Err(error) => Err(self.failed(&error)),
        }
    }
}

impl CheckpointStore for ObjectFiles {
    fn put(&self, name: String, bytes: Bytes) -> BoxFuture<'static, Result<(), StoreError>> {
        if bytes.len() > OBJECT_LIMIT_BYTES {
            return future::ready(Err(StoreError::TooLarge(bytes.len() as u64))).boxed();
        }
        let temporary = self.shell.random().to_string();
        self.run(name, move |folders, name| folders.put(name, &bytes, &temporary))
    }

    fn get(&self, name: String) -> BoxFuture<'static, Result<Bytes, StoreError>> {
        self.run(name, |folders, name| folders.get(name))
    }

    fn list(&self, prefix: String) -> BoxFuture<'static, Result<Vec<String>, StoreError>> {
        self.run(prefix, |folders, prefix| folders.list(prefix))
    }

    fn delete(&self, name: String) -> BoxFuture<'static, Result<(), StoreError>> {
        self.run(name, |folders, name| folders.delete(name))
    }
}
