//! What a hostile guest, file or peer can feed the monitor: one function for each target, which takes any bytes.
//!
//! A target's bytes are a script, see [`script`]: what the driver writes to registers, rings and memory, and what is
//! done behind the device. Whatever they say, nothing panics, and a device works again after a reset; that nothing hangs
//! or takes memory without end is the fuzzer's to see (`-timeout`, `-rss_limit_mb`). The devices are served by the
//! script's own thread, so that the same bytes do the same again.

pub mod balloon;
pub mod blk;
pub mod boot;
pub mod console;
pub mod control;
pub mod fs;
pub mod input;
pub mod mem;
pub mod net;
pub mod pmem;
pub mod queue;
pub mod rng;
pub mod script;
pub mod vsock;

/// What Rust's own start of a program does and the fuzzer's does not: writing to somebody who is gone is an error.
#[expect(unsafe_code, reason = "signal by libc")]
pub fn begin() {
    // SAFETY: no handler is installed.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// What takes the fuzzer's bytes.
pub type Target = fn(&[u8]);

/// The targets by their names.
pub const TARGETS: [(&str, Target); 12] = [
    ("queue", queue::run),
    ("blk", blk::run),
    ("net", net::run),
    ("vsock", vsock::run),
    ("console", console::run),
    ("balloon", balloon::run),
    ("mem", mem::run),
    ("pmem", pmem::run),
    ("rng", rng::run),
    ("fs", fs::run),
    ("boot", boot::run),
    ("control", control::run),
];
