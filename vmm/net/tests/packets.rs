//! Packets between a driver and a tap, byte by byte.

mod wire;

use vmm_net::{Counts, Net, Settings};
use vmm_virtio::Rates;
use vmm_virtio::testing::{Driver, wait};
use wire::{GUEST, HEADER, HOST, RECEIVE, TRANSMIT, Wire, frame, internet, is_whole, pattern};

const GUEST_CSUM: u64 = 1 << 1;
const GUEST_TSO4: u64 = 1 << 7;
const MRG_RXBUF: u64 = 1 << 15;
const EVENT_IDX: u64 = 1 << 29;
const ALL: u64 = u64::MAX;

const NEEDS_CSUM: u8 = 1;
const TSO4: u8 = 1;

fn settings(taps: Vec<std::os::fd::OwnedFd>) -> Settings {
    Settings {
        mac: GUEST,
        taps,
        mtu: Some(1500),
        ..Settings::default()
    }
}

/// A header: flags, offload, and where the checksum is.
fn header(flags: u8, offload: u8, [header, size, start, offset]: [u16; 4]) -> [u8; 10] {
    let mut bytes = [0; 10];
    bytes[..2].copy_from_slice(&[flags, offload]);
    for (place, value) in [header, size, start, offset].into_iter().enumerate() {
        bytes[2 + 2 * place..4 + 2 * place].copy_from_slice(&value.to_le_bytes());
    }
    bytes
}

fn long(header: [u8; 10]) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    bytes[..10].copy_from_slice(&header);
    bytes
}

/// One packet out of the buffers that the driver gets back: header and frame.
fn packet(driver: &mut Driver, queue: usize) -> (Vec<u8>, Vec<u8>) {
    let (_, length, mut bytes) = driver.expect_used(queue);
    bytes.truncate(length as usize);
    let frame = bytes.split_off(HEADER);
    let mut packet = (bytes, frame);
    for _ in 1..u16::from_le_bytes([packet.0[10], packet.0[11]]) {
        // They are all there at once.
        let (_, length, contents) = driver.used(queue).expect("the next buffer");
        packet.1.extend(&contents[..length as usize]);
    }
    packet
}

fn room(driver: &mut Driver, count: usize, length: u32) {
    for _ in 0..count {
        driver.add(RECEIVE, &[], &[length]);
    }
    driver.kick(RECEIVE);
}

#[test]
fn frames_go_out_as_they_are() {
    let Some((wire, taps)) = Wire::new(1) else {
        return;
    };
    for features in [0, ALL] {
        let taps = taps.iter().map(|tap| tap.try_clone().expect("a copy"));
        let net = Net::new(settings(taps.collect())).expect("a card");
        let statistics = net.statistics();
        let mut driver = Driver::start(Box::new(net), features);
        let mut bytes = 0;
        for (round, length) in [46, 47, 60, 1000, 1500]
            .into_iter()
            .cycle()
            .take(300)
            .enumerate()
        {
            let frame = frame(HOST, GUEST, &pattern(length, round as u32));
            let whole = [&[0; HEADER], &frame[..]].concat();
            // Cut anywhere, also in the header.
            let (begin, end) = whole.split_at(round % whole.len());
            driver.add(TRANSMIT, &[begin, end], &[]);
            driver.kick(TRANSMIT);
            driver.expect_interrupt();
            assert_eq!(driver.expect_used(TRANSMIT).1, 0);
            wait("the wish for a kick", || {
                driver.is_asked_to_kick(TRANSMIT).then_some(())
            });
            assert_eq!(wire.receive().1, frame);
            bytes += frame.len() as u64;
        }
        let counts = Counts {
            packets: 300,
            bytes,
            ..Counts::default()
        };
        assert_eq!(statistics.read().transmitted, counts);
    }
}

