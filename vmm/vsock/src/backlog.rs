//! What the host has no room for yet.

use std::collections::VecDeque;
use std::io::IoSlice;

use vm_memory::VolatileSlice;
use vmm_virtio::{copy_from, total};

use crate::BUFFER;
use crate::packet::behind;

/// Bytes of one stream on their way to the host: at most [`BUFFER`], as its credit ends there. Empty, it has no memory.
#[derive(Debug, Default)]
pub(crate) struct Backlog(VecDeque<u8>);

impl Backlog {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds what is behind the first `skip` bytes.
    pub(crate) fn push(&mut self, payload: &[VolatileSlice<'_>], skip: usize) {
        if self.0.capacity() == 0 {
            // Once and for all: only the pages that are used become memory.
            self.0.reserve_exact(BUFFER as usize);
        }
        let rest = behind(payload, skip);
        let begin = self.0.len();
        self.0.resize(begin.saturating_add(total(&rest)), 0);
        let (one, two) = self.0.as_mut_slices();
        let done = match one.get_mut(begin..) {
            Some(end) => copy_from(&rest, end),
            None => 0,
        };
        let begin = begin.saturating_sub(one.len());
        if let Some(end) = two.get_mut(begin..) {
            copy_from(&behind(&rest, done), end);
        }
    }

    pub(crate) fn slices(&self) -> [IoSlice<'_>; 2] {
        let (one, two) = self.0.as_slices();
        [one, two].map(IoSlice::new)
    }

    /// The first bytes have gone.
    pub(crate) fn consume(&mut self, count: usize) {
        self.0.drain(..count.min(self.0.len()));
        if self.0.is_empty() {
            self.0 = VecDeque::new();
        }
    }

    /// Gives all of it up; how much that was.
    pub(crate) fn clear(&mut self) -> usize {
        std::mem::take(&mut self.0).len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_keep_their_order_round_the_end_of_the_buffer() {
        let mut backlog = Backlog::default();
        let (mut put, mut taken) = (0_u32, 0_u32);
        let mut value = {
            let mut next = 0_u8;
            move || {
                next = next.wrapping_add(7);
                next
            }
        };
        let mut expected = {
            let mut next = 0_u8;
            move || {
                next = next.wrapping_add(7);
                next
            }
        };
        for round in 0..200 {
            let count = (round * 3001 % 70_000).min(BUFFER - (put - taken));
            let mut bytes: Vec<u8> = (0..count).map(|_| value()).collect();
            let (one, two) = bytes.split_at_mut(count as usize / 3);
            let slices = [VolatileSlice::from(one), VolatileSlice::from(two)];
            backlog.push(&slices, 0);
            put += count;
            let most = (round * 1999 % 50_000) as usize;
            let out: Vec<u8> = backlog
                .slices()
                .iter()
                .flat_map(|slice| slice.iter().copied())
                .take(most)
                .collect();
            assert!(out.iter().all(|&byte| byte == expected()), "{round}");
            backlog.consume(out.len());
            taken += out.len() as u32;
        }
        assert_eq!(backlog.clear(), (put - taken) as usize);
        assert!(backlog.is_empty());
    }
}
