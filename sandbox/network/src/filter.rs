//! Which frames pass between an interface and a guest's card: classic BPF, which `cls_bpf` runs on each frame.
//!
//! Classic because it needs neither maps nor the `bpf` system call, and because every kernel that has `cls_bpf` takes it.
//! A program answers with [`MATCH`] for a frame that is to be passed on and [`NO_MATCH`] for any other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::snapshot::{Interface, Mac};

/// The filter's action is done.
pub(crate) const MATCH: u32 = u32::MAX;
/// The next filter decides.
pub(crate) const NO_MATCH: u32 = 0;
/// `TC_ACT_SHOT`, where the program's answer is the action.
pub(crate) const DROP: u32 = 2;

/// The most addresses of one interface: so the program stays below the kernel's 4096 instructions.
pub(crate) const MOST_ADDRESSES: usize = 64;

/// One instruction (`struct sock_filter`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Instruction {
    code: u16,
    yes: u8,
    no: u8,
    value: u32,
}

impl Instruction {
    pub(crate) fn bytes(self) -> [u8; 8] {
        let mut bytes = [0; 8];
        bytes[..2].copy_from_slice(&self.code.to_ne_bytes());
        bytes[2] = self.yes;
        bytes[3] = self.no;
        bytes[4..].copy_from_slice(&self.value.to_ne_bytes());
        bytes
    }
}

// Loads of 4, 2 and 1 bytes, a comparison, a jump, an end.
const WORD: u16 = 0x20;
const HALF: u16 = 0x28;
const BYTE: u16 = 0x30;
const EQUAL: u16 = 0x15;
const JUMP: u16 = 0x05;
const RETURN: u16 = 0x06;

/// `SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT`: whether the frame had a VLAN tag, which the kernel has taken off already.
const VLAN_TAG: u32 = 0xffff_f000 + 48;

const IPV4: u32 = 0x0800;
const ARP: u32 = 0x0806;
const IPV6: u32 = 0x86dd;

// Where things are, counted from the frame's begin.
const SENDER_MAC: u32 = 6;
const ETHER_TYPE: u32 = 12;
const IPV4_SOURCE: u32 = 26;
const ARP_HEAD: u32 = 14;
const ARP_SENDER_MAC: u32 = 22;
const ARP_SENDER_IP: u32 = 28;
const IPV6_NEXT_HEADER: u32 = 20;
const IPV6_HOP_LIMIT: u32 = 21;
const IPV6_SOURCE: u32 = 22;
const ICMPV6_TYPE: u32 = 54;
const ADVERTISED: u32 = 62;

const TCP: u32 = 6;
const UDP: u32 = 17;
const ICMPV6: u32 = 58;
const ROUTER_ADVERTISEMENT: u32 = 134;
const NEIGHBOUR_ADVERTISEMENT: u32 = 136;
const REDIRECT: u32 = 137;
/// Neighbour discovery believes no packet that could have come through a router (RFC 4861).
const FROM_NEXT_DOOR: u32 = 255;

/// A program that answers the same for every frame.
pub(crate) fn always(answer: u32) -> Vec<Instruction> {
    let mut program = Program::default();
    program.end(answer);
    program.instructions
}

/// Frames to the guest: all but router advertisements. Those are for the namespace, whose addresses and routes the guest
/// follows: it has no way of its own to find out.
pub(crate) fn to_guest() -> Vec<Instruction> {
    let mut program = Program::default();
    program.load(HALF, ETHER_TYPE);
    program.unless(IPV6, MATCH);
    program.load(BYTE, IPV6_NEXT_HEADER);
    program.unless(ICMPV6, MATCH);
    program.load(BYTE, ICMPV6_TYPE);
    program.when(ROUTER_ADVERTISEMENT, NO_MATCH);
    program.end(MATCH);
    program.instructions
}

/// Frames from the guest: those that an interface with this Ethernet address and these addresses sends. Beside them, the
/// questions of somebody who is about to take an address; no router advertisements and no redirects.
pub(crate) fn from_guest(interface: &Interface) -> Vec<Instruction> {
    let mut four = Vec::new();
    let mut six = Vec::new();
    for address in &interface.addresses {
        match address.ip {
            IpAddr::V4(address) => four.push(address),
            IpAddr::V6(address) => six.push(address),
        }
    }
    let mut program = Program::default();
    program.load(WORD, VLAN_TAG);
    program.unless(0, NO_MATCH);
    program.require_mac(SENDER_MAC, interface.mac);
    program.load(HALF, ETHER_TYPE);
    program.case(IPV4, |program| {
        program.load(WORD, IPV4_SOURCE);
        for address in &four {
            program.when(u32::from(*address), MATCH);
        }
        program.end(NO_MATCH);
    });
    program.case(ARP, |program| arp(program, interface.mac, &four));
    program.case(IPV6, |program| ipv6(program, &six));
    program.end(NO_MATCH);
    program.instructions
}

