//! Randomness: virtio-rng, the entropy device (virtio 1.3, 5.4).
//!
//! ```text
//!           activate             a request: filled from `getrandom`, at most 64 KiB
//!   idle ─────────────▶ active ──┐
//!    ▲                    │ ▲────┘ after 256 KiB: the rest at the next turn of the loop
//!    └────── reset ───────┘
//! ```
//!
//! A guest that asks for more than it needs costs its own event loop time, but not that of its other devices: one event
//! fills 256 KiB, which takes less than a millisecond, and the queue is told of again.

mod statistics;

use std::sync::Arc;

use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};
use vm_memory::VolatileSlice;
use vmm_virtio::{
    Activation, Broken, ConfigSpace, Device, Flags, Memory, Offer, Queue, Watch, copy_to, total,
};

pub use statistics::{Counts, Statistics};

/// Virtio's number of entropy devices.
const KIND: u32 = 4;

const INDIRECT: u64 = 1 << 28;
const EVENT_IDX: u64 = 1 << 29;

/// Linux has one request at a time.
const SIZE: u16 = 8;

/// The most that one request gets: a device may leave room unused (5.4.6).
const PER_REQUEST: usize = 64 << 10;

/// The most that one event gives.
const PER_EVENT: usize = 4 * PER_REQUEST;

/// How much is made at once, on the stack.
const CHUNK: usize = 4096;

/// The device.
#[derive(Default)]
pub struct Rng {
    statistics: Statistics,
    active: Option<Active>,
}

/// Of one driver. The watch stands before what it watches.
struct Active {
    _kick: Watch,
    queue: Queue,
    memory: Arc<Memory>,
}

impl Rng {
    /// A source of randomness that nobody has asked yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What it counts.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.statistics.clone()
    }
}

impl Device for Rng {
    fn offer(&self) -> Offer {
        Offer {
            kind: KIND,
            features: INDIRECT | EVENT_IDX,
            queues: vec![SIZE],
        }
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        ConfigSpace(&[]).read(offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), Broken> {
        let queue = activation.queues.into_iter().next().flatten();
        let queue = queue.ok_or(Broken("a source of randomness has no queue"))?;
        let kick = queue
            .watch(&activation.events)
            .map_err(|_| Broken("a queue for randomness can't be watched"))?;
        self.active = Some(Active {
            _kick: kick,
            queue,
            memory: activation.memory,
        });
        Ok(())
    }

    fn event(&mut self, _token: u32, _flags: Flags) -> Result<(), Broken> {
        match &mut self.active {
            Some(active) => active.serve(&self.statistics),
            None => Ok(()),
        }
    }

    fn reset(&mut self) {
        self.active = None;
    }
}

impl Active {
    fn serve(&mut self, statistics: &Statistics) -> Result<(), Broken> {
        let queue = &mut self.queue;
        queue.kicked();
        let mut given = 0;
        for _ in 0..queue.size() {
            if given >= PER_EVENT {
                break;
            }
            let Some(mut chain) = queue.pop(&self.memory)? else {
                queue.notify()?;
                if queue.listen()? {
                    queue.again();
                }
                return Ok(());
            };
            let wanted = total(&chain.writable).min(PER_REQUEST);
            let mut filled = 0;
            let mut chunk = [0; CHUNK];
            while filled < wanted {
                let piece = &mut chunk[..CHUNK.min(wanted - filled)];
                fill(piece)?;
                let written = copy_to(&chain.writable, piece);
                advance(&mut chain.writable, written);
                filled += written;
            }
            given += filled;
            statistics.add(filled);
            // At most PER_REQUEST.
            queue.complete(chain.head(), filled as u32)?;
        }
        queue.notify()?;
        queue.again();
        Ok(())
    }
}

/// Goes past the first `count` bytes.
fn advance(slices: &mut Vec<VolatileSlice<'_>>, mut count: usize) {
    slices.retain_mut(|slice| {
        let part = count.min(slice.len());
        count -= part;
        match slice.offset(part) {
            Ok(rest) => {
                *slice = rest;
                !rest.is_empty()
            }
            Err(_) => false,
        }
    });
}

/// Fills a piece with what the operating system has. It has it since long before a guest starts; it would be said if not.
fn fill(mut piece: &mut [u8]) -> Result<(), Broken> {
    while !piece.is_empty() {
        match getrandom(&mut *piece, GetRandomFlags::NONBLOCK) {
            Ok(count) => piece = &mut piece[count..],
            Err(Errno::INTR) => {}
            Err(_) => return Err(Broken("the host has no random numbers")),
        }
    }
    Ok(())
}
