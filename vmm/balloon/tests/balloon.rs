//! The balloon before a driver, good and bad, and what becomes of the memory.

mod record;

use std::io;
use std::sync::Arc;

use record::{PAGE, Record, SETUP, list};
use vm_memory::{Bytes, GuestAddress, GuestMemory, GuestMemoryRegion};
use vmm_balloon::{Balloon, Counts, Discard, Handle, Setup};
use vmm_virtio::testing::{Descriptor, Driver, MEMORY, wait};
use vmm_virtio::{Device, Memory};

const RINGS: u64 = 1 << 28 | 1 << 29;
const ALL: u64 = RINGS | 1 << 1 | 1 << 2 | 1 << 4 | 1 << 5;
const POISON: u64 = 1 << 4;

const INFLATE: usize = 0;
const DEFLATE: usize = 1;
const STATISTICS: usize = 2;
const REPORTING: usize = 4;

fn recorded(features: u64) -> (Driver, Handle, Arc<Record>) {
    let record = Arc::new(Record::default());
    let balloon = Balloon::new(SETUP, record.clone()).expect("a balloon");
    let handle = balloon.handle();
    (Driver::start(Box::new(balloon), features), handle, record)
}

fn real(memory: Arc<Memory>) -> (Driver, Handle) {
    let balloon = Balloon::new(SETUP, memory.clone()).expect("a balloon");
    let handle = balloon.handle();
    (Driver::start_in(Box::new(balloon), ALL, memory), handle)
}

fn word(driver: &Driver, offset: u64) -> u32 {
    u32::from_le_bytes(driver.config(offset, 4).try_into().expect("four bytes"))
}

#[test]
fn only_what_is_wanted_is_offered() {
    for (number, bits) in [(0, 1_u64 << 2), (1, 1 << 4 | 1 << 5), (2, 1 << 1)] {
        let setup = Setup {
            deflate_on_oom: number == 0,
            reporting: number == 1,
            statistics: number == 2,
        };
        let balloon = Balloon::new(setup, Arc::new(Record::default())).expect("a balloon");
        assert_eq!(balloon.offer().features, RINGS | bits);
        // Without statistics and reports nobody needs their queues, and everybody finds them.
        let driver = Driver::start(Box::new(balloon), ALL);
        assert!(!driver.needs_reset());
        assert_eq!(driver.read(8), 5);
    }
}

#[test]
fn pages_of_a_list_are_discarded_together() {
    let (mut driver, handle, record) = recorded(ALL);
    let (one, other) = (list([9, 3, 5]), list([4, 10, 0]));
    // The interrupt first: a driver that has seen the answer already may not get one.
    let head = driver.add(INFLATE, &[&one, &other], &[]);
    driver.kick(INFLATE);
    driver.expect_interrupt();
    assert_eq!(driver.expect_used(INFLATE).0, head);
    let ranges = [(0, 1), (3, 3), (9, 2)];
    assert_eq!(
        record.take(),
        ranges.map(|(page, count)| (page * PAGE, count * PAGE))
    );
    assert_eq!(driver.request(DEFLATE, &[&list([9, 3])], &[]).0, 0);
    assert_eq!(record.take(), []);
    // No memory, and half an entry.
    driver.request(INFLATE, &[&list([u32::MAX, 1 << 20]), &[1, 2]], &[]);
    assert_eq!(record.take(), []);
    let counts = Counts {
        inflated: 6 * PAGE,
        deflated: 2 * PAGE,
        reported: 0,
        failed: 2 * PAGE,
    };
    assert_eq!(handle.counts(), counts);
    wait("the wish for a kick", || {
        driver.is_asked_to_kick(INFLATE).then_some(())
    });
}

#[test]
fn a_list_that_is_too_long_for_one_event_is_gone_through_in_several() {
    let (mut driver, handle, record) = recorded(RINGS);
    let pages = list((0..8000).map(|number| number % 4000 * 2));
    // Pieces that end within an entry.
    let (one, other) = pages.split_at(10_001);
    driver.request(INFLATE, &[one, other], &[]);
    driver.request(INFLATE, &[&list([77])], &[]);
    let discarded = record.take();
    let inside = 4000.min(MEMORY / PAGE / 2);
    assert_eq!(discarded.len() as u64, 2 * inside + 1);
    assert_eq!(handle.counts().inflated, (2 * inside + 1) * PAGE);
    assert_eq!(discarded.last(), Some(&(77 * PAGE, PAGE)));
}

