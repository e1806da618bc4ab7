//! Frames that answer the namespace's own connections: an eBPF program that stands before the filter to the guest.
//!
//! Docker's server for names asks other servers for names that it does not know, with sockets of the namespace. Its
//! questions leave through the interface by themselves; here the answers come back to it. Only sockets that are connected
//! to the sender count: what merely listens in the namespace stays out of reach.

use std::io;
use std::os::fd::OwnedFd;

use cofferdam_bpf::{self as bpf, Assembly, Jump};

/// `BPF_PROG_TYPE_SCHED_CLS`.
const KIND: u32 = 3;

/// `TC_ACT_OK`: the namespace's own network stack gets the frame.
const KEEP: i32 = 0;
/// `TC_ACT_UNSPEC`: the next filter decides.
const NEXT: i32 = -1;

// The kernel's functions.
const CLONE_REDIRECT: i32 = 13;
const LOAD_BYTES: i32 = 26;
const LOOKUP_TCP: i32 = 84;
const LOOKUP_UDP: i32 = 85;
const RELEASE: i32 = 86;

/// Of `struct __sk_buff`: the type of the frame, as it travels.
const FRAME_TYPE: i16 = 16;
// Of `struct bpf_sock`: the other end's address, all zeroes without one.
const PEER_IP4: i16 = 52;
const PEER_IP6: i16 = 56;

const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
const ARP_REPLY: i32 = 2;
const NEIGHBOUR_ADVERTISEMENT: i32 = 136;
const TCP: i32 = 6;
const UDP: i32 = 17;
const ICMPV6: i32 = 58;

// Where things are, counted from the frame's begin.
const ETHERNET: i32 = 14;
const ARP_OPERATION_END: i32 = 21;
const IPV4_PROTOCOL: i32 = 23;
const IPV4_ADDRESSES: i32 = 26;
const IPV6_NEXT_HEADER: i32 = 20;
const IPV6_ADDRESSES: i32 = 22;
const IPV6_END: i32 = 54;

// In the program's memory: both ends of a connection (`struct bpf_sock_tuple`), and a byte.
const ENDS: i16 = -40;
const BYTE: i16 = -48;

const CONTEXT: u8 = 6;
const PROTOCOL: u8 = 7;
const SOCKET: u8 = 8;
const MEMORY: u8 = 10;

/// Loads the program for the interface whose frames go to the tap of this index.
pub(crate) fn load(tap: u32) -> io::Result<OwnedFd> {
    bpf::load(KIND, 0, &program(tap.cast_signed()))
}

fn program(tap: i32) -> Assembly {
    let mut program = Assembly::default();
    let mut others = Vec::new();
    program.copy(CONTEXT, 1);
    program.load(2, CONTEXT, FRAME_TYPE);
    let is = |program: &mut Assembly, kind: u16| program.jump_if(2, u16::to_be(kind).into());
    let is_four = is(&mut program, IPV4);
    let is_six = is(&mut program, IPV6);
    others.push(program.jump_unless(2, u16::to_be(ARP).into()));

    // Whom it asked for an Ethernet address cannot know that the guest shares it: both hear the answer.
    byte(&mut program, ARP_OPERATION_END, &mut others);
    others.push(program.jump_unless(0, ARP_REPLY));
    let is_reply = program.jump();

    program.land([is_four]);
    byte(&mut program, IPV4_PROTOCOL, &mut others);
    program.copy(PROTOCOL, 0);
    bytes(&mut program, IPV4_ADDRESSES, 8, ENDS, &mut others);
    byte(&mut program, ETHERNET, &mut others);
    // The header's length, in words of four bytes.
    program.keep(0, 0xf);
    program.shift_left(0, 2);
    program.add(0, ETHERNET);
    program.copy(2, 0);
    rest_of_bytes(&mut program, 4, ENDS + 8, &mut others);
    lookup(&mut program, 12, &mut others);
    program.load(2, SOCKET, PEER_IP4);
    let mut kept = vec![program.jump_unless(2, 0)];
    let unconnected = program.jump();

    program.land([is_six]);
    byte(&mut program, IPV6_NEXT_HEADER, &mut others);
    program.copy(PROTOCOL, 0);
    let is_neighbour = program.jump_if(PROTOCOL, ICMPV6);
    bytes(&mut program, IPV6_ADDRESSES, 32, ENDS, &mut others);
    bytes(&mut program, IPV6_END, 4, ENDS + 32, &mut others);
    lookup(&mut program, 36, &mut others);
    for word in 0..4 {
        program.load(2, SOCKET, PEER_IP6 + 4 * word);
        kept.push(program.jump_unless(2, 0));
    }
    program.land([unconnected]);
    release(&mut program);
    program.end(NEXT);

    program.land([is_neighbour]);
    byte(&mut program, IPV6_END, &mut others);
    others.push(program.jump_unless(0, NEIGHBOUR_ADVERTISEMENT));
    program.land([is_reply]);
    program.copy(1, CONTEXT);
    program.set(2, tap);
    program.set(3, 0);
    program.call(CLONE_REDIRECT);
    program.end(KEEP);

    program.land(kept);
    release(&mut program);
    program.end(KEEP);

    program.land(others);
    program.end(NEXT);
    program
}

/// Copies bytes of the frame into memory.
fn bytes(program: &mut Assembly, at: i32, length: i32, to: i16, short: &mut Vec<Jump>) {
    program.set(2, at);
    rest_of_bytes(program, length, to, short);
}

/// The same, from the place that register 2 has.
fn rest_of_bytes(program: &mut Assembly, length: i32, to: i16, short: &mut Vec<Jump>) {
    program.copy(1, CONTEXT);
    program.copy(3, MEMORY);
    program.add(3, to.into());
    program.set(4, length);
    program.call(LOAD_BYTES);
    short.push(program.jump_unless(0, 0));
}

/// Has a byte of the frame in register 0.
fn byte(program: &mut Assembly, at: i32, short: &mut Vec<Jump>) {
    bytes(program, at, 1, BYTE, short);
    program.load_byte(0, MEMORY, BYTE);
}

/// Has the socket of the namespace that is at the frame's destination in register 8, and has to be released.
fn lookup(program: &mut Assembly, length: i32, none: &mut Vec<Jump>) {
    let call = |program: &mut Assembly, function: i32| {
        /// `BPF_F_CURRENT_NETNS`: that of the interface.
        const THIS_NAMESPACE: i32 = -1;
        program.copy(1, CONTEXT);
        program.copy(2, MEMORY);
        program.add(2, ENDS.into());
        program.set(3, length);
        program.set(4, THIS_NAMESPACE);
        program.set(5, 0);
        program.call(function);
    };
    let is_tcp = program.jump_if(PROTOCOL, TCP);
    none.push(program.jump_unless(PROTOCOL, UDP));
    call(program, LOOKUP_UDP);
    let found = program.jump();
    program.land([is_tcp]);
    call(program, LOOKUP_TCP);
    program.land([found]);
    none.push(program.jump_if(0, 0));
    program.copy(SOCKET, 0);
}

fn release(program: &mut Assembly) {
    program.copy(1, SOCKET);
    program.call(RELEASE);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_takes_it() {
        match load(7) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                eprintln!("SKIPPED: {error} (root?)");
            }
            loaded => drop(loaded.expect("a program")),
        }
    }
}
