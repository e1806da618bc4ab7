//! Drivers that mean harm.

mod wire;

use std::os::fd::OwnedFd;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use vm_memory::{Bytes, GuestAddress};
use vmm_net::{Net, Settings, Statistics};
use vmm_virtio::testing::{Descriptor, Driver, MEMORY};
use wire::{GUEST, HEADER, HOST, RECEIVE, TRANSMIT, Wire, frame, internet, pattern, start, works};

const ALL: u64 = u64::MAX;
const MRG_RXBUF: u64 = 1 << 15;

fn card(taps: &[OwnedFd], features: u64) -> (Driver, Statistics) {
    let taps = taps.iter().map(|tap| tap.try_clone().expect("a copy"));
    let net = Net::new(Settings {
        mac: GUEST,
        taps: taps.collect(),
        ..Settings::default()
    });
    let net = net.expect("a card");
    let statistics = net.statistics();
    (Driver::start(Box::new(net), features), statistics)
}

#[test]
fn headers_that_lie_are_refused_by_the_tap() {
    let Some((wire, taps)) = Wire::new(1) else {
        return;
    };
    let (mut driver, statistics) = card(&taps, ALL);
    let frame = internet(HOST, GUEST, 6, [1, 2], &pattern(3000, 1));
    let end = frame.len() as u16;
    let mut sent = 0;
    // hdr_len, gso_size, csum_start, csum_offset.
    let lies = [
        [0, 0, end, 0],
        [0, 0, u16::MAX, u16::MAX],
        [0, 0, end - 1, 1],
        [u16::MAX, 1448, 34, 16],
        [end + 1, 1448, 34, 16],
        [54, 0, 34, 16],
        [54, u16::MAX, 34, 16],
        [54, 1, 34, 16],
        [0, 1448, 0, 0],
        [54, 1448, end, 16],
        [54, 1448, 34, u16::MAX],
    ];
    for flags in [0, 1, 2, 4, 0xff] {
        for offload in [0, 1, 3, 4, 5, 0x81, 0x80, 0x7f, 0xff] {
            for lie in lies {
                let mut header = [0xff; HEADER];
                header[..2].copy_from_slice(&[flags, offload]);
                for (place, value) in lie.into_iter().enumerate() {
                    header[2 + 2 * place..4 + 2 * place].copy_from_slice(&value.to_le_bytes());
                }
                driver.request(TRANSMIT, &[&header, &frame], &[]);
                sent += 1;
                while wire.try_receive().is_some() {}
            }
        }
    }
    let counts = statistics.read().transmitted;
    assert_eq!(counts.packets + counts.errors, sent);
    assert!(counts.errors > sent / 4, "{counts:?}");
    assert_eq!(counts.dropped, 0);
    works(&wire, &mut driver, ALL);
}

#[test]
fn packets_of_impossible_lengths_are_refused() {
    let Some((wire, taps)) = Wire::new(1) else {
        return;
    };
    let (mut driver, statistics) = card(&taps, ALL);
    // None, half a header, no frame, less than an address, more than a packet can be, and very much more.
    for length in [
        0,
        5,
        HEADER as u32,
        13,
        25,
        65_606,
        100_000,
        MEMORY as u32 - 9,
    ] {
        driver.add_at(TRANSMIT, &[(9, length, false)]);
        driver.kick(TRANSMIT);
        driver.expect_used(TRANSMIT);
    }
    let everything = vec![(0, MEMORY as u32, false); 100];
    driver.add_at(TRANSMIT, &everything);
    driver.kick(TRANSMIT);
    driver.expect_used(TRANSMIT);
    // Nothing that the device reads.
    driver.request(TRANSMIT, &[], &[2000]);
    assert_eq!(statistics.read().transmitted.errors, 10);
    // One byte in each piece.
    let frame = frame(HOST, GUEST, &[3; 46]);
    let whole = [&[0; HEADER], &frame[..]].concat();
    let pieces: Vec<&[u8]> = whole.chunks(1).collect();
    driver.request(TRANSMIT, &pieces, &[]);
    assert_eq!(wire.receive().1, frame);
    works(&wire, &mut driver, ALL);
}

#[test]
fn buffers_without_room_for_a_header_stop_the_card() {
    let Some((wire, taps)) = Wire::new(1) else {
        return;
    };
    for features in [ALL, ALL & !MRG_RXBUF] {
        let (mut driver, _) = card(&taps, features);
        for bad in [&[][..], &[HEADER as u32 - 1], &[0, 3, 4]] {
            start(&mut driver, features);
            driver.add(RECEIVE, &[b"to read"], bad);
            driver.kick(RECEIVE);
            wire.send(&frame(GUEST, HOST, &[1; 46]));
            driver.expect_reset();
            works(&wire, &mut driver, features);
        }
    }
}

#[test]
fn buffers_in_the_smallest_pieces_are_filled() {
    let Some((wire, taps)) = Wire::new(1) else {
        return;
    };
    let (mut driver, _) = card(&taps, ALL);
    // Thirteen bytes in each, one by one; and two of 128 pieces each, so that the longest packet does not fit.
    let frame = frame(GUEST, HOST, &pattern(186, 4));
    for lengths in [vec![1; 13], vec![1; 127]] {
        for _ in 0..(HEADER + frame.len()).div_ceil(lengths.len()) {
            driver.add(RECEIVE, &[], &lengths);
        }
        driver.kick(RECEIVE);
        wire.send(&frame);
        let (_, length, mut received) = driver.expect_used(RECEIVE);
        received.truncate(length as usize);
        for _ in 1..u16::from_le_bytes([received[10], received[11]]) {
            let (_, length, bytes) = driver.used(RECEIVE).expect("the next buffer");
            received.extend(&bytes[..length as usize]);
        }
        assert_eq!(received[HEADER..], frame);
        start(&mut driver, ALL);
    }
}

