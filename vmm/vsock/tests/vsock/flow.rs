//! Many bytes, and sides that do not read.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;

use super::guest::*;
use vmm_virtio::testing::wait;

const MUCH: u32 = 64 << 20;

/// The byte at a place of a stream.
fn byte(at: u32) -> u8 {
    (at ^ at >> 8 ^ at >> 16 ^ at >> 24) as u8
}

fn bytes(from: u32, count: u32) -> Vec<u8> {
    (from..from + count).map(byte).collect()
}

/// Reads the stream to its end; how long it was.
fn check(mut host: &UnixStream) -> u32 {
    let mut buffer = vec![0; 100_000];
    let mut at = 0;
    loop {
        let count = host.read(&mut buffer).expect("reads");
        if count == 0 {
            return at;
        }
        assert!(buffer[..count] == bytes(at, count as u32), "at {at}");
        at += count as u32;
    }
}

#[test]
fn both_directions_carry_64_mib_at_once() {
    let (mut guest, host) = Guest::connected();
    let reader = thread::spawn({
        let host = host.try_clone().expect("clones");
        move || check(&host)
    });
    let writer = thread::spawn({
        let mut host = host.try_clone().expect("clones");
        move || {
            for at in (0..MUCH).step_by(1 << 18) {
                host.write_all(&bytes(at, 1 << 18)).expect("writes");
            }
            host.shutdown(std::net::Shutdown::Write).expect("shuts");
        }
    });
    // What was sent and what of it is known to have left; what has come and what of that was told.
    let (mut sent, mut left, mut come, mut told) = (0, 0, 0_u32, 0_u32);
    let mut ended = false;
    while sent < MUCH || !ended {
        while let Some((packet, data)) = guest.receive() {
            left = packet.fwd_cnt;
            match packet.op {
                RW => {
                    assert!(data == bytes(come, packet.len), "at {come}");
                    come += packet.len;
                    assert!(come - told <= BUFFER, "more than there is room for");
                }
                SHUTDOWN => ended = true,
                CREDIT_UPDATE | CREDIT_REQUEST => {}
                _ => panic!("{packet:?}"),
            }
        }
        let header = Packet {
            fwd_cnt: come,
            ..Packet::new(GUEST, HOST, CREDIT_UPDATE)
        };
        if come - told > BUFFER / 2 {
            guest.send(&header);
            told = come;
        }
        let room = (BUFFER - (sent - left)).min(MUCH - sent).min(64 << 10);
        if room > 0 {
            guest.write(header, &bytes(sent, room));
            sent += room;
            told = come;
        }
    }
    assert_eq!(come, MUCH);
    guest.send(&Packet {
        flags: 3,
        ..Packet::new(GUEST, HOST, SHUTDOWN)
    });
    guest.expect_end();
    writer.join().expect("writes");
    assert_eq!(reader.join().expect("reads"), MUCH);
    let stats = guest.control.stats();
    let moved = (stats.to_guest_bytes(), stats.from_guest_bytes());
    assert_eq!(moved, (u64::from(MUCH), u64::from(MUCH)));
}

#[test]
fn the_hosts_counters_come_round() {
    let (mut guest, mut host) = Guest::with_service();
    // The guest claims to have taken more than it was sent: it has no room.
    guest.send(&Packet {
        fwd_cnt: 1_000_000,
        buf_alloc: 10,
        ..Packet::new(GUEST, HOST, REQUEST)
    });
    guest.expect(RESPONSE);
    host.write_all(b"hello").expect("writes");
    guest.expect(CREDIT_REQUEST);
    guest.expect_silence();
    guest.send(&Packet {
        buf_alloc: 3,
        ..Packet::new(GUEST, HOST, CREDIT_UPDATE)
    });
    assert_eq!(guest.next().1, b"hel");
    guest.expect(CREDIT_REQUEST);
    guest.send(&Packet {
        fwd_cnt: 3,
        buf_alloc: 3,
        ..Packet::new(GUEST, HOST, CREDIT_UPDATE)
    });
    assert_eq!(guest.next().1, b"lo");
}

