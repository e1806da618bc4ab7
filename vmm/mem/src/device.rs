//! The device.

use std::sync::Arc;

use vmm_virtio::{
    Activation, Broken, ConfigSpace, Device, Flags, Memory, Offer, Queue, Watch, copy_to, total,
};

use crate::region::{InvalidRegion, Region, Setup, Work};
use crate::request::{RESPONSE, Request};
use crate::{Blocks, Handle};

/// Virtio's number of memory devices.
const KIND: u32 = 24;

/// `VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE` (5.15.3).
const INACCESSIBLE: u64 = 1 << 1;
const INDIRECT: u64 = 1 << 28;
const EVENT_IDX: u64 = 1 << 29;

/// Linux has one request at a time.
const SIZE: u16 = 8;

/// How many bytes one event unplugs at most.
const BYTES_PER_EVENT: u64 = 128 << 20;

/// A region whose blocks a driver plugs and unplugs.
pub struct Mem {
    setup: Setup,
    region: Region,
    handle: Handle,
    active: Option<Active>,
}

/// Of one driver. The watch stands before what it watches.
struct Active {
    _kick: Watch,
    queue: Queue,
    memory: Arc<Memory>,
    /// The first request in the queue, if an event was not enough for it.
    work: Option<Work>,
}

impl Mem {
    /// A region of which nothing is plugged and nothing requested.
    ///
    /// # Errors
    /// When there can't be such a region.
    pub fn new(setup: Setup, blocks: Box<dyn Blocks>) -> Result<Self, InvalidRegion> {
        setup.check()?;
        let handle = Handle::new(setup);
        Ok(Self {
            setup,
            region: Region::new(setup, blocks, handle.clone()),
            handle,
            active: None,
        })
    }

    /// Steers it, whoever has the device.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

impl Device for Mem {
    fn offer(&self) -> Offer {
        Offer {
            kind: KIND,
            features: INACCESSIBLE | INDIRECT | EVENT_IDX,
            queues: vec![SIZE],
        }
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let sizes = self.handle.sizes();
        let Setup {
            address,
            size,
            block,
        } = self.setup;
        // The second is the NUMA node, which nobody is told.
        let fields = [
            block,
            0,
            address.0,
            size,
            sizes.usable,
            sizes.plugged,
            sizes.requested,
        ];
        ConfigSpace(fields.map(u64::to_le_bytes).as_flattened()).read(offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), Broken> {
        if activation.features & INACCESSIBLE == 0 {
            return Err(Broken("a driver would read memory that is not plugged"));
        }
        let queue = activation.queues.into_iter().next().flatten();
        let queue = queue.ok_or(Broken("a memory device has no queue"))?;
        let kick = queue
            .watch(&activation.events)
            .map_err(|_| Broken("a memory device's queue can't be watched"))?;
        self.handle.connect(Some(activation.interrupt));
        self.active = Some(Active {
            _kick: kick,
            queue,
            memory: activation.memory,
            work: None,
        });
        Ok(())
    }

    fn event(&mut self, _token: u32, _flags: Flags) -> Result<(), Broken> {
        match &mut self.active {
            Some(active) => active.serve(&mut self.region),
            None => Ok(()),
        }
    }

    fn reset(&mut self) {
        self.handle.connect(None);
        self.active = None;
    }
}

impl Active {
    fn serve(&mut self, region: &mut Region) -> Result<(), Broken> {
        let queue = &mut self.queue;
        queue.kicked();
        let mut room = region.blocks_in(BYTES_PER_EVENT);
        for _ in 0..queue.size() {
            let Some(chain) = queue.pop(&self.memory)? else {
                queue.notify()?;
                if queue.listen()? {
                    queue.again();
                }
                return Ok(());
            };
            if total(&chain.writable) < RESPONSE {
                return Err(Broken("a request for memory has no room for its answer"));
            }
            let mut work = match self.work.take() {
                Some(work) => work,
                None => Request::read(&chain.readable).into(),
            };
            let Some(response) = region.step(&mut work, &mut room)? else {
                self.work = Some(work);
                queue.undo_pop();
                break;
            };
            copy_to(&chain.writable, &response.bytes());
            queue.complete(chain.head(), RESPONSE as u32)?;
        }
        queue.notify()?;
        queue.again();
        Ok(())
    }
}
