//! The register transport, `virtio-mmio` version 2 (virtio 1.3, 4.2).
//!
//! ```text
//!                 ACKNOWLEDGE, DRIVER      FEATURES_OK            DRIVER_OK
//!   reset ◀──0──┬────────────────────▶ negotiating ─▶ setting up ───────────▶ active
//!     ▲         │                                                                │ Broken
//!     └────0────┴──────────────────────────────────────────── NEEDS_RESET ◀──────┘
//! ```

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use virtio_queue::QueueT;
use vmm_sys_util::eventfd::EventFd;

use crate::events::{EventLoop, Flags, Handler, Registrar};
use crate::{Activation, Broken, Device, Interrupt, Memory, Offer, Queue, Signals};

/// The length of a transport's registers, with the device's configuration, in bytes.
pub const REGISTERS: u64 = 0x1000;

/// Offsets of the registers.
mod register {
    pub const MAGIC: u64 = 0x000;
    pub const VERSION: u64 = 0x004;
    pub const DEVICE: u64 = 0x008;
    pub const VENDOR: u64 = 0x00c;
    pub const DEVICE_FEATURES: u64 = 0x010;
    pub const DEVICE_FEATURES_SELECT: u64 = 0x014;
    pub const DRIVER_FEATURES: u64 = 0x020;
    pub const DRIVER_FEATURES_SELECT: u64 = 0x024;
    pub const QUEUE_SELECT: u64 = 0x030;
    pub const QUEUE_SIZE_MAX: u64 = 0x034;
    pub const QUEUE_SIZE: u64 = 0x038;
    pub const QUEUE_READY: u64 = 0x044;
    pub const QUEUE_NOTIFY: u64 = 0x050;
    pub const INTERRUPT_STATUS: u64 = 0x060;
    pub const INTERRUPT_ACKNOWLEDGE: u64 = 0x064;
    pub const STATUS: u64 = 0x070;
    pub const DESCRIPTORS_LOW: u64 = 0x080;
    pub const DESCRIPTORS_HIGH: u64 = 0x084;
    pub const DRIVER_RING_LOW: u64 = 0x090;
    pub const DRIVER_RING_HIGH: u64 = 0x094;
    pub const DEVICE_RING_LOW: u64 = 0x0a0;
    pub const DEVICE_RING_HIGH: u64 = 0x0a4;
    pub const SHARED_MEMORY_FIRST: u64 = 0x0b0;
    pub const SHARED_MEMORY_LAST: u64 = 0x0bc;
    pub const GENERATION: u64 = 0x0fc;
    pub const CONFIGURATION: u64 = 0x100;
}

/// Bits of the status register (2.1).
mod status {
    pub const FEATURES_OK: u32 = 8;
    pub const DRIVER_OK: u32 = 4;
    pub const NEEDS_RESET: u32 = 64;
    /// All that a driver may set.
    pub const ALL: u32 = 0x8f;
}

const MAGIC: u32 = u32::from_le_bytes(*b"virt");
const VENDOR: u32 = u32::from_le_bytes(*b"cfdm");
const VERSION_1: u64 = 1 << 32;
const EVENT_IDX: u64 = 1 << 29;

/// How often a device's break is logged: a guest may break it as often as it likes.
const LOGGED_BREAKS: u32 = 8;

/// One place for a device. Places without a device exist, too: the driver sees device number 0 there and leaves it.
pub struct Transport {
    name: String,
    memory: Arc<Memory>,
    interrupt: Interrupt,
    registrar: Registrar,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    plugged: Option<Plugged>,
    registers: Registers,
    breaks: u32,
}

struct Plugged {
    device: Box<dyn Device>,
    offer: Offer,
    kicks: Vec<Arc<EventFd>>,
    active: bool,
}

/// What the driver has written; all zero after a reset.
#[derive(Default)]
struct Registers {
    status: u32,
    device_features_select: u32,
    driver_features_select: u32,
    driver_features: u64,
    queue_select: u32,
    queues: Vec<virtio_queue::Queue>,
}