#[test]
fn whole_pages_of_reports_are_discarded() {
    let (mut driver, handle, record) = recorded(ALL);
    let report = |driver: &mut Driver, ranges: &[(u64, u64)]| {
        let chain: Vec<_> = ranges
            .iter()
            .map(|&(address, length)| (address, length as u32, true))
            .collect();
        driver.add_at(REPORTING, &chain);
        driver.kick(REPORTING);
        driver.expect_used(REPORTING);
    };
    let mib = 1 << 20;
    report(
        &mut driver,
        &[(8 * mib, 2 * mib), (4 * mib, mib), (10 * mib, mib)],
    );
    assert_eq!(record.take(), [(4 * mib, mib), (8 * mib, 3 * mib)]);
    report(
        &mut driver,
        &[(1, 4095), (PAGE + 1, 3 * PAGE), (9 * PAGE, 0)],
    );
    assert_eq!(record.take(), [(2 * PAGE, 2 * PAGE)]);
    assert_eq!(handle.counts().reported, 4 * mib + 2 * PAGE);
    // 128 MiB in one request: two events.
    let whole = (8 * mib, 16 * mib);
    report(&mut driver, &[whole; 8]);
    assert_eq!(record.take(), [whole, whole]);
}

#[test]
fn a_guest_with_a_pattern_in_its_free_pages_keeps_it() {
    for (features, pattern, kept) in [
        (ALL, 0, false),
        (ALL, 0xaa, true),
        (ALL & !POISON, 0xaa, false),
    ] {
        let (mut driver, _, record) = recorded(features);
        driver.write(0x100 + 12, pattern);
        assert_eq!(word(&driver, 12), pattern);
        driver.add_at(REPORTING, &[(0, 4096, true)]);
        driver.kick(REPORTING);
        driver.expect_used(REPORTING);
        assert_eq!(record.take().is_empty(), kept);
        driver.negotiate(ALL);
        assert_eq!(word(&driver, 12), 0);
    }
}

/// As Linux does it, which for long gave queues the next free number.
#[test]
fn reports_come_by_another_queue_if_the_driver_has_no_fifth() {
    let record = Arc::new(Record::default());
    let balloon = Balloon::new(SETUP, record.clone()).expect("a balloon");
    let mut driver = Driver::find(Box::new(balloon), Driver::memory());
    driver.negotiate(ALL);
    driver.set_up(64);
    driver.write(0x30, 4);
    driver.write(0x44, 0);
    driver.write(0x70, 15);
    driver.add_at(3, &[(0, 4096, true)]);
    driver.kick(3);
    driver.expect_used(3);
    assert_eq!(record.take(), [(0, 4096)]);
}

#[test]
fn the_target_is_told_and_the_guest_answers() {
    let (mut driver, handle, _) = recorded(ALL);
    assert!(!driver.interrupted());
    handle.set_target((5 << 20) + 4095);
    driver.expect_interrupt();
    assert_eq!(driver.read(0x60) & 2, 2);
    assert_eq!((word(&driver, 0), handle.target()), (1280, 5 << 20));
    // The same again is no news.
    handle.set_target(5 << 20);
    assert!(!driver.interrupted());
    driver.write(0x100 + 4, 1000);
    assert_eq!((handle.actual(), word(&driver, 4)), (1000 * PAGE, 1000));
    // The guest does not set its own target, nor parts of fields.
    driver.write(0x100, 7);
    driver.transport.write(0x104, &[1]);
    driver.transport.write(0x102, &[1; 4]);
    assert_eq!((word(&driver, 0), word(&driver, 4)), (1280, 1000));
    handle.set_target(u64::MAX);
    assert_eq!(word(&driver, 0), u32::MAX);
    // A new driver has an empty balloon, and the target still.
    driver.negotiate(ALL);
    assert_eq!((handle.actual(), word(&driver, 0)), (0, u32::MAX));
    handle.set_target(0);
    assert_eq!(word(&driver, 0), 0);
}

fn entry(kind: u16, value: u64) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &value.to_le_bytes()].concat()
}

