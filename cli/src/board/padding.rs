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

    /// Changes one page; which one and how follows from `seed`.
    pub fn change(&mut self, seed: &[u8; 32]) {
        let pages = self.length_bytes / PAGE_BYTES as u64;
        if pages == 0 {
            return;
        }
        let page = usize::try_from(number(&seed[..8]) % pages).unwrap_or(0);
        let offset = page * PAGE_BYTES % BLOCK_BYTES;
        let block = Arc::make_mut(&mut self.blocks[page * PAGE_BYTES / BLOCK_BYTES]);
        XorShift::new(number(&seed[8..16])).mix_into(&mut block[offset..offset + PAGE_BYTES]);
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

    fn mix_into(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            let word = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes();
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