impl Transport {
    /// A place without a device. `name` is for logs.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn new(name: &str, memory: Arc<Memory>, events: &EventLoop) -> io::Result<Arc<Self>> {
        let interrupt = Interrupt::new()?;
        Ok(Arc::new_cyclic(|this: &Weak<Self>| Self {
            name: name.to_owned(),
            memory,
            interrupt,
            registrar: events.registrar(this.clone()),
            state: Mutex::default(),
        }))
    }

    /// Puts a device here. Answers what its driver will kick each queue by: the machine connects them to writes of the
    /// queue's number at [`NOTIFY`](Self::NOTIFY).
    ///
    /// # Errors
    /// When there are no descriptors left; `AlreadyExists` when there is a device; `InvalidInput` when it offers queues
    /// of impossible sizes.
    pub fn plug(&self, device: Box<dyn Device>) -> io::Result<Vec<Arc<EventFd>>> {
        let offer = device.offer();
        let kicks = offer
            .queues
            .iter()
            .map(|_| EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC).map(Arc::new))
            .collect::<io::Result<Vec<_>>>()?;
        let queues = rings(&offer)?;
        let mut state = self.lock();
        if state.plugged.is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.registers = Registers {
            queues,
            ..Registers::default()
        };
        state.plugged = Some(Plugged {
            device,
            offer,
            kicks: kicks.clone(),
            active: false,
        });
        Ok(kicks)
    }

    /// Whether there is a device.
    #[must_use]
    pub fn is_plugged(&self) -> bool {
        self.lock().plugged.is_some()
    }

    /// Takes the device away, whatever its driver does at the moment.
    pub fn unplug(&self) -> Option<Box<dyn Device>> {
        let mut state = self.lock();
        state.registers = Registers::default();
        let mut plugged = state.plugged.take()?;
        if plugged.active {
            plugged.device.reset();
        }
        // The next device's breaks are logged again.
        self.interrupt.forget();
        state.breaks = 0;
        Some(plugged.device)
    }

    /// The offset of the register whose writes kick queues.
    pub const NOTIFY: u64 = register::QUEUE_NOTIFY;

    /// What the machine connects to the interrupt controller.
    #[must_use]
    pub fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    /// How often driver and device have told each other something.
    #[must_use]
    pub fn signals(&self) -> Signals {
        self.interrupt.signals()
    }

    /// How often the driver has broken the device.
    #[must_use]
    pub fn breaks(&self) -> u32 {
        self.lock().breaks
    }

    /// The driver reads. Accesses that virtio does not allow read as zeros.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        // With every interrupt: no lock.
        if offset == register::INTERRUPT_STATUS {
            store(data, self.interrupt.status());
            return;
        }
        let state = self.lock();
        if offset >= register::CONFIGURATION {
            if let Some(plugged) = &state.plugged {
                plugged
                    .device
                    .read_config(offset - register::CONFIGURATION, data);
            }
            return;
        }
        store(data, state.read(offset, &self.interrupt));
    }

    /// The driver writes. Accesses that virtio does not allow do nothing.
    pub fn write(&self, offset: u64, data: &[u8]) {
        if offset >= register::CONFIGURATION {
            if let Some(plugged) = &mut self.lock().plugged {
                plugged
                    .device
                    .write_config(offset - register::CONFIGURATION, data);
            }
            return;
        }
        let Ok(value) = <[u8; 4]>::try_from(data).map(u32::from_le_bytes) else {
            return;
        };
        match offset {
            register::INTERRUPT_ACKNOWLEDGE => self.interrupt.acknowledge(value),
            // The machine usually has the kernel do this.
            register::QUEUE_NOTIFY => {
                let state = self.lock();
                let kicks = state.plugged.as_ref().map(|plugged| &plugged.kicks);
                if let Some(kick) = kicks.and_then(|kicks| kicks.get(value as usize)) {
                    // It fails only when the counter is full, and then the kick is pending already.
                    let _ = kick.write(1);
                }
            }
            register::STATUS => self.set_status(&mut self.lock(), value),
            _ => self.lock().write(offset, value),
        }
    }

    fn set_status(&self, state: &mut State, value: u32) {
        let State {
            plugged: Some(plugged),
            registers,
            ..
        } = state
        else {
            return;
        };
        if value == 0 {
            if plugged.active {
                plugged.device.reset();
                plugged.active = false;
            }
            *registers = Registers {
                // The sizes were accepted when the device was plugged.
                queues: rings(&plugged.offer).unwrap_or_default(),
                ..Registers::default()
            };
            self.interrupt.acknowledge(u32::MAX);
            return;
        }
        // Bits are only ever added.
        let mut wanted = (value & status::ALL) | registers.status;
        let news = wanted & !registers.status;
        let offered = plugged.offer.features | VERSION_1;
        let acceptable =
            registers.driver_features & !offered == 0 && registers.driver_features & VERSION_1 != 0;
        if news & status::FEATURES_OK != 0 && !acceptable {
            wanted &= !status::FEATURES_OK;
        }
        if wanted & status::FEATURES_OK == 0 {
            wanted &= !status::DRIVER_OK;
        }
        let start = wanted & !registers.status & status::DRIVER_OK != 0
            && registers.status & status::NEEDS_RESET == 0;
        registers.status = wanted;
        if start {
            let started = self.activation(plugged, registers);
            // Also what half of an activation has left is taken back by a reset.
            plugged.active = true;
            if let Err(broken) = started.and_then(|start| plugged.device.activate(start)) {
                self.give_up(state, &broken);
            }
        }
    }

    fn activation(
        &self,
        plugged: &Plugged,
        registers: &mut Registers,
    ) -> Result<Activation, Broken> {
        let mut queues = Vec::new();
        for (number, ring) in registers.queues.iter_mut().enumerate() {
            if !ring.ready() {
                queues.push(None);
                continue;
            }
            if !ring.is_valid(&*self.memory) {
                return Err(Broken("a queue is not in the guest's memory"));
            }
            ring.set_event_idx(registers.driver_features & EVENT_IDX != 0);
            let mut taken = virtio_queue::Queue::new(ring.max_size())
                .map_err(|_| Broken("a queue has an impossible size"))?;
            std::mem::swap(ring, &mut taken);
            // With the kick that may be there already: the driver's, from before it was ready, and then it does not kick
            // again. One of the queue's last driver is an event for nothing.
            let kick = Arc::clone(&plugged.kicks[number]);
            queues.push(Some(Queue::new(
                u16::try_from(number).map_err(|_| Broken("too many queues"))?,
                taken,
                Arc::clone(&self.memory),
                kick,
                self.interrupt.clone(),
            )));
        }
        Ok(Activation {
            memory: Arc::clone(&self.memory),
            features: registers.driver_features,
            queues,
            events: self.registrar.clone(),
            interrupt: self.interrupt.clone(),
        })
    }

    fn give_up(&self, state: &mut State, broken: &Broken) {
        let Some(plugged) = &mut state.plugged else {
            return;
        };
        plugged.device.reset();
        plugged.active = false;
        state.registers.status |= status::NEEDS_RESET;
        if state.breaks < LOGGED_BREAKS {
            tracing::warn!(device = self.name, error = %broken, "a device has stopped");
        }
        state.breaks = state.breaks.saturating_add(1);
        self.interrupt.configuration();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Handler for Transport {
    fn ready(&self, token: u32, flags: Flags) {
        let mut state = self.lock();
        let Some(plugged) = &mut state.plugged else {
            return;
        };
        if !plugged.active {
            return;
        }
        if let Err(broken) = plugged.device.event(token, flags) {
            self.give_up(&mut state, &broken);
        }
    }
}

impl State {
    fn read(&self, offset: u64, interrupt: &Interrupt) -> u32 {
        let registers = &self.registers;
        let queue = registers.queues.get(registers.queue_select as usize);
        let offer = self.plugged.as_ref().map(|plugged| &plugged.offer);
        match offset {
            register::MAGIC => MAGIC,
            register::VERSION => 2,
            register::DEVICE => offer.map_or(0, |offer| offer.kind),
            register::VENDOR => VENDOR,
            register::DEVICE_FEATURES => {
                let features = offer.map_or(0, |offer| offer.features | VERSION_1);
                match registers.device_features_select {
                    0 => features as u32,
                    1 => (features >> 32) as u32,
                    _ => 0,
                }
            }
            register::QUEUE_SIZE_MAX => queue.map_or(0, |queue| u32::from(queue.max_size())),
            // A driver that is active has taken them along.
            register::QUEUE_READY => u32::from(
                queue.is_some_and(QueueT::ready) || registers.status & status::DRIVER_OK != 0,
            ),
            register::STATUS => registers.status,
            register::GENERATION => interrupt.generation(),
            // No region: its length is -1 (4.2.2).
            register::SHARED_MEMORY_FIRST..=register::SHARED_MEMORY_LAST => u32::MAX,
            _ => 0,
        }
    }

    fn write(&mut self, offset: u64, value: u32) {
        let registers = &mut self.registers;
        match offset {
            register::DEVICE_FEATURES_SELECT => registers.device_features_select = value,
            register::DRIVER_FEATURES_SELECT => registers.driver_features_select = value,
            register::QUEUE_SELECT => registers.queue_select = value,
            register::DRIVER_FEATURES if registers.status & status::FEATURES_OK == 0 => {
                let kept = registers.driver_features;
                let value = u64::from(value);
                match registers.driver_features_select {
                    0 => registers.driver_features = kept >> 32 << 32 | value,
                    1 => registers.driver_features = kept & u64::from(u32::MAX) | value << 32,
                    // There are none; a driver that wants them gets no FEATURES_OK.
                    _ if value != 0 => registers.driver_features &= !VERSION_1,
                    _ => {}
                }
            }
            _ if registers.status & status::DRIVER_OK == 0 => registers.set_queue(offset, value),
            _ => {}
        }
    }
}

impl Registers {
    fn set_queue(&mut self, offset: u64, value: u32) {
        let Some(queue) = self.queues.get_mut(self.queue_select as usize) else {
            return;
        };
        match offset {
            register::QUEUE_SIZE => {
                // A size that is not possible is not taken over.
                if let Ok(size) = u16::try_from(value) {
                    queue.set_size(size);
                }
            }
            register::QUEUE_READY => queue.set_ready(value & 1 != 0),
            register::DESCRIPTORS_LOW => queue.set_desc_table_address(Some(value), None),
            register::DESCRIPTORS_HIGH => queue.set_desc_table_address(None, Some(value)),
            register::DRIVER_RING_LOW => queue.set_avail_ring_address(Some(value), None),
            register::DRIVER_RING_HIGH => queue.set_avail_ring_address(None, Some(value)),
            register::DEVICE_RING_LOW => queue.set_used_ring_address(Some(value), None),
            register::DEVICE_RING_HIGH => queue.set_used_ring_address(None, Some(value)),
            _ => {}
        }
    }
}

fn rings(offer: &Offer) -> io::Result<Vec<virtio_queue::Queue>> {
    let ring = |&size: &u16| {
        virtio_queue::Queue::new(size)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error.to_string()))
    };
    offer.queues.iter().map(ring).collect()
}

/// Registers are 32 bits wide and are read as a whole.
fn store(data: &mut [u8], value: u32) {
    if data.len() == 4 {
        data.copy_from_slice(&value.to_le_bytes());
    }
}
