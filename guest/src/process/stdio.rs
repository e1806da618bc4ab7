//! The stdio of a process without a terminal: pipes to and from the link.

use std::io;
use std::os::fd::OwnedFd;

use cofferdam_protocol::link::LinkStream;
use rustix::fs::{Gid, Uid, fchown};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::task::AbortHandle;

use super::BUFFER;
use super::output::Output;
use crate::helper::Stdio;

/// Bytes a pipe holds: a writer is not stopped by each round trip of the link.
const PIPE: usize = 256 * 1024;

/// The streams that carry a process's stdio; those it does not have are /dev/null.
#[derive(Debug, Default)]
pub struct Ends {
    /// From the host.
    pub stdin: Option<LinkStream>,
    /// To the host.
    pub stdout: Option<LinkStream>,
    /// To the host.
    pub stderr: Option<LinkStream>,
}

/// The guest's ends of the pipes, before anything moves.
#[derive(Debug)]
pub struct Pipes {
    stdin: Option<(pipe::Sender, LinkStream)>,
    stdout: Option<(pipe::Receiver, LinkStream)>,
    stderr: Option<(pipe::Receiver, LinkStream)>,
}

/// The pipes of a process that runs.
#[derive(Debug, Default)]
pub(super) struct Running {
    pub(super) stdin: Option<AbortHandle>,
    pub(super) stdout: Option<Output>,
    pub(super) stderr: Option<Output>,
}

impl Pipes {
    /// Makes the pipes for `ends`. The process's ends belong to `owner`, who may open
    /// /dev/stdout then, as with runc.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn new(ends: Ends, owner: (u32, u32)) -> io::Result<(Self, Stdio)> {
        let mut stdio = Stdio::null()?;
        let mut pipes = Self {
            stdin: None,
            stdout: None,
            stderr: None,
        };
        if let Some(stream) = ends.stdin {
            let (read, write) = pair(owner)?;
            stdio.stdin = read;
            pipes.stdin = Some((pipe::Sender::from_owned_fd(write)?, stream));
        }
        if let Some(stream) = ends.stdout {
            let (read, write) = pair(owner)?;
            stdio.stdout = write;
            pipes.stdout = Some((pipe::Receiver::from_owned_fd(read)?, stream));
        }
        if let Some(stream) = ends.stderr {
            let (read, write) = pair(owner)?;
            stdio.stderr = write;
            pipes.stderr = Some((pipe::Receiver::from_owned_fd(read)?, stream));
        }
        Ok((pipes, stdio))
    }

    /// Starts to move bytes.
    pub(super) fn run(self) -> Running {
        let output = |(pipe, stream)| Output::new(pipe, stream);
        Running {
            stdin: self
                .stdin
                .map(|(pipe, stream)| tokio::spawn(feed(stream, pipe)).abort_handle()),
            stdout: self.stdout.map(output),
            stderr: self.stderr.map(output),
        }
    }
}

fn pair(owner: (u32, u32)) -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    // Smaller pipes work too, when the guest's limit for them is reached.
    let _ = fcntl_setpipe_size(&write, PIPE);
    // Both ends are one file.
    fchown(
        &write,
        Some(Uid::from_raw(owner.0)),
        Some(Gid::from_raw(owner.1)),
    )?;
    Ok((read, write))
}

/// Moves the host's input into the process until either side ends.
async fn feed(mut stream: LinkStream, mut pipe: pipe::Sender) {
    let mut buffer = vec![0; BUFFER];
    // The end of this function closes the pipe, which the process reads as its end of file, and
    // the stream, which tells the host that nobody reads any more.
    while let Ok(bytes @ 1..) = stream.read(&mut buffer).await {
        if pipe.write_all(&buffer[..bytes]).await.is_err() {
            return;
        }
    }
}
