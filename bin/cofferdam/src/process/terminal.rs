//! Terminals on the host's side. The line discipline is the guest's, so whatever stands here is raw.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context as _, Result};
use rustix::fs::{Mode, OFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, Termios, Winsize, tcgetattr, tcsetattr, tcsetwinsize};

/// Makes a terminal, sends its master to whoever listens on `socket` (as runc does), and answers with the other end.
pub fn console(socket: &Path, size: Option<(u16, u16)>) -> Result<OwnedFd> {
    let failed = "cannot make a terminal";
    let master =
        openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).context(failed)?;
    grantpt(&master).context(failed)?;
    unlockpt(&master).context(failed)?;
    let name = ptsname(&master, Vec::new()).context(failed)?;
    let slave = rustix::fs::open(
        &name,
        OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .context(failed)?;
    let mut mode = tcgetattr(&slave).context(failed)?;
    mode.make_raw();
    tcsetattr(&slave, OptionalActions::Now, &mode).context(failed)?;
    if let Some((rows, columns)) = size {
        tcsetwinsize(
            &slave,
            Winsize {
                ws_row: rows,
                ws_col: columns,
                ws_xpixel: 0,
                ws_ypixel: 0,
            },
        )
        .context(failed)?;
    }
    let stream = UnixStream::connect(socket)
        .with_context(|| format!("cannot connect to console socket {}", socket.display()))?;
    let descriptors = [master.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    // The name that runc sends along; receivers show it.
    sendmsg(
        &stream,
        &[IoSlice::new(b"/dev/ptmx")],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )
    .with_context(|| format!("cannot send the terminal to {}", socket.display()))?;
    Ok(slave)
}

/// The caller's own terminal in raw mode, until this is dropped.
#[derive(Debug)]
pub struct RawMode {
    terminal: OwnedFd,
    before: Termios,
}

impl RawMode {
    /// Sets it on stdin; nothing when that is no terminal.
    pub fn on_stdin() -> Result<Option<Self>> {
        let stdin = io::stdin();
        let Ok(before) = tcgetattr(stdin.as_fd()) else {
            return Ok(None);
        };
        let terminal = stdin
            .as_fd()
            .try_clone_to_owned()
            .context("cannot take the terminal")?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&terminal, OptionalActions::Now, &raw)
            .context("cannot set the terminal to raw mode")?;
        Ok(Some(Self { terminal, before }))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that was hung up needs no mode.
        let _hung_up = tcsetattr(&self.terminal, OptionalActions::Drain, &self.before);
    }
}
