//! The control socket.

use std::io::{self, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use anyhow::{Context, bail};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use sandbox_share::{Answer, Launch, MESSAGE_LIMIT};

/// The socket on which the driver said what to do and waits for an answer.
pub struct Control(UnixStream);

/// Reads the launch message and the descriptor that rides on its first byte.
pub fn receive() -> anyhow::Result<(Control, Launch, OwnedFd)> {
    let socket = io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map(UnixStream::from)
        .context("cannot duplicate standard input")?;
    let (head, descriptor) = receive_head(&socket)
        .context("standard input is not a control socket; cofferdam starts this program itself")?;
    let length = u32::from_le_bytes(head) as usize;
    if length > MESSAGE_LIMIT {
        bail!("the launch message has {length} bytes");
    }
    let mut body = vec![0; length];
    (&socket)
        .read_exact(&mut body)
        .context("the launch message ended early")?;
    let launch = serde_json::from_slice(&body).context("cannot read the launch message")?;
    Ok((Control(socket), launch, descriptor))
}

fn receive_head(socket: &UnixStream) -> anyhow::Result<([u8; 4], OwnedFd)> {
    let mut head = [0; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut head)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    if received.bytes != head.len() {
        bail!("the launch message ended early");
    }
    let descriptor = ancillary
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        })
        .next()
        .context("the launch message brought no descriptor")?;
    Ok((head, descriptor))
}

impl Control {
    /// Tells the driver how it went.
    pub fn answer(&self, answer: &Answer) -> anyhow::Result<()> {
        let body = serde_json::to_vec(answer)?;
        let mut message = u32::try_from(body.len())?.to_le_bytes().to_vec();
        message.extend(body);
        (&self.0)
            .write_all(&message)
            .context("cannot answer the driver")
    }
}
