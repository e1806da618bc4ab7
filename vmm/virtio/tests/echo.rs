//! The transport and its queues, with a device that gives back what it is sent.

mod device;

use device::{EVENT_IDX, Echo, Habits, INDIRECT};
use vmm_virtio::testing::{Descriptor, Driver, MEMORY, wait};

fn driver() -> Driver {
    Driver::start(Box::<Echo>::default(), EVENT_IDX | INDIRECT)
}

#[test]
fn requests_come_back_in_order_and_the_driver_is_told() {
    let mut driver = driver();
    assert_eq!(driver.read(8), 4);
    assert_eq!(driver.config(2, 8), b"nfig\0\0\0\0");
    for round in 0..100_u8 {
        let head = driver.add(0, &[&[round; 3], b"end"], &[2, 10]);
        driver.kick(0);
        // First the interrupt: a driver that has seen the request by itself does not wait for one.
        driver.expect_interrupt();
        let (used, length, contents) = driver.expect_used(0);
        assert_eq!((used, length), (head, 6));
        assert_eq!(&contents[..6], [round, round, round, b'e', b'n', b'd']);
    }
    assert_eq!(driver.read(0x60) & 1, 1);
}

#[test]
fn a_device_that_asks_for_no_kicks_meanwhile_misses_no_request() {
    for features in [0, EVENT_IDX] {
        let device = Echo::new(Habits {
            silent: true,
            hesitant: true,
            ..Habits::default()
        });
        let mut driver = Driver::start(Box::new(device), features);
        for round in 0..100_u8 {
            let answer = driver.request(0, &[&[round]], &[1]);
            assert_eq!(answer, (1, vec![round]));
            wait("a wish", || driver.is_asked_to_kick(0).then_some(()));
        }
    }
}

#[test]
fn requests_that_are_given_back_together_are_told_of_once() {
    for features in [0, EVENT_IDX] {
        let device = Echo::new(Habits {
            together: 3,
            ..Habits::default()
        });
        let mut driver = Driver::start(Box::new(device), features);
        // Seven do not divide the ring: the three go over its end, too.
        for round in 0..50_u8 {
            let heads: Vec<u16> = (0..7)
                .map(|number| driver.add(0, &[&[round, number]], &[2]))
                .collect();
            driver.kick(0);
            // First the interrupt: a driver that has seen the requests by itself does not wait for one.
            driver.expect_interrupt();
            for (number, head) in (0..).zip(heads) {
                assert_eq!(driver.expect_used(0), (head, 2, vec![round, number]));
            }
            assert!(!driver.interrupted());
        }
    }
}

#[test]
fn a_driver_that_wants_no_interrupts_gets_none() {
    let mut driver = Driver::start(Box::<Echo>::default(), 0);
    driver.set_interrupts(0, false);
    for _ in 0..10 {
        driver.request(0, &[b"quiet"], &[5]);
    }
    driver.set_interrupts(0, true);
    driver.request(0, &[b"loud"], &[4]);
    driver.expect_interrupt();
    assert!(!driver.interrupted());
}

#[test]
fn kicks_and_interrupts_are_counted() {
    let mut driver = Driver::start(Box::<Echo>::default(), 0);
    driver.set_interrupts(0, false);
    for _ in 0..10 {
        driver.request(0, &[b"quiet"], &[5]);
    }
    let quiet = driver.transport.signals();
    assert_eq!((quiet.kicks, quiet.interrupts), (10, 0));
    driver.set_interrupts(0, true);
    driver.request(0, &[b"loud"], &[4]);
    driver.expect_interrupt();
    let loud = driver.transport.signals();
    assert_eq!((loud.kicks, loud.interrupts), (11, 1));
    assert_eq!(driver.transport.breaks(), 0);
    drop(driver.transport.unplug());
    let next = driver.transport.signals();
    assert_eq!((next.kicks, next.interrupts), (0, 0), "of another device");
}

