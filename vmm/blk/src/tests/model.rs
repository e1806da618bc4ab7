//! Random requests against a model, and random nonsense.

use std::collections::HashMap;

use proptest::prelude::*;
use vmm_virtio::testing::{Descriptor, Driver, MEMORY};

use super::{
    ALL, DISCARD, FLUSH, GET_ID, IN, IOERR, OK, OUT, Rig, UNSUPP, WRITE_ZEROES, disk, engines,
    file, header, options, segment,
};
use crate::configuration::feature;

const SECTORS: u64 = 40;

#[derive(Debug, Clone)]
struct Ask {
    kind: u32,
    sector: u64,
    /// In sectors; `odd` bytes more.
    count: u64,
    odd: u32,
    fill: u8,
    flags: u32,
    /// Where data is cut in two.
    cut: usize,
}

fn asks() -> impl Strategy<Value = Vec<Ask>> {
    let kind = prop_oneof![
        4 => Just(IN),
        4 => Just(OUT),
        1 => Just(FLUSH),
        1 => Just(GET_ID),
        1 => Just(DISCARD),
        2 => Just(WRITE_ZEROES),
        1 => 2..20_u32,
    ];
    let sector = prop_oneof![8 => 0..SECTORS + 2, 1 => any::<u64>()];
    let odd = prop_oneof![9 => Just(0_u32), 1 => 1..512_u32];
    let flags = prop_oneof![3 => Just(0_u32), 1 => Just(1_u32), 1 => any::<u32>()];
    let ask = (
        kind,
        sector,
        0..9_u64,
        odd,
        any::<u8>(),
        flags,
        any::<usize>(),
    );
    let ask = ask.prop_map(|(kind, sector, count, odd, fill, flags, cut)| Ask {
        kind,
        sector,
        count,
        odd,
        fill,
        flags,
        cut,
    });
    prop::collection::vec(ask, 1..60)
}

/// The disk as it should be.
struct Model {
    bytes: Vec<u8>,
    /// Discarded, so that nothing is known of it.
    unknown: Vec<bool>,
}

impl Model {
    fn new() -> Self {
        let bytes = (0..SECTORS)
            .flat_map(|sector| [sector as u8; 512])
            .collect();
        Self {
            bytes,
            unknown: vec![false; SECTORS as usize],
        }
    }

    /// The status that a request deserves, having done it.
    fn ask(&mut self, ask: &Ask) -> u8 {
        let Ask { sector, count, .. } = *ask;
        let end = sector.saturating_add(count);
        let inside = end <= SECTORS;
        let range = || sector as usize..end as usize;
        let unaligned = ask.odd != 0;
        match ask.kind {
            IN if unaligned || !inside => IOERR,
            IN => OK,
            OUT if unaligned || !inside => IOERR,
            OUT => self.fill(range(), ask.fill),
            FLUSH | GET_ID => OK,
            DISCARD | WRITE_ZEROES => {
                if ask.flags > u32::from(ask.kind == WRITE_ZEROES) {
                    return UNSUPP;
                }
                if !inside {
                    return IOERR;
                }
                self.fill(range(), 0);
                if ask.kind == DISCARD {
                    self.unknown[range()].fill(true);
                }
                OK
            }
            _ => UNSUPP,
        }
    }

    fn fill(&mut self, range: std::ops::Range<usize>, with: u8) -> u8 {
        self.bytes[range.start * 512..range.end * 512].fill(with);
        self.unknown[range].fill(false);
        OK
    }

    fn check(&self, sector: u64, read: &[u8]) {
        for (at, sector_read) in (sector as usize..).zip(read.chunks(512)) {
            if !self.unknown[at] {
                assert!(sector_read == &self.bytes[at * 512..][..512], "sector {at}");
            }
        }
    }
}

