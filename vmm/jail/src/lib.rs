//! What a VMM process gives up by itself, before it meets its guest.
//!
//! It is started in an empty root without a user's rights (`backend-process`). From there it goes on:
//!
//! ```text
//!   main        enter() ──▶ Setup ──▶ Machine made ──▶ Boot ──▶ Main        answers the driver
//!                                                           └──▶ Plugger     does so, and plugs devices in and out
//!   devices                           └─ started in Setup ──▶ Devices       serves all devices
//!   vcpuN                                             └─ started in Setup ──▶ Vcpu
//!   disk                              └─ started in Setup or by the Plugger ──▶ Disk
//!
//!   where a disk is served by io_uring, devices and vcpuN keep to RingDevices and RingVcpu
//! ```
//!
//! A thread begins with what the thread has that starts it, and can only give up more: [`Role::Setup`] allows what all
//! others do, and no guest has run yet while anybody has it. Each list is data, with a reason for every rule
//! (`rules.rs`). A call that is not in its thread's list ends the whole process with `SIGSYS` (31), which is how the driver
//! sees it. A debug build says which call it was before it ends so.
//!
//! Files are given up a second time, with Landlock, as far as the host has it; and no process of the same user can look
//! into this one's memory.

mod error;
mod filter;
mod process;
mod rule;
mod rules;
mod witness;

use std::sync::Arc;

pub use error::JailError;
pub use filter::{Filter, Role, Violation};
pub use process::{limit_files, limit_locked, restrict_files};

/// The lists that every machine still applies, ready for the threads that they are for.
#[derive(Debug, Clone)]
pub struct Jail {
    /// For the first thread, once all others run.
    pub main: Arc<Filter>,
    /// For the thread that serves devices.
    pub devices: Arc<Filter>,
    /// For the threads of virtual CPUs.
    pub vcpu: Arc<Filter>,
}

impl Jail {
    /// Has devices and virtual CPUs keep to the lists of a machine whose disks are served by `io_uring`.
    ///
    /// # Errors
    /// As [`Filter::new`].
    pub fn serve_rings(&mut self) -> Result<(), JailError> {
        self.devices = Self::also(Role::RingDevices)?;
        self.vcpu = Self::also(Role::RingVcpu)?;
        Ok(())
    }

    /// A list that only some machines need: it takes its time to be made ready.
    ///
    /// # Errors
    /// As [`Filter::new`].
    pub fn also(role: Role) -> Result<Arc<Filter>, JailError> {
        Filter::new(role, Violation::default()).map(Arc::new)
    }
}

/// Gives up what nobody here needs, and all that [`Role::Setup`] does not. To be called first, by the only thread there is.
///
/// # Errors
/// What the kernel refuses. A kernel without Landlock refuses nothing.
pub fn enter() -> Result<Jail, JailError> {
    process::keep_one_heap();
    process::hide()?;
    process::restrict_files()?;
    let compile = |role| Filter::new(role, Violation::default()).map(Arc::new);
    let jail = Jail {
        main: compile(Role::Main)?,
        devices: compile(Role::Devices)?,
        vcpu: compile(Role::Vcpu)?,
    };
    if Violation::default() == Violation::Tell {
        witness::install()?;
    }
    let setup = Filter::new(Role::Setup, Violation::default())?;
    filter::answer_as_an_old_kernel()?;
    setup.apply()?;
    Ok(jail)
}
