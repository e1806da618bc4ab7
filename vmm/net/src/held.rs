//! Buffers that were taken from the driver and wait for packets.
#![expect(unsafe_code, reason = "chains are kept longer than a borrow")]
// UNSAFETY: a `Chain<'m>` borrows from `Memory`, and is kept here from one event to the next as `Chain<'static>`. That is
// sound because the memory it borrows from is owned by the same value, behind an `Arc`: it neither moves nor changes
// (`Memory` has no method that changes it through a shared reference) nor goes before the chains do, as fields are
// dropped in order. No chain leaves this module with that lifetime: `slices` answers with the borrow's own.

use std::collections::VecDeque;
use std::sync::Arc;

use vm_memory::VolatileSlice;
use vmm_virtio::{Broken, Chain, Memory, Queue, total};

use crate::tap::{HEADER, LONGEST};

/// So many pieces are enough for one call: `readv` takes 1024, and the last chain may have as many as its queue.
const PIECES: usize = 512;

/// Chains in the driver's order. `memory` stands behind what borrows from it.
pub(crate) struct Held {
    chains: VecDeque<(Chain<'static>, usize)>,
    room: usize,
    pieces: usize,
    memory: Arc<Memory>,
}

// SAFETY: what makes a chain stay in its thread is a pointer into the guest's memory. That is mapped for the whole process,
// and `Memory`, by which every thread reaches it, is `Send` and `Sync`.
unsafe impl Send for Held {}

impl Held {
    pub(crate) fn new(memory: Arc<Memory>) -> Self {
        Self {
            chains: VecDeque::new(),
            room: 0,
            pieces: 0,
            memory,
        }
    }

    /// How many bytes fit.
    pub(crate) fn room(&self) -> usize {
        self.room
    }

    /// How many buffers there are.
    pub(crate) fn count(&self) -> usize {
        self.chains.len()
    }

    /// How many bytes fit into the first buffer.
    pub(crate) fn first(&self) -> usize {
        self.chains.front().map_or(0, |&(_, length)| length)
    }

    /// Takes one buffer more if the driver has one.
    pub(crate) fn take(&mut self, queue: &mut Queue) -> Result<bool, Broken> {
        let Some(chain) = queue.pop(&self.memory)? else {
            return Ok(false);
        };
        // SAFETY: only the lifetime differs, and the memory lives as long as the chain: see the head of this file.
        let chain = unsafe { std::mem::transmute::<Chain<'_>, Chain<'static>>(chain) };
        // Also those of a packet in several buffers are at least as long (5.1.6.3.2).
        let length = total(&chain.writable);
        if length < HEADER {
            return Err(Broken("a buffer for packets is shorter than their header"));
        }
        self.room = self.room.saturating_add(length);
        self.pieces = self.pieces.saturating_add(chain.writable.len());
        self.chains.push_back((chain, length));
        Ok(true)
    }

    /// Takes buffers until any packet fits, as far as the driver has them.
    pub(crate) fn fill(&mut self, queue: &mut Queue) -> Result<(), Broken> {
        while self.room < LONGEST && self.pieces < PIECES {
            if !self.take(queue)? {
                break;
            }
        }
        Ok(())
    }

    /// The memory of the first buffer, or of all.
    pub(crate) fn slices(&self, all: bool) -> Vec<VolatileSlice<'_>> {
        let count = if all { self.chains.len() } else { 1 };
        self.chains
            .iter()
            .take(count)
            .flat_map(|(chain, _)| chain.writable.iter().copied())
            .collect()
    }

    /// Writes into the first buffer.
    pub(crate) fn write(&self, offset: usize, bytes: &[u8]) {
        let first = self.chains.front().map(|(chain, _)| &chain.writable[..]);
        write_behind(first.unwrap_or_default(), offset, bytes);
    }

    /// Writes into all buffers, as if they were one.
    pub(crate) fn write_behind(&self, offset: usize, bytes: &[u8]) {
        write_behind(&self.slices(true), offset, bytes);
    }

    /// Gives back so many of the first buffers as hold `length` bytes.
    pub(crate) fn complete(&mut self, queue: &mut Queue, length: usize) -> Result<usize, Broken> {
        let mut done = Vec::new();
        let mut rest = length;
        while rest > 0 {
            let Some((chain, room)) = self.chains.pop_front() else {
                return Err(Broken("a packet is longer than its buffers"));
            };
            self.room -= room;
            self.pieces -= chain.writable.len();
            let used = rest.min(room);
            rest -= used;
            let written = u32::try_from(used).map_err(|_| Broken("a packet is too long"))?;
            done.push((chain.head(), written));
        }
        queue.complete_all(&done)?;
        Ok(done.len())
    }

    /// How many of the first buffers hold `length` bytes.
    pub(crate) fn needed(&self, length: usize) -> usize {
        let mut rest = length;
        self.chains
            .iter()
            .take_while(|&&(_, room)| {
                let needed = rest > 0;
                rest = rest.saturating_sub(room);
                needed
            })
            .count()
    }
}

fn write_behind(slices: &[VolatileSlice<'_>], offset: usize, bytes: &[u8]) {
    let mut skip = offset;
    let mut bytes = bytes;
    for slice in slices {
        let Ok(rest) = slice.offset(skip.min(slice.len())) else {
            return;
        };
        skip -= slice.len() - rest.len();
        let (now, later) = bytes.split_at(rest.len().min(bytes.len()));
        rest.copy_from(now);
        bytes = later;
    }
}
