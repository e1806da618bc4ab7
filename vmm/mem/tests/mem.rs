//! The region before a driver, good and bad, and beside a model of it.

mod machine;

use std::collections::BTreeSet;
use std::io;

use machine::{BASE, BLOCK, Machine, PLUG, SETUP, SIZE, STATE, UNPLUG, UNPLUG_ALL, request};
use vm_memory::GuestAddress;
use vmm_mem::{Blocks, Counts, Handle, Mem, Setup};
use vmm_virtio::Device;
use vmm_virtio::testing::{Descriptor, Driver, MEMORY, wait};

const RINGS: u64 = 1 << 28 | 1 << 29;
const INACCESSIBLE: u64 = 1 << 1;
const ALL: u64 = RINGS | INACCESSIBLE;

/// How far beyond the requested size a driver may go, in blocks.
const EXTENT: u64 = 128;

/// How many blocks one event unplugs.
const EVENT: u64 = 64;

const DONE: u16 = 0;
const REFUSED: u16 = 1;
const BUSY: u16 = 2;
const ERROR: u16 = 3;

fn started() -> (Driver, Handle, Machine) {
    let machine = Machine::default();
    let mem = Mem::new(SETUP, Box::new(machine.clone())).expect("a region");
    let handle = mem.handle();
    (Driver::start(Box::new(mem), ALL), handle, machine)
}

/// The kind of the answer, and the state.
fn ask(driver: &mut Driver, kind: u16, address: u64, blocks: u16) -> (u16, u16) {
    let (length, answer) = driver.request(0, &[&request(kind, address, blocks)], &[10]);
    assert_eq!(length, 10);
    let short = |at: usize| u16::from_le_bytes([answer[at], answer[at + 1]]);
    (short(0), short(8))
}

/// Of whole blocks of the region.
fn say(driver: &mut Driver, kind: u16, first: u64, blocks: u16) -> u16 {
    ask(driver, kind, BASE + first * BLOCK, blocks).0
}

fn long(driver: &Driver, offset: u64) -> u64 {
    u64::from_le_bytes(driver.config(offset, 8).try_into().expect("eight bytes"))
}

#[test]
fn impossible_regions_are_refused() {
    for (address, size, block) in [
        (BASE, 0, BLOCK),
        (BASE, BLOCK, 3 << 20),
        (BASE, BLOCK, 1 << 19),
        (BASE, BLOCK, 0),
        (BASE, BLOCK + 4096, BLOCK),
        (BASE + 4096, BLOCK, BLOCK),
        (BASE, BLOCK << 21, BLOCK),
        (u64::MAX - BLOCK + 1, BLOCK, BLOCK),
    ] {
        let setup = Setup {
            address: GuestAddress(address),
            size,
            block,
        };
        let refused = Mem::new(setup, Box::new(Machine::default())).err();
        assert!(refused.is_some(), "{setup:?}");
    }
}

#[test]
fn the_configuration_says_where_and_how_much() {
    let (driver, handle, _) = started();
    assert_eq!((driver.read(8), driver.features), (24, ALL | 1 << 32));
    let fields = |driver: &Driver| [0, 8, 16, 24, 32, 40, 48].map(|at| long(driver, at));
    let fixed = [BLOCK, 0, BASE, SIZE * BLOCK];
    assert_eq!(fields(&driver)[..4], fixed);
    assert_eq!(fields(&driver)[4..], [0; 3]);
    assert!(!driver.interrupted());
    handle.set_requested(10 * BLOCK).expect("fits");
    driver.expect_interrupt();
    assert_eq!(driver.read(0x60) & 2, 2);
    assert_eq!(fields(&driver)[4..], [(10 + EXTENT) * BLOCK, 0, 10 * BLOCK]);
    // The same again is no news; what can't be is refused and changes nothing.
    handle.set_requested(10 * BLOCK).expect("fits");
    for bytes in [1, BLOCK + 1, (SIZE + 1) * BLOCK, u64::MAX] {
        let error = handle.set_requested(bytes).expect_err("refused");
        assert_eq!((error.bytes, error.size), (bytes, SIZE * BLOCK));
    }
    assert!(!driver.interrupted());
    // The usable region only grows.
    handle.set_requested(0).expect("fits");
    assert_eq!(
        (handle.usable(), handle.requested()),
        ((10 + EXTENT) * BLOCK, 0)
    );
    handle.set_requested(SIZE * BLOCK).expect("fits");
    assert_eq!(handle.usable(), SIZE * BLOCK);
    // Nothing is the driver's to write.
    driver.write(0x100 + 48, 0);
    assert_eq!(long(&driver, 48), SIZE * BLOCK);
}

