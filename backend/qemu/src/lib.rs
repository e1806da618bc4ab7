//! The QEMU backend: microvm under TCG or KVM.
//!
//! One QEMU process per machine, without firmware, PCI or a display. Everything it talks to comes as an inherited
//! descriptor: the guest's link port, its console, the monitor, the file share. So nothing of it has a path on disk,
//! and it needs no right to open one beside its own firmware.

mod backend;
mod command;
mod monitor;
mod template;
mod tsc;
mod vm;

pub use backend::{QemuBackend, QemuConfig};
pub use tsc::khz as tsc_khz;
