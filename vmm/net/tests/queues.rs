//! Several queues, the control queue, the plug, and the tap's end.

mod wire;

use std::os::fd::OwnedFd;
use std::time::Duration;

use vmm_net::{Link, Net, Settings, Statistics};
use vmm_virtio::testing::{Driver, wait};
use wire::{GUEST, HEADER, HOST, RECEIVE, TRANSMIT, Wire, frame, internet};

const ALL: u64 = u64::MAX;
const CTRL_VQ: u64 = 1 << 17;
const MQ: u64 = 1 << 22;

const OK: u8 = 0;
const ERROR: u8 = 1;

fn card(taps: Vec<OwnedFd>, features: u64) -> (Driver, Statistics, Link) {
    let net = Net::new(Settings {
        mac: GUEST,
        taps,
        ..Settings::default()
    });
    let net = net.expect("a card");
    let (statistics, link) = (net.statistics(), net.link());
    let driver = Driver::start(Box::new(net), features);
    (driver, statistics, link)
}

/// What the control queue says.
fn command(driver: &mut Driver, queue: usize, bytes: &[u8]) -> u8 {
    let (written, answer) = driver.request(queue, &[bytes], &[1]);
    assert_eq!(written, 1);
    answer[0]
}

/// As [`command`], again as long as the driver is told that it is too eager.
fn set_pairs(driver: &mut Driver, queue: usize, pairs: u8) {
    wait("the change", || {
        (command(driver, queue, &[4, 0, pairs, 0]) == OK).then_some(())
    });
}

fn room(driver: &mut Driver, queue: usize, count: usize) {
    for _ in 0..count {
        driver.add(queue, &[], &[2048]);
    }
    driver.kick(queue);
}

/// Sends packets of different connections; how many come by each receive queue.
fn spread(wire: &Wire, driver: &mut Driver, queues: usize) -> Vec<usize> {
    const FLOWS: usize = 64;
    for queue in 0..queues {
        room(driver, 2 * queue, FLOWS);
    }
    for port in 0..FLOWS as u16 {
        wire.send(&internet(
            GUEST,
            HOST,
            17,
            [1000 + port, 2000 + 7 * port],
            b"data",
        ));
    }
    let mut counts = vec![0; queues];
    wait("all packets", || {
        for (queue, count) in counts.iter_mut().enumerate() {
            while driver.used(2 * queue).is_some() {
                *count += 1;
            }
        }
        (counts.iter().sum::<usize>() == FLOWS).then_some(())
    });
    counts
}

#[test]
fn packets_are_spread_to_as_many_queues_as_the_driver_uses() {
    let Some((wire, taps)) = Wire::new(4) else {
        return;
    };
    let (mut driver, statistics, _) = card(taps, ALL);
    assert_eq!(driver.config(8, 2), [4, 0]);
    assert_eq!(driver.features & (MQ | CTRL_VQ), MQ | CTRL_VQ);
    for round in 0..3 {
        // None of the others until the driver says so, also after a reset.
        assert_eq!(spread(&wire, &mut driver, 4)[1..], [0, 0, 0]);
        set_pairs(&mut driver, 8, 4);
        let counts = spread(&wire, &mut driver, 4);
        assert!(counts.iter().all(|&count| count > 0), "{counts:?}");
        for pair in 0..4 {
            let frame = frame(HOST, GUEST, &[pair; 50]);
            driver.request(2 * usize::from(pair) + 1, &[&[0; HEADER], &frame], &[]);
            assert_eq!(wire.receive().1, frame);
        }
        set_pairs(&mut driver, 8, 2);
        assert_eq!(spread(&wire, &mut driver, 4)[2..], [0, 0]);
        // A queue that is not used leads nowhere.
        let lost = statistics.read().transmitted.dropped;
        driver.request(7, &[&[0; HEADER], &frame(HOST, GUEST, &[0; 50])], &[]);
        assert_eq!(statistics.read().transmitted.dropped, lost + 1);
        assert!(wire.try_receive().is_none(), "{round}");
        driver.negotiate(ALL);
        driver.set_up(256);
        driver.write(0x70, 15);
    }
}

