//! The folder that is private to one instance: made empty for it, and removed after its end.
//!
//! A sidecar that was killed leaves folders behind. Each has a locked file beside it while it is in use, so the next one
//! removes what nobody uses, and never what another process of the same name still does.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

const LOCK: &str = ".lock";
/// Nobody else on this machine reads a service's state.
const ONLY_OWNER: u32 = 0o700;

/// Removed when it is dropped.
#[derive(Debug)]
pub(super) struct DataFolder {
    path: PathBuf,
    lock: PathBuf,
    _held: File,
}

impl DataFolder {
    /// Makes `PARENT/PREFIX-UNIQUE`, and removes what earlier processes left under this prefix.
    pub fn make(parent: &Path, prefix: &str, unique: &str) -> io::Result<DataFolder> {
        fs::create_dir_all(parent)?;
        let parent = parent.canonicalize()?;
        remove_left(&parent, prefix)?;
        let path = parent.join(format!("{prefix}-{unique}"));
        let lock = parent.join(format!("{prefix}-{unique}{LOCK}"));
        let held = OpenOptions::new().create_new(true).write(true).open(&lock)?;
        held.try_lock().map_err(io::Error::from)?;
        DirBuilder::new().mode(ONLY_OWNER).create(&path)?;
        Ok(DataFolder { path, lock, _held: held })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for DataFolder {
    fn drop(&mut self) {
        remove(&self.path, &self.lock);
    }
}

fn remove_left(parent: &Path, prefix: &str) -> io::Result<()> {
    for entry in fs::read_dir(parent)? {
        let lock = entry?.path();
        let name = lock.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let unique = name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('-')?.strip_suffix(LOCK));
        // Another service's name may begin with this one's; what makes a folder unique has no dash in it.
        let Some(unique) = unique.filter(|unique| !unique.contains('-')) else { continue };
        let Ok(held) = File::open(&lock) else { continue };
        if held.try_lock().is_ok() {
            remove(&parent.join(format!("{prefix}-{unique}")), &lock);
        }
    }
    Ok(())
}

fn remove(folder: &Path, lock: &Path) {
    if let Err(error) = fs::remove_dir_all(folder)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(folder = %folder.display(), %error, "the folder of an ended instance cannot be removed");
        return;
    }
    if let Err(error) = fs::remove_file(lock) {
        tracing::debug!(lock = %lock.display(), %error, "a lock file was not removed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_goes_with_its_instance_and_leftovers_with_the_next() {
        let parent = tempfile::tempdir().unwrap();
        let leave = |name: &str| {
            fs::create_dir(parent.path().join(name)).unwrap();
            fs::write(parent.path().join(format!("{name}{LOCK}")), "").unwrap();
            parent.path().join(name)
        };
        let first = DataFolder::make(parent.path(), "segue-a.b-s", "1").unwrap();
        fs::write(first.path().join("file"), "state").unwrap();
        let (left, other) = (leave("segue-a.b-s-2"), leave("segue-a.b-s-t-3"));
        let second = DataFolder::make(parent.path(), "segue-a.b-s", "4").unwrap();
        assert!(first.path().join("file").exists(), "one that is in use stays");
        assert!(!left.exists() && other.exists());
        drop(first);
        drop(second);
        let names = fs::read_dir(parent.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(names.count(), 2, "only what is another service's");
    }
}
