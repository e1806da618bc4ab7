//! A process's stdio on the host.

mod host;
mod log;
mod pump;

use std::os::fd::OwnedFd;

pub(crate) use host::End;
pub use host::HostIo;
pub use log::{Log, LogRecord, LogStream, parse_record};
pub(crate) use pump::{Progress, Sink, input, output, reached, split, stalled};

/// Where a process reads and writes on the host.
#[derive(Debug)]
pub enum Stdio {
    /// Separate streams.
    Pipes {
        /// Read until its end; nothing: the process's stdin is empty.
        stdin: Option<OwnedFd>,
        /// Nothing: `/dev/null`.
        stdout: Option<OwnedFd>,
        /// Nothing: `/dev/null`.
        stderr: Option<OwnedFd>,
    },
    /// As `Pipes`, with open files that nobody else uses: they are put into non-blocking mode and not opened anew, which
    /// would lose what a FIFO remembers of its writers, and one open for both directions never lacks a reader. With a
    /// terminal: what is typed and what is shown.
    Own {
        /// Read until its end; nothing: the process's stdin is empty.
        stdin: Option<OwnedFd>,
        /// Nothing: `/dev/null`.
        stdout: Option<OwnedFd>,
        /// Nothing: `/dev/null`.
        stderr: Option<OwnedFd>,
    },
    /// A terminal in the guest, connected with these. The line discipline is the guest's: a terminal on this side has
    /// to be in raw mode.
    Terminal {
        /// What is typed.
        input: OwnedFd,
        /// What is shown.
        output: OwnedFd,
    },
    /// stdin is empty, the rest is logged. With a terminal both streams are `stdout`.
    Log(Log),
}
