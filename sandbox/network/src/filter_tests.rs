//! The programs, run as the kernel runs them.

use super::*;
use crate::snapshot::Address;

const OWN: Mac = [2, 0, 0, 0, 0, 5];
const OTHER: Mac = [2, 0, 0, 0, 0, 6];

/// Runs a program on a frame; a load beyond its end answers 0, as in the kernel.
fn run(program: &[Instruction], frame: &[u8], has_tag: bool) -> u32 {
    let mut loaded = 0_u32;
    let mut at = 0;
    loop {
        let instruction = program[at];
        at += 1;
        match instruction.code {
            RETURN => return instruction.value,
            JUMP => at += instruction.value as usize,
            EQUAL if loaded == instruction.value => at += usize::from(instruction.yes),
            EQUAL => at += usize::from(instruction.no),
            WORD if instruction.value == VLAN_TAG => loaded = u32::from(has_tag),
            size => {
                let length = match size {
                    WORD => 4,
                    HALF => 2,
                    BYTE => 1,
                    other => panic!("unknown instruction {other:#x}"),
                };
                let start = instruction.value as usize;
                let Some(bytes) = frame.get(start..start + length) else {
                    return 0;
                };
                loaded = bytes
                    .iter()
                    .fold(0, |all, &byte| all << 8 | u32::from(byte));
            }
        }
    }
}

fn interface() -> Interface {
    let address = |ip: &str| Address {
        ip: ip.parse().unwrap(),
        prefix: 24,
        peer: None,
        broadcast: None,
        scope: 0,
    };
    Interface {
        index: 2,
        name: "eth0".to_owned(),
        mac: OWN,
        mtu: 1500,
        up: true,
        arp: true,
        ipv6: true,
        addresses: ["10.0.0.5", "10.1.0.5", "fd00::5", "fe80::5"]
            .map(address)
            .into(),
    }
}

fn passes(frame: &[u8]) -> bool {
    match run(&from_guest(&interface()), frame, false) {
        MATCH => true,
        NO_MATCH => false,
        other => panic!("{other:#x}"),
    }
}

fn frame(mac: Mac, kind: u32, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(mac);
    frame.extend(u16::try_from(kind).unwrap().to_be_bytes());
    frame.extend(body);
    frame
}

fn ipv4_from(sender: &str) -> Vec<u8> {
    let mut body = vec![0x45; 20];
    body[12..16].copy_from_slice(&sender.parse::<Ipv4Addr>().unwrap().octets());
    body
}

fn arp_from(mac: Mac, sender: &str) -> Vec<u8> {
    let mut body = vec![0, 1, 8, 0, 6, 4, 0, 2];
    body.extend(mac);
    body.extend(sender.parse::<Ipv4Addr>().unwrap().octets());
    body.extend([0; 10]);
    body
}

fn ipv6(sender: &str, next: u8, hops: u8, payload: &[u8]) -> Vec<u8> {
    let mut body = vec![0x60, 0, 0, 0, 0, 0, next, hops];
    body.extend(sender.parse::<Ipv6Addr>().unwrap().octets());
    body.extend([0xff; 16]);
    body.extend(payload);
    frame(OWN, IPV6, &body)
}

fn icmp(kind: u8, target: &str) -> Vec<u8> {
    let mut payload = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    payload.extend(target.parse::<Ipv6Addr>().unwrap().octets());
    payload
}

#[test]
fn own_addresses_pass_and_others_do_not() {
    for own in ["10.0.0.5", "10.1.0.5"] {
        assert!(passes(&frame(OWN, IPV4, &ipv4_from(own))), "{own}");
        assert!(passes(&frame(OWN, ARP, &arp_from(OWN, own))), "{own}");
    }
    for other in ["10.0.0.6", "10.0.0.1", "255.255.255.255", "127.0.0.1"] {
        assert!(!passes(&frame(OWN, IPV4, &ipv4_from(other))), "{other}");
        assert!(!passes(&frame(OWN, ARP, &arp_from(OWN, other))), "{other}");
    }
    assert!(!passes(&frame(OWN, IPV4, &ipv4_from("0.0.0.0"))));
    // Whether an address is free may be asked without having one.
    assert!(passes(&frame(OWN, ARP, &arp_from(OWN, "0.0.0.0"))));
    for own in ["fd00::5", "fe80::5", "::"] {
        assert!(passes(&ipv6(own, 58, 64, &icmp(128, "::"))), "{own}");
    }
    for other in ["fd00::6", "fe80::6", "fd00::500", "fd01::5", "2001::1"] {
        assert!(!passes(&ipv6(other, 58, 64, &icmp(128, "::"))), "{other}");
    }
}

