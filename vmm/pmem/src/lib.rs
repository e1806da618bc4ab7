//! Images in memory that machines share: virtio-pmem (virtio 1.3, 5.19).
//!
//! An [`Image`] is a file that is mapped once, shared and read-only. The machine puts the mapping into the guest as a
//! memory slot with `KVM_MEM_READONLY` at an address of its choice, and plugs in a [`Pmem`] that tells the driver where.
//! The guest mounts it with DAX: its reads are loads from the host's page cache, one copy for all machines.
//!
//! ```text
//!   file ──mmap──▶ Image ──memory slot──▶ guest's physical memory
//!                                           ▲ start, size (configuration)
//!   idle ──activate──▶ active ──flush: ok──▶ active ──reset──▶ idle
//! ```
//!
//! The device itself has little to do: nothing can be written, so a flush is done when it is asked for.
//!
//! # A file that shrinks
//! Pages that a mapped file has lost raise `SIGBUS` in a thread that touches them *from user space*. Nothing in this
//! crate does, and the mapping is not part of the guest's memory that devices see ([`vmm_virtio::Memory`]): a chain of
//! descriptors that points into it is refused like any outside of memory. What the kernel touches in our name fails
//! instead of raising a signal: a system call with `EFAULT`, and so does `KVM_RUN` when it is the guest that reads such a
//! page. The machine then knows that the guest can't go on and says so; the process lives. A test has the kernel read
//! from a mapping whose file is gone.
//!
//! What is behind the end of the file up to the next multiple of [`ALIGNMENT`] is memory of our own, all zeros, and
//! never fails.

mod device;
mod image;

pub use device::{Counts, Pmem, Statistics};
pub use image::{ALIGNMENT, Image, MapError};
