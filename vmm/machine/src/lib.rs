//! A virtual machine on KVM: memory, virtual CPUs, the bus of virtio devices, and how a kernel is booted.
//!
//! There is no firmware, no PCI, no ACPI, no PIT, no clock chip and no keyboard controller. A kernel is entered as the
//! Linux boot protocol says, in 64-bit mode, with a table of processors (MP specification 1.4) and its virtio devices
//! on the command line. Time comes from the processor and KVM's clock.
//!
//! ```text
//!             new             boot              pause
//!   config ───────▶ Machine ───────▶ running ─────────▶ paused
//!                     │                 │  ◀─────────── ─┘
//!                     │                 │ Outcome    resume
//!                     └──────▶ dropped ◀┘
//! ```
//!
//! Each virtual CPU is a thread, all devices share one more. What is specific to a processor is in the folder of its
//! name.

mod boot;
mod bus;
mod error;
mod machine;
mod memory;
mod places;
#[cfg(feature = "testing")]
pub mod testing;
mod vcpu;
mod x86_64;

pub use boot::Guest;
pub use bus::{SLOTS, Slot};
pub use error::Error;
pub use machine::{Config, Machine};
pub use memory::{Backing, Growth, GuestRam};
pub use vcpu::{Exits, Outcome};
