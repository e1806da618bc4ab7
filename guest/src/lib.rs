//! Everything that runs inside the guest.
//!
//! ```text
//! init      PID 1: mounts, then forks the agent, reaps, restarts the machine if the agent dies
//!  └ agent  serves the host over the link; single-threaded but for a few file operations
//!     └ helper  forks, for each request, a process without threads that makes a container
//!               or joins one; what it makes are children of the agent
//! ```
//!
//! [`agent`] takes the calls and hands them to [`sandbox`] (the guest as a whole) and
//! [`container`], which use [`process`] (exits, stdio), [`cgroup`] and [`helper`].

pub mod agent;
pub mod cgroup;
pub mod container;
pub mod helper;
pub mod init;
pub mod network;
pub mod process;
pub mod sandbox;
mod syscalls;
