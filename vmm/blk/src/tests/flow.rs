//! Many requests at once, limits, and resets in between.

use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use vm_memory::{Bytes, GuestAddress};
use vmm_virtio::Rates;
use vmm_virtio::testing::{Driver, wait};

use super::{
    ALL, FLUSH, IN, IOERR, OK, OUT, Rig, WRITE_ZEROES, disk, engines, file, header, options,
    segment,
};
use crate::configuration::feature;
use crate::{Engine, Options};

/// As many as the driver's queue takes, all at once, again and again, on more queues than the engine has room for.
#[test]
fn full_queues_are_served() {
    for engine in engines::all() {
        let mut options = options(engine);
        options.queues = 6;
        let mut rig = Rig::with(file(200), options, ALL);
        for _ in 0..3 {
            for queue in 0..6 {
                for number in 0..85_u64 {
                    rig.driver.add(queue, &[&header(IN, number * 2)], &[512, 1]);
                }
                rig.driver.kick(queue);
            }
            for queue in 0..6 {
                let mut seen = vec![false; 85];
                for _ in 0..85 {
                    let (_, length, contents) = rig.driver.expect_used(queue);
                    assert_eq!((length, contents[512]), (513, OK));
                    seen[usize::from(contents[0] / 2)] = true;
                }
                assert!(seen.into_iter().all(|seen| seen));
            }
        }
        assert_eq!(rig.statistics.read().reads, 3 * 6 * 85);
    }
}

/// What takes its time fills the engine; the rest waits in the queues, and is not forgotten.
#[test]
fn a_full_engine_is_waited_for() {
    const LENGTH: u32 = 3 << 20;
    for engine in engines::all() {
        let mut options = options(engine);
        options.queues = 5;
        let file = file(4);
        file.set_len(u64::from(LENGTH)).expect("grows");
        let mut rig = Rig::with(file, options, ALL);
        // All into the same place: what arrives there is of no interest.
        let room = rig.driver.room(LENGTH);
        let mut statuses = Vec::new();
        for queue in 0..5 {
            for _ in 0..80 {
                let head = rig.driver.room(17);
                rig.driver
                    .memory
                    .write_slice(&header(IN, 0), GuestAddress(head))
                    .expect("memory");
                let pieces = [
                    (head, 16, false),
                    (room, LENGTH, true),
                    (head + 16, 1, true),
                ];
                rig.driver.add_at(queue, &pieces);
                statuses.push(GuestAddress(head + 16));
            }
            rig.driver.kick(queue);
        }
        wait("the reads", || {
            (rig.statistics.read().reads == 5 * 80).then_some(())
        });
        for status in statuses {
            let status: u8 = rig.driver.memory.read_obj(status).expect("memory");
            assert_eq!(status, OK);
        }
    }
}

/// Of the kernel's threads for a ring the last one looks around every five seconds for as long as the ring lives: there is
/// none. What would need one is done by a thread that sleeps.
#[test]
fn the_kernel_starts_no_threads() {
    if !engines::all().contains(&Engine::Uring) {
        return;
    }
    // They bear the name of the thread that has submitted, which is the event loop's.
    let threads = || {
        let tasks = std::fs::read_dir("/proc/self/task").expect("tasks");
        let names = tasks.map(|task| {
            let name = task.expect("a task").path().join("comm");
            // It may be gone by now.
            std::fs::read_to_string(name).unwrap_or_default()
        });
        names.filter(|name| name.starts_with("iou-wrk-")).count()
    };
    let mut options = options(Engine::Uring);
    options.queues = 4;
    let mut rig = Rig::with(file(256), options, ALL);
    for round in 0..10 {
        for queue in 0..4 {
            for number in 0..16_u64 {
                let sector = number * 3 + queue as u64;
                let readable: &[&[u8]] = &[&header(OUT, sector), &[round; 512]];
                rig.driver.add(queue, readable, &[1]);
                rig.driver.add(queue, &[&header(FLUSH, 0)], &[1]);
                let zeros: &[&[u8]] = &[&header(WRITE_ZEROES, 0), &segment(200, 1, 1)];
                rig.driver.add(queue, zeros, &[1]);
                rig.driver.add(queue, &[&header(IN, sector)], &[512, 1]);
            }
            rig.driver.kick(queue);
        }
        for queue in 0..4 {
            for _ in 0..64 {
                assert_eq!(rig.driver.expect_used(queue).2.last(), Some(&OK));
            }
        }
        assert_eq!(threads(), 0, "a thread of the kernel");
    }
}

