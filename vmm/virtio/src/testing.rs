//! A driver's side, for the tests of devices: it finds a device behind its transport as a guest does, and may as well
//! misbehave.
#![expect(clippy::missing_panics_doc, reason = "a failing test panics")]
#![expect(unsafe_code, reason = "memfd_create by libc")]
// UNSAFETY: one call that makes a descriptor, which is owned at once.

use std::fs::File;
use std::os::fd::FromRawFd;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use vm_memory::{Address, Bytes, FileOffset, GuestAddress};

use crate::{Device, EventLoop, Memory, Transport};

/// How long a device may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The driver's memory, in bytes.
pub const MEMORY: u64 = 32 << 20;

const QUEUES: u64 = 1 << 20;
const QUEUE_SPACE: u64 = 1 << 17;
const BUFFERS: u64 = 16 << 20;

/// A descriptor as it stands in memory.
#[derive(Debug, Clone, Copy)]
pub struct Descriptor {
    /// A guest address.
    pub address: u64,
    /// In bytes.
    pub length: u32,
    /// 1: another follows; 2: the device may write; 4: a table of descriptors.
    pub flags: u16,
    /// The number of that other.
    pub next: u16,
}

/// A driver with its device, and mostly the thread that serves the device.
pub struct Driver {
    /// The guest's memory.
    pub memory: Arc<Memory>,
    /// The device's registers.
    pub transport: Arc<Transport>,
    /// The features that were agreed on.
    pub features: u64,
    queues: Vec<Ring>,
    buffers: u64,
    events: EventLoop,
    serving: Option<JoinHandle<()>>,
}

struct Ring {
    size: u16,
    next_descriptor: u16,
    added: u16,
    taken: u16,
    /// Of each head: where the device may write.
    writable: Vec<Vec<(u64, u32)>>,
}

impl Ring {
    fn addresses(number: usize) -> [u64; 3] {
        let base = QUEUES + number as u64 * QUEUE_SPACE;
        [base, base + 0x8000, base + 0xc000]
    }
}

impl Driver {
    /// Memory as the driver has it.
    #[must_use]
    pub fn memory() -> Arc<Memory> {
        let ranges = [(GuestAddress(0), MEMORY as usize)];
        Arc::new(Memory::from_ranges(&ranges).expect("memory"))
    }

    /// Memory as the driver has it, with a descriptor for those who map it, too.
    #[must_use]
    pub fn shared_memory() -> Arc<Memory> {
        // SAFETY: the name is a string with an end, and lives on.
        let fd = unsafe { libc::memfd_create(c"guest".as_ptr(), libc::MFD_CLOEXEC) };
        assert!(fd >= 0, "no memfd: {}", std::io::Error::last_os_error());
        // SAFETY: it was made in the line above and nobody else has it.
        let file = unsafe { File::from_raw_fd(fd) };
        file.set_len(MEMORY).expect("memory");
        let file = Some(FileOffset::new(file, 0));
        let ranges = [(GuestAddress(0), MEMORY as usize, file)];
        Arc::new(Memory::from_ranges_with_files(ranges).expect("memory"))
    }

    /// Brings a device up with those of these features that it offers, and with all of its queues.
    #[must_use]
    pub fn start(device: Box<dyn Device>, wanted: u64) -> Self {
        Self::start_in(device, wanted, Self::memory())
    }

    /// As [`start`](Self::start), in this memory.
    #[must_use]
    pub fn start_in(device: Box<dyn Device>, wanted: u64, memory: Arc<Memory>) -> Self {
        let mut driver = Self::find(device, memory);
        driver.negotiate(wanted);
        driver.set_up(1024);
        driver.write(0x70, 15);
        driver
    }

    /// Only plugs a device in, and serves it.
    #[must_use]
    pub fn find(device: Box<dyn Device>, memory: Arc<Memory>) -> Self {
        let mut driver = Self::find_unserved(device, memory);
        driver.serving = Some(std::thread::spawn({
            let events = driver.events.clone();
            move || events.run().expect("serves")
        }));
        driver
    }