#[test]
fn statistics_come_when_they_are_asked_for() {
    let record = Arc::new(Record::default());
    let balloon = Balloon::new(SETUP, record).expect("a balloon");
    let handle = balloon.handle();
    let mut driver = Driver::find(Box::new(balloon), Driver::memory());
    driver.negotiate(ALL);
    driver.set_up(64);
    // As Linux does it: the first report is there, and was kicked for, before the driver is ready.
    let first = [entry(4, 1000), entry(5, 2000), entry(99, 1)].concat();
    let mut head = driver.add(STATISTICS, &[&first], &[]);
    driver.kick(STATISTICS);
    driver.write(0x70, 15);
    let statistics = wait("the first report", || {
        Some(handle.statistics()).filter(|statistics| statistics.reports == 1)
    });
    assert_eq!(
        (statistics.free, statistics.total),
        (Some(1000), Some(2000))
    );
    assert_eq!(statistics.available, None);
    assert!(driver.used(STATISTICS).is_none());
    for round in 2..5_u64 {
        handle.ask();
        driver.expect_interrupt();
        assert_eq!(driver.expect_used(STATISTICS).0, head);
        let report = [entry(6, round), entry(6, u64::MAX)].concat();
        head = driver.add(STATISTICS, &[&report[..13], &report[13..]], &[]);
        driver.kick(STATISTICS);
        let statistics = wait("a report", || {
            Some(handle.statistics()).filter(|statistics| statistics.reports == round)
        });
        assert_eq!(
            (statistics.available, statistics.free),
            (Some(u64::MAX), None)
        );
    }
    // Of two requests one comes back.
    driver.add(STATISTICS, &[&[]], &[]);
    driver.kick(STATISTICS);
    assert_eq!(driver.expect_used(STATISTICS).0, head);
    // Endless ones are read up to their bound.
    driver.add(STATISTICS, &[&[0; 100_000]], &[]);
    driver.kick(STATISTICS);
    driver.expect_used(STATISTICS);
    assert_eq!(handle.statistics().swapped_in, Some(0));
}

#[test]
fn missing_queues_stop_it() {
    for missing in [&[0][..], &[1], &[2], &[3, 4]] {
        let balloon = Balloon::new(SETUP, Arc::new(Record::default())).expect("a balloon");
        let mut driver = Driver::find(Box::new(balloon), Driver::memory());
        driver.negotiate(ALL);
        driver.set_up(64);
        for &number in missing {
            driver.write(0x30, number);
            driver.write(0x44, 0);
        }
        driver.write(0x70, 15);
        assert!(driver.needs_reset(), "{missing:?}");
        driver.negotiate(ALL);
        driver.set_up(64);
        driver.write(0x70, 15);
        driver.request(INFLATE, &[&list([1])], &[]);
    }
}

/// Resident pages of a mapping that begins at this address, in KiB.
fn resident(memory: &Memory) -> u64 {
    let address = memory.iter().next().expect("a region").as_ptr().addr();
    let maps = std::fs::read_to_string("/proc/self/smaps").expect("reads");
    let mut lines = maps.lines().skip_while(|line| {
        let begin = line.split('-').next().unwrap_or_default();
        usize::from_str_radix(begin, 16) != Ok(address)
    });
    let line = lines.find(|line| line.starts_with("Rss:")).expect("a size");
    line.split_whitespace()
        .nth(1)
        .expect("a number")
        .parse()
        .expect("a number")
}

fn used_blocks(memory: &Memory) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let region = memory.iter().next().expect("a region");
    let file = region.file_offset().expect("a file").file();
    file.metadata().expect("a file").blocks() / 2
}

/// Fills the upper half and gives it back in both ways; what is left of it in KiB, before and after each.
fn give_back(memory: &Arc<Memory>, held: impl Fn() -> u64) -> [u64; 3] {
    let (mut driver, handle) = real(Arc::clone(memory));
    let half = MEMORY / 2;
    let full = vec![7; half as usize];
    memory
        .write_slice(&full, GuestAddress(half))
        .expect("memory");
    let first = (half + half / 2) / PAGE;
    // The list is put where nothing is given back.
    let pages = list(
        (0..half / 2 / PAGE)
            .rev()
            .map(|number| (first + number) as u32),
    );
    memory
        .write_slice(&pages, GuestAddress(4 << 20))
        .expect("memory");
    let before = held();
    // Not by `add_at`: the driver would read what comes back, and have it again by that.
    let report = Descriptor {
        address: half,
        length: (half / 2) as u32,
        flags: 2,
        next: 0,
    };
    driver.describe(REPORTING, 0, report);
    driver.offer(REPORTING, 0);
    driver.kick(REPORTING);
    driver.expect_used(REPORTING);
    let reported = held();
    driver.add_at(INFLATE, &[(4 << 20, pages.len() as u32, false)]);
    driver.kick(INFLATE);
    driver.expect_used(INFLATE);
    let inflated = held();
    let counts = handle.counts();
    assert_eq!(
        (counts.reported, counts.inflated, counts.failed),
        (half / 2, half / 2, 0)
    );
    let mut bytes = vec![1; half as usize];
    memory
        .read_slice(&mut bytes, GuestAddress(half))
        .expect("memory");
    assert!(bytes.iter().all(|&byte| byte == 0), "something was left");
    [before, reported, inflated]
}

