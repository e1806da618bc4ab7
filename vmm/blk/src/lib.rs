//! Disks on files and block devices: virtio-blk (virtio 1.3, 5.2).
//!
//! ```text
//!   driver ──kick──▶ pop ▶ check ▶ rate ──▶ engine ──▶ file or block device
//!                     ▲      │      │ full: wait for the timer
//!                     │      │bad   ▼
//!                     │      └──▶ status ◀── done ◀── completion event
//!                     └─ engine full: wait for a completion
//!
//!   idle ──activate──▶ active ──reset: cancel, wait──▶ idle
//! ```
//!
//! Data goes straight between the file and the guest's memory, by one of two engines ([`Engine`]): `io_uring`, or, where
//! the host does not let us have one, a thread with `preadv2` and `pwritev2`. Neither ever has the event loop wait for
//! storage. At most [`IN_FLIGHT`] requests of a disk are on their way; the rest stay in the guest's queues.
//!
//! What a request asks for is checked before anything is submitted: its direction against a read-only disk, its range
//! against the capacity, its length. A file that has become shorter under a running machine is found by looking at its
//! length before each batch, so that writes don't silently make it long again, and by reads that end early: the driver
//! gets an I/O error. There is no mapping of the file and so no `SIGBUS`.
//!
//! # Reset
//! No request may touch the guest's memory after a reset. Requests that the host has not begun are cancelled; those that
//! it has begun are waited for, without a limit of our own, because nothing can take a page back from a disk that is
//! writing to it. There are at most [`IN_FLIGHT`], so it takes what the host's storage takes for these, and if that hangs
//! (a network file system without its server), the virtual CPU that has reset the device hangs as well. The event loop
//! and the other devices go on, unless the loop had just been told of this disk and waits for its turn.
//!
//! # Threads
//! `io_uring` starts kernel threads for what can't be done without waiting: flushes, discards, buffered writes of some
//! filesystems. There are at most two per machine, as every ring sets the limit. They go after five seconds without
//! work, but for the last, which the kernel lets look around every five seconds as long as the event loop lives: a
//! machine that has flushed once is not entirely idle any more. One that only reads never has such a thread. The other
//! engine has one thread per disk, started by [`Disk::new`]; it inherits its creator's seccomp filter, can be given a
//! tighter one ([`Disk::confined`]), and calls
//! `preadv2`, `pwritev2`, `fdatasync`, `fallocate`, `futex` and `write` (to an eventfd). The event loop calls `fstat` and
//! `io_uring_enter`; so do virtual CPUs at a reset.

mod buffers;
mod configuration;
mod disk;
mod engine;
mod options;
mod request;
mod ring;
mod serve;
mod statistics;
#[cfg(test)]
mod tests;
mod worker;

pub use disk::{Control, Disk};
pub use engine::{Begin, Engine, IN_FLIGHT};
pub use options::{DiskError, Options};
pub use statistics::{Counts, Statistics};
