//! Talking to the VMM.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tokio::io::unix::AsyncFd;
use tokio::sync::Mutex;
use vmm_control::{ChannelError, Device, Handle, Reply, Request, Stats, Times};

/// How long the VMM may take to answer: it does nothing that waits for a guest.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why there was no good answer.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The VMM has hung up.
    #[error("is gone")]
    HungUp,
    /// It is there but does not answer.
    #[error("does not answer within {} s", PATIENCE.as_secs())]
    Silent,
    /// It has refused.
    #[error("refuses: {0}")]
    Refused(String),
    /// What came is not an answer.
    #[error("cannot be talked to")]
    Channel(#[source] ChannelError),
}

/// Descriptors that go with a request.
#[derive(Debug, Default)]
pub struct Descriptors(Vec<OwnedFd>);

impl Descriptors {
    /// Adds one; its number in the request.
    pub fn add(&mut self, descriptor: OwnedFd) -> Handle {
        self.0.push(descriptor);
        // Checked by the channel: more than it takes are refused there.
        Handle(u16::try_from(self.0.len() - 1).unwrap_or(u16::MAX))
    }

    fn borrowed(&self) -> Vec<BorrowedFd<'_>> {
        self.0.iter().map(AsFd::as_fd).collect()
    }
}

/// The driver's end of a VMM's control socket.
#[derive(Debug)]
pub struct Control {
    socket: Mutex<AsyncFd<OwnedFd>>,
}

impl Control {
    /// A new one, and the VMM's end.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = packets()?;
        let socket = Mutex::new(ours);
        Ok((Self { socket }, theirs))
    }

    /// Asks for something that is done or not.
    pub async fn tell(&self, request: &Request, with: &Descriptors) -> Result<(), ControlError> {
        match self.ask(request, with).await? {
            Reply::Done => Ok(()),
            Reply::Failed(reason) => Err(ControlError::Refused(reason)),
            Reply::Booted(_) | Reply::Plugged(_) | Reply::Stats(_) => Err(something_else()),
        }
    }

    /// Lets the virtual CPUs go.
    pub async fn boot(&self) -> Result<Times, ControlError> {
        match self.ask(&Request::Boot, &Descriptors::default()).await? {
            Reply::Booted(times) => Ok(times),
            Reply::Failed(reason) => Err(ControlError::Refused(reason)),
            Reply::Done | Reply::Plugged(_) | Reply::Stats(_) => Err(something_else()),
        }
    }

    /// Plugs a device in: where it is.
    pub async fn plug(&self, device: Device, with: &Descriptors) -> Result<u8, ControlError> {
        match self.ask(&Request::Plug(device), with).await? {
            Reply::Plugged(place) => Ok(place),
            Reply::Failed(reason) => Err(ControlError::Refused(reason)),
            Reply::Done | Reply::Booted(_) | Reply::Stats(_) => Err(something_else()),
        }
    }

    /// What was counted.
    pub async fn stats(&self) -> Result<Stats, ControlError> {
        match self.ask(&Request::Stats, &Descriptors::default()).await? {
            Reply::Stats(stats) => Ok(*stats),
            Reply::Failed(reason) => Err(ControlError::Refused(reason)),
            Reply::Done | Reply::Booted(_) | Reply::Plugged(_) => Err(something_else()),
        }
    }

    /// Asks for something and waits for the answer.
    async fn ask(&self, request: &Request, with: &Descriptors) -> Result<Reply, ControlError> {
        let socket = self.socket.lock().await;
        let exchange = async {
            retry(&socket, true, |socket| {
                vmm_control::send(socket, request, &with.borrowed())
            })
            .await?;
            retry(&socket, false, |socket| {
                vmm_control::receive::<Reply>(socket)
            })
            .await
        };
        let answer = tokio::time::timeout(PATIENCE, exchange)
            .await
            .map_err(|_elapsed| ControlError::Silent)?;
        match answer {
            Ok(Some(received)) => Ok(received.message),
            Ok(None) => Err(ControlError::HungUp),
            Err(ChannelError::Socket {
                source: Errno::PIPE | Errno::CONNRESET,
                ..
            }) => Err(ControlError::HungUp),
            Err(error) => Err(ControlError::Channel(error)),
        }
    }
}

fn something_else() -> ControlError {
    ControlError::Refused("it answers something else".to_owned())
}

/// Two ends of a socket for messages; the first does not block.
pub fn packets() -> io::Result<(AsyncFd<OwnedFd>, OwnedFd)> {
    let (ours, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    #[expect(
        deprecated,
        reason = "unsound only for types that change their descriptor, which an OwnedFd can't"
    )]
    let ours = AsyncFd::new(ours)?;
    Ok((ours, theirs))
}

/// Has a call wait until the socket is ready for it.
pub async fn retry<T>(
    socket: &AsyncFd<OwnedFd>,
    write: bool,
    mut call: impl FnMut(BorrowedFd<'_>) -> Result<T, ChannelError>,
) -> Result<T, ChannelError> {
    loop {
        let ready = if write {
            socket.writable().await
        } else {
            socket.readable().await
        };
        let mut ready = ready.map_err(|error| {
            let errno = error.raw_os_error().map(Errno::from_raw_os_error);
            ChannelError::Socket {
                action: if write { "send" } else { "receive" },
                source: errno.unwrap_or(Errno::IO),
            }
        })?;
        match call(socket.get_ref().as_fd()) {
            Err(ChannelError::Socket {
                source: Errno::WOULDBLOCK,
                ..
            }) => ready.clear_ready(),
            answer => return answer,
        }
    }
}

/// The number of a descriptor on a command line.
pub fn number(descriptor: &OwnedFd) -> String {
    descriptor.as_raw_fd().to_string()
}
