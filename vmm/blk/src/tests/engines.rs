//! The engines: which there are here, and how they stop.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use vm_memory::{Bytes, GuestAddress, GuestMemory};
use vmm_virtio::testing::{Driver, wait};

use super::{disk, file, options};
use crate::buffers::{Buffers, StatusByte};
use crate::engine::{Access, Action, IN_FLIGHT, Job, Work};
use crate::request::{Kind, Request};
use crate::ring::Ring;
use crate::split::Split;
use crate::worker::Worker;
use crate::{Begin, Engine, Options};

/// What a disk on storage past the host's cache does.
pub(crate) const DIRECT: Access = Access {
    write: true,
    direct: true,
};

/// A ring, where this machine lets us have one.
pub(crate) fn ring(file: &Arc<OwnedFd>, access: Access) -> Option<Ring> {
    match Ring::new(file, access) {
        Ok(ring) => Some(ring),
        Err(error) => {
            eprintln!("skipped: no io_uring here: {error}");
            None
        }
    }
}

/// The engines that can be had here.
pub(crate) fn all() -> Vec<Engine> {
    let ring = ring(&Arc::new(file(1).into()), DIRECT).map(|_| Engine::Uring);
    ring.into_iter().chain([Engine::Worker]).collect()
}

fn works(file: &Arc<OwnedFd>) -> Vec<Box<dyn Work>> {
    let begin: Begin = Arc::new(|| Ok(()));
    let mut works: Vec<Box<dyn Work>> = Vec::new();
    if let Some(ring) = ring(file, DIRECT) {
        works.push(Box::new(ring));
        let split = Split::new(file, DIRECT, Arc::clone(&begin));
        works.push(Box::new(split.expect("both")));
    }
    works.push(Box::new(Worker::new(file, begin).expect("a worker")));
    works
}

/// Reads into the memory's address.
pub(crate) fn job(memory: &Arc<vmm_virtio::Memory>, address: u64, length: usize) -> Box<Job> {
    let slice = |address, length| {
        memory
            .get_slice(GuestAddress(address), length)
            .expect("memory")
    };
    Box::new(Job {
        action: Action::Read,
        // Where the file's position is: a pipe has no other.
        offset: u64::MAX,
        length: length as u64,
        buffers: Buffers::of(memory, &[slice(address, length)]).expect("buffers"),
        request: Request {
            queue: 0,
            head: 0,
            kind: Kind::Read,
            bytes: length as u64,
            status: StatusByte::of(memory, &slice(0, 1)).expect("a status"),
            success: length as u32 + 1,
            failure: 0,
            sync_after: false,
            attempts: 0,
        },
    })
}

/// Nothing comes out of the pipe until something is put in: the reads are on their way as long as we like. Those that
/// can be are cancelled, the others are waited for; in the end no byte goes where a read would have put it.
#[test]
fn a_stopped_engine_touches_nothing_any_more() {
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    let reader = Arc::new(OwnedFd::from(reader));
    for mut work in works(&reader) {
        let memory = Driver::memory();
        for address in 1..=u64::from(IN_FLIGHT) {
            assert!(work.room());
            assert!(work.push(job(&memory, address, 1)).is_ok());
        }
        assert!(!work.room());
        assert!(work.push(job(&memory, 1, 1)).is_err());
        work.submit();
        let held = Arc::strong_count(&memory);
        assert!(
            held > usize::from(IN_FLIGHT),
            "the memory stays for all of them"
        );
        // So that the worker is in the middle of its first; if it isn't, this tests less.
        std::thread::sleep(Duration::from_millis(50));
        let mut done = Vec::new();
        work.reap(&mut done);
        assert!(done.is_empty(), "nothing was to be read");
        // The worker's one read can't be cancelled.
        let writing = std::thread::spawn({
            let mut writer = writer.try_clone().expect("a clone");
            move || {
                std::thread::sleep(Duration::from_millis(50));
                writer.write_all(&[7]).expect("writes");
            }
        });
        work.stop();
        assert_eq!(Arc::strong_count(&memory), 1);
        let after: Vec<u8> = (1..=u64::from(IN_FLIGHT))
            .map(|address| memory.read_obj(GuestAddress(address)).expect("memory"))
            .collect();
        writing.join().expect("writes");
        writer.write_all(&[8; 64]).expect("writes");
        std::thread::sleep(Duration::from_millis(50));
        let later: Vec<u8> = (1..=u64::from(IN_FLIGHT))
            .map(|address| memory.read_obj(GuestAddress(address)).expect("memory"))
            .collect();
        assert_eq!(later, after, "it was touched after the engine had stopped");
        // What is left in the pipe is for the next read: the engine works again, and has room for all.
        assert!(work.room());
        assert!(work.push(job(&memory, 1000, 1)).is_ok());
        work.submit();
        wait("a read", || {
            work.reap(&mut done);
            done.pop()
                .map(|done| assert_eq!(done.result.expect("reads"), 1))
        });
        let read: u8 = memory.read_obj(GuestAddress(1000)).expect("memory");
        assert!([7, 8].contains(&read));
        // And is stopped by being dropped, with one more on its way.
        for round in 0..100_u64 {
            assert!(work.push(job(&memory, 2000 + round, 1)).is_ok());
        }
        work.submit();
        let dropping = std::thread::spawn(move || drop(work));
        // For the one that the worker may be in.
        writer.write_all(&[9; 128]).expect("writes");
        dropping.join().expect("no panic");
        drain(&reader);
    }
}