#[test]
fn a_reset_device_starts_anew() {
    let mut driver = driver();
    driver.request(0, &[b"first"], &[5]);
    driver.negotiate(0);
    driver.set_up(4);
    driver.write(0x70, 15);
    assert_eq!(driver.request(0, &[b"again"], &[5]).1, b"again");
}

/// As Linux's balloon does it. With `EVENT_IDX` it never kicks again for what it takes as told.
#[test]
fn a_kick_before_the_driver_is_ready_is_not_lost() {
    for features in [0, EVENT_IDX] {
        let mut driver = Driver::find(Box::<Echo>::default(), Driver::memory());
        for _ in 0..3 {
            driver.negotiate(features);
            driver.set_up(16);
            let head = driver.add(0, &[b"early"], &[5]);
            driver.kick(0);
            driver.write(0x70, 15);
            assert_eq!(driver.expect_used(0), (head, 5, b"early".to_vec()));
        }
    }
}

#[test]
fn a_kick_for_the_last_driver_does_no_harm() {
    let mut driver = driver();
    driver.write(0x70, 0);
    driver.kick(0);
    driver.negotiate(EVENT_IDX);
    driver.set_up(16);
    driver.write(0x70, 15);
    assert_eq!(driver.request(0, &[b"next"], &[4]).1, b"next");
}

#[test]
fn a_device_can_be_taken_away() {
    let mut driver = driver();
    driver.request(0, &[b"first"], &[5]);
    assert!(driver.transport.unplug().is_some());
    assert!(driver.transport.unplug().is_none());
    assert_eq!((driver.read(8), driver.read(0x70)), (0, 0));
    driver.kick(0);
    driver.write(0x70, 15);
    assert_eq!(driver.read(0x70), 0);
}

#[test]
fn features_that_were_not_offered_are_refused() {
    let driver = driver();
    for (select, features) in [(0, 1), (1, 3), (2, 1), (1, 0)] {
        driver.write(0x70, 0);
        driver.write(0x70, 3);
        driver.write(0x24, 1);
        driver.write(0x20, 1);
        driver.write(0x24, select);
        driver.write(0x20, features);
        driver.write(0x70, 11);
        assert_eq!(driver.read(0x70), 3, "{select} {features}");
        // Nor can it be started without.
        driver.write(0x70, 15);
        assert_eq!(driver.read(0x70), 3, "{select} {features}");
    }
}

fn descriptor(address: u64, length: u32, flags: u16, next: u16) -> Descriptor {
    Descriptor {
        address,
        length,
        flags,
        next,
    }
}

/// Each breaks the device, and a reset mends it.
#[test]
fn impossible_chains_stop_the_device() {
    let cases: [(&str, &[Descriptor]); 9] = [
        ("a loop of one", &[descriptor(0, 1, 1, 0)]),
        (
            "a loop of two",
            &[descriptor(0, 1, 1, 1), descriptor(0, 1, 1, 0)],
        ),
        ("an end outside", &[descriptor(0, 1, 1, 16)]),
        ("outside memory", &[descriptor(MEMORY, 1, 0, 0)]),
        ("half outside", &[descriptor(MEMORY - 1, 2, 2, 0)]),
        ("an overflow", &[descriptor(u64::MAX, 2, 2, 0)]),
        (
            "reading behind writing",
            &[descriptor(0, 1, 3, 1), descriptor(0, 1, 0, 0)],
        ),
        (
            "more than 4 GiB",
            &[descriptor(0, u32::MAX, 1, 1), descriptor(0, u32::MAX, 0, 0)],
        ),
        ("a table of odd length", &[descriptor(0, 17, 4, 0)]),
    ];
    let mut driver = driver();
    for (what, descriptors) in cases {
        for (number, &descriptor) in (0_u16..).zip(descriptors) {
            driver.describe(0, number, descriptor);
        }
        driver.offer(0, 0);
        driver.kick(0);
        driver.expect_reset();
        driver.expect_interrupt();
        // Without a reset it stays as it is.
        driver.kick(0);
        driver.write(0x70, 15);
        assert!(driver.needs_reset(), "{what}");
        driver.negotiate(EVENT_IDX | INDIRECT);
        driver.set_up(16);
        driver.write(0x70, 15);
        assert_eq!(driver.request(0, &[what.as_bytes()], &[4]).0, 4, "{what}");
    }
}

