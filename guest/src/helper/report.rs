//! What workers, and the processes they make, tell the agent.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::unix::pipe;

use super::CommandError;

/// One line of a report.
#[derive(Debug, Serialize, Deserialize)]
pub enum Report {
    /// The container's process exists, under this id in the agent's namespace.
    Pid(i32),
    /// The container is made and waits for its start.
    Created,
    /// The command is about to be executed: what follows is either the end or a failure.
    Executing,
    /// The command cannot be executed.
    Command(CommandError),
    /// The work failed, with every cause in one line.
    Error(String),
    /// A detail that a library logged as an error on its way.
    Log(String),
}

/// The writing end.
#[derive(Debug)]
pub(super) struct Reporter {
    pipe: OwnedFd,
}

impl Reporter {
    pub(super) fn new(pipe: OwnedFd) -> Self {
        Self { pipe }
    }

    pub(super) fn send(&self, report: &Report) {
        write_line(self.pipe.as_fd(), report);
    }

    pub(super) fn error(&self, message: &str) {
        self.send(&Report::Error(message.to_owned()));
    }

    /// A second handle, for the process that the worker makes.
    pub(super) fn duplicate(&self) -> io::Result<Self> {
        Ok(Self {
            pipe: self.pipe.try_clone()?,
        })
    }

    pub(super) fn raw(&self) -> i32 {
        self.pipe.as_raw_fd()
    }

    /// Sends what libraries log as errors too: libcontainer logs causes that it does not carry
    /// in its errors.
    pub(super) fn log_errors(&self) {
        let Ok(pipe) = self.pipe.try_clone() else {
            return;
        };
        let log = Log(File::from(pipe));
        // Fails only if there is a subscriber already; the worker has just been forked.
        let _ = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::ERROR)
            .with_writer(Mutex::new(log))
            .without_time()
            .with_target(false)
            .with_level(false)
            .with_ansi(false)
            .try_init();
    }
}

/// Writes one line in one piece: it is shorter than what a pipe takes at once (4 KiB), or else
/// cut so that it is.
fn write_line(pipe: BorrowedFd<'_>, report: &Report) {
    let Ok(mut line) = serde_json::to_vec(report) else {
        return;
    };
    line.push(b'\n');
    // The agent has gone if this fails, and with it everyone who could be told.
    let _ = rustix::io::write(pipe, &line);
}

struct Log(File);

/// Longest detail that is passed on.
const LOG_MAX: usize = 1500;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(LOG_MAX)]);
        write_line(self.0.as_fd(), &Report::Log(text.trim().to_owned()));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Longest line that is read: a hostile image can make a message long (a path), not endless.
const LINE_MAX: u64 = 64 * 1024;

/// The reading end, in the agent.
#[derive(Debug)]
pub struct ReportReader {
    lines: BufReader<pipe::Receiver>,
}

impl ReportReader {
    pub(super) fn new(pipe: OwnedFd) -> io::Result<Self> {
        let pipe = pipe::Receiver::from_owned_fd(pipe)?;
        Ok(Self {
            lines: BufReader::new(pipe),
        })
    }

    /// The next line; `None` when every writer has closed.
    ///
    /// # Errors
    /// When the pipe cannot be read or holds something else than a report.
    pub async fn next(&mut self) -> io::Result<Option<Report>> {
        let mut line = Vec::new();
        let mut limited = (&mut self.lines).take(LINE_MAX);
        if limited.read_until(b'\n', &mut line).await? == 0 {
            return Ok(None);
        }
        Ok(Some(serde_json::from_slice(&line)?))
    }
}
