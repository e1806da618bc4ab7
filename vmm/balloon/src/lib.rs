//! Giving memory back: virtio-balloon (virtio 1.3, 5.5).
//!
//! A guest gives memory back in two ways. It *inflates* its balloon to the size that the machine asks for, and takes
//! pages out of it when that size falls, or when it runs out of memory otherwise. And it *reports* what is free, by
//! itself and without losing it: a page that was reported and is used again is there at once, full of zeros.
//!
//! ```text
//!            activate
//!   idle ──────────────▶ active ──┬─ inflate:    a list of pages ─▶ Discard ─▶ given back
//!    ▲                     │      ├─ deflate:    a list of pages ─▶ given back (they come by being touched)
//!    │                     │      ├─ reporting:  ranges ──────────▶ Discard ─▶ given back
//!    └──────── reset ──────┘      └─ statistics: kept until somebody asks ────▶ given back, and comes anew
//! ```
//!
//! What "to discard" means is the machine's: see [`Discard`]. Lists and ranges are sorted and put together first, so
//! that neighbours cost one call. One event discards at most 2048 pages of lists or 64 MiB of ranges; a longer request
//! is gone on with at the next turn of the loop.
//!
//! **Queues.** By the standard the fifth queue is for reports even if there are no others between; Linux has counted
//! only those that it uses for most of its life. Both are understood: see the private `Roles`.
//!
//! **Poison.** A guest whose free pages hold a pattern says so (5.5.6.6) and would miss it in pages that were
//! discarded: its reports are answered and nothing is done. Pages full of zeros are the pattern 0, and fine.

mod device;
mod discard;
mod handle;
mod ranges;
mod roles;
mod serve;
mod statistics;

pub use device::{Balloon, Setup};
pub use discard::Discard;
pub use handle::{Counts, Handle};
pub use statistics::Statistics;

/// What the balloon counts in (5.5.6).
const PAGE: u64 = 4096;
