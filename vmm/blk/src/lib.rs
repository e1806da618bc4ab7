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
//! # Few exits
//! A request costs the guest up to three: its kick, and two for an interrupt, whose reason it reads and which it
//! acknowledges. So it is asked for no kick from the moment that a queue is looked at until all that was taken from it
//! is begun and what was done at once is answered, and is interrupted once for all that was answered in one turn of the
//! event loop. What makes a turn long enough for this to matter is `vmm_virtio::Patience`.
//!
//! # Reset
//! No request may touch the guest's memory after a reset. Requests that the host has not begun are cancelled; those that
//! it has begun are waited for, without a limit of our own, because nothing can take a page back from a disk that is
//! writing to it. There are at most [`IN_FLIGHT`], so it takes what the host's storage takes for these, and if that hangs
//! (a network file system without its server), the virtual CPU that has reset the device hangs as well. The event loop
//! and the other devices go on, unless the loop had just been told of this disk and waits for its turn.
//!
//! # Threads
//! A ring of `io_uring` is only for what it does without a thread of the kernel, as the last of these looks around every
//! five seconds for as long as the ring lives, and an idle machine is to be idle: reads of up to 2 MiB, and writes past
//! the host's cache (a file that was opened with `O_DIRECT`). What has been read already is copied in the event loop.
//! All else, and everything where there is no ring, is done by a thread of the disk's own, which sleeps while there is
//! nothing to do; a disk that is only read from a ring has none. What is left for threads of the kernel, two of a
//! machine at most: reads of more than 2 MiB of such a disk, and of a file system that cannot read without waiting.
//!
//! The disk's thread is started by [`Disk::new`]; it inherits its creator's seccomp filter, can be given a tighter one
//! ([`Disk::confined`]), and calls `preadv2`, `pwritev2`, `fdatasync`, `fallocate`, `futex` and `write` (to an eventfd).
//! The event loop calls `fstat` and `io_uring_enter`; so do virtual CPUs at a reset.

mod buffers;
mod configuration;
mod disk;
mod engine;
mod options;
mod request;
mod ring;
mod serve;
mod split;
mod statistics;
#[cfg(test)]
mod tests;
mod worker;

pub use disk::{Control, Disk};
pub use engine::{Begin, Engine, IN_FLIGHT};
pub use options::{DiskError, Options};
pub use statistics::{Counts, Statistics};
