//! Templates: machines written to a file after their boot, and copies of them.
//!
//! A template's machine has its memory in a file of ours. When its guest waits for the next host, QEMU writes out the
//! state of the devices (its migration, with the capability `x-ignore-shared`, which leaves such a memory out), and we
//! write the pages of the memory that hold anything.
//!
//! ```text
//! capture:  boot ─ greeting ─ hang up ─ port opened again ─ migrate to a file ─ kill ─ write
//! copy:     memory filled │ QEMU started, side by side ─ migrate-incoming ─ share plugged ─ virtual CPUs run
//! ```
//!
//! The memory is copied, not mapped from the template's file: the file server writes to the guest's memory, so QEMU has
//! to map it shared. The file share is not migratable, and need not be: a template has none, but its kernel knows all
//! transports ([`crate::command::Start::Template`]), and the share is in one of them when a copy looks again. QEMU 7.2
//! reads no state while there is a device that is not migratable, so the share is plugged afterwards. The machine type
//! has no hot-plugging; a copy borrows the handler that it takes from a device with a bus of its own, which is gone
//! before the guest runs ([`copy`]).
//!
//! Only with emulation: there a boot is slow, and KVM could not be tried where this was made.

mod capture;
mod copy;
mod file;
mod identity;
mod memory;

pub use copy::{Restore, RestoreError, Restoring};

use std::fs::File;

use async_trait::async_trait;
use backend_api::{BackendError, Greeting, Phase, Templates, Vm, VmConfig};

use crate::QemuBackend;
use crate::command::NIC_TRANSPORTS;

/// For `map_err`: what is wrong with a template, and why.
fn fail(phase: Phase, problem: &'static str) -> impl FnOnce(std::io::Error) -> BackendError {
    move |source| BackendError::Template {
        phase,
        problem,
        source: Some(source.into()),
    }
}

#[async_trait]
impl Templates for QemuBackend {
    fn nics(&self) -> usize {
        NIC_TRANSPORTS.len()
    }

    fn identity(&self, config: &VmConfig) -> Result<String, BackendError> {
        identity::identity(self, config)
    }

    async fn capture(
        &self,
        config: VmConfig,
        greeting: Greeting,
        out: File,
    ) -> Result<(), BackendError> {
        capture::capture(self, config, greeting, out).await
    }

    async fn copy(&self, config: VmConfig, template: File) -> Result<Box<dyn Vm>, BackendError> {
        copy::copy(self, config, template)
    }
}
