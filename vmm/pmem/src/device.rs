//! The device: where the image is, and an answer to each flush.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vmm_virtio::{
    Activation, Broken, Chain, ConfigSpace, Device, Flags, Memory, Offer, Queue, Watch, copy_from,
    copy_to, total,
};

/// Virtio's number of the device (5.19.1).
const KIND: u32 = 27;

/// `VIRTIO_F_INDIRECT_DESC` and `VIRTIO_F_EVENT_IDX` (6).
const FEATURES: u64 = 1 << 28 | 1 << 29;

/// One queue for requests (5.19.2). A driver flushes seldom, and an image it can't write hardly ever.
const QUEUE_SIZE: u16 = 64;

/// The one type of request (5.19.6).
const FLUSH: u32 = 0;

/// Results (5.19.6.2).
const OK: u32 = 0;
const FAILED: u32 = 1;

/// An image in the guest's memory, seen by the guest's driver.
pub struct Pmem {
    configuration: [u8; 16],
    active: Option<Active>,
    statistics: Statistics,
}

struct Active {
    memory: Arc<Memory>,
    // Before the queue, whose descriptor it watches.
    _watch: Watch,
    queue: Queue,
}

/// What the device has done. Clones are the same numbers.
#[derive(Debug, Clone, Default)]
pub struct Statistics(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    flushes: AtomicU64,
    errors: AtomicU64,
}

/// The numbers at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Flushes that the driver asked for.
    pub flushes: u64,
    /// Requests that were none.
    pub errors: u64,
}

impl Statistics {
    /// The numbers now.
    #[must_use]
    pub fn read(&self) -> Counts {
        Counts {
            flushes: self.0.flushes.load(Ordering::Relaxed),
            errors: self.0.errors.load(Ordering::Relaxed),
        }
    }
}

impl Pmem {
    /// A device whose image is in the guest's memory at this address, in bytes. Address and length should be multiples
    /// of [`ALIGNMENT`](crate::ALIGNMENT), as [`Image::length`](crate::Image::length) is: Linux wants it.
    #[must_use]
    pub fn new(address: u64, length: u64) -> Self {
        let mut configuration = [0; 16];
        configuration[..8].copy_from_slice(&address.to_le_bytes());
        configuration[8..].copy_from_slice(&length.to_le_bytes());
        Self {
            configuration,
            active: None,
            statistics: Statistics::default(),
        }
    }

    /// What the device does, to be read while it does it.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.statistics.clone()
    }
}

impl Statistics {
    /// Answers one request: how many bytes were written.
    fn answer(&self, chain: &Chain<'_>) -> u32 {
        let mut kind = [0; 4];
        let complete = copy_from(&chain.readable, &mut kind) == kind.len();
        let result = if complete && u32::from_le_bytes(kind) == FLUSH {
            // Nothing was written, so all of it is on the disk.
            self.0.flushes.fetch_add(1, Ordering::Relaxed);
            OK
        } else {
            self.0.errors.fetch_add(1, Ordering::Relaxed);
            FAILED
        };
        let result = result.to_le_bytes();
        // Half a result would be none.
        if total(&chain.writable) < result.len() {
            return 0;
        }
        u32::try_from(copy_to(&chain.writable, &result)).unwrap_or(0)
    }
}

impl Device for Pmem {
    fn offer(&self) -> Offer {
        Offer {
            kind: KIND,
            features: FEATURES,
            queues: vec![QUEUE_SIZE],
        }
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        ConfigSpace(&self.configuration).read(offset, data);
    }

    fn activate(&mut self, mut activation: Activation) -> Result<(), Broken> {
        let queue = activation
            .queues
            .first_mut()
            .and_then(Option::take)
            .ok_or(Broken("the driver has set up no queue"))?;
        let watch = queue
            .watch(&activation.events)
            .map_err(|_| Broken("the queue can't be watched"))?;
        self.active = Some(Active {
            memory: activation.memory,
            _watch: watch,
            queue,
        });
        Ok(())
    }

    fn event(&mut self, _token: u32, _flags: Flags) -> Result<(), Broken> {
        let Some(Active { memory, queue, .. }) = &mut self.active else {
            return Ok(());
        };
        queue.kicked();
        for _ in 0..queue.size() {
            let Some(chain) = queue.pop(memory)? else {
                // What came in the meantime was not kicked for.
                if queue.listen()? {
                    continue;
                }
                return queue.notify();
            };
            let written = self.statistics.answer(&chain);
            queue.complete(chain.head(), written)?;
        }
        queue.again();
        queue.notify()
    }