/// Sends until the credit is used up.
fn fill(guest: &mut Guest, header: Packet) {
    for at in (0..BUFFER).step_by(64 << 10) {
        guest.write(header, &bytes(at, 64 << 10));
    }
}

#[test]
fn a_reader_that_stalls_holds_nobody_up() {
    let (slow, far_slow) = pair();
    let (quick, far_quick) = pair();
    let mut guest = Guest::new(vec![(1, far_slow), (2, far_quick)], None);
    for port in [1, 2] {
        guest.send(&Packet::new(GUEST, port, REQUEST));
        guest.expect(RESPONSE);
    }
    let (slow_header, quick_header) = (Packet::new(GUEST, 1, RW), Packet::new(GUEST, 2, RW));
    let mut filled = 0;
    // The socket itself takes some; then nothing moves.
    let mut left = 0;
    while filled - left < BUFFER {
        guest.write(slow_header, &bytes(filled, 32 << 10));
        filled += 32 << 10;
        guest.sent();
        while let Some((packet, _)) = guest.receive() {
            assert_eq!((packet.op, packet.src_port), (CREDIT_UPDATE, 1));
            left = packet.fwd_cnt;
        }
    }
    let reader = thread::spawn(move || check(&quick));
    let (mut sent, mut gone) = (0, 0);
    while sent < 8 << 20 {
        if sent - gone <= BUFFER - (64 << 10) {
            guest.write(quick_header, &bytes(sent, 64 << 10));
            sent += 64 << 10;
        } else {
            let packet = guest.expect(CREDIT_UPDATE);
            assert_eq!(packet.src_port, 2, "the slow one has moved");
            gone = packet.fwd_cnt;
        }
    }
    guest.send(&Packet {
        flags: 3,
        ..Packet::new(GUEST, 2, SHUTDOWN)
    });
    guest.expect_end();
    assert_eq!(reader.join().expect("reads"), sent);
    guest.send(&Packet {
        flags: 3,
        ..Packet::new(GUEST, 1, SHUTDOWN)
    });
    assert_eq!(check(&slow), filled);
    guest.expect_end();
}

#[test]
fn connections_take_turns() {
    let count = 8;
    let mut hosts = Vec::new();
    let mut services = Vec::new();
    for port in 0..count {
        let (near, far) = pair();
        hosts.push(near);
        services.push((port, far));
    }
    let mut guest = Guest::bare(services, None);
    for port in 0..count {
        guest.send(&Packet::new(GUEST, port, REQUEST));
    }
    for host in &mut hosts {
        host.write_all(&[1; 100_000]).expect("writes");
    }
    guest.stock();
    let mut order = VecDeque::new();
    while order.len() < 80 {
        let (packet, _) = guest.next();
        if packet.op == RW {
            order.push_back(packet.src_port);
        }
    }
    for port in 0..count {
        let turns = order.iter().filter(|&&other| other == port).count();
        assert_eq!(turns, 10, "{order:?}");
    }
}

#[test]
fn more_than_the_credit_ends_the_connection() {
    let (mut guest, host) = Guest::connected();
    fill(&mut guest, Packet::new(GUEST, HOST, RW));
    guest.write(Packet::new(GUEST, HOST, RW), &[0; 128 << 10]);
    guest.write(Packet::new(GUEST, HOST, RW), &[0; 128 << 10]);
    // The socket has taken some, and the device may have told; twice as much is too much in any case.
    guest.expect_end();
    let got = rest(&host).len();
    assert!(got <= 2 * BUFFER as usize, "{got}");
    assert!(guest.control.stats().violations() > 0);
}

#[test]
fn resets_wait_for_buffers_and_hold_what_the_guest_sends() {
    let mut guest = Guest::bare(Vec::new(), None);
    for port in 0..300 {
        guest
            .driver
            .add(1, &[&Packet::new(port, 9, REQUEST).bytes()], &[]);
        guest.driver.kick(1);
        if port < 256 {
            guest.driver.expect_used(1);
        }
    }
    guest.stock();
    for port in 0..300 {
        assert_eq!(guest.expect(RST).dst_port, port);
    }
    wait("the last", || {
        (guest.control.stats().from_guest_packets() == 300).then_some(())
    });
}