#[test]
fn blocks_come_and_go() {
    let (mut driver, handle, machine) = started();
    assert_eq!(say(&mut driver, PLUG, 0, 1), ERROR, "nothing is usable yet");
    handle.set_requested(4 * BLOCK).expect("fits");
    assert_eq!(say(&mut driver, PLUG, 2, 3), DONE);
    assert_eq!(
        (handle.plugged(), long(&driver, 40)),
        (3 * BLOCK, 3 * BLOCK)
    );
    assert_eq!(machine.blocks(), BTreeSet::from([2, 3, 4]));
    assert_eq!(say(&mut driver, PLUG, 10, 2), REFUSED);
    assert_eq!(say(&mut driver, PLUG, 4, 1), ERROR, "it is there already");
    assert_eq!(say(&mut driver, PLUG, 10, 1), DONE);
    assert_eq!(say(&mut driver, UNPLUG, 3, 3), ERROR, "it is not there");
    for (first, blocks, state) in [(2, 3, 0), (5, 4, 1), (0, 3, 2), (4, 7, 2), (10, 1, 0)] {
        let address = BASE + first * BLOCK;
        assert_eq!(
            ask(&mut driver, STATE, address, blocks),
            (DONE, state),
            "{first}"
        );
    }
    assert_eq!(say(&mut driver, UNPLUG, 3, 2), DONE);
    assert_eq!(machine.blocks(), BTreeSet::from([2, 10]));
    // Less than there is: what is there stays until the driver gives it back.
    handle.set_requested(BLOCK).expect("fits");
    assert_eq!(say(&mut driver, PLUG, 3, 1), REFUSED);
    assert_eq!(handle.plugged(), 2 * BLOCK);
    // A reset changes nothing.
    driver.negotiate(ALL);
    driver.set_up(8);
    driver.write(0x70, 15);
    assert_eq!(ask(&mut driver, STATE, BASE + 10 * BLOCK, 1), (DONE, 0));
    driver.expect_interrupt();
    assert_eq!(say(&mut driver, UNPLUG_ALL, 0, 0), DONE);
    assert_eq!((machine.blocks().len(), handle.plugged()), (0, 0));
    assert_eq!(handle.usable(), (1 + EXTENT) * BLOCK);
    let counts = Counts {
        done: 10,
        refused: 2,
        busy: 0,
        wrong: 3,
    };
    assert_eq!(handle.counts(), counts);
    wait("the wish for a kick", || {
        driver.is_asked_to_kick(0).then_some(())
    });
}

#[test]
fn places_that_are_not_in_the_usable_region_are_errors() {
    let (mut driver, handle, machine) = started();
    handle.set_requested(100 * BLOCK).expect("fits");
    let usable = BASE + (100 + EXTENT) * BLOCK;
    for kind in [PLUG, UNPLUG, STATE] {
        for (address, blocks) in [
            (BASE, 0),
            (BASE + 1, 1),
            (BASE + BLOCK / 2, 1),
            (BASE - BLOCK, 1),
            (0, 1),
            (usable, 1),
            (usable - BLOCK, 2),
            (u64::MAX - BLOCK + 1, 1),
            (u64::MAX, u16::MAX),
            (BASE, u16::MAX),
        ] {
            assert_eq!(
                ask(&mut driver, kind, address, blocks).0,
                ERROR,
                "{kind} {address:#x}"
            );
        }
    }
    assert_eq!(ask(&mut driver, PLUG, usable - BLOCK, 1).0, DONE);
    assert_eq!(machine.blocks().len(), 1);
    for kind in [4, 5, u16::MAX] {
        assert_eq!(say(&mut driver, kind, 0, 1), ERROR);
    }
    // Half a request, and none.
    let whole = request(PLUG, BASE, 1);
    for length in [0, 2, 23] {
        let (_, answer) = driver.request(0, &[&whole[..length]], &[10]);
        assert_eq!(answer[..2], ERROR.to_le_bytes());
    }
    // In pieces, with more room than it takes.
    let (length, answer) = driver.request(0, &[&whole[..3], &whole[3..], &[9]], &[1, 100]);
    assert_eq!((length, &answer[..10]), (10, &[0; 10][..]));
}

