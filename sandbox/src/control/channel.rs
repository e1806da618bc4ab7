//! Messages with descriptors over a Unix stream socket: a length (u32, little endian), then JSON. Descriptors travel
//! with the first byte of their message.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// No message is longer: a spec with a huge environment fits.
const MESSAGE_LIMIT: usize = 32 << 20;
/// Descriptors in one message, at most.
const DESCRIPTOR_LIMIT: usize = 8;
/// Received at once, at most.
const CHUNK: usize = 64 << 10;

/// What can go wrong between two of our processes.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The socket failed.
    #[error("cannot {action} a message")]
    Io {
        /// `send` or `receive`.
        action: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The other process is gone.
    #[error("the other side is gone")]
    Closed,
    /// Not what we say to each other.
    #[error("malformed message: {0}")]
    Malformed(String),
}

/// Bytes of one message being put together.
#[derive(Debug, Default)]
struct Inbox {
    bytes: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

impl Inbox {
    /// Bytes that are still missing for a whole message.
    fn missing(&self) -> Result<usize, ChannelError> {
        let Some(head) = self.bytes.first_chunk::<4>() else {
            return Ok(4 - self.bytes.len());
        };
        let length = u32::from_le_bytes(*head) as usize;
        if length > MESSAGE_LIMIT {
            return Err(ChannelError::Malformed(format!("{length} bytes")));
        }
        Ok((4 + length).saturating_sub(self.bytes.len()))
    }

    fn receive(&mut self, socket: BorrowedFd<'_>, flags: RecvFlags) -> io::Result<usize> {
        let wanted = self.missing().map_err(io::Error::other)?.min(CHUNK);
        let mut buffer = vec![0; wanted];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTOR_LIMIT))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let got = recvmsg(
            socket,
            &mut [IoSliceMut::new(&mut buffer)],
            &mut ancillary,
            flags | RecvFlags::CMSG_CLOEXEC,
        )?;
        if got.flags.contains(ReturnFlags::CTRUNC) {
            return Err(io::Error::other("descriptors were lost"));
        }
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.descriptors.extend(descriptors);
            }
        }
        if self.descriptors.len() > DESCRIPTOR_LIMIT {
            return Err(io::Error::other("too many descriptors"));
        }
        self.bytes.extend_from_slice(&buffer[..got.bytes]);
        Ok(got.bytes)
    }

    fn take<T: DeserializeOwned>(&mut self) -> Result<(T, Vec<OwnedFd>), ChannelError> {
        let bytes = std::mem::take(&mut self.bytes);
        let value = serde_json::from_slice(&bytes[4..])
            .map_err(|error| ChannelError::Malformed(error.to_string()))?;
        Ok((value, std::mem::take(&mut self.descriptors)))
    }
}

fn encode(message: &impl Serialize) -> Result<Vec<u8>, ChannelError> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message)
        .map_err(|error| ChannelError::Malformed(error.to_string()))?;
    let length = bytes.len() - 4;
    if length > MESSAGE_LIMIT {
        return Err(ChannelError::Malformed(format!("{length} bytes")));
    }
    bytes[..4].copy_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    Ok(bytes)
}

fn send_some(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTOR_LIMIT))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("too many descriptors"));
    }
    Ok(sendmsg(
        socket,
        &[IoSlice::new(bytes)],
        &mut ancillary,
        flags | SendFlags::NOSIGNAL,
    )?)
}

fn received(source: io::Error) -> ChannelError {
    match source.kind() {
        io::ErrorKind::ConnectionReset => ChannelError::Closed,
        _ => ChannelError::Io {
            action: "receive",
            source,
        },
    }
}

fn sent(source: io::Error) -> ChannelError {
    match source.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => ChannelError::Closed,
        _ => ChannelError::Io {
            action: "send",
            source,
        },
    }
}

/// The side of a command: blocking.
#[derive(Debug)]
pub struct Channel {
    socket: UnixStream,
    inbox: Inbox,
}

impl Channel {
    /// Over this socket.
    #[must_use]
    pub fn new(socket: UnixStream) -> Self {
        Self {
            socket,
            inbox: Inbox::default(),
        }
    }

    /// The socket, to wait on it.
    #[must_use]
    pub fn socket(&self) -> &UnixStream {
        &self.socket
    }

    /// The socket alone; a message that had come in part is lost.
    #[must_use]
    pub fn into_socket(self) -> UnixStream {
        self.socket
    }

