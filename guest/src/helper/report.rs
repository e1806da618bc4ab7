//! What workers, and the processes they make, tell the agent.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::unix::pipe;

use super::command::CommandError;

/// One line of a report: a letter that says which, and the rest.
///
/// Not JSON: under emulation every piece of code that runs for the first time has to be
/// translated, and a container is usually the first of its guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// The container's process exists, under this id in the agent's namespace.
    Pid(i32),
    /// The container is made and waits for its start.
    Created,
    /// The command is about to be executed: what follows is either the end or a failure.
    Executing,
    /// There is no such command.
    CommandMissing(String),
    /// The command cannot be executed.
    CommandRefused(String),
    /// The work failed, with every cause in one line.
    Error(String),
    /// A detail that a library logged as an error on its way.
    Log(String),
}

impl From<CommandError> for Report {
    fn from(error: CommandError) -> Self {
        if error.problem.is_missing() {
            Self::CommandMissing(error.to_string())
        } else {
            Self::CommandRefused(error.to_string())
        }
    }
}

impl Report {
    fn encode(&self) -> Vec<u8> {
        let (letter, text) = match self {
            Self::Pid(pid) => (b'p', pid.to_string()),
            Self::Created => (b'c', String::new()),
            Self::Executing => (b'x', String::new()),
            Self::CommandMissing(text) => (b'm', text.clone()),
            Self::CommandRefused(text) => (b'r', text.clone()),
            Self::Error(text) => (b'e', text.clone()),
            Self::Log(text) => (b'l', text.clone()),
        };
        let mut line = Vec::with_capacity(text.len() + 2);
        line.push(letter);
        let text = text.into_bytes().into_iter().take(TEXT_MAX);
        line.extend(text.map(|byte| if byte == b'\n' { b' ' } else { byte }));
        line.push(b'\n');
        line
    }

    fn decode(line: &[u8]) -> Option<Self> {
        let (letter, text) = line.strip_suffix(b"\n")?.split_first()?;
        let text = String::from_utf8_lossy(text);
        Some(match letter {
            b'p' => Self::Pid(text.parse().ok()?),
            b'c' => Self::Created,
            b'x' => Self::Executing,
            b'm' => Self::CommandMissing(text.into_owned()),
            b'r' => Self::CommandRefused(text.into_owned()),
            b'e' => Self::Error(text.into_owned()),
            b'l' => Self::Log(text.into_owned()),
            _ => return None,
        })
    }
}

/// Longest text of a line. A line goes into the pipe in one piece, however many processes write
/// to it, if it is shorter than 4096 bytes.
const TEXT_MAX: usize = 4000;

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

fn write_line(pipe: BorrowedFd<'_>, report: &Report) {
    // The agent has gone if this fails, and with it everyone who could be told.
    let _ = rustix::io::write(pipe, &report.encode());
}

struct Log(File);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        write_line(self.0.as_fd(), &Report::Log(text.trim().to_owned()));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Longest line that is read.
const LINE_MAX: u64 = TEXT_MAX as u64 + 2;

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
        let report = Report::decode(&line).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Some(report))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_back_as_they_were() {
        for report in [
            Report::Pid(4711),
            Report::Created,
            Report::Executing,
            Report::CommandMissing("exec: \"x\"".to_owned()),
            Report::CommandRefused(String::new()),
            Report::Error("a: b".to_owned()),
            Report::Log("ü".to_owned()),
        ] {
            assert_eq!(Report::decode(&report.encode()), Some(report));
        }
        let long = Report::Error("two\nlines".repeat(1000)).encode();
        assert!(long.len() < 4096);
        assert!(matches!(Report::decode(&long), Some(Report::Error(_))));
        for bad in [&b""[..], b"\n", b"p\n", b"z\n", b"c"] {
            assert_eq!(Report::decode(bad), None, "{bad:?}");
        }
    }
}
