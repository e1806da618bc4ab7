//! What no driver should ask for: each is refused by its status, or stops the device, and the next request works.

use super::{
    ALL, DISCARD, FLUSH, GET_ID, IN, IOERR, OK, OUT, Rig, UNSUPP, WRITE_ZEROES, engines, file,
    header, options, segment,
};

/// Works, and has changed nothing.
fn check(rig: &mut Rig, what: &str) {
    assert_eq!(rig.read(0, 512), (OK, vec![0; 512]), "{what}");
    assert_eq!(rig.read(31, 512), (OK, vec![31; 512]), "{what}");
    let length = rig.file.metadata().expect("metadata").len();
    assert_eq!(length, 32 * 512, "{what}");
}

#[test]
fn what_lies_outside_is_an_error() {
    for engine in engines::all() {
        let mut rig = Rig::new(engine, 32);
        let outside = [
            (32, 512),
            (31, 1024),
            (u64::MAX, 512),
            (u64::MAX / 512, 512),
            (u64::MAX / 512 - 1, 1024),
            (1 << 55, 512),
            (0, 33 * 512),
        ];
        for (sector, length) in outside {
            assert_eq!(rig.read(sector, length).0, IOERR, "{sector} {length}");
            let data = vec![0xff; length as usize];
            assert_eq!(rig.write(sector, &data), IOERR, "{sector} {length}");
            for kind in [DISCARD, WRITE_ZEROES] {
                let status = rig.cover(kind, sector, length / 512, 0);
                assert_eq!(status, IOERR, "{sector} {length}");
            }
        }
        check(&mut rig, "outside");
        let errors = rig.statistics.read().errors;
        assert_eq!(errors, 4 * outside.len() as u64);
    }
}

#[test]
fn odd_lengths_are_errors() {
    for engine in engines::all() {
        let mut rig = Rig::new(engine, 32);
        for length in [1, 511, 513, 1000] {
            assert_eq!(rig.read(0, length).0, IOERR);
            assert_eq!(rig.write(0, &vec![0xff; length as usize]), IOERR);
        }
        // Nothing is nothing; it is only in its place where it is on the disk.
        assert_eq!(rig.read(32, 0).0, OK);
        assert_eq!(rig.write(0, &[]), OK);
        assert_eq!(rig.read(33, 0).0, IOERR);
        check(&mut rig, "odd");
    }
}

#[test]
fn segments_that_are_none_are_errors() {
    for engine in engines::all() {
        let mut rig = Rig::new(engine, 32);
        for kind in [DISCARD, WRITE_ZEROES] {
            let two = [segment(1, 1, 0), segment(2, 1, 0)].concat();
            for data in [&two[..0], &two[..15], &two[..17], &two[..]] {
                assert_eq!(
                    rig.request(kind, 0, data, 0).0,
                    IOERR,
                    "{kind} {}",
                    data.len()
                );
            }
            assert_eq!(rig.cover(kind, 0, u32::MAX, 0), IOERR);
            assert_eq!(rig.cover(kind, 0, 0, 0), OK);
            for flags in [2, 3, 1 << 31] {
                assert_eq!(rig.cover(kind, 0, 1, flags), UNSUPP);
            }
        }
        assert_eq!(rig.cover(DISCARD, 0, 1, 1), UNSUPP);
        check(&mut rig, "segments");
    }
}

#[test]
fn unknown_requests_are_not_supported() {
    for engine in engines::all() {
        let mut rig = Rig::new(engine, 32);
        for kind in [2, 3, 5, 7, 9, 10, 12, 14, 15, 1 << 31, u32::MAX] {
            assert_eq!(rig.request(kind, 0, &[1; 512], 512).0, UNSUPP, "{kind}");
        }
        check(&mut rig, "unknown");
    }
}

#[test]
fn a_header_that_is_cut_off_is_an_error() {
    for engine in engines::all() {
        let mut rig = Rig::new(engine, 32);
        let head = header(IN, 0);
        for length in [1, 4, 15] {
            let answer = rig.driver.request(0, &[&head[..length]], &[512, 1]);
            assert_eq!((answer.0, answer.1[512]), (0, IOERR), "{length}");
        }
        assert_eq!(rig.driver.request(0, &[], &[1]), (1, vec![IOERR]));
        check(&mut rig, "cut off");
    }
}