fn arp(program: &mut Program, mac: Mac, own: &[Ipv4Addr]) {
    // Ethernet and IPv4, with addresses of 6 and 4 bytes.
    program.load(WORD, ARP_HEAD);
    program.unless(0x0001_0800, NO_MATCH);
    program.load(HALF, ARP_HEAD + 4);
    program.unless(0x0604, NO_MATCH);
    program.require_mac(ARP_SENDER_MAC, mac);
    program.load(WORD, ARP_SENDER_IP);
    // Asks whether an address is free (RFC 5227).
    program.when(0, MATCH);
    for address in own {
        program.when(u32::from(*address), MATCH);
    }
    program.end(NO_MATCH);
}

fn ipv6(program: &mut Program, own: &[Ipv6Addr]) {
    let mut senders = own.to_vec();
    // Has no address yet.
    senders.push(Ipv6Addr::UNSPECIFIED);
    program.require_address(IPV6_SOURCE, &senders);
    // What neighbour discovery must not hear has to come from next door, so it is looked at closely: extension headers,
    // behind which it could hide, are not taken at all there.
    program.load(BYTE, IPV6_HOP_LIMIT);
    program.unless(FROM_NEXT_DOOR, MATCH);
    program.load(BYTE, IPV6_NEXT_HEADER);
    program.when(TCP, MATCH);
    program.when(UDP, MATCH);
    program.unless(ICMPV6, NO_MATCH);
    program.load(BYTE, ICMPV6_TYPE);
    program.when(ROUTER_ADVERTISEMENT, NO_MATCH);
    program.when(REDIRECT, NO_MATCH);
    program.unless(NEIGHBOUR_ADVERTISEMENT, MATCH);
    program.require_address(ADVERTISED, own);
    program.end(MATCH);
}

#[derive(Debug, Default)]
struct Program {
    instructions: Vec<Instruction>,
}

impl Program {
    fn push(&mut self, code: u16, yes: u8, no: u8, value: u32) {
        self.instructions.push(Instruction {
            code,
            yes,
            no,
            value,
        });
    }

    /// Reads beyond a frame's end end the program with [`NO_MATCH`].
    fn load(&mut self, size: u16, offset: u32) {
        self.push(size, 0, 0, offset);
    }

    fn end(&mut self, answer: u32) {
        self.push(RETURN, 0, 0, answer);
    }

    /// Ends with this answer when what was loaded has this value.
    fn when(&mut self, value: u32, answer: u32) {
        self.push(EQUAL, 0, 1, value);
        self.end(answer);
    }

    /// Ends with this answer when what was loaded has another value.
    fn unless(&mut self, value: u32, answer: u32) {
        self.push(EQUAL, 1, 0, value);
        self.end(answer);
    }

    /// What is done when what was loaded has this value; it has to end the program.
    fn case(&mut self, value: u32, fill: impl FnOnce(&mut Self)) {
        self.push(EQUAL, 1, 0, value);
        let jump = self.instructions.len();
        self.push(JUMP, 0, 0, 0);
        fill(self);
        self.land(jump);
    }

    /// Has the jump at `jump` lead to the next instruction.
    fn land(&mut self, jump: usize) {
        let distance = self.instructions.len() - jump - 1;
        // A program has 4096 instructions at most.
        self.instructions[jump].value = u32::try_from(distance).unwrap_or(u32::MAX);
    }

    fn require_mac(&mut self, offset: u32, mac: Mac) {
        let [a, b, c, d, e, f] = mac;
        self.load(WORD, offset);
        self.unless(u32::from_be_bytes([a, b, c, d]), NO_MATCH);
        self.load(HALF, offset + 4);
        self.unless(u32::from(u16::from_be_bytes([e, f])), NO_MATCH);
    }

    /// Goes on only with one of these addresses at this offset.
    fn require_address(&mut self, offset: u32, allowed: &[Ipv6Addr]) {
        let mut found = Vec::new();
        for address in allowed {
            let octets = u128::from(*address).to_be_bytes();
            let (words, _) = octets.as_chunks::<4>();
            for (number, (word, place)) in words.iter().zip((offset..).step_by(4)).enumerate() {
                self.load(WORD, place);
                // To the end of this address: two instructions for each word that is left, and the jump.
                let rest = u8::try_from((3 - number) * 2 + 1).unwrap_or(u8::MAX);
                self.push(EQUAL, 0, rest, u32::from_be_bytes(*word));
            }
            found.push(self.instructions.len());
            self.push(JUMP, 0, 0, 0);
        }
        self.end(NO_MATCH);
        for jump in found {
            self.land(jump);
        }
    }
}

#[cfg(test)]
#[path = "filter_tests.rs"]
mod tests;
