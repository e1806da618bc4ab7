//! The test host: a disposable machine with KVM, for tests that this machine cannot run itself.
//!
//! QEMU emulates a machine with AMD's virtualization; its kernel is Debian's, so `/dev/kvm`, vhost, tun and control
//! groups are real to what runs in it. Its files are this machine's own, seen through a share that is read only, with
//! memory on top that takes what is written. One folder is shared writable for results.
//!
//! ```text
//!   testhost (this process) ── status, job ──▶ port 1 ┐
//!      │   │  ◀──────────────────── stdout ── port 2  │ QEMU ── guest/init, guest/enter, the command
//!      │   │  ◀──────────────────── stderr ── port 3  │  │ │
//!      │   │  ◀────────────── kernel's log ── serial  ┘  │ │
//!      │   └ file server of `/`, read only ◀─────────────┘ │ vhost-user
//!      └──── file server of the results  ◀─────────────────┘
//! ```
//!
//! All three processes die with the thread that started them, and nothing of them has a name on disk: any number of
//! test hosts may run side by side, and a killed one leaves nothing.

mod error;
mod host;
mod images;
mod job;
mod qemu;
mod serve;
mod share;

pub use error::Error;
pub use host::{Config, Host};
pub use images::Images;
pub use job::{Job, Terminal};
pub use serve::{Served, serve};