    /// Only plugs a device in. Nobody serves it but [`serve`](Self::serve), and what waits for the device: what happens
    /// is the same each time, as far as nobody else is behind the device.
    #[must_use]
    pub fn find_unserved(device: Box<dyn Device>, memory: Arc<Memory>) -> Self {
        let events = EventLoop::new().expect("an event loop");
        let transport = Transport::new("test", Arc::clone(&memory), &events).expect("a transport");
        let mut driver = Self {
            memory,
            transport,
            features: 0,
            queues: Vec::new(),
            buffers: BUFFERS,
            events,
            serving: None,
        };
        driver.plug(device);
        driver
    }

    /// Plugs a device in where none is, or none any more.
    pub fn plug(&mut self, device: Box<dyn Device>) {
        let kicks = self.transport.plug(device).expect("plugs");
        self.queues.resize_with(kicks.len(), || Ring {
            size: 0,
            next_descriptor: 0,
            added: 0,
            taken: 0,
            writable: Vec::new(),
        });
    }

    /// Without a thread that does it: serves the device once, and waits at most so many milliseconds for a reason. How
    /// many there were.
    pub fn serve(&self, patience: u16) -> usize {
        self.events.serve(patience).expect("serves")
    }

    /// How many queues the device has.
    #[must_use]
    pub fn queues(&self) -> usize {
        self.queues.len()
    }

    /// Waits until something is there.
    fn wait<T>(&mut self, what: &str, mut look: impl FnMut(&mut Self) -> Option<T>) -> T {
        wait(what, || {
            if self.serving.is_none() {
                self.serve(1);
            }
            look(self)
        })
    }

    /// Resets the device and agrees with it on features.
    pub fn negotiate(&mut self, wanted: u64) {
        assert_eq!((self.read(0), self.read(4)), (0x7472_6976, 2));
        self.write(0x70, 0);
        self.write(0x70, 1);
        self.write(0x70, 3);
        let mut offered = 0;
        for half in [0, 1] {
            self.write(0x14, half);
            offered |= u64::from(self.read(0x10)) << (32 * half);
        }
        self.features = offered & (wanted | 1 << 32);
        for half in [0, 1] {
            self.write(0x24, half);
            self.write(0x20, (self.features >> (32 * half)) as u32);
        }
        self.write(0x70, 11);
        assert_eq!(self.read(0x70), 11, "the features were refused");
    }

    /// Sets up all queues, with at most so many descriptors each.
    pub fn set_up(&mut self, most: u16) {
        for number in 0..self.queues.len() {
            self.write(0x30, number as u32);
            let size = (self.read(0x34) as u16).min(most);
            let addresses = Ring::addresses(number);
            // A table of descriptors, and rings of heads and of what was used, each with three words more (2.7).
            let lengths = [16, 2, 8].map(|each| each * usize::from(size) + 6);
            for (address, length) in addresses.into_iter().zip(lengths) {
                self.memory
                    .write_slice(&vec![0; length], GuestAddress(address))
                    .expect("memory");
            }
            self.queues[number] = Ring {
                size,
                next_descriptor: 0,
                added: 0,
                taken: 0,
                writable: vec![Vec::new(); usize::from(size)],
            };
            self.write(0x38, u32::from(size));
            for (register, address) in [0x80, 0x90, 0xa0].into_iter().zip(addresses) {
                self.write(register, address as u32);
                self.write(register + 4, (address >> 32) as u32);
            }
            self.write(0x44, 1);
        }
    }

    /// Reads a register.
    #[must_use]
    pub fn read(&self, register: u64) -> u32 {
        let mut data = [0; 4];
        self.transport.read(register, &mut data);
        u32::from_le_bytes(data)
    }

    /// Writes a register.
    pub fn write(&self, register: u64, value: u32) {
        self.transport.write(register, &value.to_le_bytes());
    }

    /// Reads the device's configuration.
    #[must_use]
    pub fn config(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut data = vec![0; length];
        self.transport.read(0x100 + offset, &mut data);
        data
    }

    /// Whether the device has given up.
    #[must_use]
    pub fn needs_reset(&self) -> bool {
        self.read(0x70) & 64 != 0
    }

    /// Waits until it has.
    pub fn expect_reset(&self) {
        wait("the device to give up", || self.needs_reset().then_some(()));
    }

