//! Split virtqueues (virtio 1.3, 2.7), seen from the device.

#[cfg(test)]
mod signals;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use virtio_queue::{QueueOwnedT, QueueT};
use vm_memory::{Address, Bytes, GuestAddress, GuestMemory, VolatileSlice};
use vmm_sys_util::eventfd::EventFd;

use crate::events::{Flags, Registrar, Watch};
use crate::{Broken, Interrupt, Memory};

/// A queue that a driver has set up.
pub struct Queue {
    number: u16,
    ring: virtio_queue::Queue,
    memory: Arc<Memory>,
    kick: Arc<EventFd>,
    interrupt: Interrupt,
    /// Completed since the driver was told last.
    completed: u16,
    /// How often the device has kicked in the driver's place since the last look.
    own_kicks: AtomicU64,
}

/// One request: a chain of descriptors, checked as a whole. Its memory is the guest's and may change at any time: read
/// every byte once.
#[derive(Debug)]
pub struct Chain<'m> {
    head: u16,
    /// What the driver has written for the device.
    pub readable: Vec<VolatileSlice<'m>>,
    /// What the device may write.
    pub writable: Vec<VolatileSlice<'m>>,
}

impl Chain<'_> {
    /// The number by which [`Queue::complete`] knows it.
    #[must_use]
    pub fn head(&self) -> u16 {
        self.head
    }
}

impl Queue {
    pub(crate) fn new(
        number: u16,
        ring: virtio_queue::Queue,
        memory: Arc<Memory>,
        kick: Arc<EventFd>,
        interrupt: Interrupt,
    ) -> Self {
        Self {
            number,
            ring,
            memory,
            kick,
            interrupt,
            completed: 0,
            own_kicks: AtomicU64::new(0),
        }
    }

    /// Its number in the device.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }

    /// How many descriptors it has.
    #[must_use]
    pub fn size(&self) -> u16 {
        self.ring.size()
    }

    /// What the driver kicks it by. Whoever takes the events of a queue over (vhost) gets a copy.
    #[must_use]
    pub fn kick(&self) -> &EventFd {
        &self.kick
    }

    /// What the driver is told by.
    #[must_use]
    pub fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    /// Guest addresses of descriptor table, driver's ring and device's ring, for whoever takes the queue over.
    #[must_use]
    pub fn addresses(&self) -> [GuestAddress; 3] {
        [
            self.ring.desc_table(),
            self.ring.avail_ring(),
            self.ring.used_ring(),
        ]
        .map(GuestAddress)
    }

