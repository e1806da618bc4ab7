//! The control socket, on both sides: any packets with any descriptors.

use std::io::{IoSlice, PipeReader};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    sendmsg, socketpair,
};
use vmm_control::{DESCRIPTOR_LIMIT, Handle, MESSAGE_LIMIT, Reply, Request, receive, send};

use crate::input::Input;

/// The most that one packet of Linux brings (`SCM_MAX_FD`).
const MOST: usize = 253;

fn pair() -> (OwnedFd, OwnedFd) {
    let kind = SocketType::SEQPACKET;
    socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).expect("a pair")
}

fn raw(socket: &OwnedFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(descriptors)));
    }
    sendmsg(
        socket,
        &[IoSlice::new(bytes)],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )
    .expect("sends");
}

/// The number that the next descriptor gets: the same before and after, as nothing may stay open.
fn next_descriptor() -> i32 {
    let (reader, _): (PipeReader, _) = std::io::pipe().expect("a pipe");
    reader.as_raw_fd()
}

/// Receives what the bytes say, as the monitor and as its driver.
pub fn run(data: &[u8]) {
    let before = next_descriptor();
    exchange(data);
    assert_eq!(next_descriptor(), before, "a descriptor stayed open");
}

fn exchange(data: &[u8]) {
    let mut input = Input::new(data);
    let count = usize::from(input.byte()) % (MOST + 1);
    let padding = usize::from(input.short());
    let (ours, theirs) = pair();
    let (reader, _writer) = std::io::pipe().expect("a pipe");
    let mut bytes = input.rest().to_vec();
    // Spaces do no harm to JSON; too many make it too long.
    bytes.resize(bytes.len() + padding, b' ');
    let descriptors = vec![reader.as_fd(); count];
    let fits = bytes.len() <= MESSAGE_LIMIT && count <= DESCRIPTOR_LIMIT;
    if bytes.is_empty() {
        return;
    }
    raw(&ours, &bytes, &descriptors);
    raw(&ours, &bytes, &descriptors);
    if let Ok(Some(mut request)) = receive::<Request>(&theirs) {
        assert!(fits, "too much was taken");
        for handle in 0..count {
            let handle = Handle(u16::try_from(handle).expect("few"));
            request.take(handle).expect("a descriptor");
            assert!(request.take(handle).is_err());
        }
        assert!(request.take(Handle(u16::MAX)).is_err());
        // What was understood is understood again.
        send(&theirs, &request.message, &[]).expect("sends");
        let again = receive::<Request>(&ours).expect("receives").expect("one");
        assert_eq!(again.message, request.message);
    }
    if let Ok(Some(reply)) = receive::<Reply>(&theirs) {
        assert!(fits, "too much was taken");
        send(&theirs, &reply.message, &[]).expect("sends");
        let again = receive::<Reply>(&ours).expect("receives").expect("one");
        assert_eq!(again.message, reply.message);
    }
}
