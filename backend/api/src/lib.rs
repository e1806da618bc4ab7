//! What a virtual machine backend is: the trait, its capabilities and the suite every backend passes.
//!
//! A [`Backend`] turns a [`VmConfig`] into a [`Vm`] and knows nothing of containers. The trait is small on purpose:
//! create, boot, wait, stop. Everything that not every backend can do is an ability of its own behind an `Option`
//! ([`Vm::pause`], [`Vm::resize`], [`Vm::plug`], [`Vm::count`], [`Backend::templates`]), so that a missing one is refused
//! before anything started.
//!
//! ```text
//!            create            boot                 wait / kill -9 / guest ends
//!   Backend ────────▶ created ───────▶ running ──────────────────────────────▶ ended
//!                        │                │                                      ▲
//!                        └─────stop───────┴─────────────────stop─────────────────┘
//! ```
//!
//! `boot` is allowed once, in the state "created". `stop` is allowed always and does nothing the second time.

mod config;
#[cfg(feature = "conformance")]
pub mod conformance;
mod counters;
mod diagnostics;
mod error;
mod template;
mod vm;

pub use config::{
    Device, Dial, Disk, Image, Nic, Privileges, Share, Sockets, SpareDevices, VmConfig,
};
pub use counters::{Count, DeviceCounters, MachineCounters, Numbers};
pub use diagnostics::{Diagnostics, Ring, Tail};
pub use error::{BackendError, Phase, chain};
pub use template::{Greeted, Greeting, Templates};
pub use vm::{
    Accelerator, Backend, BootTimes, Capabilities, Link, LinkIo, MEMORY_STEP, Pause, Place, Plug,
    Resize, Vm, VmExit,
};
