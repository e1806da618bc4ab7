//! The agent's side of the helper.

use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::pipe::{PipeFlags, pipe_with};

use super::{DESCRIPTORS, ReportReader, Request};

/// Why a request could not be handed over.
#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    /// The request could not be put into a file.
    #[error("cannot write a request to the container helper")]
    Request(#[source] io::Error),
    /// The helper does not take it.
    #[error("cannot reach the container helper")]
    Send(#[source] io::Error),
}

/// The ends of a process's stdio that the process gets.
#[derive(Debug)]
pub struct Stdio {
    /// Standard input.
    pub stdin: OwnedFd,
    /// Standard output.
    pub stdout: OwnedFd,
    /// Standard error.
    pub stderr: OwnedFd,
}

impl Stdio {
    /// Nothing comes in and everything goes nowhere.
    ///
    /// # Errors
    /// When /dev/null cannot be opened.
    pub fn null() -> io::Result<Self> {
        let open = || File::options().read(true).write(true).open("/dev/null");
        Ok(Self {
            stdin: open()?.into(),
            stdout: open()?.into(),
            stderr: open()?.into(),
        })
    }
}

/// A request that is under way.
#[derive(Debug)]
pub struct Ordered {
    /// What becomes of it.
    pub report: ReportReader,
}

/// The helper, as the agent sees it.
#[derive(Debug)]
pub struct Helper {
    socket: OwnedFd,
}

impl Helper {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// Hands `request` to the helper.
    ///
    /// # Errors
    /// When the request cannot be written or the helper is gone.
    pub fn order(&self, request: &Request, stdio: &Stdio) -> Result<Ordered, HelperError> {
        let body = body(request).map_err(HelperError::Request)?;
        let (read, write) =
            pipe_with(PipeFlags::CLOEXEC).map_err(|errno| HelperError::Request(errno.into()))?;
        let descriptors = [
            body.as_fd(),
            write.as_fd(),
            stdio.stdin.as_fd(),
            stdio.stdout.as_fd(),
            stdio.stderr.as_fd(),
        ];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        let message = [IoSlice::new(b"r")];
        sendmsg(&self.socket, &message, &mut control, SendFlags::NOSIGNAL)
            .map_err(|errno| HelperError::Send(errno.into()))?;
        let report = ReportReader::new(read).map_err(HelperError::Request)?;
        Ok(Ordered { report })
    }
}

/// The request in memory that the helper can read; a message of its size fits no socket.
fn body(request: &Request) -> io::Result<OwnedFd> {
    let fd = memfd_create(Path::new("request"), MemfdFlags::CLOEXEC)?;
    let mut file = File::from(fd);
    file.write_all(&serde_json::to_vec(request)?)?;
    Ok(file.into())
}
