//! Connections of the guest to services of its host.

use std::io::Write;
use std::net::Shutdown;

use super::guest::*;
use vmm_virtio::testing::wait;
use vmm_vsock::Vsock;

#[test]
fn a_guest_talks_to_a_service() {
    let (mut guest, mut host) = Guest::with_service();
    assert_eq!(guest.driver.read(8), 19);
    assert_eq!(guest.driver.config(0, 8), 3_u64.to_le_bytes());
    guest.send(&Packet::new(GUEST, HOST, REQUEST));
    let response = guest.expect(RESPONSE);
    assert_eq!((response.src_port, response.dst_port), (HOST, GUEST));
    assert_eq!((response.buf_alloc, response.fwd_cnt), (BUFFER, 0));
    host.write_all(b"hello").expect("writes");
    let (packet, bytes) = guest.next();
    assert_eq!((packet.op, &bytes[..]), (RW, &b"hello"[..]));
    guest.write(Packet::new(GUEST, HOST, RW), b"good day");
    assert_eq!(exactly(&host, 8), b"good day");
    guest.send(&Packet::new(GUEST, HOST, CREDIT_REQUEST));
    assert_eq!(guest.expect(CREDIT_UPDATE).fwd_cnt, 8);
    guest.expect_silence();
    let stats = guest.control.stats();
    assert_eq!((stats.to_guest_bytes(), stats.from_guest_bytes()), (5, 8));
    assert_eq!(
        (stats.opened(), stats.refused(), stats.violations()),
        (1, 0, 0)
    );
}

/// Each kick is an exit of the guest's: buffers for packets are not looked at until they are needed.
#[test]
fn kicks_are_asked_for_as_they_are_needed() {
    let (near, far) = pair();
    let mut guest = Guest::bare(vec![(HOST, far)], None);
    for _ in 0..3 {
        guest.driver.add(0, &[], &[4096]);
    }
    guest.send(&Packet::new(GUEST, HOST, REQUEST));
    wait("the response", || guest.driver.used(0));
    let (driver, mut host) = (&guest.driver, &near);
    wait("to be heard", || driver.is_asked_to_kick(1).then_some(()));
    assert!(!driver.is_asked_to_kick(0));
    for _ in 0..2 {
        host.write_all(b"taken").expect("writes");
        wait("a packet", || guest.driver.used(0));
    }
    host.write_all(b"waits").expect("writes");
    let driver = &guest.driver;
    wait("to be asked", || driver.is_asked_to_kick(0).then_some(()));
    guest.driver.add(0, &[], &[4096]);
    guest.driver.kick(0);
    let (_, length, bytes) = guest.driver.expect_used(0);
    assert_eq!(&bytes[44..length as usize], b"waits");
}

#[test]
fn a_service_serves_once() {
    let (mut guest, host) = Guest::connected();
    guest.send(&Packet::new(GUEST + 1, HOST, REQUEST));
    let refusal = guest.expect(RST);
    assert_eq!((refusal.src_port, refusal.dst_port), (HOST, GUEST + 1));
    guest.send(&Packet::new(GUEST, HOST, RST));
    assert!(rest(&host).is_empty());
    guest.send(&Packet::new(GUEST, HOST, REQUEST));
    guest.expect(RST);
    assert_eq!(guest.control.stats().refused(), 2);
}

#[test]
fn a_port_has_one_service() {
    let services = [(HOST, pair().1), (HOST, pair().1)];
    assert!(Vsock::new(services, None).is_err());
    // Host programs come from there.
    assert!(Vsock::new([(1 << 30, pair().1)], None).is_err());
    assert!(Vsock::new([((1 << 30) - 1, pair().1), (1 << 31, pair().1)], None).is_ok());
}

#[test]
fn a_host_that_ends_its_writing_still_hears_the_guest() {
    let (mut guest, mut host) = Guest::connected();
    host.write_all(b"question").expect("writes");
    host.shutdown(Shutdown::Write).expect("shuts");
    assert_eq!(guest.next().1, b"question");
    assert_eq!(guest.expect(SHUTDOWN).flags, 2);
    guest.write(Packet::new(GUEST, HOST, RW), b"answer");
    guest.send(&Packet {
        flags: 3,
        ..Packet::new(GUEST, HOST, SHUTDOWN)
    });
    assert_eq!(rest(&host), b"answer");
    guest.expect(RST);
}

#[test]
fn a_guest_that_ends_its_writing_still_hears_the_host() {
    let (mut guest, mut host) = Guest::connected();
    guest.write(Packet::new(GUEST, HOST, RW), b"question");
    guest.send(&Packet {
        flags: 2,
        ..Packet::new(GUEST, HOST, SHUTDOWN)
    });
    assert_eq!(rest(&host), b"question");
    host.write_all(b"answer").expect("writes");
    assert_eq!(guest.next().1, b"answer");
    drop(host);
    // Both directions have ended; the guest confirms.
    let mut flags = guest.expect(SHUTDOWN).flags;
    if flags != 3 {
        flags = guest.expect(SHUTDOWN).flags;
    }
    assert_eq!(flags, 3);
    guest.send(&Packet::new(GUEST, HOST, RST));
    guest.expect_silence();
}