    /// The device is woken by the driver's kicks from now on, with the queue's number as the token.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn watch(&self, events: &Registrar) -> io::Result<Watch> {
        events.watch(&*self.kick, Flags::READ, u32::from(self.number))
    }

    /// Takes note of a kick: call this before looking at the queue. How often it was the driver's.
    pub fn kicked(&self) -> u64 {
        // Nothing to read is as good: somebody took it already.
        let Ok(kicks) = self.kick.read() else {
            return 0;
        };
        let own = self.own_kicks.swap(0, Ordering::Relaxed);
        let kicks = kicks.saturating_sub(own);
        self.interrupt.kicked(kicks);
        kicks
    }

    /// Has the device woken again, as if the driver had kicked. One event takes at most [`size`](Self::size) requests and
    /// leaves the rest to the next: a driver that never stops must not keep the event loop from the other devices.
    pub fn again(&self) {
        self.own_kicks.fetch_add(1, Ordering::Relaxed);
        // It fails only when the counter is full, and then the kick is pending already.
        let _ = self.kick.write(1);
    }

    /// The next request, if there is one. `memory` is the machine's; it is an argument so that a chain does not borrow
    /// the queue.
    ///
    /// # Errors
    /// [`Broken`] when the ring or the chain is not what virtio allows: an index that is too far, a chain that loops, is
    /// longer than the queue, leaves the guest's memory or has the device read behind what it writes.
    pub fn pop<'m>(&mut self, memory: &'m Memory) -> Result<Option<Chain<'m>>, Broken> {
        let mut heads = self
            .ring
            .iter(memory)
            .map_err(|_| Broken("the driver's ring is not valid"))?;
        let Some(mut descriptors) = heads.next() else {
            return Ok(None);
        };
        let mut chain = Chain {
            head: descriptors.head_index(),
            readable: Vec::new(),
            writable: Vec::new(),
        };
        let limit = self.ring.size();
        let mut count = 0_u16;
        let mut more = true;
        for descriptor in descriptors.by_ref() {
            count += 1;
            if count > limit {
                return Err(Broken("a chain of descriptors is longer than its queue"));
            }
            more = descriptor.has_next();
            let writable = descriptor.is_write_only();
            if !writable && !chain.writable.is_empty() {
                return Err(Broken("a chain has the device read behind what it writes"));
            }
            let length = usize::try_from(descriptor.len())
                .map_err(|_| Broken("a descriptor is too long"))?;
            let list = if writable {
                &mut chain.writable
            } else {
                &mut chain.readable
            };
            for slice in memory.get_slices(descriptor.addr(), length) {
                list.push(slice.map_err(|_| Broken("a descriptor leaves the guest's memory"))?);
            }
        }
        // The iterator ends early at what it cannot follow.
        if more {
            return Err(Broken("a chain of descriptors has no end"));
        }
        Ok(Some(chain))
    }

    /// Puts the request that was popped last back: it will be popped again.
    pub fn undo_pop(&mut self) {
        self.ring.go_to_previous_position();
    }

    /// Gives a request back, with the number of bytes that were written into it. The driver is told by
    /// [`notify`](Self::notify).
    ///
    /// # Errors
    /// [`Broken`] when the device's ring is not in the guest's memory.
    pub fn complete(&mut self, head: u16, written: u32) -> Result<(), Broken> {
        self.complete_all(&[(head, written)])
    }

    /// Gives requests back that belong together, each with the number of bytes that were written into it: the driver
    /// sees all of them or none (a packet in several buffers, 5.1.6.4).
    ///
    /// # Errors
    /// [`Broken`] when the device's ring is not in the guest's memory.
    pub fn complete_all(&mut self, requests: &[(u16, u32)]) -> Result<(), Broken> {
        let failed = |_| Broken("the device's ring is not valid");
        let Some((&(head, written), before)) = requests.split_last() else {
            return Ok(());
        };
        let mut next = self.ring.next_used();
        for &(head, written) in before {
            // Behind `flags` and `idx`; the index is told with the last one.
            let offset = 4 + u64::from(next % self.ring.size()) * 8;
            let address = GuestAddress(self.ring.used_ring())
                .checked_add(offset)
                .ok_or(Broken("the device's ring is not valid"))?;
            let entry = u64::from(head) | u64::from(written) << 32;
            self.memory
                .write_obj(entry.to_le(), address)
                .map_err(failed)?;
            next = next.wrapping_add(1);
        }
        self.ring.set_next_used(next);
        self.ring
            .add_used(&*self.memory, head, written)
            .map_err(|_| Broken("the device's ring is not valid"))?;
        let count = u16::try_from(requests.len()).unwrap_or(u16::MAX);
        self.completed = self.completed.saturating_add(count);
        Ok(())
    }

    /// Interrupts the driver if it wants to know of what was completed.
    ///
    /// # Errors
    /// [`Broken`] when the rings are not in the guest's memory.
    pub fn notify(&mut self) -> Result<(), Broken> {
        let completed = std::mem::take(&mut self.completed);
        if completed > 0 && self.driver_waits(completed)? {
            self.interrupt.used_buffer();
        }
        Ok(())
    }

    /// Whether what was completed last is what the driver waits for (2.7.7). Counted here and not by the ring, which
    /// does not know of requests that were given back together.
    fn driver_waits(&self, completed: u16) -> Result<bool, Broken> {
        // The driver writes its wish, then looks at the used index; here it is the other way round.
        fence(Ordering::SeqCst);
        let (offset, event_idx) = if self.ring.event_idx_enabled() {
            (4 + u64::from(self.ring.size()) * 2, true)
        } else {
            (0, false)
        };
        let wish: u16 = GuestAddress(self.ring.avail_ring())
            .checked_add(offset)
            .and_then(|address| self.memory.load(address, Ordering::Relaxed).ok())
            .map(u16::from_le)
            .ok_or(Broken("the driver's ring is not valid"))?;
        if event_idx {
            let since = self.ring.next_used().wrapping_sub(wish).wrapping_sub(1);
            Ok(since < completed)
        } else {
            // `VIRTQ_AVAIL_F_NO_INTERRUPT`.
            Ok(wish & 1 == 0)
        }
    }

    /// Asks for no kicks: whoever looks at the queue anyway saves the guest an exit for each.
    ///
    /// # Errors
    /// [`Broken`] when the rings are not in the guest's memory.
    pub fn silence(&mut self) -> Result<(), Broken> {
        self.ring
            .disable_notification(&*self.memory)
            .map_err(|_| Broken("the device's ring is not valid"))
    }

    /// Asks for kicks again. True when a request has come in the meantime: then look again.
    ///
    /// # Errors
    /// [`Broken`] when the rings are not in the guest's memory.
    pub fn listen(&mut self) -> Result<bool, Broken> {
        self.ring
            .enable_notification(&*self.memory)
            .map_err(|_| Broken("the device's ring is not valid"))
    }
}