#[test]
fn the_control_queue_does_one_thing_and_refuses_the_rest() {
    let Some((wire, taps)) = Wire::new(2) else {
        return;
    };
    let (mut driver, _, _) = card(taps, ALL);
    set_pairs(&mut driver, 4, 2);
    for bytes in [
        &[4, 0, 0, 0][..],
        &[4, 0, 3, 0],
        &[4, 0, 2, 1],
        &[4, 1, 1, 0],
        &[0, 0, 1, 0],
        &[4, 0, 1],
        &[4, 0, 1, 0, 0],
        &[],
        &[0xff; 1000],
    ] {
        assert_eq!(command(&mut driver, 4, bytes), ERROR, "{bytes:?}");
    }
    // Cut anywhere; and without a place for the answer.
    assert_eq!(driver.request(4, &[&[4], &[0, 2], &[0]], &[1]).1, [OK]);
    assert_eq!(driver.request(4, &[&[4, 0, 9, 0]], &[]).0, 0);
    assert_eq!(driver.request(4, &[], &[1, 5]).1[0], ERROR);
    assert!(spread(&wire, &mut driver, 2)[1] > 0);
    // Who changes all the time is refused some of it.
    let answers: Vec<u8> = (0..50)
        .map(|number| command(&mut driver, 4, &[4, 0, 1 + number % 2, 0]))
        .collect();
    assert!(answers.contains(&ERROR));
    wait("a change", || {
        (command(&mut driver, 4, &[4, 0, 1, 0]) == OK).then_some(())
    });
}

#[test]
fn a_driver_may_leave_queues_out() {
    let Some((wire, taps)) = Wire::new(2) else {
        return;
    };
    let (mut driver, _, _) = card(taps, ALL & !MQ);
    // Then the control queue is the third.
    assert_eq!(command(&mut driver, 2, &[4, 0, 2, 0]), ERROR);
    assert_eq!(spread(&wire, &mut driver, 1), [64]);
    driver.negotiate(ALL);
    driver.set_up(256);
    for queue in [2, 3] {
        driver.write(0x30, queue);
        driver.write(0x44, 0);
    }
    driver.write(0x70, 15);
    assert_eq!(command(&mut driver, 4, &[4, 0, 2, 0]), ERROR);
    assert_eq!(spread(&wire, &mut driver, 1), [64]);
    // Not the first.
    driver.negotiate(ALL);
    driver.set_up(256);
    driver.write(0x30, 1);
    driver.write(0x44, 0);
    driver.write(0x70, 15);
    assert!(driver.needs_reset());
}

#[test]
fn a_pulled_plug_is_seen_on_both_sides_and_loses_packets() {
    let Some((wire, taps)) = Wire::new(1) else {
        return;
    };
    let (mut driver, statistics, link) = card(taps, ALL);
    let out = frame(HOST, GUEST, &[1; 50]);
    let into = frame(GUEST, HOST, &[2; 50]);
    for round in 1..4 {
        // One waits for room in the tap, and is lost with the link.
        wire.send(&into);
        while driver.interrupted() {}
        driver.write(0x64, 3);
        link.set(false);
        wait("the host to see it", || (!wire.has_carrier()).then_some(()));
        wait("the driver to be told", || {
            (driver.read(0x60) & 2 != 0).then_some(())
        });
        driver.expect_interrupt();
        assert_eq!(driver.config(6, 2), [0, 0]);
        driver.request(TRANSMIT, &[&[0; HEADER], &out], &[]);
        assert_eq!(statistics.read().transmitted.dropped, round);
        wait("the loss", || {
            (statistics.read().received.dropped == round).then_some(())
        });
        assert!(wire.try_receive().is_none());
        room(&mut driver, RECEIVE, 1);
        link.set(true);
        wait("the host to see it", || wire.has_carrier().then_some(()));
        wait("the link", || (driver.config(6, 2) == [1, 0]).then_some(()));
        wire.send(&into);
        let (_, length, bytes) = driver.expect_used(RECEIVE);
        assert_eq!(bytes[HEADER..length as usize], into);
        driver.request(TRANSMIT, &[&[0; HEADER], &out], &[]);
        assert_eq!(wire.receive().1, out);
    }
}

