//! Packets with descriptors.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{DESCRIPTOR_LIMIT, Handle, MESSAGE_LIMIT};

/// What can go wrong with a message.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The socket's error; `WOULDBLOCK` of one that does not block.
    #[error("cannot {action} a control message")]
    Socket {
        /// "send" or "receive".
        action: &'static str,
        /// What the operating system says.
        #[source]
        source: Errno,
    },
    /// Descriptors did not arrive: this process has no room for more.
    #[error("descriptors of a control message were lost: too many are open here")]
    Lost,
    /// Longer than [`MESSAGE_LIMIT`], or with more descriptors than [`DESCRIPTOR_LIMIT`].
    #[error("a control message is too large")]
    TooLarge,
    /// Not what is expected.
    #[error("a control message is malformed")]
    Malformed(#[source] serde_json::Error),
    /// It names a descriptor that did not come with it, or one twice.
    #[error("a control message names descriptor {0}, which it does not bring")]
    NoDescriptor(u16),
}

/// A message and what came with it.
#[derive(Debug)]
pub struct Received<T> {
    /// The message.
    pub message: T,
    descriptors: Vec<Option<OwnedFd>>,
}

impl<T> Received<T> {
    /// The descriptor that the message names so. Each can be taken once.
    ///
    /// # Errors
    /// [`ChannelError::NoDescriptor`].
    pub fn take(&mut self, handle: Handle) -> Result<OwnedFd, ChannelError> {
        self.descriptors
            .get_mut(usize::from(handle.0))
            .and_then(Option::take)
            .ok_or(ChannelError::NoDescriptor(handle.0))
    }
}

/// Sends one message.
///
/// # Errors
/// The socket's, or that the message is too large.
pub fn send(
    socket: impl AsFd,
    message: &impl Serialize,
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), ChannelError> {
    let bytes = serde_json::to_vec(message).map_err(ChannelError::Malformed)?;
    if bytes.len() > MESSAGE_LIMIT || descriptors.len() > DESCRIPTOR_LIMIT {
        return Err(ChannelError::TooLarge);
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTOR_LIMIT))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(ChannelError::TooLarge);
    }
    loop {
        match sendmsg(
            &socket,
            &[IoSlice::new(&bytes)],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        ) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(source) => {
                return Err(ChannelError::Socket {
                    action: "send",
                    source,
                });
            }
        }
    }
}

/// Receives one message; nothing when the other side has hung up.
///
/// # Errors
/// The socket's, or that the message is not one.
pub fn receive<T: DeserializeOwned>(
    socket: impl AsFd,
) -> Result<Option<Received<T>>, ChannelError> {
    let mut bytes = vec![0; MESSAGE_LIMIT];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTOR_LIMIT))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        match recvmsg(
            &socket,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        ) {
            Ok(received) => break received,
            Err(Errno::INTR) => {}
            Err(source) => {
                return Err(ChannelError::Socket {
                    action: "receive",
                    source,
                });
            }
        }
    };
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(list) = message {
            descriptors.extend(list.map(Some));
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(ChannelError::Lost);
    }
    // The space is rounded up for its alignment: a few more may have had room in it.
    if received.flags.contains(ReturnFlags::TRUNC) || descriptors.len() > DESCRIPTOR_LIMIT {
        return Err(ChannelError::TooLarge);
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    let message =
        serde_json::from_slice(&bytes[..received.bytes]).map_err(ChannelError::Malformed)?;
    Ok(Some(Received {
        message,
        descriptors,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Reply, Request};
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use rustix::pipe::pipe;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .expect("a pair")
    }

    #[test]
    fn messages_bring_their_descriptors_once() {
        let (ours, theirs) = pair();
        let (_reader, writer) = pipe().expect("a pipe");
        send(&ours, &Request::Pause, &[writer.as_fd()]).expect("sends");
        send(&ours, &Request::Boot, &[]).expect("sends");
        let mut first = receive::<Request>(&theirs)
            .expect("receives")
            .expect("a message");
        assert_eq!(first.message, Request::Pause);
        first.take(Handle(0)).expect("the descriptor");
        assert!(matches!(
            first.take(Handle(0)),
            Err(ChannelError::NoDescriptor(0))
        ));
        assert!(first.take(Handle(1)).is_err());
        let second = receive::<Request>(&theirs)
            .expect("receives")
            .expect("a message");
        assert_eq!(second.message, Request::Boot);
        drop(ours);
        assert!(receive::<Request>(&theirs).expect("the end").is_none());
    }

    #[test]
    fn what_is_too_large_or_malformed_is_refused() {
        let (ours, theirs) = pair();
        let long = Reply::Failed("x".repeat(MESSAGE_LIMIT));
        assert!(matches!(
            send(&ours, &long, &[]),
            Err(ChannelError::TooLarge)
        ));
        for bad in ["", "{}", "\"Nothing\"", "[", "{\"Create\":{}}"] {
            if !bad.is_empty() {
                rustix::io::write(&ours, bad.as_bytes()).expect("writes");
                let answer = receive::<Request>(&theirs);
                assert!(matches!(answer, Err(ChannelError::Malformed(_))), "{bad}");
            }
        }
        rustix::io::write(&ours, &vec![b' '; MESSAGE_LIMIT + 1]).expect("writes");
        assert!(matches!(
            receive::<Request>(&theirs),
            Err(ChannelError::TooLarge)
        ));
    }

    /// The kernel cuts off what there is no room for, and there is a little more room than descriptors may come.
    #[test]
    fn too_many_descriptors_are_refused() {
        let (_reader, writer) = pipe().expect("a pipe");
        for count in DESCRIPTOR_LIMIT - 1..DESCRIPTOR_LIMIT + 6 {
            let (ours, theirs) = pair();
            let descriptors = vec![writer.as_fd(); count];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(256))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)));
            let bytes = [IoSlice::new(b"\"Boot\"")];
            sendmsg(&ours, &bytes, &mut ancillary, SendFlags::empty()).expect("sends");
            match receive::<Request>(&theirs) {
                Ok(_) => assert!(count <= DESCRIPTOR_LIMIT, "{count} were taken"),
                Err(ChannelError::TooLarge | ChannelError::Lost) => {
                    assert!(count > DESCRIPTOR_LIMIT, "{count} were refused");
                }
                Err(other) => panic!("{count}: {other}"),
            }
            let sent = send(&ours, &Request::Boot, &descriptors);
            assert_eq!(sent.is_ok(), count <= DESCRIPTOR_LIMIT, "{count}: {sent:?}");
        }
    }
}
