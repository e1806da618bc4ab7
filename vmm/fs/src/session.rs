//! Which messages are sent when.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use vhost::vhost_user::message::FrontendReq as Request;
use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vm_memory::{Address, Bytes, GuestAddress, GuestMemory, GuestMemoryRegion};
use vmm_virtio::{Memory, Queue};

use crate::Error;
use crate::link::{Fault, Link};

/// Rings as drivers want them (virtio 1.3, 6): tables in tables, and telling each other where to be woken.
const RINGS: u64 = 1 << 28 | 1 << 29;

/// `VIRTIO_F_VERSION_1`: the transport offers it, so the server must know it.
const VERSION_1: u64 = 1 << 32;

/// How long a reset waits for the server to finish what it has begun. Drivers that are not in a hurry wait for that
/// themselves before.
const FINISHING: Duration = Duration::from_secs(2);

/// How long a reset waits for the server to forget the driver's files.
const FORGETTING: Duration = Duration::from_millis(500);

/// The most regions of memory in one message (vhost's `MAX_ATTACHED_FD_ENTRIES`).
const REGIONS: usize = 32;

/// A server that was introduced to the guest's memory.
#[derive(Debug)]
pub(crate) struct Session {
    /// Features of the rings that it can do.
    pub(crate) features: u64,
    pub(crate) link: Link,
    /// Whether it can be told to forget a driver's files.
    forgets: bool,
}

impl Session {
    /// Does all that needs no queues. Answers are waited for.
    pub(crate) fn open(
        mut link: Link,
        memory: &Memory,
        queues: u64,
        deadline: Instant,
    ) -> Result<Self, Error> {
        let (table, descriptors) = regions(memory)?;
        link.ask(Request::GET_FEATURES, &[])?;
        let features = value(&mut link, deadline)?;
        if features & VERSION_1 == 0 {
            return Err(Error::Unfit("virtio 1"));
        }
        if features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() == 0 {
            return Err(Error::Unfit("features of the protocol"));
        }
        link.ask(Request::GET_PROTOCOL_FEATURES, &[])?;
        let offered = VhostUserProtocolFeatures::from_bits_truncate(value(&mut link, deadline)?);
        if !offered.contains(VhostUserProtocolFeatures::REPLY_ACK) {
            return Err(Error::Unfit("answers to each request"));
        }
        if !offered.contains(VhostUserProtocolFeatures::MQ) {
            return Err(Error::Unfit("more than one queue"));
        }
        let wanted = VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::RESET_DEVICE;
        let agreed = offered & wanted;
        link.tell(Request::SET_PROTOCOL_FEATURES, &agreed.bits().to_ne_bytes())?;
        link.ask(Request::GET_QUEUE_NUM, &[])?;
        let has = value(&mut link, deadline)?;
        if has < queues {
            return Err(Error::FewQueues {
                has,
                wanted: queues,
            });
        }
        link.order(
            Request::SET_OWNER,
            &[],
            &[],
            "the file server has another machine",
        )?;
        link.order(
            Request::SET_MEM_TABLE,
            &table,
            &descriptors,
            "the file server refused the guest's memory",
        )?;
        link.settle(deadline)?;
        Ok(Self {
            features: features & RINGS,
            link,
            forgets: agreed.contains(VhostUserProtocolFeatures::RESET_DEVICE),
        })
    }

    /// Hands the queues over. Answers are not waited for.
    pub(crate) fn start(&mut self, features: u64, queues: &[Queue]) -> Result<(), Fault> {
        const REFUSED: &str = "the file server refused a queue";
        let link = &mut self.link;
        let features = features | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
        link.order(
            Request::SET_FEATURES,
            &features.to_ne_bytes(),
            &[],
            "the file server refused the driver's features",
        )?;
        for queue in queues {
            let number = u32::from(queue.number());
            let event = u64::from(number).to_ne_bytes();
            let interrupt = [queue.interrupt().event().as_raw_fd()];
            let kick = [queue.kick().as_raw_fd()];
            let size = state(number, u32::from(queue.size()));
            link.order(Request::SET_VRING_NUM, &size, &[], REFUSED)?;
            link.order(Request::SET_VRING_BASE, &state(number, 0), &[], REFUSED)?;
            link.order(Request::SET_VRING_ADDR, &addresses(queue), &[], REFUSED)?;
            link.order(Request::SET_VRING_CALL, &event, &interrupt, REFUSED)?;
            link.order(Request::SET_VRING_KICK, &event, &kick, REFUSED)?;
            link.order(Request::SET_VRING_ENABLE, &state(number, 1), &[], REFUSED)?;
        }
        Ok(())
    }

