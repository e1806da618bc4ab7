//! The source of randomness before a driver, good and bad.

use proptest::prelude::*;
use vmm_rng::{Counts, Rng, Statistics};
use vmm_virtio::testing::{Descriptor, Driver, MEMORY, wait};

const FEATURES: u64 = 1 << 28 | 1 << 29;

fn rng(features: u64) -> (Driver, Statistics) {
    let rng = Rng::new();
    let statistics = rng.statistics();
    (Driver::start(Box::new(rng), features), statistics)
}

#[test]
fn requests_are_filled() {
    for features in [0, FEATURES] {
        let (mut driver, statistics) = rng(features);
        assert_eq!(driver.read(8), 4);
        let mut before = Vec::new();
        for _ in 0..40 {
            driver.add(0, &[], &[16, 7, 9]);
            driver.kick(0);
            driver.expect_interrupt();
            let (_, written, bytes) = driver.expect_used(0);
            assert_eq!(written, 32);
            // By chance once in 2^256.
            assert_ne!(bytes, before);
            wait("the wish for a kick", || {
                driver.is_asked_to_kick(0).then_some(())
            });
            before = bytes;
        }
        let counts = Counts {
            requests: 40,
            bytes: 40 * 32,
        };
        assert_eq!(statistics.read(), counts);
    }
}

#[test]
fn all_of_a_request_is_random() {
    let (mut driver, _) = rng(FEATURES);
    // Pieces that do not fit the chunks that it is made in.
    let (written, bytes) = driver.request(0, &[], &[5000, 1, 60_000, 300]);
    assert_eq!(written, 65_301);
    for (number, piece) in bytes.chunks(16).enumerate() {
        // By chance once in 2^120.
        assert!(piece.iter().any(|&byte| byte != 0), "{number}");
    }
    let mut chunks: Vec<&[u8]> = bytes.chunks_exact(16).collect();
    chunks.sort_unstable();
    chunks.dedup();
    assert_eq!(chunks.len(), 65_301 / 16, "a piece came twice");
}

#[test]
fn a_request_gets_at_most_64_kib_and_nothing_behind() {
    let (mut driver, statistics) = rng(FEATURES);
    let (written, bytes) = driver.request(0, &[], &[(64 << 10) - 10, 100]);
    assert_eq!(written, 64 << 10);
    assert!(bytes[64 << 10..].iter().all(|&byte| byte == 0));
    // Eight times 256 MiB, more than one event does.
    let heads: Vec<u16> = (0..8)
        .map(|_| driver.add_at(0, &[(16 << 20, 16 << 20, true)]))
        .collect();
    driver.kick(0);
    for head in heads {
        let (used, written, _) = driver.expect_used(0);
        assert_eq!((used, written), (head, 64 << 10));
    }
    assert_eq!(statistics.read().bytes, 9 * (64 << 10));
}

#[test]
fn a_request_without_room_is_given_back() {
    let (mut driver, _) = rng(FEATURES);
    assert_eq!(driver.request(0, &[b"for you"], &[]).0, 0);
    assert_eq!(driver.request(0, &[b"for you"], &[0, 3]).0, 3);
}

#[test]
fn a_bad_chain_and_no_queue_stop_it() {
    let (mut driver, _) = rng(FEATURES);
    driver.add_at(0, &[(MEMORY - 1, 2, true)]);
    driver.kick(0);
    driver.expect_reset();
    driver.negotiate(FEATURES);
    driver.write(0x70, 15);
    assert!(driver.needs_reset());
    driver.negotiate(FEATURES);
    driver.set_up(4);
    driver.write(0x70, 15);
    assert_eq!(driver.request(0, &[], &[9]).0, 9);
}

fn descriptors() -> impl Strategy<Value = Vec<(u16, Descriptor)>> {
    let address = prop_oneof![4 => 0..MEMORY / 2, 1 => any::<u64>()];
    let length = prop_oneof![4 => 0..8192_u32, 1 => any::<u32>()];
    let one = (0..8_u16, address, length, 0..8_u16, 0..9_u16).prop_map(
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
    prop::collection::vec(one, 1..16)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is in the ring, the device answers or stops, and works again after a reset.
    #[test]
    fn any_ring(descriptors in descriptors(), heads in prop::collection::vec(0..10_u16, 0..20)) {
        let (mut driver, _) = rng(FEATURES);
        for &(number, descriptor) in &descriptors {
            driver.describe(0, number, descriptor);
        }
        for &head in &heads {
            driver.offer(0, head);
        }
        driver.kick(0);
        driver.negotiate(0);
        driver.set_up(8);
        driver.write(0x70, 15);
        prop_assert_eq!(driver.request(0, &[], &[77]).0, 77);
    }
}