#[test]
fn a_request_without_room_for_its_answer_stops_it() {
    for room in [&[][..], &[9], &[2, 7]] {
        let (mut driver, _, _) = started();
        driver.add(0, &[&request(STATE, BASE, 1)], room);
        driver.kick(0);
        driver.expect_reset();
    }
}

#[test]
fn a_driver_that_reads_what_is_not_plugged_is_refused() {
    let mem = Mem::new(SETUP, Box::new(Machine::default())).expect("a region");
    assert_eq!(mem.offer().features & INACCESSIBLE, INACCESSIBLE);
    let driver = Driver::start(Box::new(mem), RINGS);
    assert!(driver.needs_reset());
}

#[test]
fn what_takes_long_is_done_in_parts() {
    let (mut driver, handle, machine) = started();
    handle.set_requested(SIZE * BLOCK).expect("fits");
    assert_eq!(say(&mut driver, PLUG, 0, 1000), DONE);
    assert_eq!(machine.calls(), [1000]);
    assert_eq!(say(&mut driver, UNPLUG, 10, 150), DONE);
    assert_eq!(machine.calls(), [EVENT, EVENT, 22]);
    assert_eq!(handle.plugged(), 850 * BLOCK);
    // Several at once, and an end that is not at the end of an event.
    let heads = [(160, 60), (220, 60), (280, 10)].map(|(first, blocks)| {
        let bytes = request(UNPLUG, BASE + first * BLOCK, blocks);
        driver.add(0, &[&bytes], &[10])
    });
    driver.kick(0);
    for head in heads {
        assert_eq!(driver.expect_used(0).0, head);
    }
    assert_eq!(machine.calls(), [60, 4, 56, 8, 2]);
    // Holes in between: no more calls than blocks.
    for first in (300..400).step_by(2) {
        assert_eq!(say(&mut driver, UNPLUG, first, 1), DONE);
    }
    machine.calls();
    assert_eq!(say(&mut driver, UNPLUG_ALL, 0, 0), DONE);
    let calls = machine.calls();
    assert_eq!((calls[0], calls.iter().sum::<u64>()), (10, 670));
    assert_eq!(handle.plugged(), 0);
}

#[test]
fn a_machine_that_can_not_makes_the_driver_wait() {
    let (mut driver, handle, machine) = started();
    handle.set_requested(SIZE * BLOCK).expect("fits");
    machine.be_patient(Some(0));
    assert_eq!(say(&mut driver, PLUG, 0, 10), BUSY);
    machine.be_patient(None);
    assert_eq!(ask(&mut driver, STATE, BASE, 10), (DONE, 1));
    assert_eq!(say(&mut driver, PLUG, 0, 200), DONE);
    machine.be_patient(Some(0));
    assert_eq!(say(&mut driver, UNPLUG, 0, 1), BUSY);
    assert_eq!(say(&mut driver, UNPLUG_ALL, 0, 0), BUSY);
    assert_eq!((handle.plugged(), handle.counts().busy), (200 * BLOCK, 3));
    // In the middle of "all" what is gone is gone.
    machine.be_patient(Some(1));
    assert_eq!(say(&mut driver, UNPLUG_ALL, 0, 0), BUSY);
    assert_eq!(handle.plugged(), (200 - EVENT) * BLOCK);
    assert_eq!(machine.blocks().len() as u64, 200 - EVENT);
    machine.be_patient(None);
    assert_eq!(say(&mut driver, UNPLUG_ALL, 0, 0), DONE);
}