#[test]
fn a_plug_that_was_pulled_before_the_driver_came_is_out() {
    let Some((wire, taps)) = Wire::new(1) else {
        return;
    };
    let (mut driver, statistics, link) = card(taps, ALL);
    driver.write(0x70, 0);
    link.set(false);
    assert_eq!(driver.config(6, 2), [0, 0]);
    driver.negotiate(ALL);
    driver.set_up(256);
    driver.write(0x70, 15);
    driver.request(
        TRANSMIT,
        &[&[0; HEADER], &frame(HOST, GUEST, &[1; 50])],
        &[],
    );
    assert_eq!(statistics.read().transmitted.dropped, 1);
    wait("the host to see it", || (!wire.has_carrier()).then_some(()));
}

#[test]
fn a_tap_that_is_switched_off_loses_packets_and_one_that_is_removed_takes_the_link_along() {
    let Some((mut wire, taps)) = Wire::new(1) else {
        return;
    };
    let (mut driver, statistics, link) = card(taps, ALL);
    let out = frame(HOST, GUEST, &[1; 50]);
    wire.switch(false);
    driver.request(TRANSMIT, &[&[0; HEADER], &out], &[]);
    assert_eq!(statistics.read().transmitted.dropped, 1);
    assert!(link.is_up());
    wire.switch(true);
    driver.request(TRANSMIT, &[&[0; HEADER], &out], &[]);
    assert_eq!(statistics.read().transmitted.packets, 1);
    room(&mut driver, RECEIVE, 1);
    wire.remove();
    wait("the driver to be told", || {
        (driver.config(6, 2) == [0, 0]).then_some(())
    });
    link.set(true);
    assert!(!link.is_up());
    driver.request(TRANSMIT, &[&[0; HEADER], &out], &[]);
    assert_eq!(statistics.read().transmitted.dropped, 2);
    assert!(!driver.needs_reset());
    // The next driver finds a card without a link.
    driver.negotiate(ALL);
    driver.set_up(256);
    driver.write(0x70, 15);
    room(&mut driver, RECEIVE, 1);
    driver.request(TRANSMIT, &[&[0; HEADER], &out], &[]);
    assert_eq!(statistics.read().transmitted.dropped, 3);
    assert_eq!(driver.config(6, 2), [0, 0]);
    assert!(!driver.needs_reset());
}

#[test]
fn a_tap_that_is_removed_while_nobody_looks_is_missed_by_the_next_packet() {
    for queue in [RECEIVE, TRANSMIT] {
        let Some((mut wire, taps)) = Wire::new(1) else {
            return;
        };
        let (mut driver, statistics, link) = card(taps, ALL);
        // No buffers: the device does not read.
        wire.send(&frame(GUEST, HOST, &[1; 50]));
        std::thread::sleep(Duration::from_millis(20));
        wire.remove();
        if queue == RECEIVE {
            room(&mut driver, RECEIVE, 1);
        } else {
            let out = frame(HOST, GUEST, &[1; 50]);
            driver.request(TRANSMIT, &[&[0; HEADER], &out], &[]);
            assert_eq!(statistics.read().transmitted.dropped, 1);
        }
        wait("the driver to be told", || {
            (driver.read(0x60) & 2 != 0).then_some(())
        });
        assert!(!link.is_up());
        assert!(!driver.needs_reset());
    }
}
