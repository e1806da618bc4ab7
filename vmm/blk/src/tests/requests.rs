//! Each kind of request, as a driver means it.

use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};

use vmm_virtio::testing::{Driver, wait};

use super::{
    ALL, DISCARD, FLUSH, GET_ID, IN, IOERR, OK, OUT, Rig, UNSUPP, WRITE_ZEROES, disk, engines,
    file, header, options, segment,
};
use crate::Options;
use crate::configuration::feature;

#[test]
fn the_driver_learns_what_the_disk_is() {
    let options = Options {
        block_size: 1024,
        queues: 3,
        ..Options::default()
    };
    let rig = Rig::with(file(9), options, ALL);
    assert_eq!(rig.driver.read(8), 2);
    let offered = rig.driver.features;
    for wanted in [
        feature::SEG_MAX,
        feature::BLK_SIZE,
        feature::FLUSH,
        feature::TOPOLOGY,
        feature::CONFIG_WCE,
        feature::MQ,
        feature::DISCARD,
        feature::WRITE_ZEROES,
        feature::EVENT_IDX,
        feature::INDIRECT_DESC,
    ] {
        assert!(offered & wanted != 0, "{wanted:#x}");
    }
    assert_eq!(offered & feature::RO, 0);
    let config = rig.driver.config(0, 64);
    let number = |at: usize| u32::from_le_bytes(config[at..at + 4].try_into().expect("four"));
    // Half a block at the end is no block.
    assert_eq!((number(0), number(4)), (8, 0));
    assert_eq!((number(12), number(20)), (254, 1024));
    assert_eq!(config[24..32], [2, 0, 4, 0, 0, 0, 0, 0]);
    assert_eq!(config[32..36], [1, 0, 3, 0]);
    assert_eq!((number(36), number(40), number(44)), (1 << 21, 1, 2));
    assert_eq!((number(48), number(52)), (32768, 1));
    assert_eq!(config[56..], [1, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn what_is_written_is_read_and_is_in_the_file() {
    for engine in engines::all() {
        let mut rig = Rig::new(engine, 64);
        assert_eq!(rig.read(3, 1024), (OK, [[3; 512], [4; 512]].concat()));
        rig.driver.expect_interrupt();
        assert_eq!(rig.write(62, &[0xab; 1024]), OK);
        assert_eq!(rig.contents(62, 1024), [0xab; 1024]);
        assert_eq!(
            rig.read(61, 1536).1,
            [vec![61; 512], vec![0xab; 1024]].concat()
        );
        // However it is cut.
        let head = header(OUT, 10);
        let data = [0xcd; 512];
        let (length, status) = rig.driver.request(
            0,
            &[&head[..1], &head[1..], &data[..5], &data[5..6], &data[6..]],
            &[1],
        );
        assert_eq!((length, status), (1, vec![OK]));
        let joined = [head.as_slice(), &data].concat();
        assert_eq!(rig.driver.request(0, &[&joined], &[1]), (1, vec![OK]));
        let (length, contents) = rig.driver.request(0, &[&header(IN, 10)], &[500, 3, 10]);
        assert_eq!((length, contents), (513, [&data[..], &[OK]].concat()));
        let counts = rig.statistics.read();
        assert_eq!((counts.reads, counts.read_bytes), (3, 1024 + 1536 + 512));
        assert_eq!((counts.writes, counts.written_bytes), (3, 2048));
        assert_eq!(counts.errors, 0);
    }
}

#[test]
fn flushing_works_and_the_serial_number_is_told() {
    for engine in engines::all() {
        let mut options = options(engine);
        options.serial = *b"cofferdam-disk-00042";
        let mut rig = Rig::with(file(1), options, ALL);
        assert_eq!(rig.request(FLUSH, 0, &[], 0).0, OK);
        assert_eq!(rig.statistics.read().flushes, 1);
        let (status, length, id) = rig.request(GET_ID, 0, &[], 20);
        assert_eq!((status, length), (OK, 21));
        assert_eq!(id, b"cofferdam-disk-00042");
        // With more room and less; only what was written counts.
        let (status, length, id) = rig.request(GET_ID, 0, &[], 30);
        assert_eq!(
            (status, length, &id[..20]),
            (OK, 20, &b"cofferdam-disk-00042"[..])
        );
        let (status, length, id) = rig.request(GET_ID, 0, &[], 3);
        assert_eq!((status, length, &id[..]), (OK, 4, &b"cof"[..]));
    }
}

#[test]
fn discards_make_holes_and_zeros_are_zeros() {
    for engine in engines::all() {
        let mut rig = Rig::new(engine, 512);
        let full = rig.file.metadata().expect("metadata").blocks();
        assert_eq!(rig.cover(DISCARD, 8, 256, 0), OK);
        let holed = rig.file.metadata().expect("metadata").blocks();
        assert!(holed < full, "{holed} {full}");
        for (sector, flags) in [(300, 0), (400, 1)] {
            assert_eq!(rig.cover(WRITE_ZEROES, sector, 50, flags), OK);
            assert_eq!(rig.contents(sector, 50 * 512), [0; 50 * 512]);
            assert_eq!(rig.contents(sector - 1, 512), [(sector - 1) as u8; 512]);
            assert_eq!(rig.contents(sector + 50, 512), [(sector + 50) as u8; 512]);
        }
        assert_eq!(rig.file.metadata().expect("metadata").len(), 512 * 512);
        let counts = rig.statistics.read();
        assert_eq!((counts.discards, counts.zeroes), (1, 2));
    }
}

/// Memory file systems know holes, but no ranges of zeros: these are written then.
#[test]
fn where_the_file_system_has_no_zeros_they_are_written() {
    for engine in engines::all() {
        let memory = rustix::fs::memfd_create("disk", rustix::fs::MemfdFlags::CLOEXEC);
        let mut file = std::fs::File::from(memory.expect("a file"));
        file.write_all(&[7; 128 * 512]).expect("writes");
        let zeroed = rustix::fs::fallocate(
            &file,
            rustix::fs::FallocateFlags::ZERO_RANGE | rustix::fs::FallocateFlags::KEEP_SIZE,
            0,
            512,
        );
        if zeroed.is_ok() {
            eprintln!("skipped: this kernel's memory file system can zero ranges");
            return;
        }
        for features in [ALL, ALL & !feature::FLUSH] {
            let again = file.try_clone().expect("a clone");
            let mut rig = Rig::with(again, options(engine), features);
            assert_eq!(rig.write(0, &[7; 128 * 512]), OK);
            assert_eq!(rig.cover(WRITE_ZEROES, 1, 126, 0), OK);
            assert_eq!(rig.contents(0, 512), [7; 512]);
            assert_eq!(rig.contents(1, 126 * 512), [0; 126 * 512]);
            assert_eq!(rig.contents(127, 512), [7; 512]);
            assert_eq!(rig.cover(DISCARD, 0, 128, 0), OK);
            assert_eq!(rig.contents(0, 512), [0; 512]);
        }
    }
}

#[test]
fn a_read_only_disk_is_not_written() {
    for engine in engines::all() {
        // It says so, and the file could not be written either.
        for writable in [true, false] {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("disk");
            std::fs::write(&path, [5; 4096]).expect("writes");
            let file = std::fs::OpenOptions::new()
                .read(true)
                .write(writable)
                .open(&path)
                .expect("opens");
            let mut options = options(engine);
            options.read_only = true;
            let mut rig = Rig::with(file, options, ALL);
            let lacks =
                feature::FLUSH | feature::CONFIG_WCE | feature::DISCARD | feature::WRITE_ZEROES;
            assert_eq!(rig.driver.features & (lacks | feature::RO), feature::RO);
            assert_eq!(rig.driver.config(36, 24), [0; 24]);
            assert_eq!(rig.write(0, &[6; 512]), IOERR);
            assert_eq!(rig.cover(DISCARD, 0, 8, 0), UNSUPP);
            assert_eq!(rig.cover(WRITE_ZEROES, 0, 8, 0), UNSUPP);
            assert_eq!(rig.request(FLUSH, 0, &[], 0).0, OK);
            assert_eq!(rig.read(7, 512), (OK, vec![5; 512]));
            assert_eq!(rig.contents(0, 4096), [5; 4096]);
            assert_eq!(rig.statistics.read().errors, 3);
        }
    }
}

#[test]
fn every_queue_is_served() {
    for engine in engines::all() {
        let mut options = options(engine);
        options.queues = 4;
        let mut rig = Rig::with(file(64), options, ALL);
        for round in 0..8_u8 {
            for queue in 0..4 {
                let sector = u64::from(round) * 4 + queue as u64;
                rig.driver.add(queue, &[&header(IN, sector)], &[512, 1]);
            }
            for queue in 0..4 {
                rig.driver.kick(queue);
            }
            for queue in 0..4 {
                let (_, length, contents) = rig.driver.expect_used(queue);
                assert_eq!(length, 513);
                assert_eq!(contents[0], round * 4 + queue as u8);
            }
        }
    }
}

#[test]
fn the_driver_is_asked_to_kick_again() {
    for engine in engines::all() {
        for features in [0, ALL] {
            let mut rig = Rig::with(file(8), options(engine), features);
            for _ in 0..300 {
                assert_eq!(rig.read(0, 512).0, OK);
                wait("a wish", || rig.driver.is_asked_to_kick(0).then_some(()));
            }
        }
    }
}

#[test]
fn a_disk_that_grows_tells_its_driver() {
    for engine in engines::all() {
        let mut rig = Rig::new(engine, 8);
        assert_eq!(rig.read(8, 512).0, IOERR);
        while rig.driver.interrupted() {}
        let generation = rig.driver.read(0xfc);
        assert_eq!(rig.control.remeasure().expect("measures"), 8 * 512);
        assert!(!rig.driver.interrupted(), "nothing has changed");
        rig.file.set_len(16 * 512 + 100).expect("grows");
        assert_eq!(rig.control.remeasure().expect("measures"), 16 * 512);
        rig.driver.expect_interrupt();
        assert_eq!(rig.driver.read(0x60) & 2, 2);
        assert_ne!(rig.driver.read(0xfc), generation);
        assert_eq!(rig.driver.config(0, 8), 16_u64.to_le_bytes());
        assert_eq!(rig.read(15, 512), (OK, vec![0; 512]));
        rig.file.set_len(4 * 512).expect("shrinks");
        assert_eq!(rig.control.remeasure().expect("measures"), 4 * 512);
        rig.driver.expect_interrupt();
        assert_eq!(rig.read(4, 512).0, IOERR);
    }
}

/// Nobody has said so: the file is gone under a running machine.
#[test]
fn a_file_that_is_cut_off_fails_its_requests_and_stays_as_it_is() {
    for engine in engines::all() {
        let mut rig = Rig::new(engine, 64);
        rig.file.set_len(10 * 512 + 100).expect("shrinks");
        assert_eq!(rig.read(9, 512).0, OK);
        assert_eq!(rig.read(9, 1024).0, IOERR);
        assert_eq!(rig.read(30, 512).0, IOERR);
        assert_eq!(rig.write(30, &[1; 512]), IOERR);
        assert_eq!(rig.cover(WRITE_ZEROES, 30, 1, 0), IOERR);
        assert_eq!(rig.file.metadata().expect("metadata").len(), 10 * 512 + 100);
        assert_eq!(rig.write(9, &[1; 512]), OK);
        rig.file.set_len(64 * 512).expect("grows");
        assert_eq!(rig.read(30, 512), (OK, vec![0; 512]));
    }
}

/// The look at the file's length and the read are not one: what gets between them ends the read early.
#[test]
fn a_read_that_ends_early_is_an_error() {
    use crate::request::Code;
    let memory = Driver::memory();
    for (moves, end) in [
        (&[200, 312][..], Some(Code::Ok)),
        (&[512], Some(Code::Ok)),
        (&[200, 0], Some(Code::IoError)),
        (&[0], Some(Code::IoError)),
        (&[511], None),
    ] {
        let mut job = engines::job(&memory, 4096, 512);
        job.offset = 0;
        let mut last = None;
        for &moved in moves {
            last = job.go_on(moved);
        }
        assert_eq!(last, end, "{moves:?}");
        if end.is_none() {
            assert_eq!((job.offset, job.buffers.left()), (511, 1));
        }
    }
}

#[test]
fn larger_requests_than_the_loop_copies_are_right() {
    for engine in engines::all() {
        let mut rig = Rig::new(engine, 16);
        rig.file.set_len(8 << 20).expect("grows");
        rig.file
            .write_all_at(&[3; 4096], (3 << 20) - 2048)
            .expect("writes");
        rig.control.remeasure().expect("measures");
        let (status, contents) = rig.read(0, 5 << 20);
        assert_eq!((status, contents.len()), (OK, 5 << 20));
        assert_eq!(contents[..16 * 512], rig.contents(0, 16 * 512));
        assert!(
            contents[(3 << 20) - 2048..][..4096]
                .iter()
                .all(|&byte| byte == 3)
        );
        assert_eq!(rig.write(4096, &vec![9; 5 << 20]), OK);
        assert_eq!(rig.contents(4096, 5 << 20), vec![9; 5 << 20]);
    }
}

#[test]
fn a_driver_may_come_again() {
    for engine in engines::all() {
        let mut rig = Rig::new(engine, 8);
        for features in [ALL, 0, feature::EVENT_IDX] {
            rig.driver.negotiate(features);
            rig.driver.set_up(64);
            rig.driver.write(0x70, 15);
            assert_eq!(rig.read(1, 512), (OK, vec![1; 512]));
        }
        // What was not agreed on is not there.
        assert_eq!(rig.cover(DISCARD, 0, 1, 0), UNSUPP);
        let mut other = Driver::find(Box::new(disk(&rig.file, options(engine))), Driver::memory());
        other.negotiate(ALL);
        other.write(0x70, 15);
        assert!(other.needs_reset(), "without queues");
        let readable: &[&[u8]] = &[&header(WRITE_ZEROES, 0), &segment(0, 1, 0)];
        other.negotiate(ALL);
        other.set_up(256);
        other.write(0x70, 15);
        assert_eq!(other.request(0, readable, &[1]).1, [OK]);
    }
}
