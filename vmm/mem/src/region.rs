//! The region and its blocks.

use std::ops::Range;

use vm_memory::GuestAddress;
use vmm_virtio::Broken;

use crate::bitmap::Bitmap;
use crate::request::{Place, Request, Response, State};
use crate::{Blocks, Handle};

/// The most blocks that a region may have: their bits take 128 KiB then.
const MOST_BLOCKS: u64 = 1 << 20;

/// The smallest block. With smaller ones looking for those that are plugged would take longer than to unplug them.
const SMALLEST_BLOCK: u64 = 1 << 20;

/// Where the region is. Nothing of it ever changes.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    /// The guest address at which it begins, a multiple of the block size.
    pub address: GuestAddress,
    /// How many bytes it has: whole blocks, at most 2^20.
    pub size: u64,
    /// How many bytes a block has: a power of two, at least 1 MiB. Linux wants 2 MiB or more.
    pub block: u64,
}

/// A region that can't be.
#[derive(Debug, thiserror::Error)]
#[error(
    "{size} bytes at {address:#x} are no region of 1 to 2^20 blocks of {block} bytes, at least 1 MiB"
)]
pub struct InvalidRegion {
    /// Where it was to begin.
    pub address: u64,
    /// How long it was to be.
    pub size: u64,
    /// How long its blocks were to be.
    pub block: u64,
}

impl Setup {
    pub(crate) fn check(&self) -> Result<(), InvalidRegion> {
        let &Self {
            address: GuestAddress(address),
            size,
            block,
        } = self;
        let good = block.is_power_of_two()
            && block >= SMALLEST_BLOCK
            && size > 0
            && size / block <= MOST_BLOCKS
            && (address | size).is_multiple_of(block)
            && address.checked_add(size).is_some();
        if good {
            Ok(())
        } else {
            Err(InvalidRegion {
                address,
                size,
                block,
            })
        }
    }
}

/// A request that is being carried out: what the driver has written is not looked at again.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    request: Request,
    /// How many blocks of an "unplug" are unplugged already.
    done: usize,
}

impl From<Request> for Work {
    fn from(request: Request) -> Self {
        Self { request, done: 0 }
    }
}

pub(crate) struct Region {
    setup: Setup,
    plugged: Bitmap,
    blocks: Box<dyn Blocks>,
    handle: Handle,
}

impl Region {
    pub(crate) fn new(setup: Setup, blocks: Box<dyn Blocks>, handle: Handle) -> Self {
        // It was checked: at most 2^20.
        let count = (setup.size / setup.block) as usize;
        Self {
            setup,
            plugged: Bitmap::new(count),
            blocks,
            handle,
        }
    }

    /// How many blocks are at most so many bytes.
    pub(crate) fn blocks_in(&self, bytes: u64) -> usize {
        (bytes / self.setup.block).max(1) as usize
    }

    /// Goes on with a request, and unplugs at most `room` blocks for it. There is no answer yet when that was too few.
    pub(crate) fn step(
        &mut self,
        work: &mut Work,
        room: &mut usize,
    ) -> Result<Option<Response>, Broken> {
        let response = match work.request {
            Request::Plug(place) => Some(self.plug(place)),
            Request::Unplug(place) => self.unplug(place, &mut work.done, room)?,
            Request::UnplugAll => self.unplug_all(room),
            Request::State(place) => Some(self.state(place)),
            Request::Unknown => Some(Response::Error),
        };
        self.handle.set_plugged(self.bytes(self.plugged.count()));
        if let Some(response) = response {
            self.handle.count(response);
        }
        Ok(response)
    }

    fn plug(&mut self, place: Place) -> Response {
        let Some(range) = self.usable(place) else {
            return Response::Error;
        };
        let sizes = self.handle.sizes();
        let more = self.bytes(self.plugged.count() + range.len());
        if more > sizes.requested {
            return Response::Refused;
        }
        if self.plugged.count_in(range.clone()) != 0 {
            return Response::Error;
        }
        let (address, length) = self.bytes_of(&range);
        match self.blocks.plug(address, length) {
            Ok(()) => {
                self.plugged.set(range, true);
                Response::Done
            }
            Err(_) => Response::Busy,
        }
    }

    fn unplug(
        &mut self,
        place: Place,
        done: &mut usize,
        room: &mut usize,
    ) -> Result<Option<Response>, Broken> {
        let Some(range) = self.usable(place) else {
            return Ok(Some(Response::Error));
        };
        if *done == 0 && self.plugged.count_in(range.clone()) != range.len() {
            return Ok(Some(Response::Error));
        }
        let begin = range.start + *done;
        let part = begin..range.end.min(begin.saturating_add(*room));
        if part.is_empty() {
            return Ok(None);
        }
        if self.take(&part).is_err() {
            // The driver has all of it still, and so it is: only what was in it is gone, which it had no use for.
            let before = range.start..begin;
            let (address, length) = self.bytes_of(&before);
            if length > 0 {
                self.blocks
                    .plug(address, length)
                    .map_err(|_| Broken("memory that was unplugged by half can't be plugged"))?;
                self.plugged.set(before, true);
            }
            return Ok(Some(Response::Busy));
        }
        *room -= part.len();
        *done += part.len();
        Ok((*done == range.len()).then_some(Response::Done))
    }

    fn unplug_all(&mut self, room: &mut usize) -> Option<Response> {
        while let Some(run) = self.plugged.first_run(*room) {
            if run.is_empty() {
                return None;
            }
            if self.take(&run).is_err() {
                return Some(Response::Busy);
            }
            *room -= run.len();
        }
        self.handle.shrink_usable();
        Some(Response::Done)
    }

    fn take(&mut self, range: &Range<usize>) -> std::io::Result<()> {
        let (address, length) = self.bytes_of(range);
        self.blocks.unplug(address, length)?;
        self.plugged.set(range.clone(), false);
        Ok(())
    }

    fn state(&self, place: Place) -> Response {
        let Some(range) = self.usable(place) else {
            return Response::Error;
        };
        let length = range.len();
        Response::State(match self.plugged.count_in(range) {
            0 => State::Unplugged,
            all if all == length => State::Plugged,
            _ => State::Mixed,
        })
    }

    /// The blocks of a place, if there are some and all may be used.
    fn usable(&self, place: Place) -> Option<Range<usize>> {
        let block = self.setup.block;
        let offset = place.address.checked_sub(self.setup.address.0)?;
        let length = u64::from(place.blocks).checked_mul(block)?;
        let end = offset.checked_add(length)?;
        if length == 0 || !offset.is_multiple_of(block) || end > self.handle.sizes().usable {
            return None;
        }
        let number = |bytes: u64| usize::try_from(bytes / block).ok();
        Some(number(offset)?..number(end)?)
    }

    /// Of blocks in the region: it was checked that all of it can be counted.
    fn bytes(&self, blocks: usize) -> u64 {
        (blocks as u64).saturating_mul(self.setup.block)
    }

    fn bytes_of(&self, range: &Range<usize>) -> (GuestAddress, u64) {
        let address = self.setup.address.0.saturating_add(self.bytes(range.start));
        (GuestAddress(address), self.bytes(range.len()))
    }
}
