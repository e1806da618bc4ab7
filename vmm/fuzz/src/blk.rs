//! A disk on a file, on either engine.

use std::fs::File;
use std::num::NonZeroU64;

use rustix::fs::{MemfdFlags, memfd_create};
use vmm_blk::{Control, Disk, Engine, Options};
use vmm_virtio::Rates;
use vmm_virtio::testing::Driver;

use crate::input::Input;
use crate::script::{self, Subject};

const SECTORS: u64 = 40;

const FLUSH: u32 = 4;

/// Bytes and requests, where they are limited.
const PER_SECOND: (Option<NonZeroU64>, Option<NonZeroU64>) =
    (NonZeroU64::new(200_000), NonZeroU64::new(200));

/// What drivers ask for, by numbers that lie close together here.
const KINDS: [u32; 8] = [0, 1, FLUSH, 8, 11, 13, 2, 14];

struct Storage {
    file: File,
    control: Control,
    read_only: bool,
}

fn header(kind: u32, sector: u64) -> [u8; 16] {
    let mut header = [0; 16];
    header[..4].copy_from_slice(&kind.to_le_bytes());
    header[8..].copy_from_slice(&sector.to_le_bytes());
    header
}

/// Of sectors to be discarded, or filled with zeros.
fn range(sector: u64, input: &mut Input<'_>) -> [u8; 16] {
    let mut range = [0; 16];
    range[..8].copy_from_slice(&sector.to_le_bytes());
    range[8..12].copy_from_slice(&input.length().to_le_bytes());
    range[12..].copy_from_slice(&input.length().to_le_bytes());
    range
}

impl Subject for Storage {
    fn act(&mut self, driver: &mut Driver, input: &mut Input<'_>) {
        let choice = input.byte();
        match choice & 15 {
            // The file changes under the disk.
            0 => self.resize(u64::from(input.byte()) * 100),
            1 => self.resize(SECTORS * 512),
            2 => {
                let _ = self.control.remeasure();
            }
            // Time for what is under way.
            3 => {
                driver.serve(1);
            }
            4 => {
                let queue = input.below(driver.queues());
                driver.kick(queue);
                script::serve(driver);
            }
            _ => {
                let queue = input.below(driver.queues());
                let kind = KINDS[input.below(KINDS.len())];
                let sector = match input.byte() {
                    u8::MAX => input.long(),
                    sector => u64::from(sector) % (SECTORS + 2),
                };
                let data = match kind {
                    1 => {
                        let mut data = input.bytes(usize::from(choice)).to_vec();
                        data.resize(data.len().next_multiple_of(512), 5);
                        data
                    }
                    // Mostly one range, as drivers give it.
                    11 | 13 if choice & 0x80 == 0 => range(sector, input).to_vec(),
                    _ => input.bytes(usize::from(choice)).to_vec(),
                };
                let lengths = match kind {
                    0 => vec![u32::from(input.byte() & 15) * 512, 1],
                    8 => vec![20, 1],
                    _ => vec![1],
                };
                driver.add(queue, &[&header(kind, sector), &data], &lengths);
            }
        }
    }

    fn works(&mut self, driver: &mut Driver) {
        // One that is shorter than it was answers with errors.
        self.resize(SECTORS * 512);
        self.control.remeasure().expect("a length");
        let answer = driver.request(0, &[&header(FLUSH, 0)], &[1]);
        assert_eq!(answer, (1, vec![0]));
        let (length, answer) = driver.request(0, &[&header(0, 1)], &[512, 1]);
        assert_eq!((length, answer[512]), (513, 0));
        if !self.read_only {
            driver.request(0, &[&header(1, 2), &[9; 512]], &[1]);
            let answer = driver.request(0, &[&header(0, 2)], &[512, 1]).1;
            assert_eq!(answer[..512], [9; 512]);
        }
    }
}

impl Storage {
    fn resize(&self, length: u64) {
        self.file.set_len(length).expect("memory");
    }
}

/// Plays a script.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let choice = input.byte();
    let file = memfd_create(c"disk", MemfdFlags::CLOEXEC).expect("memory");
    let file = File::from(file);
    file.set_len(SECTORS * 512).expect("memory");
    // The best that there is, and the one that is always there.
    let engine = (choice & 1 == 0).then_some(Engine::Worker);
    let options = Options {
        read_only: choice & 2 != 0,
        block_size: if choice & 4 == 0 { 512 } else { 4096 },
        queues: u16::from(choice >> 3 & 3) + 1,
        // Little enough that a script reaches it, and enough that nothing waits long for it.
        rates: Rates {
            bytes: (choice & 0x60 == 0x60).then_some(PER_SECOND.0).flatten(),
            operations: (choice & 0xa0 == 0xa0).then_some(PER_SECOND.1).flatten(),
        },
        engine,
        ..Options::default()
    };
    let copy = file.try_clone().expect("a descriptor");
    let device = Disk::new(copy.into(), options).expect("a disk");
    let mut storage = Storage {
        file,
        control: device.control(),
        read_only: options.read_only,
    };
    script::run(Box::new(device), &mut storage, &mut input);
}