#[test]
fn a_guest_that_reads_no_more_breaks_the_hosts_pipe() {
    let (mut guest, mut host) = Guest::connected();
    guest.send(&Packet {
        flags: 1,
        ..Packet::new(GUEST, HOST, SHUTDOWN)
    });
    guest.sent();
    assert!(host.write_all(b"nobody reads").is_err());
    guest.write(Packet::new(GUEST, HOST, RW), b"still there");
    assert_eq!(exactly(&host, 11), b"still there");
    guest.send(&Packet {
        flags: 2,
        ..Packet::new(GUEST, HOST, SHUTDOWN)
    });
    guest.expect(RST);
    assert!(rest(&host).is_empty());
}

#[test]
fn what_a_host_wrote_before_it_left_arrives() {
    let (mut guest, mut host) = Guest::connected();
    guest.write(Packet::new(GUEST, HOST, RW), b"unread");
    guest.sent();
    host.write_all(&[7; 10_000]).expect("writes");
    drop(host);
    let mut bytes = Vec::new();
    let mut flags = 0;
    while flags != 3 {
        let (packet, data) = guest.next();
        match packet.op {
            RW => bytes.extend(data),
            SHUTDOWN => flags = packet.flags,
            _ => panic!("{packet:?}"),
        }
    }
    assert_eq!(bytes, [7; 10_000]);
    // What the guest still sends is lost, and that is no violation.
    guest.write(Packet::new(GUEST, HOST, RW), &[1; 1000]);
    guest.send(&Packet::new(GUEST, HOST, RST));
    guest.expect_silence();
    assert_eq!(guest.control.stats().violations(), 0);
}

#[test]
fn what_a_guest_wrote_before_it_left_arrives() {
    for last in [SHUTDOWN, RST] {
        let (mut guest, host) = Guest::connected();
        // More than the socket holds.
        let bytes: Vec<u8> = (0..BUFFER).map(|at| (at % 251) as u8).collect();
        for part in bytes.chunks(64 << 10) {
            guest.write(Packet::new(GUEST, HOST, RW), part);
        }
        guest.send(&Packet {
            flags: 3,
            ..Packet::new(GUEST, HOST, last)
        });
        guest.sent();
        if last == RST {
            // The ports are free again, though the service is not.
            guest.send(&Packet::new(GUEST, HOST, REQUEST));
            guest.expect_end();
        }
        let got = rest(&host);
        assert_eq!(got.len(), bytes.len(), "after {last}");
        assert!(got == bytes);
        if last == SHUTDOWN {
            guest.expect_end();
        }
        guest.expect_silence();
    }
}

/// One that only reads when it has written would otherwise wait for ever.
#[test]
fn a_host_that_writes_hears_that_the_guest_has_left() {
    for last in [SHUTDOWN, RST] {
        let (mut guest, mut host) = Guest::with_service();
        guest.send(&Packet {
            buf_alloc: 0,
            ..Packet::new(GUEST, HOST, REQUEST)
        });
        guest.expect(RESPONSE);
        let writer = std::thread::spawn(move || {
            while host.write_all(&[0; 1000]).is_ok() {}
            host
        });
        for _ in 0..4 {
            guest.write(Packet::new(GUEST, HOST, RW), &[3; 64 << 10]);
        }
        guest.send(&Packet {
            flags: 3,
            ..Packet::new(GUEST, HOST, last)
        });
        let host = writer.join().expect("no panic");
        // All that the guest wrote is there. The end behind it is an error, as what the host wrote was not read.
        assert_eq!(exactly(&host, BUFFER as usize).len(), BUFFER as usize);
    }
}

#[test]
fn a_reset_of_the_device_ends_connections_and_leaves_services() {
    let (one, far_one) = pair();
    let (mut two, far_two) = pair();
    let mut guest = Guest::new(vec![(1, far_one), (2, far_two)], None);
    guest.send(&Packet::new(GUEST, 1, REQUEST));
    guest.expect(RESPONSE);
    guest.restart();
    assert!(rest(&one).is_empty());
    guest.send(&Packet::new(GUEST, 1, REQUEST));
    guest.expect(RST);
    two.write_all(b"early").expect("writes");
    guest.send(&Packet::new(GUEST, 2, REQUEST));
    guest.expect(RESPONSE);
    assert_eq!(guest.next().1, b"early");
}

#[test]
fn a_guest_is_told_that_its_connections_are_gone() {
    let (mut guest, host) = Guest::connected();
    guest.control.transport_reset();
    // There is no buffer for that yet.
    guest.expect_silence();
    guest.driver.add(2, &[], &[4]);
    guest.driver.kick(2);
    let (_, length, contents) = guest.driver.expect_used(2);
    assert_eq!((length, &contents[..]), (4, &[0; 4][..]));
    assert!(rest(&host).is_empty());
    guest.send(&Packet::new(GUEST, HOST, CREDIT_REQUEST));
    guest.expect(RST);
}
