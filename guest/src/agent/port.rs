//! What carries the link: a virtio-serial port, or a vsock stream where the kernel command line says so.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use cofferdam_protocol::{LINK_PORT, LINK_VSOCK};
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::fs::{Mode, OFlags};
use rustix::net::sockopt;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep};

use crate::syscalls::{connect_to_host, watch};

const PORTS: &str = "/sys/class/virtio-ports";

const COMMAND_LINE: &str = "/proc/cmdline";

/// How long the port may take to appear: the device announces it after the driver has started. How long the host may take
/// to answer on vsock.
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
    #[error("cannot read {COMMAND_LINE}: {0}")]
    CommandLine(#[source] io::Error),
    #[error("the kernel command line has {LINK_VSOCK}{0}, which is no port")]
    Number(String),
    #[error("cannot connect to port {port} of the host over vsock: {source}")]
    Connect { port: u32, source: io::Error },
}

/// A port or socket as a byte stream.
#[derive(Debug)]
pub(super) struct Port(AsyncFd<OwnedFd>);

/// Waits until the host is at the other end of the link.
pub(super) async fn open() -> Result<Port, PortError> {
    let words = fs::read_to_string(COMMAND_LINE).map_err(PortError::CommandLine)?;
    match vsock(&words)? {
        Some(port) => connect(port).await,
        None => open_port().await,
    }
}

/// The host's port, where the link is to be a vsock stream.
fn vsock(words: &str) -> Result<Option<u32>, PortError> {
    let mut words = words.split_ascii_whitespace();
    let Some(number) = words.find_map(|word| word.strip_prefix(LINK_VSOCK)) else {
        return Ok(None);
    };
    let port = number.parse();
    port.map(Some)
        .map_err(|_| PortError::Number(number.to_owned()))
}

/// Connects to the host. It refuses those who come again: then this guest has served its host.
async fn connect(port: u32) -> Result<Port, PortError> {
    let failed = |source| PortError::Connect { port, source };
    let socket = connect_to_host(port, PATIENCE)
        .and_then(watch)
        .map_err(failed)?;
    // Only then does its error tell how it went.
    drop(socket.writable().await.map_err(failed)?);
    sockopt::socket_error(&socket)
        .and_then(|done| done)
        .map_err(|errno| failed(errno.into()))?;
    Ok(Port(socket))
}

/// Waits for the port and for the host to be at its other end, and opens it.
async fn open_port() -> Result<Port, PortError> {
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
        // A port has one state for both directions; it closes with the agent, and so does a socket.
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_says_where_the_link_is() {
        let find = |words: &str| vsock(words).map_err(|error| error.to_string());
        assert_eq!(find("console=ttyS0 quiet\n"), Ok(None));
        assert_eq!(
            find("quiet cofferdam.link=vsock:1024 panic=-1\n"),
            Ok(Some(1024))
        );
        assert_eq!(find("cofferdam.link=vsock:0"), Ok(Some(0)));
        for bad in ["", "-1", "one", "4294967296"] {
            let words = format!("quiet {LINK_VSOCK}{bad}");
            let error = find(&words).expect_err("no port");
            assert!(
                error.ends_with(&format!(":{bad}, which is no port")),
                "{error}"
            );
        }
    }
}
