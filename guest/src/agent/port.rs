//! The virtio-serial port that carries the link.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use cofferdam_protocol::LINK_PORT;
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::fs::{Mode, OFlags};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep};

use crate::syscalls::watch;

const PORTS: &str = "/sys/class/virtio-ports";

/// How long the port may take to appear: the device announces it after the driver has started.
const PATIENCE: Duration = Duration::from_secs(30);

const PAUSE: Duration = Duration::from_millis(1);

const NOW: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// Why there is no port.
#[derive(Debug, thiserror::Error)]
pub(super) enum PortError {
    #[error("none named {LINK_PORT} has appeared in {PORTS} within {PATIENCE:?}")]
    Missing,
    #[error("cannot open {path}: {source}")]
    Open { path: PathBuf, source: io::Error },
    #[error("cannot wait for the host at {path}: {source}")]
    Wait { path: PathBuf, source: io::Error },
}

/// A port as a byte stream.
#[derive(Debug)]
pub(super) struct Port(AsyncFd<OwnedFd>);

/// Waits for the port and for the host to be at its other end, and opens it.
pub(super) async fn open() -> Result<Port, PortError> {
    let end = Instant::now() + PATIENCE;
    let path = loop {
        match find() {
            Some(path) => break path,
            None if Instant::now() < end => sleep(PAUSE).await,
            None => return Err(PortError::Missing),
        }
    };
    let failed = |source| PortError::Open {
        path: path.clone(),
        source,
    };
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let fd = rustix::fs::open(&path, flags, Mode::empty()).map_err(|errno| failed(errno.into()))?;
    // It may take as long as it likes: a guest may be booted long before it is used.
    connected(&fd).await.map_err(|source| PortError::Wait {
        path: path.clone(),
        source,
    })?;
    watch(fd).map(Port).map_err(failed)
}

/// Waits for the host. Until it is there a port reads as ended, which tokio takes for final: so it is watched through
/// a set of its own that wakes at changes only.
async fn connected(fd: &OwnedFd) -> io::Result<()> {
    let changes = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let events = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
    epoll::add(&changes, fd, epoll::EventData::new_u64(0), events)?;
    let changes = watch(changes)?;
    while is_hung_up(fd) {
        let mut changed = changes.readable().await?;
        let mut events = Vec::with_capacity(1);
        // Takes the change away; what counts is how things stand afterwards.
        epoll::wait(changes.get_ref(), spare_capacity(&mut events), Some(&NOW))?;
        changed.clear_ready();
    }
    Ok(())
}

fn find() -> Option<PathBuf> {
    for entry in fs::read_dir(PORTS).ok()?.flatten() {
        let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if name.trim_end() == LINK_PORT {
            let path = Path::new("/dev").join(entry.file_name());
            return path.exists().then_some(path);
        }
    }
    None
}

fn is_hung_up(fd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    matches!(poll(&mut fds, Some(&NOW)), Ok(1..)) && fds[0].revents().contains(PollFlags::HUP)
}

impl AsyncRead for Port {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(cx))?;
            let target = buf.initialize_unfilled();
            if let Ok(read) = ready.try_io(|fd| Ok(rustix::io::read(fd.as_fd(), target)?)) {
                buf.advance(read?);
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Port {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_write_ready(cx))?;
            if let Ok(written) = ready.try_io(|fd| Ok(rustix::io::write(fd.as_fd(), buf)?)) {
                return Poll::Ready(written);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A port has one state for both directions; it closes with the agent.
        Poll::Ready(Ok(()))
    }
}
