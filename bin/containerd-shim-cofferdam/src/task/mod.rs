//! The task service: containers of one sandbox as containerd drives them.
//!
//! [`Service`] takes the calls apart, [`Shim`] knows the tasks and makes them, [`Task`] and [`Exec`] are what the calls
//! are about. A change that has begun is finished whether or not its caller waits: it runs in a task of its own.

mod container;
mod create;
mod exec;
mod hooks;
mod machine;
mod metrics;
mod metrics_v2;
mod pause;
mod pod;
mod service;
mod shim;
mod statistics;
mod usage;

use std::time::SystemTime;

pub use container::Task;
pub use create::make_sandbox;
pub use exec::Exec;
pub use machine::TEMPLATE_MAKER;
pub use service::{Service, finished};
pub use shim::Shim;

use sandbox::state::ExitStatus;

/// How a process ended, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exited {
    /// Exit code, or 128 + signal.
    pub status: u32,
    /// Since then.
    pub at: SystemTime,
}

impl Exited {
    fn now(exit: ExitStatus) -> Self {
        Self {
            status: exit.code.into(),
            at: SystemTime::now(),
        }
    }
}