    /// Sends one message.
    ///
    /// # Errors
    /// [`ChannelError`].
    pub fn send(
        &self,
        message: &impl Serialize,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), ChannelError> {
        let bytes = encode(message)?;
        let mut done = 0;
        while done < bytes.len() {
            let descriptors = if done == 0 { descriptors } else { &[] };
            match send_some(
                self.socket.as_fd(),
                &bytes[done..],
                descriptors,
                SendFlags::empty(),
            ) {
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(sent(error)),
            }
        }
        Ok(())
    }

    /// Waits for one message.
    ///
    /// # Errors
    /// [`ChannelError::Closed`] when the other side is gone; with the socket's read timeout also [`ChannelError::Io`].
    pub fn receive<T: DeserializeOwned>(&mut self) -> Result<(T, Vec<OwnedFd>), ChannelError> {
        while self.inbox.missing()? > 0 {
            match self.inbox.receive(self.socket.as_fd(), RecvFlags::empty()) {
                Ok(0) => return Err(ChannelError::Closed),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(received(error)),
            }
        }
        self.inbox.take()
    }
}

/// The side of the driver: asynchronous.
#[derive(Debug)]
pub struct AsyncChannel {
    socket: AsyncFd<UnixStream>,
    inbox: Inbox,
}

impl AsyncChannel {
    /// Over this socket, which becomes non-blocking.
    ///
    /// # Errors
    /// When the socket cannot be watched.
    pub fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        #[expect(
            deprecated,
            reason = "its hole is an `AsRawFd` that lies; `UnixStream` does not"
        )]
        let socket = AsyncFd::new(socket)?;
        Ok(Self {
            socket,
            inbox: Inbox::default(),
        })
    }

    /// Sends one message.
    ///
    /// # Errors
    /// [`ChannelError`].
    pub async fn send(&self, message: &impl Serialize) -> Result<(), ChannelError> {
        let bytes = encode(message)?;
        let mut done = 0;
        while done < bytes.len() {
            done += self
                .socket
                .async_io(Interest::WRITABLE, |socket| {
                    send_some(socket.as_fd(), &bytes[done..], &[], SendFlags::empty())
                })
                .await
                .map_err(sent)?;
        }
        Ok(())
    }

    /// Waits for one message; nothing is lost when the wait is given up.
    ///
    /// # Errors
    /// [`ChannelError::Closed`] when the other side is gone.
    pub async fn receive<T: DeserializeOwned>(
        &mut self,
    ) -> Result<(T, Vec<OwnedFd>), ChannelError> {
        while self.inbox.missing()? > 0 {
            let inbox = &mut self.inbox;
            let mut ready = self.socket.readable().await.map_err(received)?;
            match ready.try_io(|socket| inbox.receive(socket.as_fd(), RecvFlags::empty())) {
                Ok(Ok(0)) => return Err(ChannelError::Closed),
                Ok(Ok(_)) | Err(_) => {}
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Err(received(error)),
            }
        }
        self.inbox.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::{Read, Write};

    #[test]
    fn large_messages_and_descriptors_arrive() {
        let (one, other) = UnixStream::pair().unwrap();
        let text = "x".repeat(3 << 20);
        let (mut reader, writer) = io::pipe().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let channel = Channel::new(one);
                channel.send(&text, &[writer.as_fd()]).unwrap();
                channel.send(&7, &[]).unwrap();
            });
            let mut channel = Channel::new(other);
            let (got, descriptors) = channel.receive::<String>().unwrap();
            assert_eq!(got.len(), text.len());
            let [fd] = <[OwnedFd; 1]>::try_from(descriptors).unwrap();
            std::fs::File::from(fd).write_all(b"!").unwrap();
            assert_eq!(channel.receive::<u8>().unwrap().0, 7);
            assert!(matches!(channel.receive::<u8>(), Err(ChannelError::Closed)));
        });
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "!");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_async_side_speaks_the_same() {
        let (one, other) = UnixStream::pair().unwrap();
        let thread = std::thread::spawn(move || {
            let mut channel = Channel::new(other);
            let text: String = channel.receive().unwrap().0;
            channel.send(&text, &[channel.socket().as_fd()]).unwrap();
        });
        let mut channel = AsyncChannel::new(one).unwrap();
        let text = "y".repeat(1 << 20);
        channel.send(&text).await.unwrap();
        let (echo, descriptors) = channel.receive::<String>().await.unwrap();
        assert_eq!((echo, descriptors.len()), (text, 1));
        thread.join().unwrap();
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_message_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let (mut one, other) = UnixStream::pair().unwrap();
            one.write_all(&bytes).unwrap();
            drop(one);
            let _either = Channel::new(other).receive::<super::super::Request>();
        }
    }
}
