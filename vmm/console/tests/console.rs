//! The console before a driver, good and bad.

use std::io::{self, PipeReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use vmm_console::{Console, Counts, Statistics};
use vmm_virtio::testing::{Descriptor, Driver, MEMORY, wait};

const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
const FEATURES: u64 = 1 << 28 | 1 << 29;

/// How much a pipe holds when nobody has changed it.
const PIPE: usize = 64 << 10;

fn console(features: u64) -> (Driver, PipeReader, Statistics) {
    let (reader, writer) = io::pipe().expect("a pipe");
    let console = Console::new(writer.into(), None).expect("a console");
    let statistics = console.statistics();
    (
        Driver::start(Box::new(console), features),
        reader,
        statistics,
    )
}

fn read(from: &mut impl Read, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    from.read_exact(&mut bytes).expect("enough bytes");
    bytes
}

#[test]
fn what_is_printed_comes_out_in_order() {
    for features in [0, FEATURES] {
        let (mut driver, mut reader, statistics) = console(features);
        assert_eq!(driver.read(8), 3);
        for round in 0..100_u8 {
            driver.add(TRANSMIT, &[b"line ", &[round], b"\n"], &[]);
            driver.kick(TRANSMIT);
            driver.expect_interrupt();
            assert_eq!(driver.expect_used(TRANSMIT).1, 0);
            wait("the wish for a kick", || {
                driver.is_asked_to_kick(TRANSMIT).then_some(())
            });
            assert_eq!(
                read(&mut reader, 7),
                [b'l', b'i', b'n', b'e', b' ', round, b'\n']
            );
        }
        let counts = Counts {
            printed: 700,
            lost: 0,
            typed: 0,
        };
        assert_eq!(statistics.read(), counts);
    }
}

#[test]
fn many_requests_of_one_kick_are_all_taken() {
    let (mut driver, mut reader, _) = console(FEATURES);
    for round in 0..5_u8 {
        let heads: Vec<u16> = (0..16)
            .map(|number| driver.add(TRANSMIT, &[&[round, number]], &[]))
            .collect();
        driver.kick(TRANSMIT);
        for head in heads {
            assert_eq!(driver.expect_used(TRANSMIT).0, head);
        }
        let expected: Vec<u8> = (0..16).flat_map(|number| [round, number]).collect();
        assert_eq!(read(&mut reader, 32), expected);
    }
}

#[test]
fn a_guest_does_not_wait_for_a_full_descriptor_and_its_last_words_are_kept() {
    let (mut driver, mut reader, statistics) = console(FEATURES);
    let pages = (PIPE + (64 << 10)) / 4096 + 9;
    for number in 0..pages {
        driver.request(TRANSMIT, &[&[number as u8; 4096]], &[]);
    }
    let counts = statistics.read();
    assert_eq!((counts.printed, counts.lost), (PIPE as u64, 9 * 4096));
    let kept = (0..16).chain(pages - 16..pages);
    for number in kept {
        assert_eq!(read(&mut reader, 4096), [number as u8; 4096], "{number}");
    }
    // Behind what was kept, in order.
    driver.request(TRANSMIT, &[b"go on"], &[]);
    assert_eq!(read(&mut reader, 5), b"go on");
    assert_eq!(statistics.read().printed, (PIPE + (64 << 10) + 5) as u64);
}

#[test]
fn of_a_request_of_any_length_only_the_begin_is_taken() {
    let (mut driver, reader, statistics) = console(FEATURES);
    let chain = vec![(0, MEMORY as u32, false); 16];
    driver.add_at(TRANSMIT, &chain);
    driver.kick(TRANSMIT);
    driver.expect_used(TRANSMIT);
    let counts = statistics.read();
    assert_eq!(counts.printed + counts.lost, 16 * MEMORY);
    assert_eq!(counts.printed, 64 << 10);
    drop(reader);
}

#[test]
fn nobody_listens_and_the_guest_goes_on() {
    let (mut driver, reader, statistics) = console(FEATURES);
    // Something is kept when the other end goes, too.
    for _ in 0..PIPE / 4096 + 1 {
        driver.request(TRANSMIT, &[&[1; 4096]], &[]);
    }
    drop(reader);
    wait("the loss", || {
        (statistics.read().lost == 4096).then_some(())
    });
    for _ in 0..100 {
        driver.request(TRANSMIT, &[b"hello"], &[]);
    }
    assert_eq!(statistics.read().lost, 4096 + 500);
    assert!(!driver.needs_reset());
}

#[test]
fn last_words_wait_for_whoever_reads_and_for_nobody_else() {
    let (reader, writer) = io::pipe().expect("a pipe");
    let console = Console::new(writer.into(), None).expect("a console");
    let (last_words, statistics) = (console.last_words(), console.statistics());
    let mut driver = Driver::start(Box::new(console), FEATURES);
    // Nothing is kept: nothing is waited for.
    last_words.write(Duration::from_secs(1000));
    for number in 0..32_u8 {
        driver.request(TRANSMIT, &[&[number; 4096]], &[]);
    }
    let patience = Duration::from_millis(50);
    let begin = Instant::now();
    last_words.write(patience);
    assert!(begin.elapsed() >= patience);
    let reading = thread::spawn(move || {
        let mut reader = reader;
        let words: Vec<u8> = (0..32)
            .flat_map(|_| {
                thread::sleep(Duration::from_millis(2));
                read(&mut reader, 4096)
            })
            .collect();
        (words, reader)
    });
    last_words.write(Duration::from_secs(1000));
    assert_eq!(statistics.read().printed, 32 * 4096);
    let (words, reader) = reading.join().expect("no panic");
    let expected: Vec<u8> = (0..32).flat_map(|number| [number; 4096]).collect();
    assert!(words == expected);
    for _ in 0..PIPE / 4096 + 1 {
        driver.request(TRANSMIT, &[&[1; 4096]], &[]);
    }
    drop(reader);
    last_words.write(Duration::from_secs(1000));
    assert_eq!(statistics.read().lost, 4096);
}

#[test]
fn what_was_kept_survives_a_reset_and_the_device() {
    let (mut driver, mut reader, _) = console(FEATURES);
    for _ in 0..PIPE / 4096 {
        driver.request(TRANSMIT, &[&[1; 4096]], &[]);
    }
    driver.request(TRANSMIT, &[b"first"], &[]);
    driver.negotiate(FEATURES);
    driver.set_up(16);
    driver.write(0x70, 15);
    driver.request(TRANSMIT, &[b"second"], &[]);
    assert_eq!(read(&mut reader, PIPE), [1; PIPE]);
    assert_eq!(read(&mut reader, 11), b"firstsecond");
    for _ in 0..PIPE / 4096 {
        driver.request(TRANSMIT, &[&[2; 4096]], &[]);
    }
    driver.request(TRANSMIT, &[b"the end"], &[]);
    driver.write(0x70, 0);
    // The guest is gone; the place of its last words is, too, until it is taken away.
    assert_eq!(read(&mut reader, PIPE), [2; PIPE]);
    drop(driver.transport.unplug());
    assert_eq!(read(&mut reader, 7), b"the end");
}

#[test]
fn what_is_typed_comes_when_there_is_room() {
    let (ours, its) = UnixStream::pair().expect("sockets");
    let input = its.try_clone().expect("a descriptor");
    let console = Console::new(its.into(), Some(input.into())).expect("a console");
    let statistics = console.statistics();
    let mut driver = Driver::start(Box::new(console), FEATURES);
    (&ours).write_all(b"abcdefgh").expect("writes");
    for (room, expected) in [(3, b"abc".as_slice()), (2, b"de"), (9, b"fgh")] {
        let (written, contents) = driver.request(RECEIVE, &[], &[room]);
        assert_eq!(&contents[..written as usize], expected);
    }
    // Room first, in several pieces.
    driver.add(RECEIVE, &[], &[1, 4]);
    driver.add(RECEIVE, &[], &[0]);
    driver.kick(RECEIVE);
    (&ours).write_all(b"xyz").expect("writes");
    driver.expect_interrupt();
    let (_, written, contents) = driver.expect_used(RECEIVE);
    assert_eq!((written, &contents[..3]), (3, b"xyz".as_slice()));
    assert_eq!(driver.expect_used(RECEIVE).1, 0);
    assert_eq!(statistics.read().typed, 11);
    // Both directions at once.
    driver.request(TRANSMIT, &[b"echo"], &[]);
    assert_eq!(read(&mut &ours, 4), b"echo");
    // The end, with room and without.
    driver.add(RECEIVE, &[], &[8]);
    driver.kick(RECEIVE);
    drop(ours);
    driver.request(TRANSMIT, &[b"nobody"], &[]);
    driver.kick(RECEIVE);
    driver.request(TRANSMIT, &[b"nobody"], &[]);
    assert!(driver.used(RECEIVE).is_none());
    assert_eq!(statistics.read().lost, 12);
}

#[test]
fn a_console_without_input_leaves_the_room_alone() {
    let (mut driver, mut reader, _) = console(FEATURES);
    driver.add(RECEIVE, &[], &[4096]);
    driver.kick(RECEIVE);
    driver.request(TRANSMIT, &[b"x"], &[]);
    assert_eq!(read(&mut reader, 1), b"x");
    assert!(driver.used(RECEIVE).is_none());
}

#[test]
fn a_queue_that_is_left_out_and_a_bad_chain_stop_it() {
    let (mut driver, _reader, _) = console(FEATURES);
    driver.negotiate(FEATURES);
    driver.set_up(16);
    driver.write(0x30, 0);
    driver.write(0x44, 0);
    driver.write(0x70, 15);
    assert!(driver.needs_reset());
    for bad in [(MEMORY, 1, false), (0, u32::MAX, false)] {
        driver.negotiate(FEATURES);
        driver.set_up(16);
        driver.write(0x70, 15);
        driver.add_at(TRANSMIT, &[bad]);
        driver.kick(TRANSMIT);
        driver.expect_reset();
    }
}

#[test]
fn the_configuration_is_all_zeros_and_stays_so() {
    let (driver, _reader, _) = console(FEATURES);
    driver.transport.write(0x108, b"emer");
    assert_eq!(driver.config(0, 16), [0; 16]);
}

fn descriptors() -> impl Strategy<Value = Vec<(u16, Descriptor)>> {
    let address = prop_oneof![4 => 0..MEMORY / 2, 1 => any::<u64>()];
    let length = prop_oneof![4 => 0..8192_u32, 1 => any::<u32>()];
    let one = (0..16_u16, address, length, 0..8_u16, 0..17_u16).prop_map(
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is in the rings, the console answers or stops, and works again after a reset.
    #[test]
    fn any_rings(descriptors in descriptors(), heads in prop::collection::vec((0..2_usize, 0..20_u16), 0..20), typed in any::<bool>()) {
        let (mut ours, its) = UnixStream::pair().expect("sockets");
        let input = its.try_clone().expect("a descriptor");
        let console = Console::new(its.into(), Some(input.into())).expect("a console");
        let mut driver = Driver::start(Box::new(console), FEATURES);
        if typed {
            ours.write_all(&[7; 999]).expect("writes");
        }
        for &(number, descriptor) in &descriptors {
            driver.describe(RECEIVE, number % 8, descriptor);
            driver.describe(TRANSMIT, number, descriptor);
        }
        for &(queue, head) in &heads {
            driver.offer(queue, head);
        }
        driver.kick(RECEIVE);
        driver.kick(TRANSMIT);
        driver.negotiate(0);
        driver.set_up(16);
        driver.write(0x70, 15);
        ours.set_nonblocking(true).expect("a socket");
        let marker = b"\x01\x02 this is the marker \x03\x04";
        driver.request(TRANSMIT, &[marker], &[]);
        let mut seen = Vec::new();
        wait("the marker", || {
            let mut piece = [0; 8192];
            while let Ok(count @ 1..) = ours.read(&mut piece) {
                seen.extend_from_slice(&piece[..count]);
            }
            seen.ends_with(marker).then_some(())
        });
    }
}
