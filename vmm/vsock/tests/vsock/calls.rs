//! Connections of the guest to programs of its host that somebody else makes.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use super::guest::*;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use vmm_control::{Call, Called, Handle, receive, send};
use vmm_vsock::{HANDSHAKES, Vsock};

const PORT: u32 = 52;

/// Who answers the guest's calls.
struct Operator(OwnedFd);

impl Operator {
    fn new() -> (Self, Guest) {
        let kind = SocketType::SEQPACKET;
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).expect("a pair");
        let device = Vsock::new([], None).and_then(|device| device.with_calls(theirs));
        (Self(ours), Guest::with(device.expect("a device")))
    }

    fn call(&self) -> Call {
        let received = receive::<Call>(&self.0).expect("receives");
        received.expect("a call").message
    }

    fn answer(&self, ticket: u32, stream: Option<&OwnedFd>) {
        let called = Called {
            ticket,
            stream: stream.map(|_| Handle(0)),
        };
        let with: Vec<_> = stream.into_iter().map(AsFd::as_fd).collect();
        send(&self.0, &called, &with).expect("sends");
    }
}

/// A host program that the guest gets, and its end for the device.
fn program() -> (std::os::unix::net::UnixStream, OwnedFd) {
    let (near, far) = pair();
    rustix::io::ioctl_fionbio(&far, true).expect("sets");
    (near, far)
}

#[test]
fn a_guest_is_connected_by_its_driver() {
    let (operator, mut guest) = Operator::new();
    guest.send(&Packet::new(GUEST, PORT, REQUEST));
    let call = operator.call();
    assert_eq!(call.port, PORT);
    // Until somebody has answered, the guest is neither refused nor connected.
    guest.expect_silence();
    let (mut near, far) = program();
    operator.answer(call.ticket, Some(&far));
    let response = guest.expect(RESPONSE);
    assert_eq!((response.src_port, response.dst_port), (PORT, GUEST));
    guest.write(Packet::new(GUEST, PORT, RW), b"to the host");
    assert_eq!(exactly(&near, 11), b"to the host");
    near.write_all(b"to the guest").expect("writes");
    assert_eq!(guest.next().1, b"to the guest");
    // The port is not used up.
    guest.send(&Packet::new(GUEST + 1, PORT, REQUEST));
    let other = operator.call();
    assert_ne!(other.ticket, call.ticket);
    operator.answer(other.ticket, None);
    let refusal = guest.expect(RST);
    assert_eq!((refusal.src_port, refusal.dst_port), (PORT, GUEST + 1));
    let stats = guest.control.stats();
    assert_eq!((stats.opened(), stats.refused()), (1, 1));
}

#[test]
fn an_answer_that_nobody_waits_for_is_dropped() {
    let (operator, mut guest) = Operator::new();
    guest.send(&Packet::new(GUEST, PORT, REQUEST));
    let call = operator.call();
    guest.send(&Packet::new(GUEST, PORT, RST));
    guest.sent();
    let (near, far) = program();
    operator.answer(call.ticket, Some(&far));
    drop(far);
    operator.answer(call.ticket.wrapping_add(9), None);
    assert!(rest(&near).is_empty(), "it was closed");
    guest.expect_silence();
    // One of a driver that has gone.
    guest.send(&Packet::new(GUEST, PORT, REQUEST));
    let call = operator.call();
    guest.restart();
    let (near, far) = program();
    operator.answer(call.ticket, Some(&far));
    drop(far);
    assert!(rest(&near).is_empty(), "it was closed");
    guest.expect_silence();
}

#[test]
fn a_guest_that_asks_too_much_is_refused() {
    let (operator, mut guest) = Operator::new();
    let ports = 0..HANDSHAKES as u32;
    for port in ports.clone() {
        guest.send(&Packet::new(GUEST, port, REQUEST));
    }
    guest.expect_silence();
    guest.send(&Packet::new(GUEST, 9999, REQUEST));
    guest.expect(RST);
    let calls: Vec<_> = ports.map(|_| operator.call()).collect();
    // Twice the same: it has neither.
    guest.send(&Packet::new(GUEST, 0, REQUEST));
    guest.expect(RST);
    // Bytes before the answer.
    guest.write(Packet::new(GUEST, 1, RW), b"early");
    guest.expect(RST);
    let (near, far) = program();
    for call in &calls[..2] {
        operator.answer(call.ticket, Some(&far));
    }
    drop(far);
    assert!(rest(&near).is_empty(), "nobody has it");
    // Host programs come from there.
    guest.send(&Packet::new(GUEST, 1 << 30, REQUEST));
    guest.expect(RST);
    for call in &calls[2..] {
        operator.answer(call.ticket, None);
        guest.expect(RST);
    }
    guest.send(&Packet::new(GUEST, PORT, REQUEST));
    assert_eq!(operator.call().port, PORT);
}

#[test]
fn without_an_operator_the_guest_is_refused() {
    let (operator, mut guest) = Operator::new();
    drop(operator);
    guest.send(&Packet::new(GUEST, PORT, REQUEST));
    guest.expect(RST);
    guest.expect_silence();
    let device = Vsock::new([], None).expect("a device");
    let mut driver = Guest::with(device);
    driver.send(&Packet::new(GUEST, PORT, REQUEST));
    driver.expect(RST);
}
