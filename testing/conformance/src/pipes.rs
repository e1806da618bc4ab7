//! Reading and writing descriptors with a deadline.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::reaper::poll_until;

/// The end of a pipe or terminal that a case reads.
#[derive(Debug)]
pub struct Reader {
    fd: OwnedFd,
    pending: Vec<u8>,
    deadline: Instant,
}

/// A pipe whose writing end goes to a process.
pub fn output(deadline: Instant) -> Result<(Reader, Stdio)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).context("make a pipe")?;
    Ok((Reader::new(read, deadline), Stdio::from(write)))
}

/// A pipe whose reading end goes to a process.
pub fn input(deadline: Instant) -> Result<(Writer, Stdio)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).context("make a pipe")?;
    Ok((
        Writer {
            fd: write,
            deadline,
        },
        Stdio::from(read),
    ))
}

impl Reader {
    /// Read `fd` until `deadline`.
    pub fn new(fd: OwnedFd, deadline: Instant) -> Self {
        Self {
            fd,
            pending: Vec::new(),
            deadline,
        }
    }

    /// More bytes into `pending`; `false` at the end of the stream.
    fn fill(&mut self) -> Result<bool> {
        let mut buffer = [0u8; 65536];
        if !poll_until(&mut [PollFd::new(&self.fd, PollFlags::IN)], self.deadline)? {
            bail!(
                "no end of the stream by the deadline; read so far: {:?}",
                self.tail()
            );
        }
        loop {
            match rustix::io::read(&self.fd, &mut buffer) {
                // A terminal whose other side is closed answers EIO.
                Ok(0) | Err(Errno::IO) => return Ok(false),
                Ok(count) => {
                    self.pending.extend_from_slice(&buffer[..count]);
                    return Ok(true);
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error).context("read a stream"),
            }
        }
    }

    fn tail(&self) -> String {
        let start = self.pending.len().saturating_sub(400);
        String::from_utf8_lossy(&self.pending[start..]).into_owned()
    }

    /// One line without its end.
    pub fn line(&mut self) -> Result<String> {
        let mut line = self.until("\n")?;
        line.truncate(line.trim_end().len());
        Ok(line)
    }

    /// Everything up to and including `needle`.
    pub fn until(&mut self, needle: &str) -> Result<String> {
        let wanted = needle.as_bytes();
        loop {
            if let Some(at) = self
                .pending
                .windows(wanted.len())
                .position(|window| window == wanted)
            {
                let rest = self.pending.split_off(at + wanted.len());
                let head = std::mem::replace(&mut self.pending, rest);
                return Ok(String::from_utf8_lossy(&head).into_owned());
            }
            if !self
                .fill()
                .with_context(|| format!("waiting for {needle:?}"))?
            {
                bail!(
                    "the stream ended before {needle:?}; read: {:?}",
                    self.tail()
                );
            }
        }
    }

    /// Throw away what comes until nothing has come for `time`; fails when that does not happen by the deadline.
    pub fn fall_silent(&mut self, time: Duration) -> Result<()> {
        while poll_until(
            &mut [PollFd::new(&self.fd, PollFlags::IN)],
            Instant::now() + time,
        )? {
            if Instant::now() >= self.deadline {
                bail!("the stream does not fall silent");
            }
            self.pending.clear();
            if !self.fill()? {
                bail!("the stream ended");
            }
        }
        self.pending.clear();
        Ok(())
    }

    /// Everything to the end of the stream.
    pub fn rest(&mut self) -> Result<Vec<u8>> {
        while self.fill()? {}
        Ok(std::mem::take(&mut self.pending))
    }

    /// `rest` as text.
    pub fn text(&mut self) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.rest()?).into_owned())
    }
}

/// The end of a pipe that a case writes.
#[derive(Debug)]
pub struct Writer {
    fd: OwnedFd,
    deadline: Instant,
}

impl Writer {
    /// Write all of `bytes`.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        write_all(&self.fd, bytes, self.deadline)
    }

    /// Write `text` and a newline.
    pub fn line(&mut self, text: &str) -> Result<()> {
        self.write(format!("{text}\n").as_bytes())
    }
}

/// Write all of `bytes` to `fd` before `deadline`.
pub fn write_all(fd: impl AsFd, mut bytes: &[u8], deadline: Instant) -> Result<()> {
    // Writes of at most PIPE_BUF bytes do not block once poll says there is room.
    const PIECE: usize = 4096;
    while !bytes.is_empty() {
        if !poll_until(&mut [PollFd::new(&fd, PollFlags::OUT)], deadline)? {
            bail!(
                "nobody reads the stream: {} bytes unwritten at the deadline",
                bytes.len()
            );
        }
        match rustix::io::write(&fd, &bytes[..bytes.len().min(PIECE)]) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(io::Error::from(error)).context("write a stream"),
        }
    }
    Ok(())
}
