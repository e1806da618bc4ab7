//! Memory that grows and shrinks: virtio-mem (virtio 1.3, 5.15).
//!
//! A region of the guest's address space is divided into blocks, each of which is plugged or not. The machine says how
//! much of it the guest should have; the guest's driver asks for blocks until it has that, and gives some back when it
//! has more.
//!
//! ```text
//!   Handle::set_requested ──▶ requested size ── interrupt ──▶ driver
//!                                                               │ plug, unplug
//!   a block:               plug: at most the requested size     ▼
//!     unplugged ──────────────────────────────────────────▶ plugged
//!         ▲                     Blocks::plug                    │
//!         └──────────── unplug, unplug all: Blocks::unplug ─────┘
//! ```
//!
//! | request    | not in the usable region, odd, empty | more than requested | not the other way before | refused by `Blocks` |
//! |------------|-------|------|-------|------|
//! | plug       | ERROR | NACK | ERROR | BUSY |
//! | unplug     | ERROR |      | ERROR | BUSY |
//! | unplug all |       |      |       | BUSY |
//! | state      | ERROR |      |       |      |
//!
//! A request is carried out as a whole or not at all, but for "unplug all", which a driver that was told to be patient
//! goes on with. One event gives back at most 128 MiB, which costs the loop a few milliseconds; a larger request is gone
//! on with at the next turn.
//!
//! A reset of the device leaves all blocks as they are (5.15.5.2): the next driver asks for their state.
//!
//! What the device can't do is to keep anybody from memory that is not plugged: that is what [`Blocks`] is for.

mod bitmap;
mod device;
mod handle;
mod region;
mod request;

use std::io;

pub use device::Mem;
pub use handle::{Counts, Handle, Requested};
pub use region::{InvalidRegion, Setup};
use vm_memory::GuestAddress;

/// What the machine does with blocks. Ranges are whole blocks of the region, and never plugged or unplugged twice.
pub trait Blocks: Send {
    /// The guest gets this memory, full of zeros.
    ///
    /// # Errors
    /// There is not enough of it now: the driver tries again later. Nothing of the range is plugged then.
    fn plug(&mut self, address: GuestAddress, length: u64) -> io::Result<()>;

    /// The guest has no use for this memory any more, and may not get at it.
    ///
    /// # Errors
    /// It can't be taken away now: the driver tries again later. All of the range is plugged still.
    fn unplug(&mut self, address: GuestAddress, length: u64) -> io::Result<()>;
}