#[test]
fn more_pieces_than_one_call_takes_are_filled() {
    let Some((wire, taps)) = Wire::new(1) else {
        return;
    };
    let (mut driver, _) = card(&taps, ALL);
    // Twenty buffers by tables of their own, each of 200 pieces.
    let places: Vec<u64> = (0..20_u16)
        .map(|head| {
            let (table, place) = (driver.room(200 * 16), driver.room(200));
            for number in 0..200_u16 {
                let descriptor = Descriptor {
                    address: place + u64::from(number),
                    length: 1,
                    flags: if number == 199 { 2 } else { 3 },
                    next: number + 1,
                };
                driver.describe_at(table + u64::from(number) * 16, descriptor);
            }
            let table = Descriptor {
                address: table,
                length: 200 * 16,
                flags: 4,
                next: 0,
            };
            driver.describe(RECEIVE, head, table);
            driver.offer(RECEIVE, head);
            place
        })
        .collect();
    driver.kick(RECEIVE);
    // Three for each, more than are held at a time for the last ones.
    for (number, places) in (0..).zip(places.chunks_exact(3)) {
        let frame = frame(GUEST, HOST, &pattern(500, number));
        wire.send(&frame);
        let mut received = Vec::new();
        for &place in places {
            let (_, length, _) = driver.expect_used(RECEIVE);
            let mut bytes = vec![0; length as usize];
            Bytes::read_slice(&*driver.memory, &mut bytes, GuestAddress(place)).expect("memory");
            received.extend(bytes);
        }
        assert_eq!(received[HEADER..], frame);
    }
    works(&wire, &mut driver, ALL);
}

#[test]
fn buffers_that_overlap_and_that_hold_the_rings_hurt_nobody_else() {
    let Some((wire, taps)) = Wire::new(1) else {
        return;
    };
    let (mut driver, _) = card(&taps, ALL);
    // The receive queue's own tables are overwritten by what comes in.
    for _ in 0..40 {
        driver.add_at(
            RECEIVE,
            &[(1 << 20, 0x8000, true), ((1 << 20) + 16, 0xffff, true)],
        );
    }
    driver.kick(RECEIVE);
    for number in 0..40 {
        wire.send(&frame(GUEST, HOST, &pattern(1000, number)));
    }
    works(&wire, &mut driver, ALL);
}

fn descriptors() -> impl Strategy<Value = Vec<(u16, Descriptor)>> {
    let address = prop_oneof![8 => 0..MEMORY / 2, 1 => any::<u64>()];
    let length = prop_oneof![8 => 0..4096_u32, 1 => any::<u32>(), 2 => Just(0)];
    // Mostly one that ends, and mostly one that may be written.
    let flags =
        prop_oneof![4 => Just(2_u16), 2 => Just(0), 2 => Just(1), 2 => Just(3), 1 => 0..8_u16];
    let one = (0..64_u16, address, length, flags, 0..66_u16).prop_map(
        |(number, address, length, flags, next)| {
            let descriptor = Descriptor {
                address,
                length,
                flags,
                next,
            };
            (number, descriptor)
        },
    );
    prop::collection::vec(one, 1..64)
}

/// Descriptors, heads, packets from the host, contents of memory, features, writes to the configuration.
type Case = (
    Vec<(u16, Descriptor)>,
    Vec<(usize, u16)>,
    Vec<(usize, u32)>,
    u32,
    u64,
    Vec<(u64, [u8; 4])>,
);

/// Whatever is in the rings and comes from the host, the card answers or stops, and works again after a reset.
#[test]
fn any_rings_and_any_packets() {
    let Some((wire, taps)) = Wire::new(2) else {
        return;
    };
    let (mut driver, _) = card(&taps, ALL);
    let heads = prop::collection::vec((0..5_usize, 0..70_u16), 0..60);
    let packets = prop::collection::vec((1..1500_usize, any::<u32>()), 0..20);
    let contents = any::<u32>();
    let features = prop_oneof![Just(ALL), Just(ALL & !MRG_RXBUF), any::<u64>()];
    let configuration = prop::collection::vec((0..0x20_u64, any::<[u8; 4]>()), 0..4);
    let all = (
        descriptors(),
        heads,
        packets,
        contents,
        features,
        configuration,
    );
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 100,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let run = |case: Case| {
        let (descriptors, heads, packets, contents, features, configuration) = case;
        start(&mut driver, features);
        Bytes::write_slice(
            &*driver.memory,
            &pattern(1 << 16, contents),
            GuestAddress(0),
        )
        .expect("memory");
        for &(number, descriptor) in &descriptors {
            for queue in 0..5 {
                driver.describe(queue, number % if queue == 4 { 16 } else { 64 }, descriptor);
            }
        }
        for &(queue, head) in &heads {
            driver.offer(queue, head);
        }
        for &(offset, value) in &configuration {
            driver.transport.write(0x100 + offset, &value);
        }
        for queue in 0..5 {
            driver.kick(queue);
        }
        for &(length, seed) in &packets {
            wire.send(&frame(GUEST, HOST, &pattern(length, seed)));
        }
        for queue in 0..5 {
            driver.kick(queue);
        }
        while wire.try_receive().is_some() {}
        works(&wire, &mut driver, features);
        Ok(())
    };
    let run = std::cell::RefCell::new(run);
    runner
        .run(&all, |case| (run.borrow_mut())(case))
        .expect("every case");
}