    /// Room in memory that nobody has. It comes round after 16 MiB.
    pub fn room(&mut self, length: u32) -> u64 {
        if self.buffers + u64::from(length) > MEMORY {
            self.buffers = BUFFERS;
        }
        let address = self.buffers;
        self.buffers += u64::from(length);
        address
    }

    /// Adds a request without a kick: what the device reads, and the lengths of what it may write. Answers its head.
    pub fn add(&mut self, queue: usize, readable: &[&[u8]], writable: &[u32]) -> u16 {
        let mut chain = Vec::new();
        for bytes in readable {
            let address = self.room(bytes.len() as u32);
            self.memory
                .write_slice(bytes, GuestAddress(address))
                .expect("memory");
            chain.push((address, bytes.len() as u32, false));
        }
        for &length in writable {
            chain.push((self.room(length), length, true));
        }
        self.add_at(queue, &chain)
    }

    /// As [`add`](Self::add), with the places of the buffers: address, length, whether the device may write.
    pub fn add_at(&mut self, queue: usize, chain: &[(u64, u32, bool)]) -> u16 {
        let size = self.queues[queue].size;
        let first = self.queues[queue].next_descriptor;
        for (number, &(address, length, write)) in (0_u16..).zip(chain) {
            let last = usize::from(number) + 1 == chain.len();
            let descriptor = Descriptor {
                address,
                length,
                flags: u16::from(!last) | u16::from(write) << 1,
                next: (first + number + 1) % size,
            };
            self.describe(queue, (first + number) % size, descriptor);
        }
        let ring = &mut self.queues[queue];
        ring.next_descriptor = (first + chain.len() as u16) % size;
        ring.writable[usize::from(first)] = chain
            .iter()
            .filter(|piece| piece.2)
            .map(|&(address, length, _)| (address, length))
            .collect();
        self.offer(queue, first);
        first
    }

    /// Writes a descriptor into a queue's table.
    pub fn describe(&self, queue: usize, number: u16, descriptor: Descriptor) {
        let table = Ring::addresses(queue)[0];
        self.describe_at(table + u64::from(number) * 16, descriptor);
    }