#[test]
fn frames_come_in_as_they_are_and_in_order() {
    let Some((wire, taps)) = Wire::new(1) else {
        return;
    };
    for features in [0, MRG_RXBUF, ALL] {
        let taps = taps.iter().map(|tap| tap.try_clone().expect("a copy"));
        let net = Net::new(settings(taps.collect())).expect("a card");
        let statistics = net.statistics();
        let mut driver = Driver::start(Box::new(net), features);
        let mut bytes = 0;
        for round in 0..40_u32 {
            let frames: Vec<Vec<u8>> = (0..8)
                .map(|number| {
                    let length = 46 + (round * 37 + number * 201) % 1455;
                    frame(GUEST, HOST, &pattern(length as usize, round * 8 + number))
                })
                .collect();
            // Either waits for the other.
            if round % 2 == 0 {
                room(&mut driver, 8, 1526);
            }
            for frame in &frames {
                wire.send(frame);
                bytes += frame.len() as u64;
            }
            if round % 2 == 1 {
                room(&mut driver, 8, 1526);
            }
            driver.expect_interrupt();
            for frame in &frames {
                let (header, received) = packet(&mut driver, RECEIVE);
                assert_eq!(&received, frame);
                assert_eq!(
                    header,
                    long([0; 10])
                        .iter()
                        .enumerate()
                        .map(|(at, _)| u8::from(at == 10))
                        .collect::<Vec<_>>()
                );
            }
            wait("the wish for a kick", || {
                driver.is_asked_to_kick(RECEIVE).then_some(())
            });
        }
        let counts = Counts {
            packets: 320,
            bytes,
            ..Counts::default()
        };
        assert_eq!(statistics.read().received, counts);
    }
}

#[test]
fn checksums_are_left_to_whoever_does_them() {
    let Some((wire, taps)) = Wire::new(1) else {
        return;
    };
    let net = Net::new(settings(taps)).expect("a card");
    let mut driver = Driver::start(Box::new(net), ALL);
    let offload = header(NEEDS_CSUM, 0, [0, 0, 34, 6]);
    // Out: the host learns that the checksum is not done yet.
    let sent = internet(HOST, GUEST, 17, [1000, 2000], &pattern(333, 1));
    assert!(!is_whole(&sent));
    driver.request(TRANSMIT, &[&long(offload), &sent], &[]);
    let (seen, received) = wire.receive();
    assert_eq!((&seen[..], &received), (&offload[..], &sent));
    // In: so does the driver.
    let sent = internet(GUEST, HOST, 17, [1000, 2000], &pattern(333, 2));
    wire.send_with(&offload, &sent).expect("sends");
    room(&mut driver, 1, 1526);
    let (seen, received) = packet(&mut driver, RECEIVE);
    assert_eq!((&seen[..10], &received), (&offload[..], &sent));
    // A driver that does none gets them done.
    driver.negotiate(ALL & !GUEST_CSUM);
    driver.set_up(256);
    driver.write(0x70, 15);
    wire.send_with(&offload, &sent).expect("sends");
    room(&mut driver, 1, 1526);
    let (seen, received) = packet(&mut driver, RECEIVE);
    assert_eq!(seen[..10], [0; 10]);
    assert!(is_whole(&received));
    assert_eq!(received[42..], sent[42..]);
}

/// What is long enough to be cut into 42 packets.
fn segmented() -> ([u8; 10], [Vec<u8>; 2]) {
    let data = pattern(60 << 10, 9);
    let frames =
        [(HOST, GUEST), (GUEST, HOST)].map(|(to, from)| internet(to, from, 6, [1000, 2000], &data));
    (header(NEEDS_CSUM, TSO4, [54, 1448, 34, 16]), frames)
}

