//! The machine behind the region, and what a driver asks of it. The fuzz targets have it, too.
#![allow(dead_code, reason = "each has a part of it")]

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex};

use vm_memory::GuestAddress;
use vmm_mem::{Blocks, Setup};

pub const BLOCK: u64 = 2 << 20;
pub const BASE: u64 = 4 << 30;

/// In blocks.
pub const SIZE: u64 = 1000;

pub const PLUG: u16 = 0;
pub const UNPLUG: u16 = 1;
pub const UNPLUG_ALL: u16 = 2;
pub const STATE: u16 = 3;

/// What the machine has plugged: nothing twice, only whole blocks of the region.
#[derive(Clone, Default)]
pub struct Machine(Arc<Mutex<Plugged>>);

#[derive(Default)]
struct Plugged {
    blocks: BTreeSet<u64>,
    calls: Vec<u64>,
    /// How many more calls succeed.
    patience: Option<u32>,
}

impl Machine {
    fn call(&self, address: GuestAddress, length: u64, plug: bool) -> io::Result<()> {
        let mut state = self.0.lock().expect("a lock");
        match &mut state.patience {
            Some(0) => return Err(io::ErrorKind::OutOfMemory.into()),
            Some(left) => *left -= 1,
            None => {}
        }
        let offset = address.0 - BASE;
        assert!(length > 0 && (offset | length).is_multiple_of(BLOCK));
        assert!(offset + length <= SIZE * BLOCK);
        state.calls.push(length / BLOCK);
        for block in offset / BLOCK..(offset + length) / BLOCK {
            let news = if plug {
                state.blocks.insert(block)
            } else {
                state.blocks.remove(&block)
            };
            assert!(news, "{block} was so already");
        }
        Ok(())
    }

    pub fn be_patient(&self, calls: Option<u32>) {
        self.0.lock().expect("a lock").patience = calls;
    }

    pub fn blocks(&self) -> BTreeSet<u64> {
        self.0.lock().expect("a lock").blocks.clone()
    }

    pub fn calls(&self) -> Vec<u64> {
        std::mem::take(&mut self.0.lock().expect("a lock").calls)
    }
}

impl Blocks for Machine {
    fn plug(&mut self, address: GuestAddress, length: u64) -> io::Result<()> {
        self.call(address, length, true)
    }

    fn unplug(&mut self, address: GuestAddress, length: u64) -> io::Result<()> {
        self.call(address, length, false)
    }
}

pub const SETUP: Setup = Setup {
    address: GuestAddress(BASE),
    size: SIZE * BLOCK,
    block: BLOCK,
};

pub fn request(kind: u16, address: u64, blocks: u16) -> [u8; 24] {
    let mut bytes = [0x55; 24];
    bytes[..2].copy_from_slice(&kind.to_le_bytes());
    bytes[8..16].copy_from_slice(&address.to_le_bytes());
    bytes[16..18].copy_from_slice(&blocks.to_le_bytes());
    bytes
}