    /// Writes a descriptor anywhere.
    pub fn describe_at(&self, address: u64, descriptor: Descriptor) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&descriptor.address.to_le_bytes());
        bytes[8..12].copy_from_slice(&descriptor.length.to_le_bytes());
        bytes[12..14].copy_from_slice(&descriptor.flags.to_le_bytes());
        bytes[14..].copy_from_slice(&descriptor.next.to_le_bytes());
        self.memory
            .write_slice(&bytes, GuestAddress(address))
            .expect("memory");
    }

    /// Puts a head into the driver's ring.
    pub fn offer(&mut self, queue: usize, head: u16) {
        let [_, ring, _] = Ring::addresses(queue).map(GuestAddress);
        let state = &mut self.queues[queue];
        let slot = u64::from(state.added % state.size);
        state.added = state.added.wrapping_add(1);
        let added = state.added;
        self.memory
            .write_obj(head.to_le(), ring.unchecked_add(4 + slot * 2))
            .expect("memory");
        self.claim(queue, added);
    }

    /// Says how many heads were offered, as the device sees it.
    pub fn claim(&self, queue: usize, added: u16) {
        let ring = GuestAddress(Ring::addresses(queue)[1]);
        self.memory
            .store(added.to_le(), ring.unchecked_add(2), Ordering::Release)
            .expect("memory");
    }

    /// Asks the device for interrupts or for none (`VIRTQ_AVAIL_F_NO_INTERRUPT`, without `EVENT_IDX`).
    pub fn set_interrupts(&self, queue: usize, wanted: bool) {
        let ring = GuestAddress(Ring::addresses(queue)[1]);
        self.memory
            .store(u16::from(!wanted).to_le(), ring, Ordering::SeqCst)
            .expect("memory");
    }

    /// Kicks the device.
    pub fn kick(&self, queue: usize) {
        self.write(0x50, queue as u32);
    }

    /// Whether the device wants a kick for the next request (2.7.10): a driver that honours it hangs at a device that
    /// forgets to ask.
    #[must_use]
    pub fn is_asked_to_kick(&self, queue: usize) -> bool {
        let ring = GuestAddress(Ring::addresses(queue)[2]);
        let state = &self.queues[queue];
        let load = |offset: u64| {
            let address = ring.unchecked_add(offset);
            let value: u16 = self.memory.load(address, Ordering::SeqCst).expect("memory");
            u16::from_le(value)
        };
        if self.features & 1 << 29 == 0 {
            load(0) & 1 == 0
        } else {
            load(4 + u64::from(state.size) * 8) == state.added
        }
    }

    /// Kicks the device if it wants that for one of the requests that were added last, so many, as a driver does that spares
    /// itself every other kick.
    pub fn kick_if_wanted(&self, queue: usize, added: u16) {
        // The requests are there before it is looked at what the device wants.
        fence(Ordering::SeqCst);
        let ring = GuestAddress(Ring::addresses(queue)[2]);
        let state = &self.queues[queue];
        let load = |offset: u64| {
            let address = ring.unchecked_add(offset);
            let value: u16 = self.memory.load(address, Ordering::SeqCst).expect("memory");
            u16::from_le(value)
        };
        let wanted = if self.features & 1 << 29 == 0 {
            load(0) & 1 == 0
        } else {
            let event = load(4 + u64::from(state.size) * 8);
            state.added.wrapping_sub(event).wrapping_sub(1) < added
        };
        if wanted {
            self.kick(queue);
        }
    }

    /// A request that the device has given back: its head, how many bytes the device says it has written, and the
    /// contents of all that it might have written.
    pub fn used(&mut self, queue: usize) -> Option<(u16, u32, Vec<u8>)> {
        let ring = GuestAddress(Ring::addresses(queue)[2]);
        let used: u16 = self
            .memory
            .load(ring.unchecked_add(2), Ordering::Acquire)
            .expect("memory");
        let driver_ring = GuestAddress(Ring::addresses(queue)[1]);
        let state = &mut self.queues[queue];
        if state.taken == u16::from_le(used) {
            return None;
        }
        let entry = ring.unchecked_add(4 + u64::from(state.taken % state.size) * 8);
        state.taken = state.taken.wrapping_add(1);
        // The driver wants to be told of the next one (2.7.7, `used_event`).
        let event = driver_ring.unchecked_add(4 + u64::from(state.size) * 2);
        self.memory
            .store(state.taken.to_le(), event, Ordering::SeqCst)
            .expect("memory");
        let [head, length]: [u32; 2] = [0, 4].map(|offset| {
            let value: u32 = self
                .memory
                .read_obj(entry.unchecked_add(offset))
                .expect("memory");
            u32::from_le(value)
        });
        let mut contents = Vec::new();
        for &(address, length) in &state.writable[head as usize] {
            let mut piece = vec![0; length as usize];
            self.memory
                .read_slice(&mut piece, GuestAddress(address))
                .expect("memory");
            contents.extend(piece);
        }
        Some((head as u16, length, contents))
    }

    /// Waits for the next request that the device gives back.
    pub fn expect_used(&mut self, queue: usize) -> (u16, u32, Vec<u8>) {
        self.wait("a used buffer", |driver| driver.used(queue))
    }

    /// Adds a request, kicks and waits: how much was written, and what.
    pub fn request(
        &mut self,
        queue: usize,
        readable: &[&[u8]],
        writable: &[u32],
    ) -> (u32, Vec<u8>) {
        let head = self.add(queue, readable, writable);
        self.kick(queue);
        let (used, length, contents) = self.expect_used(queue);
        assert_eq!(used, head, "another request came back");
        (length, contents)
    }

    /// Takes the interrupts that were raised since the last time: whether there was one.
    #[must_use]
    pub fn interrupted(&self) -> bool {
        self.transport.interrupt().event().read().is_ok()
    }

    /// Waits for an interrupt.
    pub fn expect_interrupt(&self) {
        wait("an interrupt", || self.interrupted().then_some(()));
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.events.stop();
        if let Some(serving) = self.serving.take()
            && serving.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the device panicked");
        }
    }
}

/// Waits until something is there.
pub fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::sleep(Duration::from_millis(1));
    }
}