/// The same with a disk around it: its driver resets it, or it is taken away, while the event loop's thread has requests in
/// the ring. These threads are others than the one that has begun the requests.
#[test]
fn a_disk_gives_all_memory_back_that_its_ring_has() {
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    let reader = Arc::new(OwnedFd::from(reader));
    for unplugged in [false, true] {
        if ring(&reader, DIRECT).is_none() {
            return;
        }
        let mut disk = disk(&file(64), options(Engine::Uring));
        let begin: Begin = Arc::new(|| Ok(()));
        disk.storage.work = Box::new(Split::new(&reader, DIRECT, begin).expect("both"));
        let mut driver = Driver::start(Box::new(disk), u64::MAX);
        let place = GuestAddress(driver.room(64 << 9));
        for number in 0..64 {
            let head = driver.room(17);
            let header = super::header(super::IN, number);
            let memory = &driver.memory;
            memory
                .write_slice(&header, GuestAddress(head))
                .expect("memory");
            let data = (place.0 + number * 512, 512, true);
            driver.add_at(0, &[(head, 16, false), data, (head + 16, 1, true)]);
        }
        let idle = Arc::strong_count(&driver.memory);
        driver.kick(0);
        wait("the requests", || {
            (Arc::strong_count(&driver.memory) >= idle + 2 * 64).then_some(())
        });
        if unplugged {
            // With the thread of the event loop, and all that it would still do for the ring.
            drop(driver.transport.unplug().expect("the disk"));
        } else {
            driver.write(0x70, 0);
        }
        assert!(Arc::strong_count(&driver.memory) <= idle);
        writer.write_all(&[7; 4096]).expect("writes");
        std::thread::sleep(Duration::from_millis(50));
        let mut after = [1; 64 << 9];
        driver.memory.read_slice(&mut after, place).expect("memory");
        assert!(after.iter().all(|&byte| byte == 0), "memory was written");
        drain(&reader);
    }
}

/// Takes what is left in the pipe.
fn drain(reader: &OwnedFd) {
    let flags = rustix::fs::fcntl_getfl(reader).expect("flags");
    rustix::fs::fcntl_setfl(reader, flags | rustix::fs::OFlags::NONBLOCK).expect("flags");
    let mut buffer = [0; 256];
    while rustix::io::read(reader, &mut buffer).is_ok_and(|count| count > 0) {}
    rustix::fs::fcntl_setfl(reader, flags).expect("flags");
}

/// Where `io_uring` is forbidden, as container engines do it, a thread serves the disk, and says so.
#[test]
fn without_io_uring_a_thread_does_it() {
    use seccompiler::{SeccompAction, SeccompFilter};
    for (errno, falls_back) in [
        (libc::EPERM, true),
        (libc::ENOSYS, true),
        (libc::ENOMEM, true),
        (libc::EMFILE, false),
    ] {
        let forbidden = BTreeMap::from([(libc::SYS_io_uring_setup, Vec::new())]);
        let filter = SeccompFilter::new(
            forbidden,
            SeccompAction::Allow,
            SeccompAction::Errno(errno.cast_unsigned()),
            std::env::consts::ARCH.try_into().expect("an architecture"),
        )
        .expect("a filter");
        let program: seccompiler::BpfProgram = filter.try_into().expect("a program");
        // For that thread only, and those it starts.
        let confined = std::thread::spawn(move || {
            seccompiler::apply_filter(&program).expect("a filter");
            let file = file(1);
            if falls_back {
                assert_eq!(disk(&file, Options::default()).engine(), Engine::Worker);
            }
            // Who wants no other gets no other.
            let wanted = if falls_back {
                Some(Engine::Uring)
            } else {
                None
            };
            let options = Options {
                engine: wanted,
                ..Options::default()
            };
            let refused = crate::Disk::new(file.into(), options).map(|disk| disk.engine());
            assert!(refused.is_err(), "{refused:?}");
        });
        confined.join().expect("no panic");
    }
}

#[test]
fn the_best_engine_is_taken() {
    let file = file(1);
    let best = disk(&file, Options::default()).engine();
    assert_eq!(Some(&best), all().first());
    assert_eq!(
        disk(&file, options(Engine::Worker)).engine(),
        Engine::Worker
    );
}