#[test]
fn sixty_kibibytes_of_tcp_are_one_packet() {
    let Some((wire, taps)) = Wire::new(1) else {
        return;
    };
    let net = Net::new(settings(taps)).expect("a card");
    let statistics = net.statistics();
    let mut driver = Driver::start(Box::new(net), ALL);
    let (offload, [out, into]) = segmented();
    driver.request(TRANSMIT, &[&long(offload), &out], &[]);
    let (seen, received) = wire.receive();
    assert_eq!(seen[..2], offload[..2]);
    assert_eq!(seen[4..], offload[4..]);
    assert!(received == out);

    for length in [1526, 4096, 70_000] {
        room(&mut driver, 70_000_usize.div_ceil(length as usize), length);
        wire.send_with(&offload, &into).expect("sends");
        let (seen, received) = packet(&mut driver, RECEIVE);
        assert_eq!(seen[..2], offload[..2]);
        assert_eq!(seen[4..10], offload[4..]);
        let buffers = (HEADER + into.len()).div_ceil(length as usize);
        assert_eq!(
            usize::from(u16::from_le_bytes([seen[10], seen[11]])),
            buffers
        );
        assert!(received == into, "{length}");
        // So that the next length starts with new buffers.
        driver.negotiate(ALL);
        driver.set_up(256);
        driver.write(0x70, 15);
    }
    assert_eq!(statistics.read().received.packets, 3);

    // A driver that can't take it so gets it in pieces.
    driver.negotiate(ALL & !GUEST_TSO4);
    driver.set_up(256);
    driver.write(0x70, 15);
    room(&mut driver, 60, 1526);
    wire.send_with(&offload, &into).expect("sends");
    let mut data: Vec<u8> = Vec::new();
    while data.len() < 60 << 10 {
        let (seen, received) = packet(&mut driver, RECEIVE);
        assert_eq!((seen[0] & NEEDS_CSUM, seen[1]), (NEEDS_CSUM, 0));
        assert!(received.len() <= 54 + 1448);
        data.extend(&received[54..]);
    }
    assert!(data == into[54..]);
}

#[test]
fn a_packet_waits_for_its_last_buffers() {
    let Some((wire, taps)) = Wire::new(1) else {
        return;
    };
    let net = Net::new(settings(taps)).expect("a card");
    let statistics = net.statistics();
    let mut driver = Driver::start(Box::new(net), ALL);
    let (offload, [_, into]) = segmented();
    for round in 0..30 {
        // Few enough that the device may hope for more.
        for first in [1, round + 1, 39] {
            room(&mut driver, first, 1526);
            wire.send_with(&offload, &into).expect("sends");
            std::thread::sleep(std::time::Duration::from_millis(2));
            assert!(driver.used(RECEIVE).is_none());
            room(&mut driver, 41 - first, 1526);
            let (_, received) = packet(&mut driver, RECEIVE);
            assert!(received == into, "{round} {first}");
        }
    }
    assert_eq!(statistics.read().received.dropped, 0);
}

#[test]
fn a_packet_that_ends_a_batch_waits_for_its_last_buffers_too() {
    let Some((wire, taps)) = Wire::new(1) else {
        return;
    };
    let net = Net::new(settings(taps)).expect("a card");
    let statistics = net.statistics();
    // Without EVENT_IDX, where a wish for a kick is a flag.
    let mut driver = Driver::start(Box::new(net), ALL & !EVENT_IDX);
    let (offload, [_, into]) = segmented();
    let small = frame(GUEST, HOST, &[7; 50]);
    // One event of the device takes 64 packets, and the last of these does not fit.
    for _ in 0..63 {
        wire.send(&small);
    }
    wire.send_with(&offload, &into).expect("sends");
    wait("the wish for a kick", || {
        driver.is_asked_to_kick(RECEIVE).then_some(())
    });
    room(&mut driver, 63 + 39, 1526);
    for _ in 0..63 {
        assert_eq!(packet(&mut driver, RECEIVE).1, small);
    }
    wait("the wish for more buffers", || {
        driver.is_asked_to_kick(RECEIVE).then_some(())
    });
    assert!(driver.used(RECEIVE).is_none());
    room(&mut driver, 2, 1526);
    assert!(packet(&mut driver, RECEIVE).1 == into);
    assert_eq!(statistics.read().received.dropped, 0);
}