/// Puts a request into the queue: the head it got.
fn add(driver: &mut Driver, ask: &Ask) -> u16 {
    let head = header(ask.kind, ask.sector);
    let length = ask.count as usize * 512 + ask.odd as usize;
    let data = match ask.kind {
        OUT => vec![ask.fill; length],
        DISCARD | WRITE_ZEROES => segment(ask.sector, ask.count as u32, ask.flags).to_vec(),
        _ => Vec::new(),
    };
    let input = match ask.kind {
        IN => length as u32,
        GET_ID => 20,
        _ => 0,
    };
    let (before, behind) = data.split_at(if data.is_empty() {
        0
    } else {
        ask.cut % data.len()
    });
    let readable: Vec<&[u8]> = [&head, before, behind]
        .into_iter()
        .filter(|piece| !piece.is_empty())
        .collect();
    let first = if input == 0 {
        0
    } else {
        ask.cut as u32 % input
    };
    let writable: Vec<u32> = [first, input - first, 1]
        .into_iter()
        .filter(|&length| length > 0)
        .collect();
    driver.add(0, &readable, &writable)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// One after the other, each is answered as a model of the disk says, and the file is what the model is.
    #[test]
    fn requests_do_what_they_say(asks in asks(), features in prop_oneof![Just(ALL), Just(ALL & !feature::FLUSH)]) {
        for engine in engines::all() {
            let mut rig = Rig::with(file(SECTORS), options(engine), features);
            let mut model = Model::new();
            for ask in &asks {
                let head = add(&mut rig.driver, ask);
                rig.driver.kick(0);
                let (used, _, contents) = rig.driver.expect_used(0);
                prop_assert_eq!(used, head);
                let (status, data) = contents.split_last().expect("a status");
                prop_assert_eq!(*status, model.ask(ask), "{:?}", ask);
                if ask.kind == IN && *status == OK {
                    model.check(ask.sector, data);
                }
            }
            model.check(0, &rig.contents(0, SECTORS as usize * 512));
        }
    }

    /// All at once, in any order: each is answered once. Those that don't overlap are what they should be.
    #[test]
    fn all_at_once(asks in asks()) {
        for engine in engines::all() {
            let mut rig = Rig::with(file(SECTORS), options(engine), ALL);
            let mut expected = HashMap::new();
            for ask in asks.iter().take(50) {
                let head = add(&mut rig.driver, ask);
                expected.insert(head, Model::new().ask(ask));
            }
            rig.driver.kick(0);
            while !expected.is_empty() {
                let (head, _, contents) = rig.driver.expect_used(0);
                prop_assert_eq!(expected.remove(&head), contents.last().copied());
            }
            prop_assert!(rig.driver.used(0).is_none());
        }
    }

    /// Whatever stands in the ring, the device answers or is broken, and works again after a reset.
    #[test]
    fn any_ring(
        descriptors in prop::collection::vec((0..32_u16, prop_oneof![0..MEMORY, MEMORY - 64..MEMORY + 64, any::<u64>()], prop_oneof![0..2048_u32, any::<u32>(), Just(16), Just(1)], 0..8_u16, 0..33_u16), 1..32),
        headers in prop::collection::vec((0..32_u64, 0..16_u32, 0..SECTORS + 2), 0..16),
        heads in prop::collection::vec(0..34_u16, 0..20),
        extra in 0..3_u16,
        configuration in prop::collection::vec((any::<u16>(), prop::collection::vec(any::<u8>(), 0..9)), 0..8),
    ) {
        for engine in engines::all() {
            let mut driver = Driver::start(Box::new(disk(&file(SECTORS), options(engine))), ALL);
            for (place, kind, sector) in &headers {
                vm_memory::Bytes::write_slice(&*driver.memory, &header(*kind, *sector), vm_memory::GuestAddress((16 << 20) + place * 4096)).expect("memory");
            }
            for &(number, address, length, flags, next) in &descriptors {
                // Often where a header is.
                let address = if flags & 2 == 0 { (16 << 20) + address % 32 * 4096 } else { address };
                driver.describe(0, number, Descriptor { address, length, flags, next });
            }
            for &head in &heads {
                driver.offer(0, head);
            }
            for (offset, data) in &configuration {
                driver.transport.write(0x100 + u64::from(*offset), data);
                driver.transport.read(0x100 + u64::from(*offset), &mut data.clone());
            }
            driver.claim(0, heads.len() as u16 + extra);
            driver.kick(0);
            driver.negotiate(ALL);
            driver.set_up(256);
            driver.write(0x70, 15);
            let answer = driver.request(0, &[&header(FLUSH, 0)], &[1]);
            prop_assert_eq!(answer, (1, vec![OK]));
        }
    }
}
