//! The disk's write cache, which is the host's: on, off, or not understood by the driver (5.2.5.2).

use std::io;
use std::sync::{Arc, Mutex};

use vmm_virtio::testing::Driver;
use vmm_virtio::{Registrar, Watch};

use super::{ALL, DISCARD, FLUSH, OK, Rig, WRITE_ZEROES, disk, engines, file, options};
use crate::configuration::feature;
use crate::engine::{Action, Done, Job, Work};
use crate::{Disk, Engine};

/// An engine, and what it was told.
struct Recorder {
    work: Box<dyn Work>,
    told: Arc<Mutex<Vec<Action>>>,
}

impl Work for Recorder {
    fn push(&mut self, job: Box<Job>) -> Result<(), Box<Job>> {
        self.told.lock().expect("a lock").push(job.action);
        self.work.push(job)
    }

    fn room(&self) -> bool {
        self.work.room()
    }

    fn submit(&mut self) {
        self.work.submit();
    }

    fn watch(&self, events: &Registrar, token: u32) -> io::Result<Vec<Watch>> {
        self.work.watch(events, token)
    }

    fn heard(&mut self) {
        self.work.heard();
    }

    fn reap(&mut self, done: &mut Vec<Done>) {
        self.work.reap(done);
    }

    fn stop(&mut self) {
        self.work.stop();
    }
}

/// A driver that doesn't flush, or turns the cache off, has its writes on the medium when they are done.
#[test]
fn without_a_cache_writes_go_through() {
    for engine in engines::all() {
        for (features, writeback, durable) in [
            (ALL, None, false),
            (ALL, Some(1), false),
            (ALL, Some(0), true),
            (ALL & !feature::FLUSH, None, true),
            (ALL & !feature::CONFIG_WCE, Some(0), false),
        ] {
            let (file, told) = (file(64), Arc::default());
            let mut disk = disk(&file, options(engine));
            let (statistics, control) = (disk.statistics(), disk.control());
            let parts = Disk::new(file.try_clone().expect("a clone").into(), options(engine));
            disk.storage.work = Box::new(Recorder {
                work: parts.expect("a disk").storage.work,
                told: Arc::clone(&told),
            });
            let mut rig = Rig {
                driver: Driver::start(Box::new(disk), features),
                file,
                statistics,
                control,
            };
            if let Some(value) = writeback {
                rig.driver.transport.write(0x100 + 32, &[value]);
                assert_eq!(rig.driver.config(32, 1), [value]);
            }
            assert_eq!(rig.write(1, &[1; 512]), OK);
            assert_eq!(rig.cover(WRITE_ZEROES, 2, 1, 0), OK);
            assert_eq!(rig.cover(WRITE_ZEROES, 3, 1, 1), OK);
            assert_eq!(rig.cover(DISCARD, 8, 8, 0), OK);
            assert_eq!(rig.request(FLUSH, 0, &[], 0).0, OK);
            assert_eq!(rig.contents(1, 1024), [[1; 512], [0; 512]].concat());
            let mut wanted = vec![Action::Write { durable }];
            for unmap in [false, true] {
                wanted.push(Action::Zero { unmap });
                wanted.extend(durable.then_some(Action::Sync));
            }
            wanted.extend([Action::Discard, Action::Sync]);
            assert_eq!(
                *told.lock().expect("a lock"),
                wanted,
                "{features:#x} {writeback:?}"
            );
        }
    }
}

#[test]
fn nothing_else_of_the_configuration_can_be_written() {
    let mut rig = Rig::new(Engine::Worker, 64);
    rig.driver.transport.write(0x100, &[9; 8]);
    rig.driver.transport.write(0x100 + 32, &[0; 4]);
    assert_eq!(rig.driver.config(0, 8), 64_u64.to_le_bytes());
    assert_eq!(rig.driver.config(32, 1), [1]);
    rig.driver.transport.write(0x100 + 32, &[0]);
    assert_eq!(rig.driver.config(32, 1), [0]);
    // The next driver finds the cache on again.
    rig.driver.negotiate(ALL);
    assert_eq!(rig.driver.config(32, 1), [1]);
}
