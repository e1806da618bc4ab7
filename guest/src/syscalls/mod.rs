//! Kernel interfaces that have no safe wrapper in the libraries we use.

mod fork;
mod ioctl;
mod kill;
mod namespace;
mod readiness;
mod signal;
mod vsock;

pub(crate) use fork::{Fork, fork, fork_sibling};
pub(crate) use ioctl::{ENTROPY_MAX, raise_loopback, reseed};
pub(crate) use kill::kill_realtime;
pub(crate) use namespace::new_user_namespace;
pub(crate) use readiness::watch;
pub(crate) use signal::default_broken_pipe;
pub(crate) use vsock::connect_to_host;
