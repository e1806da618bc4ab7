//! What virtio devices are written against, without KVM: queues in guest memory, the register transport and one event
//! loop (virtio 1.3, sections 2 and 4.2).
//!
//! A [`Device`] is a state machine with queues. The [`Transport`] is the half of it that every device has alike: the
//! registers by which a driver finds it, agrees on features, says where its queues are and starts it. Registers are
//! accessed from the threads of virtual CPUs; everything else happens in one thread, the [`EventLoop`]'s, when a
//! descriptor is ready: a queue that the driver kicks, a tap, a socket.
//!
//! ```text
//!   vCPU threads                      event thread
//!        │ registers                       │ ready(token)
//!        ▼                                 ▼
//!   ┌──────────── Transport (a lock) ───────────┐     irqfd
//!   │ status, features, queues ─▶ Device        │ ──▶ Interrupt ──▶ guest
//!   └───────────────────────────────────────────┘
//! ```
//!
//! The driver is hostile. Whatever it writes is checked where it is used, a chain of descriptors as a whole before the
//! device sees it. A device that a driver has broken answers [`Broken`]: its transport then stops it and sets
//! `DEVICE_NEEDS_RESET` (2.1.1); the other devices go on.

mod device;
mod events;
mod interrupt;
mod limit;
mod patience;
mod queue;
#[cfg(feature = "testing")]
pub mod testing;
mod transport;
mod vectored;

pub use device::{Activation, Broken, ConfigSpace, Device, Offer};
pub use events::{EventLoop, Flags, Handler, Registrar, Watch};
pub use interrupt::{Interrupt, Signals};
pub use limit::{RateLimiter, Rates};
pub use patience::Patience;
pub use queue::{Chain, Queue};
pub use transport::{REGISTERS, Transport};
pub use vectored::{copy_from, copy_to, read_vectored, total, write_vectored};
pub use vmm_sys_util::eventfd::EventFd;

/// The guest's memory. Its regions stay the same as long as the machine lives.
pub type Memory = vm_memory::GuestMemoryMmap<()>;