    fn reset(&mut self) {
        self.active = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use vmm_virtio::testing::{Driver, wait};

    fn driver() -> (Driver, Statistics) {
        let device = Pmem::new(0x1_4000_0000, 0x20_0000);
        let statistics = device.statistics();
        (Driver::start(Box::new(device), FEATURES), statistics)
    }

    #[test]
    fn the_driver_learns_where_the_image_is() {
        let (driver, _) = driver();
        assert_eq!(driver.read(8), 27);
        assert_eq!(
            driver.config(0, 20),
            b"\0\0\0\x40\x01\0\0\0\0\0\x20\0\0\0\0\0\0\0\0\0"
        );
    }

    #[test]
    fn a_flush_is_done_and_everything_else_fails() {
        let (mut driver, statistics) = driver();
        let flush = 0_u32.to_le_bytes();
        assert_eq!(driver.request(0, &[&flush], &[4]), (4, vec![0; 4]));
        driver.expect_interrupt();
        assert_eq!(
            driver.request(0, &[&flush[..1], &flush[1..]], &[1, 3]),
            (4, vec![0; 4])
        );
        assert_eq!(statistics.read().flushes, 2);
        let bad: [&[u8]; 3] = [&[1, 0, 0, 0], &[0, 0, 0], &[0xff; 64]];
        for request in bad {
            assert_eq!(driver.request(0, &[request], &[4]), (4, vec![1, 0, 0, 0]));
        }
        // Without a request, and without room for an answer.
        assert_eq!(driver.request(0, &[], &[4]), (4, vec![1, 0, 0, 0]));
        assert_eq!(driver.request(0, &[&flush], &[3]).0, 0);
        assert_eq!(driver.request(0, &[&flush], &[]).0, 0);
        assert_eq!(statistics.read().errors, 4);
    }

    #[test]
    fn more_requests_than_the_queue_holds_are_all_answered() {
        let (mut driver, statistics) = driver();
        for _ in 0..10 {
            for _ in 0..32 {
                driver.add(0, &[&[0; 4]], &[4]);
            }
            driver.kick(0);
            for _ in 0..32 {
                assert_eq!(driver.expect_used(0).2, [0; 4]);
            }
        }
        assert_eq!(statistics.read().flushes, 320);
    }

    #[test]
    fn the_driver_is_asked_to_kick_again() {
        for features in [0, FEATURES] {
            let (mut driver, _) = driver();
            driver.negotiate(features);
            driver.set_up(64);
            driver.write(0x70, 15);
            for _ in 0..100 {
                assert_eq!(driver.request(0, &[&[0; 4]], &[4]).1, [0; 4]);
                wait("a wish", || driver.is_asked_to_kick(0).then_some(()));
            }
        }
    }

    #[test]
    fn a_driver_without_a_queue_is_broken_and_may_come_again() {
        let mut driver = Driver::find(Box::new(Pmem::new(0, 0)), Driver::memory());
        driver.negotiate(0);
        driver.write(0x70, 15);
        assert!(driver.needs_reset());
        driver.negotiate(0);
        driver.set_up(8);
        driver.write(0x70, 15);
        assert_eq!(driver.request(0, &[&[0; 4]], &[4]).1, [0; 4]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        /// Every request is answered with what its first four bytes deserve.
        #[test]
        fn any_request(readable in prop::collection::vec(prop::collection::vec(0..2_u8, 0..6), 0..4), writable in prop::collection::vec(1..9_u32, 0..4)) {
            let (mut driver, _) = driver();
            let pieces: Vec<&[u8]> = readable.iter().filter(|piece| !piece.is_empty()).map(Vec::as_slice).collect();
            prop_assume!(!pieces.is_empty() || !writable.is_empty());
            let (length, answer) = driver.request(0, &pieces, &writable);
            let request = readable.concat();
            if writable.iter().sum::<u32>() < 4 {
                prop_assert_eq!(length, 0);
            } else {
                let good = request.get(..4) == Some(&[0; 4]);
                prop_assert_eq!(length, 4);
                prop_assert_eq!(&answer[..4], &u32::from(!good).to_le_bytes());
            }
        }

        /// Whatever stands in the ring, the device answers or is broken, and works again after a reset.
        #[test]
        fn any_chain(descriptors in prop::collection::vec((0..64_u16, any::<u64>(), any::<u32>(), 0..8_u16, 0..66_u16), 0..16), heads in prop::collection::vec(0..70_u16, 0..8), extra in 0..4_u16) {
            let (mut driver, _) = driver();
            for (number, address, length, flags, next) in descriptors {
                let descriptor = vmm_virtio::testing::Descriptor { address: address % (40 << 20), length: length % (1 << 20), flags, next };
                driver.describe(0, number, descriptor);
            }
            for &head in &heads {
                driver.offer(0, head);
            }
            driver.claim(0, heads.len() as u16 + extra);
            driver.kick(0);
            driver.negotiate(FEATURES);
            driver.set_up(64);
            driver.write(0x70, 15);
            prop_assert_eq!(driver.request(0, &[&[0; 4]], &[4]).1, [0; 4]);
        }
    }
}
