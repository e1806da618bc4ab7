//! Child processes that are confined, watched and never outlive their owner.
//!
//! The VMM and the file server are started through here, so that what keeps them in is written once: no descriptor
//! but those named, no environment, a user of its own, namespaces of its own, no new privileges, and death with the
//! parent. Watching is done with a pidfd: no `SIGCHLD` handler, no pid that could have been reused.

mod child;
mod confinement;
mod executable;
pub mod namespace;
mod pids;
mod spawn;
mod steps;

pub use child::{Child, Exit};
pub use confinement::{Confinement, Device, Identity, Limits};
pub use spawn::Program;