    /// Takes the queues back and waits for that. Answers to [`start`](Self::start) may be outstanding.
    pub(crate) fn stop(
        &mut self,
        queues: &[Queue],
        memory: &Memory,
        deadline: Instant,
    ) -> Result<(), Fault> {
        const REFUSED: &str = "the file server does not let go of a queue";
        let link = &mut self.link;
        for queue in queues {
            let number = u32::from(queue.number());
            link.order(Request::SET_VRING_ENABLE, &state(number, 0), &[], REFUSED)?;
            link.ask(Request::GET_VRING_BASE, &state(number, 0))?;
            // Its thread may be looking at the ring, and goes on until there is nothing new in it, though it does not
            // take what is new any more (virtiofsd 1.14): so there is nothing new.
            let [_, ring, _] = queue.addresses();
            let end = u32::from(index(ring, memory));
            link.order(Request::SET_VRING_BASE, &state(number, end), &[], REFUSED)?;
        }
        let taken = link.settle(deadline)?;
        let deadline = deadline.min(Instant::now() + FINISHING);
        for (queue, taken) in queues.iter().zip(taken) {
            finished(queue, memory, (taken >> 32) as u16, deadline)?;
        }
        if self.forgets {
            link.order(
                Request::RESET_DEVICE,
                &[],
                &[],
                "the file server does not forget its driver",
            )?;
            // It comes when the thread is done with the ring. A guest that goes on to write there keeps it from that:
            // the answer is then left to come with those of the next start.
            match link.settle(deadline.min(Instant::now() + FORGETTING)) {
                Err(Fault::Silent) => {}
                settled => drop(settled?),
            }
        }
        Ok(())
    }
}

/// Waits until the server has given back all requests that it has taken: it stops its rings before that, and would take
/// what the next driver puts in their places for theirs.
fn finished(queue: &Queue, memory: &Memory, taken: u16, deadline: Instant) -> Result<(), Fault> {
    let [_, _, ring] = queue.addresses();
    while index(ring, memory) != taken {
        if Instant::now() >= deadline {
            return Err(Fault::Unfinished);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// The index in the head of a ring (virtio 1.3, 2.7.6 and 2.7.8): of a driver's, how many requests it has offered in
/// all; of a device's, how many it has given back.
fn index(ring: GuestAddress, memory: &Memory) -> u16 {
    let index = ring
        .checked_add(2)
        .and_then(|index| memory.load(index, Ordering::Acquire).ok());
    u16::from_le(index.unwrap_or_default())
}

fn value(link: &mut Link, deadline: Instant) -> Result<u64, Fault> {
    link.settle(deadline)?.pop().ok_or(Fault::Garbled)
}

/// `struct vhost_vring_state`.
fn state(number: u32, value: u32) -> [u8; 8] {
    let mut body = [0; 8];
    body[..4].copy_from_slice(&number.to_ne_bytes());
    body[4..].copy_from_slice(&value.to_ne_bytes());
    body
}

/// `struct vhost_vring_addr`. "User addresses" are the guest's, see [`regions`].
fn addresses(queue: &Queue) -> Vec<u8> {
    let [table, driver, device] = queue.addresses().map(|address| address.raw_value());
    let mut body = Vec::with_capacity(40);
    body.extend(u32::from(queue.number()).to_ne_bytes());
    // No logging of writes.
    body.extend(0_u32.to_ne_bytes());
    for address in [table, device, driver, 0] {
        body.extend(address.to_ne_bytes());
    }
    body
}

/// The message that describes the guest's memory, and the descriptors that go with it. The server uses the front end's
/// addresses only to find the guest's: the guest's stand in for them, and ours stay unknown.
fn regions(memory: &Memory) -> Result<(Vec<u8>, Vec<RawFd>), Error> {
    let count = memory.num_regions();
    let length = u32::try_from(count)
        .ok()
        .filter(|_| (1..=REGIONS).contains(&count))
        .ok_or(Error::Regions(count))?;
    let mut body = Vec::with_capacity(8 + 32 * count);
    body.extend(length.to_ne_bytes());
    body.extend(0_u32.to_ne_bytes());
    let mut descriptors = Vec::with_capacity(count);
    for region in memory.iter() {
        let guest = region.start_addr().raw_value();
        let file = region.file_offset().ok_or(Error::NoDescriptor(guest))?;
        if region.flags() & MAP_SHARED == 0 {
            return Err(Error::Private(guest));
        }
        for word in [guest, region.len(), guest, file.start()] {
            body.extend(word.to_ne_bytes());
        }
        descriptors.push(file.file().as_raw_fd());
    }
    Ok((body, descriptors))
}

/// Linux `mman.h`.
const MAP_SHARED: i32 = 1;