#[test]
fn other_ethernet_addresses_protocols_and_tags_do_not_pass() {
    assert!(!passes(&frame(OTHER, IPV4, &ipv4_from("10.0.0.5"))));
    assert!(!passes(&frame(OTHER, ARP, &arp_from(OTHER, "10.0.0.5"))));
    assert!(!passes(&frame(OWN, ARP, &arp_from(OTHER, "10.0.0.5"))));
    for kind in [0x8100, 0x88a8, 0x88cc, 0x8847, 0x8035, 0x0026] {
        assert!(
            !passes(&frame(OWN, kind, &ipv4_from("10.0.0.5"))),
            "{kind:#x}"
        );
    }
    let fine = frame(OWN, IPV4, &ipv4_from("10.0.0.5"));
    assert_eq!(run(&from_guest(&interface()), &fine, true), NO_MATCH);
    // An ARP packet of another kind, whose sender stands elsewhere.
    let mut odd = frame(OWN, ARP, &arp_from(OWN, "10.0.0.5"));
    odd[18] = 8;
    assert!(!passes(&odd));
}

#[test]
fn nobody_else_is_advertised() {
    assert!(passes(&ipv6("fe80::5", 58, 255, &icmp(136, "fd00::5"))));
    assert!(!passes(&ipv6("fe80::5", 58, 255, &icmp(136, "fd00::6"))));
    assert!(!passes(&ipv6("fe80::5", 58, 255, &icmp(136, "::"))));
    // Router advertisements and redirects, plain and behind each header that may stand before them.
    for kind in [134, 137] {
        assert!(
            !passes(&ipv6("fe80::5", 58, 255, &icmp(kind, "::"))),
            "{kind}"
        );
        for next in [0, 43, 44, 50, 51, 60, 135, 139, 140, 253] {
            assert!(
                !passes(&ipv6("fe80::5", next, 255, &icmp(kind, "::"))),
                "{next}"
            );
        }
    }
    // Questions, and what has nothing to do with it.
    for kind in [133, 135, 128, 129] {
        assert!(
            passes(&ipv6("fe80::5", 58, 255, &icmp(kind, "fd00::1"))),
            "{kind}"
        );
    }
    assert!(passes(&ipv6("::", 0, 1, &[58, 0, 5, 2, 0, 0, 1, 0, 143])));
    assert!(passes(&ipv6("fd00::5", 6, 255, &[0; 20])));
}

#[test]
fn what_is_cut_short_does_not_pass() {
    let whole = ipv6("fe80::5", 58, 255, &icmp(136, "fd00::5"));
    for length in 0..whole.len() {
        assert!(!passes(&whole[..length]), "{length}");
    }
    assert!(passes(&whole));
}

#[test]
fn the_namespace_hears_routers_and_the_guest_all_else() {
    let advertised = ipv6("fe80::1", 58, 255, &icmp(134, "::"));
    assert_eq!(run(&to_guest(), &advertised, false), NO_MATCH);
    for other in [
        ipv6("fe80::1", 58, 255, &icmp(135, "::")),
        ipv6("fe80::1", 6, 64, &[134; 20]),
        frame(OTHER, ARP, &arp_from(OTHER, "10.0.0.1")),
        frame(OTHER, IPV4, &ipv4_from("10.0.0.1")),
    ] {
        assert_eq!(run(&to_guest(), &other, false), MATCH);
    }
}

#[test]
fn the_longest_program_is_one_the_kernel_takes() {
    let mut full = interface();
    let last = full.addresses[2].clone();
    full.addresses = (0..MOST_ADDRESSES)
        .map(|number| Address {
            ip: Ipv6Addr::from(number as u128 + 1).into(),
            ..last.clone()
        })
        .collect();
    let program = from_guest(&full);
    assert!(program.len() <= 4096, "{}", program.len());
    let answer = |ip: u128| {
        let sender = Ipv6Addr::from(ip).to_string();
        run(
            &program,
            &ipv6(&sender, 58, 255, &icmp(136, &sender)),
            false,
        )
    };
    for number in 1..=MOST_ADDRESSES as u128 {
        assert_eq!(answer(number), MATCH);
    }
    assert_eq!(answer(MOST_ADDRESSES as u128 + 1), NO_MATCH);
}