/// A driver that kicks only when it is asked to, and looks only when it is interrupted: it never waits for ever, and is hardly
/// ever told of one answer alone.
#[test]
fn a_driver_that_waits_to_be_told_is_told() {
    const REQUESTS: u16 = 4000;
    const DEPTH: u16 = 32;
    for engine in engines::all() {
        for features in [ALL, ALL & !feature::EVENT_IDX] {
            let mut rig = Rig::with(file(64), options(engine), features);
            let (mut added, mut taken) = (0_u16, 0);
            while taken < REQUESTS {
                // In pieces, so that there are all kinds of moments.
                for piece in [1, 7, DEPTH] {
                    let count = piece.min(REQUESTS - added).min(DEPTH - (added - taken));
                    for number in added..added + count {
                        let sector = header(IN, u64::from(number % 64));
                        rig.driver.add(0, &[&sector], &[512, 1]);
                    }
                    added += count;
                    if count > 0 {
                        rig.driver.kick_if_wanted(0, count);
                    }
                }
                rig.driver.expect_interrupt();
                while let Some((_, _, contents)) = rig.driver.used(0) {
                    assert_eq!(contents[512], OK);
                    taken += 1;
                }
            }
            let signals = rig.driver.transport.signals();
            let most = u64::from(REQUESTS);
            assert!(
                signals.kicks < most && signals.interrupts < most,
                "{signals:?}"
            );
        }
    }
}

/// What the driver has added before the loop looks: one kick, one interrupt.
#[test]
fn what_comes_together_is_told_of_together() {
    // A thread would answer whenever it likes.
    if !engines::all().contains(&Engine::Uring) {
        return;
    }
    for features in [ALL, ALL & !feature::EVENT_IDX] {
        let disk = Box::new(disk(&file(64), options(Engine::Uring)));
        let mut driver = Driver::find_unserved(disk, Driver::memory());
        driver.negotiate(features);
        driver.set_up(256);
        driver.write(0x70, 15);
        // The driver asks for the first interrupt, and the device for the first kick.
        while driver.serve(0) > 0 {}
        for round in 1..10 {
            for sector in 0..32 {
                driver.add(0, &[&header(IN, sector)], &[512, 1]);
                driver.kick_if_wanted(0, 1);
            }
            while driver.serve(0) > 0 {}
            for _ in 0..32 {
                assert_eq!(driver.used(0).expect("an answer").2[512], OK);
            }
            let signals = driver.transport.signals();
            assert_eq!(signals.interrupts, round);
            // Without the feature a kick is wanted until the first is seen.
            if features == ALL {
                assert_eq!(signals.kicks, round);
            }
        }
    }
}

/// More than is begun in one turn of the loop.
#[test]
fn a_turn_that_is_too_long_is_gone_on_with() {
    for engine in engines::all() {
        let mut rig = Rig::new(engine, 4);
        rig.file.set_len(4 << 20).expect("grows");
        rig.control.remeasure().expect("measures");
        let room = rig.driver.room(2 << 20);
        for _ in 0..50 {
            let head = rig.driver.room(17);
            rig.driver
                .memory
                .write_slice(&header(IN, 0), GuestAddress(head))
                .expect("memory");
            let data = (room, 2 << 20, true);
            rig.driver
                .add_at(0, &[(head, 16, false), data, (head + 16, 1, true)]);
        }
        rig.driver.kick(0);
        for _ in 0..50 {
            let (_, length, contents) = rig.driver.expect_used(0);
            assert_eq!((length, contents[2 << 20]), ((2 << 20) + 1, OK));
        }
    }
}

/// After a reset the memory is the driver's again, whatever was on its way.
#[test]
fn a_reset_takes_back_all_memory() {
    for engine in engines::all() {
        let mut rig = Rig::new(engine, 256);
        for round in 0..30_usize {
            rig.driver.negotiate(ALL);
            rig.driver.set_up(256);
            rig.driver.write(0x70, 15);
            let area = rig.driver.room(64 * 4096);
            for number in 0..64 {
                let head = rig.driver.room(17);
                let kind = [IN, IN, OUT, FLUSH][(number + round) % 4];
                rig.driver
                    .memory
                    .write_slice(&header(kind, 1), GuestAddress(head))
                    .expect("memory");
                let data = (area + number as u64 * 4096, 4096, kind == IN);
                rig.driver
                    .add_at(0, &[(head, 16, false), data, (head + 16, 1, true)]);
            }
            rig.driver.kick(0);
            std::thread::sleep(Duration::from_micros(100 * (round as u64 % 5)));
            rig.driver.write(0x70, 0);
            let pattern = vec![0xee; 64 * 4096];
            rig.driver
                .memory
                .write_slice(&pattern, GuestAddress(area))
                .expect("memory");
            std::thread::sleep(Duration::from_millis(2));
            let mut after = vec![0; 64 * 4096];
            rig.driver
                .memory
                .read_slice(&mut after, GuestAddress(area))
                .expect("memory");
            assert!(after == pattern, "memory was written after the reset");
        }
    }
}