#[test]
fn a_packet_that_never_fits_is_lost_and_the_next_one_comes() {
    let Some((wire, taps)) = Wire::new(1) else {
        return;
    };
    let net = Net::new(settings(taps)).expect("a card");
    let statistics = net.statistics();
    let mut driver = Driver::start(Box::new(net), ALL);
    let (offload, [_, into]) = segmented();
    driver.negotiate(ALL);
    driver.set_up(16);
    driver.write(0x70, 15);
    room(&mut driver, 16, 1526);
    wire.send_with(&offload, &into).expect("sends");
    let small = frame(GUEST, HOST, &[7; 50]);
    wire.send(&small);
    assert_eq!(packet(&mut driver, RECEIVE).1, small);
    assert_eq!(statistics.read().received.dropped, 1);
    // Without mergeable buffers each packet has one, and fits or not.
    driver.negotiate(ALL & !MRG_RXBUF);
    driver.set_up(16);
    driver.write(0x70, 15);
    room(&mut driver, 3, 1526);
    wire.send_with(&offload, &into).expect("sends");
    wire.send(&small);
    assert_eq!(packet(&mut driver, RECEIVE).1, small);
    assert_eq!(statistics.read().received.dropped, 2);
}

#[test]
fn without_buffers_nothing_is_lost() {
    let Some((wire, taps)) = Wire::new(1) else {
        return;
    };
    let net = Net::new(settings(taps)).expect("a card");
    let statistics = net.statistics();
    let mut driver = Driver::start(Box::new(net), ALL);
    // The tap keeps 1000 packets.
    let frames: Vec<Vec<u8>> = (0..400)
        .map(|number| frame(GUEST, HOST, &pattern(1000, number)))
        .collect();
    for frame in &frames {
        wire.send(frame);
    }
    for some in frames.chunks(50) {
        room(&mut driver, some.len(), 2048);
        for frame in some {
            assert_eq!(&packet(&mut driver, RECEIVE).1, frame);
        }
    }
    assert_eq!(statistics.read().received.packets, 400);
}

#[test]
fn limits_hold_packets_back_and_lose_none() {
    let Some((wire, taps)) = Wire::new(1) else {
        return;
    };
    let rates = Rates {
        bytes: std::num::NonZeroU64::new(100_000),
        operations: None,
    };
    let net = Net::new(Settings {
        receive: rates,
        transmit: rates,
        ..settings(taps)
    });
    let net = net.expect("a card");
    let statistics = net.statistics();
    let mut driver = Driver::start(Box::new(net), ALL);
    let frames: Vec<Vec<u8>> = (0..40)
        .map(|number| frame(GUEST, HOST, &pattern(986, number)))
        .collect();
    // A tenth of a second's worth at once, the rest one after the other: 0.3 seconds less than a bucket and a packet.
    let begin = std::time::Instant::now();
    for frame in &frames {
        wire.send(frame);
    }
    room(&mut driver, 40, 2048);
    for frame in &frames {
        assert_eq!(&packet(&mut driver, RECEIVE).1, frame);
    }
    assert!(begin.elapsed().as_millis() >= 280, "{:?}", begin.elapsed());
    let begin = std::time::Instant::now();
    for frame in &frames {
        driver.add(TRANSMIT, &[&[0; HEADER], frame], &[]);
    }
    driver.kick(TRANSMIT);
    for frame in &frames {
        assert_eq!(&wire.receive().1, frame);
    }
    assert!(begin.elapsed().as_millis() >= 280, "{:?}", begin.elapsed());
    let traffic = statistics.read();
    assert_eq!(
        (traffic.received.packets, traffic.transmitted.packets),
        (40, 40)
    );
    assert_eq!(traffic.received.bytes, 40_000);
}

#[test]
fn a_reset_loses_what_only_the_last_driver_could_take() {
    let Some((wire, taps)) = Wire::new(1) else {
        return;
    };
    let net = Net::new(settings(taps)).expect("a card");
    let mut driver = Driver::start(Box::new(net), ALL);
    let (offload, [_, into]) = segmented();
    for _ in 0..5 {
        wire.send_with(&offload, &into).expect("sends");
    }
    driver.negotiate(ALL & !GUEST_TSO4);
    // While there is no driver, the tap keeps what any driver can take.
    let small = frame(GUEST, HOST, &[7; 50]);
    wire.send(&small);
    driver.set_up(256);
    driver.write(0x70, 15);
    room(&mut driver, 200, 1526);
    let (header, received) = packet(&mut driver, RECEIVE);
    assert_eq!((header[1], received), (0, small));
}
