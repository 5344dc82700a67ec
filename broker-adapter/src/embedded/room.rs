//! How much room an embedded broker has: sled's file against its limit, and the disk against what is kept free.

use std::fs::File;
use std::path::PathBuf;

use crate::log::AppendError;

/// What bounds a broker's log file.
pub struct Room {
    /// Our own handle to sled's file.
    pub file: File,
    pub path: PathBuf,
    pub capacity_bytes: u64,
    pub reserve_bytes: u64,
}

impl Room {
    /// The size of sled's file.
    pub fn used_bytes(&self) -> u64 {
        self.file.metadata().map_or(0, |data| data.len())
    }

    /// The limit that was set, if one was.
    pub fn limit_bytes(&self) -> Option<u64> {
        Some(self.capacity_bytes).filter(|limit| *limit != u64::MAX)
    }

    /// What the disk has left; nothing is said where the system does not tell.
    pub fn free_bytes(&self) -> Option<u64> {
        rustix::fs::fstatvfs(&self.file).ok().map(|disk| disk.f_bavail * disk.f_frsize)
    }

    /// Why nothing can be taken.
    pub fn refusal(&self) -> Option<AppendError> {
        let used = self.used_bytes();
        if used > self.capacity_bytes {
            let limit = self.capacity_bytes;
            return Some(AppendError::Full(format!(
                "{used} bytes are used of {limit}; trim the log or raise the limit"
            )));
        }
        let (free, reserve) = (self.free_bytes().unwrap_or(u64::MAX), self.reserve_bytes);
        (free < reserve).then(|| {
            let path = self.path.display();
            AppendError::Full(format!("the disk of {path} has {free} bytes left, {reserve} are kept free; make room"))
        })
    }
}
