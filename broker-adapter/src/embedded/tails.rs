//! The side file of a log: which tail was attempted and which was synced last, to tell a torn tail from a loss.
//!
//! It is written without a sync of its own, so it survives a killed process and may be old after a power cut; an old one
//! only says less. `attempted` is written before the rows, `synced` after their sync, so it never says too much.
//! ```text
//! "segueT01" │ attempted (8, BE) │ synced (8, BE) │ CRC-32 (4, BE)
//! ```

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::ids::Position;

const MAGIC: &[u8; 8] = b"segueT01";
const FILE_BYTES: usize = 28;

/// What the side file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tails {
    /// The last record that anybody tried to write.
    pub attempted: Position,
    /// The last record that was synced, and so perhaps acknowledged.
    pub synced: Position,
}

/// The open side file.
pub struct TailsFile {
    file: File,
}

impl TailsFile {
    /// Opens or makes it; `None` if there is nothing in it or its checksum is wrong.
    pub fn open(path: &Path) -> io::Result<(TailsFile, Option<Tails>)> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut bytes = [0; FILE_BYTES];
        let tails = match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => parse(&bytes),
            Err(_) => None,
        };
        Ok((TailsFile { file }, tails))
    }

    /// Says what is attempted and what is synced now.
    pub fn write(&self, tails: Tails) -> io::Result<()> {
        let mut bytes = [0; FILE_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..16].copy_from_slice(&tails.attempted.0.to_be_bytes());
        bytes[16..24].copy_from_slice(&tails.synced.0.to_be_bytes());
        let crc = crc32fast::hash(&bytes[..24]);
        bytes[24..].copy_from_slice(&crc.to_be_bytes());
        self.file.write_all_at(&bytes, 0)
    }
}

fn parse(bytes: &[u8; FILE_BYTES]) -> Option<Tails> {
    let number = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
    let fits = &bytes[..8] == MAGIC && bytes[24..] == crc32fast::hash(&bytes[..24]).to_be_bytes();
    fits.then(|| Tails { attempted: Position(number(8)), synced: Position(number(16)) })
}
