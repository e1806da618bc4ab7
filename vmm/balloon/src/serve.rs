//! What is done with requests.

use std::sync::Arc;

use vm_memory::{GuestAddress, VolatileSlice};
use vmm_virtio::{Broken, Memory, Queue, Watch, copy_from, total};

use crate::device::{DEFLATE, INFLATE};
use crate::handle::{Counts, Handle};
use crate::ranges::{Range, guest_range, merge, page, whole_pages};
use crate::roles::Roles;
use crate::statistics::{ENTRIES, ENTRY};
use crate::{Discard, PAGE};

/// How many pages of lists one event discards at most: in the worst case each is a call.
const PAGES_PER_EVENT: usize = 2048;

/// How many bytes of ranges one event discards at most.
const BYTES_PER_EVENT: u64 = 64 << 20;

/// Of one driver. Watches stand before what they watch.
pub(crate) struct Active {
    pub(crate) _watches: Vec<Watch>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) queues: Vec<Option<Queue>>,
    pub(crate) roles: Roles,
    /// Whether reported pages may become zeros.
    pub(crate) poison_agreed: bool,
    /// How much of the first request was done by an earlier event: entries of a list, bytes of ranges.
    pub(crate) inflated: usize,
    pub(crate) reported: u64,
    /// The request that waits for a question.
    pub(crate) held: Option<u16>,
}

impl Active {
    pub(crate) fn inflate(&mut self, discard: &dyn Discard, handle: &Handle) -> Result<(), Broken> {
        let Some(queue) = &mut self.queues[INFLATE] else {
            return Ok(());
        };
        queue.kicked();
        let mut room = PAGES_PER_EVENT;
        for _ in 0..queue.size() {
            let Some(chain) = queue.pop(&self.memory)? else {
                return rest(queue);
            };
            let entries = total(&chain.readable) / 4;
            // The guest may have made the list shorter meanwhile.
            let begin = self.inflated.min(entries);
            let count = room.min(entries - begin);
            let mut bytes = vec![0; count * 4];
            copy_from(&behind(&chain.readable, begin * 4), &mut bytes);
            let pages = bytes.chunks_exact(4).filter_map(|entry| {
                let number = entry.try_into().map(u32::from_le_bytes);
                number.ok().map(page)
            });
            let (done, failed) = give_back(discard, pages.collect());
            handle.add(Counts {
                inflated: done,
                failed,
                ..NOTHING
            });
            room -= count;
            if begin + count < entries {
                self.inflated = begin + count;
                queue.undo_pop();
                break;
            }
            self.inflated = 0;
            queue.complete(chain.head(), 0)?;
        }
        queue.notify()?;
        queue.again();
        Ok(())
    }

    /// Pages come back by being touched.
    pub(crate) fn deflate(&mut self, handle: &Handle) -> Result<(), Broken> {
        let Some(queue) = &mut self.queues[DEFLATE] else {
            return Ok(());
        };
        queue.kicked();
        for _ in 0..queue.size() {
            let Some(chain) = queue.pop(&self.memory)? else {
                return rest(queue);
            };
            let pages = (total(&chain.readable) / 4) as u64;
            handle.add(Counts {
                deflated: pages.saturating_mul(PAGE),
                ..NOTHING
            });
            queue.complete(chain.head(), 0)?;
        }
        queue.notify()?;
        queue.again();
        Ok(())
    }

    pub(crate) fn report(
        &mut self,
        number: usize,
        discard: Option<&dyn Discard>,
        handle: &Handle,
    ) -> Result<(), Broken> {
        let Some(queue) = &mut self.queues[number] else {
            return Ok(());
        };
        queue.kicked();
        let mut room = BYTES_PER_EVENT;
        for _ in 0..queue.size() {
            let Some(chain) = queue.pop(&self.memory)? else {
                return rest(queue);
            };
            if let Some(discard) = discard {
                let length = total(&chain.writable) as u64;
                let begin = self.reported.min(length);
                let count = room.min(length - begin);
                let ranges = part(&self.memory, &chain.writable, begin, count);
                let (done, failed) = give_back(discard, ranges);
                handle.add(Counts {
                    reported: done,
                    failed,
                    ..NOTHING
                });
                room -= count;
                if begin + count < length {
                    self.reported = begin + count;
                    queue.undo_pop();
                    break;
                }
                self.reported = 0;
            }
            queue.complete(chain.head(), 0)?;
        }
        queue.notify()?;
        queue.again();
        Ok(())
    }

    /// Statistics have come. They are kept, and their request is, until somebody asks for new ones.
    pub(crate) fn hear(&mut self, handle: &Handle) -> Result<(), Broken> {
        let Some(queue) = self
            .roles
            .statistics
            .and_then(|number| self.queues[number].as_mut())
        else {
            return Ok(());
        };
        queue.kicked();
        for _ in 0..queue.size() {
            let Some(chain) = queue.pop(&self.memory)? else {
                return rest(queue);
            };
            let mut bytes = [0; ENTRIES * ENTRY];
            let count = copy_from(&chain.readable, &mut bytes);
            handle.report(&bytes[..count]);
            // One is enough to be asked by.
            if let Some(earlier) = self.held.replace(chain.head()) {
                queue.complete(earlier, 0)?;
            }
        }
        queue.notify()?;
        queue.again();
        Ok(())
    }

    /// Without a request at hand there is one under way: its statistics are new.
    pub(crate) fn asked(&mut self) -> Result<(), Broken> {
        let queue = self
            .roles
            .statistics
            .and_then(|number| self.queues[number].as_mut());
        if let (Some(queue), Some(held)) = (queue, self.held.take()) {
            queue.complete(held, 0)?;
            queue.notify()?;
        }
        Ok(())
    }
}

const NOTHING: Counts = Counts {
    inflated: 0,
    deflated: 0,
    reported: 0,
    failed: 0,
};

/// There are no more requests: the driver is to kick.
fn rest(queue: &mut Queue) -> Result<(), Broken> {
    queue.notify()?;
    if queue.listen()? {
        queue.again();
    }
    Ok(())
}

/// Discards ranges; how many bytes that was, and how many it should have been besides.
fn give_back(discard: &dyn Discard, ranges: Vec<Range>) -> (u64, u64) {
    let (mut done, mut failed) = (0, 0);
    for (begin, end) in merge(ranges) {
        let length = end - begin;
        match discard.discard(GuestAddress(begin), length) {
            Ok(()) => done += length,
            Err(_) => failed += length,
        }
    }
    (done, failed)
}

/// What comes behind the first `skip` bytes.
fn behind<'m>(slices: &[VolatileSlice<'m>], mut skip: usize) -> Vec<VolatileSlice<'m>> {
    let mut left = Vec::with_capacity(slices.len());
    for slice in slices {
        let part = skip.min(slice.len());
        skip -= part;
        // Never outside: no longer than the slice.
        left.extend(slice.offset(part));
    }
    left
}

/// The whole pages in `count` bytes of slices from `begin` on.
fn part(memory: &Memory, slices: &[VolatileSlice<'_>], begin: u64, count: u64) -> Vec<Range> {
    let (mut skip, mut left) = (begin, count);
    let mut ranges = Vec::new();
    for (begin, end) in slices.iter().filter_map(|slice| guest_range(memory, slice)) {
        let skipped = skip.min(end - begin);
        skip -= skipped;
        let taken = left.min(end - begin - skipped);
        left -= taken;
        let from = begin + skipped;
        ranges.extend(whole_pages((from, from + taken)));
    }
    ranges
}
