//! Packets and rings that virtio does not allow.

use super::guest::*;
use proptest::prelude::*;
use vmm_virtio::testing::{Descriptor, MEMORY};

#[test]
fn what_is_not_for_the_host_is_refused() {
    let (mut guest, _host) = Guest::with_service();
    let request = Packet::new(GUEST, HOST, REQUEST);
    let others = [
        Packet {
            dst_cid: 4,
            ..request
        },
        Packet {
            dst_cid: u64::MAX,
            ..request
        },
        Packet { kind: 2, ..request },
        Packet { kind: 0, ..request },
        Packet {
            dst_port: 1,
            ..request
        },
    ];
    for packet in others {
        guest.send(&packet);
        let (refusal, _) = guest.next();
        assert_eq!((refusal.op, refusal.kind), (RST, packet.kind));
        let from = (refusal.src_cid, refusal.src_port);
        assert_eq!(from, (packet.dst_cid, packet.dst_port));
        assert_eq!((refusal.dst_cid, refusal.dst_port), (3, GUEST));
        // A reset is never answered.
        guest.send(&Packet { op: RST, ..packet });
    }
    // Nobody sent this.
    guest.send(&Packet {
        src_cid: 2,
        ..request
    });
    guest.expect_silence();
    guest.send(&request);
    guest.expect(RESPONSE);
}

#[test]
fn packets_that_are_too_short_do_nothing_or_end_their_connection() {
    let (mut guest, host) = Guest::connected();
    guest.send_pieces(&[&[0; 43]]);
    guest.send_pieces(&[&[0; 1]]);
    guest.expect_silence();
    let lies = Packet {
        len: 5,
        ..Packet::new(GUEST, HOST, RW)
    };
    guest.send_pieces(&[&lies.bytes(), b"four"]);
    guest.expect(RST);
    assert!(rest(&host).is_empty());
    assert_eq!(guest.control.stats().violations(), 3);
}

#[test]
fn bytes_behind_a_packet_are_not_part_of_it() {
    let (mut guest, host) = Guest::connected();
    let packet = Packet {
        len: 3,
        ..Packet::new(GUEST, HOST, RW)
    };
    // And the header may be cut anywhere.
    let bytes = packet.bytes();
    guest.send_pieces(&[
        &bytes[..7],
        &bytes[7..30],
        &[&bytes[30..], b"ye"].concat(),
        b"s, no",
    ]);
    guest.send(&Packet {
        flags: 3,
        ..Packet::new(GUEST, HOST, SHUTDOWN)
    });
    assert_eq!(rest(&host), b"yes");
}

#[test]
fn a_buffer_without_room_breaks_the_device() {
    for length in [1, 43, 44] {
        let (near, far) = pair();
        let mut guest = Guest::bare(vec![(HOST, far)], None);
        guest.driver.add(0, &[], &[length]);
        guest.send(&Packet::new(GUEST, HOST, REQUEST));
        guest.driver.expect_reset();
        assert!(rest(&near).is_empty());
        guest.restart();
        guest.expect_silence();
    }
}

#[test]
fn a_driver_that_leaves_out_a_queue_breaks_the_device() {
    let (mut guest, _host) = Guest::with_service();
    for missing in 0..3 {
        guest.driver.negotiate(0);
        guest.driver.set_up(128);
        guest.driver.write(0x30, missing);
        guest.driver.write(0x44, 0);
        guest.driver.write(0x70, 15);
        assert!(guest.driver.needs_reset());
    }
    guest.restart();
    guest.expect_silence();
}

fn packet() -> impl Strategy<Value = Packet> {
    let cids = prop_oneof![4 => Just((3, 2)), 1 => (0..5_u64, 0..5_u64)];
    let ports = (0..3_u32, 0..4_u32);
    let len = prop_oneof![Just(0), 0..100_u32, any::<u32>()];
    let kind = prop_oneof![8 => Just(1_u16), 1 => any::<u16>()];
    let op = prop_oneof![20 => 0..9_u16, 1 => any::<u16>()];
    (cids, ports, len, kind, op, any::<(u32, u32, u32)>()).prop_map(
        |((src_cid, dst_cid), (src_port, dst_port), len, kind, op, (flags, buf_alloc, fwd_cnt))| {
            Packet {
                src_cid,
                dst_cid,
                src_port,
                dst_port,
                len,
                kind,
                op,
                flags,
                buf_alloc,
                fwd_cnt,
            }
        },
    )
}

fn descriptors() -> impl Strategy<Value = Vec<(usize, u16, Descriptor)>> {
    let address = prop_oneof![0..MEMORY, MEMORY - 64..MEMORY + 64, any::<u64>()];
    let length = prop_oneof![0..64_u32, any::<u32>(), Just(44), Just(4096)];
    let one = (0..3_usize, 0..16_u16, address, length, 0..8_u16, 0..18_u16).prop_map(
        |(queue, number, address, length, flags, next)| {
            let descriptor = Descriptor {
                address,
                length,
                flags,
                next,
            };
            (queue, number, descriptor)
        },
    );
    prop::collection::vec(one, 1..32)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the guest says, the device goes on.
    #[test]
    fn any_packets(packets in prop::collection::vec((packet(), 0..200_usize), 1..60)) {
        let (_one, far_one) = pair();
        let (_two, far_two) = pair();
        let mut guest = Guest::new(vec![(1, far_one), (2, far_two)], None);
        for (packet, length) in packets {
            guest.send_pieces(&[&packet.bytes(), &vec![5; length]]);
            while guest.receive().is_some() {}
        }
        guest.sent();
        let probe = Packet::new(77, 77, CREDIT_REQUEST);
        guest.send(&probe);
        while guest.next().0.dst_port != 77 {}
    }

    /// Whatever is in its rings, it answers or stops, and works again after a reset.
    #[test]
    fn any_rings(descriptors in descriptors(), heads in prop::collection::vec((0..3_usize, 0..20_u16), 0..20)) {
        let (_near, far) = pair();
        let mut guest = Guest::bare(vec![(HOST, far)], None);
        for (queue, number, descriptor) in descriptors {
            guest.driver.describe(queue, number, descriptor);
        }
        for (queue, head) in heads {
            guest.driver.offer(queue, head);
            guest.driver.kick(queue);
        }
        guest.control.transport_reset();
        guest.restart();
        let probe = Packet::new(77, 77, CREDIT_REQUEST);
        guest.send(&probe);
        guest.expect(RST);
    }
}
