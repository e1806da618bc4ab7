//! The backend of our own VMM, on KVM: one `cofferdam-vmm` process per machine, which gets everything by descriptors.

mod backend;
mod control;
mod counters;
mod devices;
mod sockets;
mod vm;

pub use backend::{KvmBackend, KvmConfig, confinement};
