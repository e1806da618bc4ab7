//! Sandboxes: a virtual machine that holds containers, which hold processes.
//!
//! - [`Sandbox`], [`Container`] and [`Process`] are the virtual machine and what runs in it, for any Rust program.
//! - [`driver`] keeps a sandbox alive behind the OCI command; [`control`] is how commands reach it.
//! - [`template`] is how machines start without a boot.
//! - [`oom_score`] is whom the kernel rather kills.
//! - [`state`] is what is written down, [`spec`] what a bundle asks for, [`config`] what the host's owner decides.

pub mod backend;
mod boot_time;
pub mod cgroup;
pub mod client;
pub mod config;
pub mod control;
pub mod driver;
mod error;
mod hooks;
mod id;
mod kernel;
pub mod oom_score;
mod sandbox;
pub mod spec;
pub mod state;
pub mod stdio;
pub mod template;
pub mod timeline;

pub use boot_time::{BootPart, BootTime, PartTime};
pub use error::{SandboxError, chain};
pub use hooks::{HookError, run as run_hooks};
pub use id::{ContainerId, IdError};
pub use sandbox::{
    Container, Event, HostGroups, Lifecycle, Process, Sandbox, SandboxOptions, WrongState,
};
/// Networks on the host: namespaces, and what connects a sandbox to one.
pub use sandbox_network as network;