#[test]
fn memory_really_falls() {
    // Less the pages of the rings, which are touched meanwhile.
    let quarter = MEMORY / 4 / 1024 - 256;
    let private = Driver::memory();
    let [before, reported, inflated] = give_back(&private, || resident(&private));
    assert!(before >= reported + quarter, "{before} {reported}");
    assert!(reported >= inflated + quarter, "{reported} {inflated}");
    let shared = Driver::shared_memory();
    let [before, reported, inflated] = give_back(&shared, || used_blocks(&shared));
    assert!(before >= reported + quarter, "{before} {reported}");
    assert!(reported >= inflated + quarter, "{reported} {inflated}");
}

#[test]
fn what_is_no_memory_or_not_ours_to_drop_is_refused() {
    let memory = Driver::memory();
    let kind = |memory: &Memory, address, length| {
        memory
            .discard(GuestAddress(address), length)
            .map_err(|error| error.kind())
    };
    for (address, length) in [
        (MEMORY, PAGE),
        (MEMORY - PAGE, 2 * PAGE),
        (u64::MAX - 4095, PAGE),
        (0, u64::MAX),
    ] {
        assert_eq!(
            kind(&memory, address, length),
            Err(io::ErrorKind::InvalidInput)
        );
    }
    assert_eq!(kind(&memory, MEMORY - PAGE, PAGE), Ok(()));
    let shared = Driver::shared_memory();
    let file = shared
        .iter()
        .next()
        .expect("a region")
        .file_offset()
        .expect("a file")
        .clone();
    let mapping = vm_memory::mmap::MmapRegionBuilder::new(1 << 20)
        .with_file_offset(file)
        .with_mmap_flags(libc::MAP_PRIVATE | libc::MAP_NORESERVE)
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        .build()
        .expect("maps");
    let region = vm_memory::GuestRegionMmap::new(mapping, GuestAddress(0)).expect("a region");
    let private = Memory::from_regions(vec![region]).expect("memory");
    assert_eq!(kind(&private, 0, PAGE), Err(io::ErrorKind::Unsupported));
    // Regions that touch.
    let places = [(GuestAddress(0), 8192), (GuestAddress(8192), 8192)];
    let memory = Memory::from_ranges(&places).expect("memory");
    memory
        .write_slice(&[1; 16_384], GuestAddress(0))
        .expect("memory");
    assert_eq!(kind(&memory, 4096, 8192), Ok(()));
    let page = |number: u64| {
        memory
            .read_obj::<u8>(GuestAddress(number * PAGE))
            .expect("memory")
    };
    assert_eq!([0, 1, 2, 3].map(page), [1, 0, 0, 1]);
}

mod random {
    use super::*;
    use proptest::prelude::*;

    fn descriptors() -> impl Strategy<Value = Vec<(u16, Descriptor)>> {
        let address = prop_oneof![
            0..MEMORY,
            Just(8 << 20),
            MEMORY - 64..MEMORY + 64,
            any::<u64>()
        ];
        let length = prop_oneof![0..64_u32, 0..(64_u32 << 20), Just(16), Just(48)];
        let one = (0..16_u16, address, length, 0..8_u16, 0..18_u16).prop_map(
            |(number, address, length, flags, next)| {
                (
                    number,
                    Descriptor {
                        address,
                        length,
                        flags,
                        next,
                    },
                )
            },
        );
        prop::collection::vec(one, 1..32)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever is in whichever ring, the device answers or stops, and works again after a reset.
        #[test]
        fn any_ring(
            queue in 0..5_usize,
            descriptors in descriptors(),
            heads in prop::collection::vec(0..20_u16, 0..20),
            writes in prop::collection::vec((0..20_u64, any::<u32>()), 0..4),
            asks in 0..3,
        ) {
            let (mut driver, handle, record) = recorded(ALL);
            for &(number, descriptor) in &descriptors {
                driver.describe(queue, number, descriptor);
            }
            for &head in &heads {
                driver.offer(queue, head);
            }
            for &(offset, value) in &writes {
                driver.write(0x100 + offset, value);
            }
            driver.kick(queue);
            for _ in 0..asks {
                handle.ask();
            }
            driver.negotiate(ALL);
            driver.set_up(16);
            driver.write(0x70, 15);
            record.take();
            driver.request(INFLATE, &[&list([3])], &[]);
            let discarded = record.take();
            prop_assert_eq!(discarded.last(), Some(&(3 * PAGE, PAGE)));
        }
    }
}
