//! The engine's side of `--console-socket`: it receives the master of the container's terminal.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use rustix::event::{PollFd, PollFlags};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::termios::{Winsize, tcgetwinsize, tcsetwinsize};

use crate::pipes::{Reader, write_all};
use crate::reaper::poll_until;

/// A listening console socket.
#[derive(Debug)]
pub struct ConsoleSocket {
    listener: UnixListener,
    path: PathBuf,
    deadline: Instant,
}

impl ConsoleSocket {
    /// Listen on `path`.
    pub fn listen(path: &Path, deadline: Instant) -> Result<Self> {
        let listener =
            UnixListener::bind(path).with_context(|| format!("listen on {}", path.display()))?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            deadline,
        })
    }

    /// The path as an argument.
    pub fn path(&self) -> String {
        self.path.to_string_lossy().into_owned()
    }

    /// Receive the terminal.
    pub fn accept(&self) -> Result<Terminal> {
        ensure!(
            poll_until(
                &mut [PollFd::new(&self.listener, PollFlags::IN)],
                self.deadline
            )?,
            "nobody connected to the console socket"
        );
        let (stream, _) = self
            .listener
            .accept()
            .context("accept on the console socket")?;
        ensure!(
            poll_until(&mut [PollFd::new(&stream, PollFlags::IN)], self.deadline)?,
            "nothing was sent over the console socket"
        );
        let mut data = [0u8; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        recvmsg(
            &stream,
            &mut [IoSliceMut::new(&mut data)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )
        .context("receive from the console socket")?;
        let mut descriptors: Vec<OwnedFd> = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(passed) = message {
                descriptors.extend(passed);
            }
        }
        ensure!(
            descriptors.len() == 1,
            "{} descriptors came over the console socket, not 1",
            descriptors.len()
        );
        let master = descriptors.remove(0);
        ensure!(
            rustix::termios::isatty(&master),
            "the descriptor from the console socket is no terminal"
        );
        let copy = master.try_clone().context("duplicate the terminal")?;
        Ok(Terminal {
            output: Reader::new(copy, self.deadline),
            master,
            deadline: self.deadline,
        })
    }
}

/// The master side of a terminal.
#[derive(Debug)]
pub struct Terminal {
    master: OwnedFd,
    deadline: Instant,
    /// What the container writes.
    pub output: Reader,
}

impl Terminal {
    /// Type these characters.
    pub fn type_text(&self, text: &str) -> Result<()> {
        write_all(&self.master, text.as_bytes(), self.deadline)
    }

    /// Change the size, as an engine does when its window changes.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&self.master, size).context("set the terminal's size")
    }

    /// Rows and columns.
    pub fn size(&self) -> Result<(u16, u16)> {
        let size = tcgetwinsize(&self.master).context("get the terminal's size")?;
        Ok((size.ws_row, size.ws_col))
    }
}
