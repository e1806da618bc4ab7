//! The terminal of a process.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cofferdam_protocol::link::LinkStream;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Gid, Uid, fchown};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::net::UnixListener;
use tokio::time::timeout;

use super::BUFFER;
use super::output::Progress;
use crate::syscalls::watch;

/// The terminal is sent before the process is reported; this only bounds a defect.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the host may take nothing of what a process that has ended left behind.
const HOST_PATIENCE: std::time::Duration = std::time::Duration::from_millis(500);

/// More than the kernel holds between the two sides of a terminal.
const IN_FLIGHT: u64 = 256 * 1024;

/// A socket that takes the terminal of a process that is being made.
#[derive(Debug)]
pub struct ConsoleSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl ConsoleSocket {
    /// Listens at `path`.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn bind(path: PathBuf) -> io::Result<Self> {
        let listener = StdListener::bind(&path)?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener: UnixListener::from_std(listener)?,
            path,
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The terminal that was sent.
    ///
    /// # Errors
    /// When none is sent.
    pub async fn receive(self) -> io::Result<OwnedFd> {
        let received = timeout(PATIENCE, async {
            let (stream, _) = self.listener.accept().await?;
            stream.readable().await?;
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut name = [0; 64];
            let mut message = [io::IoSliceMut::new(&mut name)];
            recvmsg(&stream, &mut message, &mut control, RecvFlags::CMSG_CLOEXEC)?;
            control
                .drain()
                .find_map(|message| match message {
                    RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
                    _ => None,
                })
                .ok_or_else(|| io::Error::other("no terminal was sent"))
        });
        received.await?
    }
}

impl Drop for ConsoleSocket {
    fn drop(&mut self) {
        // The folder goes with the container; a leftover name harms nobody.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The controlling side of a terminal.
#[derive(Debug)]
pub struct Terminal {
    controller: Arc<AsyncFd<OwnedFd>>,
    progress: Arc<Progress>,
}

impl Terminal {
    /// Joins the terminal to `stream` in both directions and gives it to `owner`.
    ///
    /// # Errors
    /// When it cannot be used as a terminal.
    pub fn new(
        controller: OwnedFd,
        stream: Option<LinkStream>,
        owner: (u32, u32),
    ) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&controller, true)?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let terminal = ioctl_tiocgptpeer(&controller, flags)?;
        let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
        fchown(&terminal, Some(uid), Some(gid))?;
        let controller = Arc::new(watch(controller)?);
        let progress = Arc::new(Progress::default());
        let task = (Arc::clone(&controller), Arc::clone(&progress));
        tokio::spawn(async move {
            let (controller, progress) = task;
            run(&controller, stream, &progress).await;
            progress.end();
        });
        Ok(Self {
            controller,
            progress,
        })
    }

    /// Tells the terminal, and whoever is at it, its size.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn resize(&self, rows: u32, columns: u32) -> io::Result<()> {
        let clamp = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
        let size = Winsize {
            ws_row: clamp(rows),
            ws_col: clamp(columns),
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        Ok(tcsetwinsize(self.controller.get_ref(), size)?)
    }

    /// Waits until everything written to the terminal until now has been read; how much it was. A
    /// host that takes nothing is not waited for.
    pub(super) async fn total(&self) -> u64 {
        let start = self.progress.read();
        let mut before = start;
        loop {
            let all = self.progress.until(|| {
                let read = self.progress.read();
                // A background process may go on writing; what comes after this much is later.
                self.progress.is_ended() || read > start + IN_FLIGHT || !self.has_input()
            });
            let in_time = tokio::time::timeout(HOST_PATIENCE, all).await.is_ok();
            let read = self.progress.read();
            if in_time || read == before {
                return read;
            }
            before = read;
        }
    }

    /// Asks the terminal itself: the kernel first moves what is still on its way inside.
    fn has_input(&self) -> bool {
        let mut fds = [PollFd::new(self.controller.get_ref(), PollFlags::IN)];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // Closed without input counts too: the pump is about to see the end.
        matches!(poll(&mut fds, Some(&now)), Ok(1..))
    }
}

async fn run(controller: &AsyncFd<OwnedFd>, stream: Option<LinkStream>, progress: &Progress) {
    let Some(stream) = stream else {
        // Read all the same: a process must not be stopped by a terminal nobody looks at.
        let mut buffer = vec![0; BUFFER];
        while let Ok(bytes @ 1..) = read(controller, &mut buffer).await {
            progress.add_read(bytes);
        }
        return;
    };
    let (from_host, mut to_host) = split(stream);
    tokio::select! {
        () = output(controller, &mut to_host, progress) => {}
        // Never ends by itself: a host that sends no more still wants to see.
        () = input(controller, from_host) => {}
    }
    // A host that has gone needs no end of file.
    let _ = to_host.shutdown().await;
}

async fn read(controller: &AsyncFd<OwnedFd>, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        let mut ready = controller.readable().await?;
        if let Ok(done) = ready.try_io(|fd| Ok(rustix::io::read(fd.as_fd(), &mut *buffer)?)) {
            return done;
        }
    }
}

async fn output(
    controller: &AsyncFd<OwnedFd>,
    to_host: &mut WriteHalf<LinkStream>,
    progress: &Progress,
) {
    let mut buffer = vec![0; BUFFER];
    // An error is how a terminal says that nobody has it open any more.
    while let Ok(bytes @ 1..) = read(controller, &mut buffer).await {
        progress.add_read(bytes);
        if to_host.write_all(&buffer[..bytes]).await.is_err() {
            return;
        }
    }
}

async fn input(controller: &AsyncFd<OwnedFd>, mut from_host: ReadHalf<LinkStream>) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(bytes @ 1..) = from_host.read(&mut buffer).await {
        let mut rest = &buffer[..bytes];
        while !rest.is_empty() {
            let Ok(mut ready) = controller.writable().await else {
                break;
            };
            match ready.try_io(|fd| Ok(rustix::io::write(fd.as_fd(), rest)?)) {
                Ok(Ok(written)) => rest = &rest[written..],
                Ok(Err(_)) => break,
                Err(_) => {}
            }
        }
    }
    std::future::pending().await
}
