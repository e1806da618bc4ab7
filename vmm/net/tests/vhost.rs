//! Packets that the kernel carries. Needs `/dev/vhost-net`; `cargo xtask testhost` has it.

mod wire;

use std::fs::File;
use std::os::fd::OwnedFd;

use vmm_net::{Counts, Link, Net, Settings, Statistics};
use vmm_virtio::testing::{Driver, MEMORY, wait};
use wire::{GUEST, HEADER, HOST, RECEIVE, TRANSMIT, Wire, frame, internet, pattern};

const ALL: u64 = u64::MAX;

struct Card {
    wire: Wire,
    driver: Driver,
    statistics: Statistics,
    link: Link,
}

fn card(pairs: usize, features: u64) -> Option<Card> {
    let open = || {
        File::options()
            .read(true)
            .write(true)
            .open("/dev/vhost-net")
    };
    if let Err(error) = open() {
        let testhost = std::env::var_os("COFFERDAM_TESTHOST_RESULTS");
        assert!(
            testhost.is_none(),
            "the test host has /dev/vhost-net: {error}"
        );
        eprintln!("SKIPPED: /dev/vhost-net: {error} (cargo xtask testhost has it)");
        return None;
    }
    let (wire, taps) = Wire::new(pairs)?;
    let vhosts: Vec<OwnedFd> = (0..pairs)
        .map(|_| open().expect("once more").into())
        .collect();
    let net = Net::new(Settings {
        mac: GUEST,
        taps,
        vhosts,
        ..Settings::default()
    });
    let net = net.expect("a card");
    let (statistics, link) = (net.statistics(), net.link());
    Some(Card {
        wire,
        driver: Driver::start(Box::new(net), features),
        statistics,
        link,
    })
}

fn room(driver: &mut Driver, queue: usize, count: usize) {
    for _ in 0..count {
        driver.add(queue, &[], &[2048]);
    }
    driver.kick(queue);
}

fn packet(driver: &mut Driver, queue: usize) -> (Vec<u8>, Vec<u8>) {
    let (_, length, mut bytes) = driver.expect_used(queue);
    bytes.truncate(length as usize);
    let frame = bytes.split_off(HEADER);
    let mut packet = (bytes, frame);
    for _ in 1..u16::from_le_bytes([packet.0[10], packet.0[11]]) {
        let (_, length, contents) = driver.used(queue).expect("the next buffer");
        packet.1.extend(&contents[..length as usize]);
    }
    packet
}

fn start(driver: &mut Driver, features: u64) {
    driver.negotiate(features);
    driver.set_up(256);
    driver.write(0x70, 15);
}

#[test]
fn the_kernel_carries_frames_both_ways_and_starts_anew_after_a_reset() {
    for features in [0, ALL] {
        let Some(mut card) = card(1, features) else {
            return;
        };
        let (wire, driver) = (&card.wire, &mut card.driver);
        for round in 0..3 {
            for number in 0..20 {
                let out = frame(HOST, GUEST, &pattern(46 + number * 70, number as u32));
                driver.add(TRANSMIT, &[&[0; HEADER], &out], &[]);
                driver.kick(TRANSMIT);
                // Sent by the kernel, and told of by it.
                driver.expect_interrupt();
                assert_eq!(driver.read(0x60) & 1, 1);
                driver.expect_used(TRANSMIT);
                assert_eq!(wire.receive().1, out, "{round}");
                let into = frame(GUEST, HOST, &pattern(46 + number * 70, 99 + number as u32));
                room(driver, RECEIVE, 1);
                wire.send(&into);
                let (header, received) = packet(driver, RECEIVE);
                assert_eq!(received, into, "{round}");
                // Older kernels leave it alone without mergeable buffers, where it says nothing.
                assert!(features == 0 || header[10..] == [1, 0], "{round}");
            }
            start(driver, features);
        }
        // Nothing of that has passed by here.
        let traffic = card.statistics.read();
        assert_eq!(
            (traffic.received, traffic.transmitted),
            (Counts::default(), Counts::default())
        );
    }
}

#[test]
fn sixty_kibibytes_of_tcp_are_one_packet() {
    let Some(mut card) = card(1, ALL) else { return };
    let mut offload = [0; 10];
    offload[..2].copy_from_slice(&[1, 1]);
    for (at, value) in [(2, 54_u16), (4, 1448), (6, 34), (8, 16)] {
        offload[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }
    let data = pattern(60 << 10, 3);
    let out = internet(HOST, GUEST, 6, [1, 2], &data);
    card.driver
        .request(TRANSMIT, &[&offload, &[0; 2], &out], &[]);
    assert!(card.wire.receive().1 == out);
    let into = internet(GUEST, HOST, 6, [1, 2], &data);
    room(&mut card.driver, RECEIVE, 40);
    card.wire.send_with(&offload, &into).expect("sends");
    let (header, received) = packet(&mut card.driver, RECEIVE);
    assert_eq!(header[..2], offload[..2]);
    assert!(received == into);
}

#[test]
fn several_queues_and_the_plug() {
    let Some(mut card) = card(2, ALL) else { return };
    let (wire, driver) = (&card.wire, &mut card.driver);
    let (_, answer) = driver.request(4, &[&[4, 0, 2, 0]], &[1]);
    assert_eq!(answer, [0]);
    for queue in [1, 3] {
        let out = frame(HOST, GUEST, &[queue as u8; 60]);
        driver.request(queue, &[&[0; HEADER], &out], &[]);
        assert_eq!(wire.receive().1, out);
    }
    for queue in [0, 2] {
        room(driver, queue, 64);
    }
    for port in 0..64_u16 {
        wire.send(&internet(
            GUEST,
            HOST,
            17,
            [1000 + port, 2000 + 7 * port],
            b"data",
        ));
    }
    let mut counts = [0; 2];
    wait("all packets", || {
        for (pair, count) in counts.iter_mut().enumerate() {
            while driver.used(2 * pair).is_some() {
                *count += 1;
            }
        }
        (counts[0] + counts[1] == 64).then_some(())
    });
    assert!(counts[0] > 0 && counts[1] > 0, "{counts:?}");
    card.link.set(false);
    wait("the host to see it", || (!wire.has_carrier()).then_some(()));
    wait("the driver to be told", || {
        (driver.config(6, 2) == [0, 0]).then_some(())
    });
    card.link.set(true);
    wait("the host to see it", || wire.has_carrier().then_some(()));
    let out = frame(HOST, GUEST, &[9; 60]);
    driver.add(TRANSMIT, &[&[0; HEADER], &out], &[]);
    driver.kick(TRANSMIT);
    assert_eq!(wire.receive().1, out);
}

#[test]
fn a_ring_that_the_kernel_can_not_follow_stops_the_card() {
    let Some(mut card) = card(1, ALL) else { return };
    for chain in [&[(MEMORY, 100, false)][..], &[(u64::MAX - 5, 100, false)]] {
        card.driver.add_at(TRANSMIT, chain);
        card.driver.kick(TRANSMIT);
        card.driver.expect_reset();
        start(&mut card.driver, ALL);
    }
    card.driver.claim(TRANSMIT, 1000);
    card.driver.kick(TRANSMIT);
    card.driver.expect_reset();
    start(&mut card.driver, ALL);
    let out = frame(HOST, GUEST, &[9; 60]);
    card.driver.request(TRANSMIT, &[&[0; HEADER], &out], &[]);
    assert_eq!(card.wire.receive().1, out);
}