/// The status is the last byte that the device may write, wherever it is; data for it to write is what is before.
#[test]
fn the_status_is_the_last_byte() {
    for engine in engines::all() {
        let mut rig = Rig::new(engine, 32);
        let (length, contents) = rig.driver.request(0, &[&header(IN, 5)], &[100, 413]);
        assert_eq!(
            (length, &contents[..512], contents[512]),
            (513, &[5; 512][..], OK)
        );
        // Room for data that a request has no use for: the status is not the first byte then, and only it is valid.
        for kind in [FLUSH, OUT] {
            let data = [8; 512];
            let (length, contents) = rig.driver.request(0, &[&header(kind, 8), &data], &[7, 3]);
            assert_eq!((length, contents[9]), (0, OK), "{kind}");
        }
        // No room but for the status.
        assert_eq!(
            rig.driver.request(0, &[&header(IN, 5)], &[1]),
            (1, vec![OK])
        );
        assert_eq!(
            rig.driver.request(0, &[&header(GET_ID, 0)], &[1]),
            (1, vec![OK])
        );
        check(&mut rig, "status");
    }
}

#[test]
fn without_a_status_the_device_stops() {
    for engine in engines::all() {
        let mut rig = Rig::new(engine, 32);
        for kind in [IN, OUT, FLUSH, 99] {
            // Others are on their way.
            for sector in 0..20 {
                rig.driver.add(0, &[&header(IN, sector)], &[512, 1]);
            }
            rig.driver.add(0, &[&header(kind, 0), &[0xff; 512]], &[]);
            rig.driver.kick(0);
            rig.driver.expect_reset();
            rig.driver.negotiate(ALL);
            rig.driver.set_up(256);
            rig.driver.write(0x70, 15);
            check(&mut rig, "no status");
        }
    }
}

/// More pieces than the operating system takes at once.
#[test]
fn a_request_in_too_many_pieces_is_an_error() {
    use std::sync::Arc;
    use vm_memory::GuestAddress;
    use vmm_virtio::testing::Driver;
    // Regions of a page: one descriptor is as many pieces as it has pages.
    let ordinary = (GuestAddress(0), 24 << 20);
    let pages = (0..1025).map(|page| (GuestAddress((24 << 20) + page * 4096), 4096));
    let ranges: Vec<_> = std::iter::once(ordinary).chain(pages).collect();
    let memory = Arc::new(vmm_virtio::Memory::from_ranges(&ranges).expect("memory"));
    for engine in engines::all() {
        let file = file(32);
        file.set_len(8 << 20).expect("grows");
        let disk = super::disk(&file, options(engine));
        let mut driver = Driver::find(Box::new(disk), Arc::clone(&memory));
        driver.negotiate(ALL);
        driver.set_up(256);
        driver.write(0x70, 15);
        for (pages, status) in [(1025, IOERR), (1024, OK)] {
            let head = driver.room(17);
            vm_memory::Bytes::write_slice(&*memory, &header(IN, 0), GuestAddress(head))
                .expect("memory");
            let data = (24 << 20, pages * 4096, true);
            driver.add_at(0, &[(head, 16, false), data, (head + 16, 1, true)]);
            driver.kick(0);
            let (_, _, contents) = driver.expect_used(0);
            assert_eq!(contents.last(), Some(&status), "{pages}");
        }
    }
}

#[test]
fn what_can_be_no_disk_is_refused() {
    use crate::{Disk, DiskError, Options};
    use std::fs::OpenOptions;
    let writable = || file(1).into();
    let refuse = |file, options| Disk::new(file, options).map(|disk| disk.engine());
    for block_size in [0, 1, 256, 513, 1000, 8192] {
        let options = Options {
            block_size,
            ..Options::default()
        };
        let refused = refuse(writable(), options);
        assert!(
            matches!(refused, Err(DiskError::BlockSize(_))),
            "{refused:?}"
        );
    }
    for queues in [0, 17, u16::MAX] {
        let options = Options {
            queues,
            ..Options::default()
        };
        let refused = refuse(writable(), options);
        assert!(matches!(refused, Err(DiskError::Queues(_))), "{refused:?}");
    }
    let (reader, _writer) = std::io::pipe().expect("a pipe");
    let refused = refuse(reader.into(), Options::default());
    assert!(matches!(refused, Err(DiskError::Kind(_))), "{refused:?}");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("disk");
    std::fs::write(&path, [0; 512]).expect("writes");
    let only_read = OpenOptions::new().read(true).open(&path).expect("opens");
    let refused = refuse(only_read.into(), Options::default());
    assert!(
        matches!(refused, Err(DiskError::Access("writing"))),
        "{refused:?}"
    );
    let only_write = OpenOptions::new().write(true).open(&path).expect("opens");
    let read_only = Options {
        read_only: true,
        ..Options::default()
    };
    let refused = refuse(only_write.into(), read_only);
    assert!(
        matches!(refused, Err(DiskError::Access("reading"))),
        "{refused:?}"
    );
    // An empty file is an empty disk.
    assert!(refuse(file(0).into(), Options::default()).is_ok());
}