#[test]
fn a_disk_that_is_taken_away_is_done() {
    for engine in engines::all() {
        let mut rig = Rig::new(engine, 64);
        for sector in 0..60 {
            rig.driver.add(0, &[&header(IN, sector)], &[512, 1]);
        }
        rig.driver.kick(0);
        drop(rig.driver.transport.unplug().expect("the disk"));
        assert_eq!(rig.driver.read(8), 0);
        // What is left of it is harmless.
        assert_eq!(rig.control.remeasure().expect("measures"), 64 * 512);
    }
}

fn limited(engine: Engine, bytes: u64, operations: u64) -> Options {
    Options {
        rates: Rates {
            bytes: NonZeroU64::new(bytes),
            operations: NonZeroU64::new(operations),
        },
        ..options(engine)
    }
}

#[test]
fn limits_hold_requests_up_and_lose_none() {
    for engine in engines::all() {
        // 60 operations of 1 KiB: by operations 0.5 s beyond the first tenth of a second, or by bytes.
        for (bytes, operations) in [(0, 100), (102_400, 0)] {
            let mut rig = Rig::with(file(64), limited(engine, bytes, operations), ALL);
            let begin = Instant::now();
            for sector in 0..60 {
                rig.driver.add(0, &[&header(IN, sector)], &[1024, 1]);
            }
            rig.driver.kick(0);
            for sector in 0..60 {
                let (_, _, contents) = rig.driver.expect_used(0);
                assert_eq!((contents[0], contents[1024]), (sector, OK));
            }
            assert!(
                begin.elapsed() > Duration::from_millis(450),
                "{:?}",
                begin.elapsed()
            );
            let throttled = rig.statistics.read().throttled;
            assert!((1..=60).contains(&throttled), "{throttled}");
        }
    }
}

#[test]
fn a_reset_ends_waiting_and_bad_requests_are_limited_too() {
    for engine in engines::all() {
        let mut rig = Rig::with(file(64), limited(engine, 0, 10), ALL);
        for _ in 0..5 {
            for _ in 0..40 {
                rig.driver.add(0, &[&header(IN, 1000)], &[512, 1]);
            }
            rig.driver.kick(0);
            let (_, _, contents) = rig.driver.expect_used(0);
            assert_eq!(contents[512], IOERR);
            rig.driver.negotiate(ALL);
            rig.driver.set_up(256);
            rig.driver.write(0x70, 15);
        }
        let errors = rig.statistics.read().errors;
        assert!(errors < 200, "{errors} requests in no time");
        assert_eq!(rig.read(1, 512).0, OK);
    }
}

/// Zeros are paid for like what is written, discards are not.
#[test]
fn zeros_are_paid_for() {
    for engine in engines::all() {
        let mut rig = Rig::with(file(64), limited(engine, 51_200, 0), ALL);
        let begin = Instant::now();
        for _ in 0..2 {
            let zero: &[&[u8]] = &[&header(WRITE_ZEROES, 0), &segment(0, 50, 1)];
            assert_eq!(rig.driver.request(0, zero, &[1]).1, [OK]);
        }
        assert!(begin.elapsed() > Duration::from_millis(350));
    }
}

/// The file is on a device that is full, or fails: the driver hears of it.
#[test]
fn what_the_storage_fails_is_an_error() {
    for engine in engines::all() {
        // Sealed against writing: a host that refuses.
        let sealed = rustix::fs::memfd_create(
            "disk",
            rustix::fs::MemfdFlags::CLOEXEC | rustix::fs::MemfdFlags::ALLOW_SEALING,
        )
        .expect("a file");
        let sealed = std::fs::File::from(sealed);
        sealed.write_all_at(&[4; 4096], 0).expect("writes");
        rustix::fs::fcntl_add_seals(&sealed, rustix::fs::SealFlags::WRITE).expect("seals");
        let mut rig = Rig::with(sealed, options(engine), ALL);
        assert_eq!(rig.write(0, &[5; 512]), IOERR);
        assert_eq!(rig.cover(WRITE_ZEROES, 0, 1, 1), IOERR);
        assert_eq!(rig.read(0, 512), (OK, vec![4; 512]));
        assert_eq!(rig.statistics.read().errors, 2);
    }
}
