//! What the balloon is given, and a note of what it discards. The fuzz targets have it, too.
#![allow(dead_code, reason = "each has a part of it")]

use std::io;
use std::sync::Mutex;

use vm_memory::GuestAddress;
use vmm_balloon::{Discard, Setup};
use vmm_virtio::testing::MEMORY;

pub const PAGE: u64 = 4096;

pub const SETUP: Setup = Setup {
    deflate_on_oom: true,
    reporting: true,
    statistics: true,
};

/// Writes down what is discarded, and refuses what is no memory.
#[derive(Default)]
pub struct Record(Mutex<Vec<(u64, u64)>>);

impl Discard for Record {
    fn discard(&self, address: GuestAddress, length: u64) -> io::Result<()> {
        assert!(length > 0 && (address.0 | length).is_multiple_of(PAGE));
        if address.0 >= MEMORY {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.0.lock().expect("a lock").push((address.0, length));
        Ok(())
    }
}

impl Record {
    pub fn take(&self) -> Vec<(u64, u64)> {
        std::mem::take(&mut self.0.lock().expect("a lock"))
    }
}

pub fn list(pages: impl IntoIterator<Item = u32>) -> Vec<u8> {
    pages.into_iter().flat_map(u32::to_le_bytes).collect()
}
