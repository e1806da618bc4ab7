//! Disks behind the tests' driver, on each engine.

pub(crate) mod engines;

mod bad;
mod cache;
mod devices;
mod flow;
mod model;
mod requests;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use vmm_virtio::testing::Driver;

use crate::{Control, Disk, Engine, Options, Statistics};

pub(crate) const IN: u32 = 0;
pub(crate) const OUT: u32 = 1;
pub(crate) const FLUSH: u32 = 4;
pub(crate) const GET_ID: u32 = 8;
pub(crate) const DISCARD: u32 = 11;
pub(crate) const WRITE_ZEROES: u32 = 13;

pub(crate) const OK: u8 = 0;
pub(crate) const IOERR: u8 = 1;
pub(crate) const UNSUPP: u8 = 2;

/// All features.
pub(crate) const ALL: u64 = u64::MAX;

/// A disk with its driver, and the file behind it.
pub(crate) struct Rig {
    pub(crate) driver: Driver,
    pub(crate) file: File,
    pub(crate) statistics: Statistics,
    pub(crate) control: Control,
}

/// A file of so many sectors, each filled with its number.
pub(crate) fn file(sectors: u64) -> File {
    let file = tempfile::tempfile().expect("a file");
    for sector in 0..sectors {
        file.write_all_at(&[sector as u8; 512], sector * 512)
            .expect("writes");
    }
    file
}

pub(crate) fn disk(file: &File, options: Options) -> Disk {
    let file: OwnedFd = file.try_clone().expect("a clone").into();
    Disk::new(file, options).expect("a disk")
}

impl Rig {
    pub(crate) fn new(engine: Engine, sectors: u64) -> Self {
        Self::with(file(sectors), options(engine), ALL)
    }

    pub(crate) fn with(file: File, options: Options, features: u64) -> Self {
        let disk = disk(&file, options);
        assert_eq!(Some(disk.engine()), options.engine.or(Some(disk.engine())));
        let (statistics, control) = (disk.statistics(), disk.control());
        Self {
            driver: Driver::start(Box::new(disk), features),
            file,
            statistics,
            control,
        }
    }

    /// One request with data in one piece each: its status, how much was written, and what.
    pub(crate) fn request(
        &mut self,
        kind: u32,
        sector: u64,
        output: &[u8],
        input: u32,
    ) -> (u8, u32, Vec<u8>) {
        let header = header(kind, sector);
        let mut readable: Vec<&[u8]> = vec![&header];
        if !output.is_empty() {
            readable.push(output);
        }
        let writable: &[u32] = if input > 0 { &[input, 1] } else { &[1] };
        let (length, mut contents) = self.driver.request(0, &readable, writable);
        let status = contents.pop().expect("a status");
        (status, length, contents)
    }

    pub(crate) fn read(&mut self, sector: u64, length: u32) -> (u8, Vec<u8>) {
        let (status, written, contents) = self.request(IN, sector, &[], length);
        let valid = if status == OK {
            length + 1
        } else {
            u32::from(length == 0)
        };
        assert_eq!(written, valid);
        (status, contents)
    }

    pub(crate) fn write(&mut self, sector: u64, data: &[u8]) -> u8 {
        let (status, written, _) = self.request(OUT, sector, data, 0);
        assert_eq!(written, 1);
        status
    }

    /// A discard, or a request for zeros.
    pub(crate) fn cover(&mut self, kind: u32, sector: u64, count: u32, flags: u32) -> u8 {
        let (status, written, _) = self.request(kind, 0, &segment(sector, count, flags), 0);
        assert_eq!(written, 1);
        status
    }

    /// What is in the file.
    pub(crate) fn contents(&self, sector: u64, length: usize) -> Vec<u8> {
        let mut contents = vec![0; length];
        self.file
            .read_exact_at(&mut contents, sector * 512)
            .expect("reads");
        contents
    }
}

pub(crate) fn options(engine: Engine) -> Options {
    Options {
        engine: Some(engine),
        ..Options::default()
    }
}

pub(crate) fn header(kind: u32, sector: u64) -> [u8; 16] {
    let mut header = [0; 16];
    header[..4].copy_from_slice(&kind.to_le_bytes());
    header[8..].copy_from_slice(&sector.to_le_bytes());
    header
}

pub(crate) fn segment(sector: u64, count: u32, flags: u32) -> [u8; 16] {
    let mut segment = [0; 16];
    segment[..8].copy_from_slice(&sector.to_le_bytes());
    segment[8..12].copy_from_slice(&count.to_le_bytes());
    segment[12..].copy_from_slice(&flags.to_le_bytes());
    segment
}
