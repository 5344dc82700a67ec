//! Padding of the service's state: bytes that do not compress, of which every request changes one page.
//!
//! Held in shared blocks: a copy of the whole is a copy of pointers, and a block that a copy still holds is itself
//! copied when it changes next. So a snapshot of 256 MB costs microseconds, and flights go on while it streams.

use std::sync::Arc;

use bytes::Bytes;

/// The unit of sharing.
pub const BLOCK_BYTES: usize = 64 << 10;

/// The unit of change: what one request touches.
pub const PAGE_BYTES: usize = 4 << 10;

/// The padding; cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Padding {
    blocks: Vec<Arc<[u8]>>,
    length_bytes: u64,
}

/// A request to change a part of the padding, to see what a checkpoint of it moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// Of all pages.
    pub percent: u8,
    /// Which ones, and how.
    pub seed: u64,
    /// All over it instead of in one range.
    #[serde(default)]
    pub scattered: bool,
}

/// A block that a stream holds while it is written.
struct Held(Arc<[u8]>);

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Padding {
    /// So many bytes, the same on every machine.
    #[must_use]
    pub fn generate(length_bytes: u64) -> Padding {
        let mut padding = Padding::default();
        let mut left = length_bytes;
        while left > 0 {
            let length = usize::try_from(left).unwrap_or(usize::MAX).min(BLOCK_BYTES);
            let mut block = vec![0u8; length];
            XorShift::new(padding.blocks.len() as u64 + 1).mix_into(&mut block);
            padding.push(block.into());
            left -= length as u64;
        }
        padding
    }

    /// Appends a block; all but the last must be [`BLOCK_BYTES`] long.
    pub fn push(&mut self, block: Arc<[u8]>) {
        self.length_bytes += block.len() as u64;
        self.blocks.push(block);
    }

    /// How long it is.
    #[must_use]
    pub fn length_bytes(&self) -> u64 {
        self.length_bytes
    }

    /// The block of this number, without copying it.
    #[must_use]
    pub fn block(&self, number: usize) -> Option<Bytes> {
        self.blocks.get(number).map(|block| Bytes::from_owner(Held(block.clone())))
    }

    /// Changes so many percent of it: pages that follow one another, or scattered ones. How many bytes those are.
    pub fn change_percent(&mut self, change: Change) -> u64 {
        let pages = self.length_bytes / PAGE_BYTES as u64;
        let Change { percent, seed, scattered } = change;
        let changed = pages * u64::from(percent.min(100)) / 100;
        let begin = XorShift::new(seed).next().checked_rem(pages).unwrap_or(0);
        // The distance of scattered pages: the same everywhere, so that none is hit twice.
        let step = if scattered { pages / changed.max(1) } else { 1 };
        for number in 0..changed {
            self.change_page((begin + number * step) % pages, seed.wrapping_add(number));
        }
        changed * PAGE_BYTES as u64
    }

    fn change_page(&mut self, page: u64, seed: u64) {
        let page = usize::try_from(page).unwrap_or(0);
        let offset = page * PAGE_BYTES % BLOCK_BYTES;
        let block = Arc::make_mut(&mut self.blocks[page * PAGE_BYTES / BLOCK_BYTES]);
        XorShift::new(seed).mix_into(&mut block[offset..offset + PAGE_BYTES]);
    }

    /// Changes one page; which one and how follows from `seed`.
    pub fn change(&mut self, seed: &[u8; 32]) {
        let pages = self.length_bytes / PAGE_BYTES as u64;
        if pages == 0 {
            return;
        }
        self.change_page(number(&seed[..8]) % pages, number(&seed[8..16]));
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Marsaglia's xorshift64*: enough to defeat compression, and fast.
struct XorShift(u64);

impl XorShift {
    fn new(seed: u64) -> XorShift {
        XorShift(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn mix_into(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            chunk.iter_mut().zip(word).for_each(|(byte, mixed)| *byte ^= mixed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_touches_one_page_and_leaves_snapshots_alone() {
        let mut padding = Padding::generate(1 << 20);
        let before = padding.clone();
        padding.change(&[7; 32]);
        let changed: Vec<usize> = (0..16).filter(|n| before.block(*n) != padding.block(*n)).collect();
        assert_eq!(changed.len(), 1);
        assert_eq!(before, Padding::generate(1 << 20));
        let (old, new) = (before.block(changed[0]).unwrap(), padding.block(changed[0]).unwrap());
        let bytes = old.iter().zip(new.iter()).filter(|(a, b)| a != b).count();
        assert!((PAGE_BYTES / 2..=PAGE_BYTES).contains(&bytes), "{bytes}");
        let shared = padding.blocks.iter().zip(&before.blocks).filter(|(a, b)| Arc::ptr_eq(a, b)).count();
        assert_eq!(shared, 15);
    }

    #[test]
    fn a_percentage_is_changed_in_one_range_or_scattered() {
        let before = Padding::generate(8 << 20);
        let blocks = |change| {
            let mut padding = before.clone();
            let bytes = padding.change_percent(change);
            (bytes, (0..128).filter(|n| before.block(*n) != padding.block(*n)).count())
        };
        let clustered = Change { percent: 5, seed: 3, scattered: false };
        let (bytes, changed) = blocks(clustered);
        assert_eq!(bytes, 102 * PAGE_BYTES as u64);
        assert!((7..=8).contains(&changed), "{changed}");
        assert_eq!(blocks(Change { scattered: true, ..clustered }), (bytes, 102));
        assert_eq!(Padding::generate(0).change_percent(clustered), 0);
    }

    #[test]
    fn padding_does_not_repeat() {
        let padding = Padding::generate(1 << 20);
        let mut words: Vec<[u8; 8]> =
            padding.blocks.iter().flat_map(|b| b.chunks(8).map(|w| w.try_into().unwrap())).collect();
        let all = words.len();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), all);
    }

    #[test]
    fn no_padding_is_no_trouble() {
        let mut padding = Padding::generate(0);
        padding.change(&[1; 32]);
        assert_eq!((padding.length_bytes(), padding.block(0)), (0, None));
    }
}