#[test]
fn a_table_in_a_table_and_one_longer_than_the_queue_stop_it() {
    for (length, flags) in [(16, 4), (17 * 16, 1)] {
        let mut driver = driver();
        let table = driver.room(17 * 16);
        for number in 0..17 {
            let next = if number == 16 { 0 } else { flags };
            driver.describe_at(
                table + u64::from(number) * 16,
                descriptor(table, 16, next, number + 1),
            );
        }
        driver.describe(0, 0, descriptor(table, length, 4, 0));
        driver.offer(0, 0);
        driver.kick(0);
        driver.expect_reset();
    }
}

#[test]
fn an_index_that_is_too_far_stops_it() {
    let driver = driver();
    driver.claim(0, 17);
    driver.kick(0);
    driver.expect_reset();
}

#[test]
fn a_queue_outside_memory_stops_it() {
    for register in [0x80, 0x90, 0xa0] {
        for address in [MEMORY - 16, u64::MAX << 12] {
            let mut driver = Driver::find(Box::<Echo>::default(), Driver::memory());
            driver.negotiate(0);
            driver.set_up(16);
            driver.write(register, address as u32);
            driver.write(register + 4, (address >> 32) as u32);
            driver.write(0x70, 15);
            assert!(driver.needs_reset(), "{register:#x} {address:#x}");
        }
    }
}

#[test]
fn a_driver_without_queues_stops_it() {
    let mut driver = Driver::find(Box::<Echo>::default(), Driver::memory());
    driver.negotiate(0);
    driver.write(0x70, 15);
    assert!(driver.needs_reset());
}

mod random {
    use super::*;
    use proptest::prelude::*;

    fn descriptors() -> impl Strategy<Value = Vec<(u16, Descriptor)>> {
        let address = prop_oneof![0..MEMORY, MEMORY - 64..MEMORY + 64, any::<u64>()];
        let length = prop_oneof![0..64_u32, any::<u32>(), Just(16), Just(48)];
        let one = (0..16_u16, address, length, 0..8_u16, 0..18_u16).prop_map(
            |(number, address, length, flags, next)| {
                (number, descriptor(address, length, flags, next))
            },
        );
        prop::collection::vec(one, 1..32)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever is in the rings, the device answers or stops, and works again after a reset.
        #[test]
        fn any_ring(descriptors in descriptors(), heads in prop::collection::vec(0..20_u16, 0..20), extra in 0..40_u16) {
            let mut driver = driver();
            for &(number, descriptor) in &descriptors {
                driver.describe(0, number, descriptor);
            }
            for &head in &heads {
                driver.offer(0, head);
            }
            driver.claim(0, (heads.len() as u16).wrapping_add(extra));
            driver.kick(0);
            driver.negotiate(EVENT_IDX);
            driver.set_up(16);
            driver.write(0x70, 15);
            prop_assert_eq!(driver.request(0, &[b"alive"], &[5]).1, b"alive");
        }

        /// Whatever is written to the registers, reads answer, and a reset brings the device back.
        #[test]
        fn any_registers(accesses in prop::collection::vec((0..0x110_u64, any::<u32>(), 0..9_usize), 0..60)) {
            let mut driver = driver();
            for (register, value, width) in accesses {
                let bytes = [value.to_le_bytes(), value.to_le_bytes()].concat();
                driver.transport.write(register, &bytes[..width]);
                let mut data = vec![0; width];
                driver.transport.read(register, &mut data);
            }
            driver.negotiate(0);
            driver.set_up(16);
            driver.write(0x70, 15);
            prop_assert_eq!(driver.request(0, &[b"alive"], &[5]).1, b"alive");
        }
    }
}
