//! Which checkpoints are kept: the last two that counted, and the pinned ones (invariant 7).
//!
//! A pin counts only on a checkpoint that is kept at its place, and ends by release or after `pin_limit_records`.

use serde::{Deserialize, Serialize};

use super::Void;
use crate::ids::{Hash, MigrationId, Position};
use crate::record::{Checkpoint, Pin};

/// How many checkpoints are kept without a pin.
pub const KEPT_UNPINNED: usize = 2;
/// How many pins there can be.
pub const PINS_MAX: usize = 16;

/// A checkpoint that counted and is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptCheckpoint {
    /// After which record it was taken.
    pub position: Position,
    /// Its manifest's hash and name.
    pub manifest: Hash,
    /// The checksum of the record at `position`.
    pub record_crc: u32,
    /// Where its own record stands.
    pub at: Position,
}

/// A pin in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptPin {
    /// Whose.
    pub holder: MigrationId,
    /// Which checkpoint.
    pub checkpoint: Position,
    /// Where the pin's record stands.
    pub at: Position,
}

/// Kept checkpoints, oldest first, and pins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoints {
    kept: Vec<KeptCheckpoint>,
    pins: Vec<KeptPin>,
}

impl Checkpoints {
    /// A checkpoint counts only if it is newer than the last one, and taken before its own record.
    pub(super) fn count(&mut self, checkpoint: &Checkpoint, at: Position) -> Result<(), Void> {
        let newer = self.kept.last().is_none_or(|last| last.position < checkpoint.position);
        if checkpoint.position >= at || !newer {
            return Err(Void::Position);
        }
        self.kept.push(KeptCheckpoint {
            position: checkpoint.position,
            manifest: checkpoint.manifest,
            record_crc: checkpoint.record_crc,
            at,
        });
        self.drop_unkept();
        Ok(())
    }

    pub(super) fn pin(&mut self, pin: &Pin, at: Position) -> Result<(), Void> {
        let same = |kept: &KeptPin| kept.holder == pin.holder && kept.checkpoint == pin.checkpoint;
        if pin.release {
            let before = self.pins.len();
            self.pins.retain(|kept| !same(kept));
            self.drop_unkept();
            return if self.pins.len() < before { Ok(()) } else { Err(Void::Position) };
        }
        if !self.kept.iter().any(|kept| kept.position == pin.checkpoint) {
            return Err(Void::Position);
        }
        if let Some(kept) = self.pins.iter_mut().find(|kept| same(kept)) {
            kept.at = at;
            return Ok(());
        }
        if self.pins.len() == PINS_MAX {
            return Err(Void::Limit);
        }
        self.pins.push(KeptPin { holder: pin.holder, checkpoint: pin.checkpoint, at });
        Ok(())
    }

    /// Says whether a pin ended, and with it perhaps the keeping of a checkpoint.
    pub(super) fn expire_pins(&mut self, position: Position, limit_records: u64) -> bool {
        let before = self.pins.len();
        self.pins.retain(|pin| position.records_since(pin.at) <= limit_records);
        let has_ended = self.pins.len() < before;
        if has_ended {
            self.drop_unkept();
        }
        has_ended
    }

    fn drop_unkept(&mut self) {
        let last_two = self.kept.len().saturating_sub(KEPT_UNPINNED);
        let pins = &self.pins;
        let mut index = 0;
        self.kept.retain(|kept| {
            index += 1;
            index > last_two || pins.iter().any(|pin| pin.checkpoint == kept.position)
        });
    }

    /// All that are kept, oldest first.
    #[must_use]
    pub fn kept(&self) -> &[KeptCheckpoint] {
        &self.kept
    }

    /// The oldest kept one: the log may be trimmed before its position, never behind it.
    #[must_use]
    pub fn oldest(&self) -> Option<&KeptCheckpoint> {
        self.kept.first()
    }

    /// The newest one.
    #[must_use]
    pub fn newest(&self) -> Option<&KeptCheckpoint> {
        self.kept.last()
    }

    /// The pins in force.
    #[must_use]
    pub fn pins(&self) -> &[KeptPin] {
        &self.pins
    }
}