/// Says no to the second call to unplug, or to all that come then.
struct Once {
    machine: Machine,
    unplugged: u32,
    for_ever: bool,
}

impl Blocks for Once {
    fn plug(&mut self, address: GuestAddress, length: u64) -> io::Result<()> {
        if self.for_ever && self.unplugged == 2 {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.machine.plug(address, length)
    }

    fn unplug(&mut self, address: GuestAddress, length: u64) -> io::Result<()> {
        self.unplugged += 1;
        if self.unplugged == 2 {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.machine.unplug(address, length)
    }
}

#[test]
fn what_was_unplugged_by_half_is_plugged_again() {
    for for_ever in [false, true] {
        let machine = Machine::default();
        let once = Once {
            machine: machine.clone(),
            unplugged: 0,
            for_ever,
        };
        let mem = Mem::new(SETUP, Box::new(once)).expect("a region");
        let handle = mem.handle();
        let mut driver = Driver::start(Box::new(mem), ALL);
        handle.set_requested(SIZE * BLOCK).expect("fits");
        assert_eq!(say(&mut driver, PLUG, 0, 200), DONE);
        driver.add(0, &[&request(UNPLUG, BASE, 200)], &[10]);
        driver.kick(0);
        if for_ever {
            driver.expect_reset();
            assert_eq!(machine.blocks().len() as u64, 200 - EVENT);
            continue;
        }
        assert_eq!(driver.expect_used(0).2[..2], BUSY.to_le_bytes());
        assert_eq!(machine.blocks(), (0..200).collect());
        assert_eq!(say(&mut driver, UNPLUG, 0, 200), DONE);
        assert_eq!(handle.plugged(), 0);
    }
}

mod random {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Step {
        Ask(u16, u64, u16),
        Request(u64),
        Patience(Option<u32>),
        Reset,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let block = prop_oneof![0..8_u64, 0..SIZE + 20];
        let address = prop_oneof![
            8 => block.prop_map(|block| BASE + block * BLOCK),
            1 => any::<u64>(),
        ];
        let count = prop_oneof![4 => 0..8_u16, 1 => 0..300_u16, 1 => any::<u16>()];
        let kind = prop_oneof![4 => Just(PLUG), 3 => Just(UNPLUG), 1 => Just(STATE)];
        let step = prop_oneof![
            12 => (kind, address, count).prop_map(|(kind, address, count)| Step::Ask(kind, address, count)),
            1 => Just(Step::Ask(UNPLUG_ALL, 0, 0)),
            3 => (0..SIZE + 2).prop_map(Step::Request),
            1 => prop_oneof![Just(None), Just(Some(0))].prop_map(Step::Patience),
            1 => Just(Step::Reset),
        ];
        prop::collection::vec(step, 1..60)
    }

    #[derive(Default)]
    struct Model {
        plugged: BTreeSet<u64>,
        requested: u64,
        usable: u64,
        broke: bool,
    }

    impl Model {
        fn extent(&self) -> u64 {
            if self.requested == 0 {
                0
            } else {
                (self.requested + EXTENT).min(SIZE)
            }
        }

        fn request(&mut self, blocks: u64) {
            if blocks <= SIZE && blocks != self.requested {
                self.requested = blocks;
                self.usable = self.usable.max(self.extent());
            }
        }

        fn answer(&mut self, kind: u16, address: u64, count: u16) -> (u16, u16) {
            if kind == UNPLUG_ALL {
                if self.broke && !self.plugged.is_empty() {
                    return (BUSY, 0);
                }
                self.plugged.clear();
                self.usable = self.extent();
                return (DONE, 0);
            }
            let end = BASE + self.usable * BLOCK;
            let inside = address >= BASE && address < end && count > 0;
            if !inside
                || !(address - BASE).is_multiple_of(BLOCK)
                || (end - address) / BLOCK < u64::from(count)
            {
                return (ERROR, 0);
            }
            let first = (address - BASE) / BLOCK;
            let blocks = first..first + u64::from(count);
            let there = blocks
                .clone()
                .filter(|block| self.plugged.contains(block))
                .count();
            let all = usize::from(count);
            match kind {
                STATE if there == 0 => (DONE, 1),
                STATE if there == all => (DONE, 0),
                STATE => (DONE, 2),
                PLUG if self.plugged.len() + all > self.requested as usize => (REFUSED, 0),
                PLUG if there != 0 => (ERROR, 0),
                UNPLUG if there != all => (ERROR, 0),
                _ if self.broke => (BUSY, 0),
                PLUG => {
                    self.plugged.extend(blocks);
                    (DONE, 0)
                }
                _ => {
                    self.plugged.retain(|block| !blocks.contains(block));
                    (DONE, 0)
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn it_is_its_model(steps in steps()) {
            let (mut driver, handle, machine) = started();
            let mut model = Model::default();
            for step in steps {
                match step {
                    Step::Ask(kind, address, count) => {
                        let expected = model.answer(kind, address, count);
                        prop_assert_eq!(ask(&mut driver, kind, address, count), expected);
                    }
                    Step::Request(blocks) => {
                        model.request(blocks);
                        prop_assert_eq!(handle.set_requested(blocks * BLOCK).is_ok(), blocks <= SIZE);
                    }
                    Step::Patience(calls) => {
                        model.broke = calls.is_some();
                        machine.be_patient(calls);
                    }
                    Step::Reset => {
                        driver.negotiate(ALL);
                        driver.set_up(8);
                        driver.write(0x70, 15);
                    }
                }
                prop_assert_eq!(&machine.blocks(), &model.plugged);
                prop_assert_eq!(handle.plugged(), model.plugged.len() as u64 * BLOCK);
                prop_assert_eq!(long(&driver, 32), model.usable * BLOCK);
                prop_assert_eq!(long(&driver, 48), model.requested * BLOCK);
            }
        }

        /// Whatever is in the ring, the device answers or stops, and works again after a reset.
        #[test]
        fn any_ring(
            descriptors in descriptors(),
            requests in prop::collection::vec((0..5_u16, 0..300_u64, 0..300_u16), 8),
            heads in prop::collection::vec(0..10_u16, 0..20),
            extra in 0..10_u16,
        ) {
            let (mut driver, handle, machine) = started();
            handle.set_requested(500 * BLOCK).expect("fits");
            prop_assert_eq!(say(&mut driver, PLUG, 0, 400), DONE);
            for (number, (kind, first, count)) in requests.into_iter().enumerate() {
                let bytes = request(kind, BASE + first * BLOCK, count);
                let place = GuestAddress((8 << 20) + number as u64 * 32);
                vm_memory::Bytes::write_slice(&*driver.memory, &bytes, place).expect("memory");
            }
            for &(number, descriptor) in &descriptors {
                driver.describe(0, number, descriptor);
            }
            for &head in &heads {
                driver.offer(0, head);
            }
            driver.claim(0, (heads.len() as u16 + 1).wrapping_add(extra));
            driver.kick(0);
            driver.negotiate(ALL);
            driver.set_up(8);
            driver.write(0x70, 15);
            prop_assert_eq!(say(&mut driver, UNPLUG_ALL, 0, 0), DONE);
            prop_assert_eq!(machine.blocks().len(), 0);
            prop_assert_eq!(handle.plugged(), 0);
        }
    }

    fn descriptors() -> impl Strategy<Value = Vec<(u16, Descriptor)>> {
        let place = (0..8_u64).prop_map(|number| (8 << 20) + number * 32);
        let address = prop_oneof![4 => place, 1 => 0..MEMORY, 1 => any::<u64>()];
        let length = prop_oneof![4 => Just(24), 2 => Just(10), 1 => 0..64_u32, 1 => any::<u32>()];
        let flags = prop_oneof![4 => Just(1_u16), 4 => Just(2_u16), 1 => 0..8_u16];
        let one = (0..8_u16, address, length, flags, 0..9_u16).prop_map(
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
        prop::collection::vec(one, 1..24)
    }
}
