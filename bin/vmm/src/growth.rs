//! Memory that comes and goes while the guest runs.

use std::io;

use rustix::fs::{FallocateFlags, fallocate, ftruncate};
use vm_memory::GuestAddress;
use vmm_control::MEMORY_STEP;
use vmm_machine::Growth;
use vmm_mem::{Blocks, InvalidRegion, Mem, Setup};

/// The device that tells the guest of this memory.
///
/// # Errors
/// When there cannot be such memory.
pub fn device(growth: &Growth) -> Result<Mem, InvalidRegion> {
    let setup = Setup {
        address: growth.address,
        size: growth.size,
        block: MEMORY_STEP,
    };
    Mem::new(setup, Box::new(Plugged::new(growth.clone())))
}

/// The file behind the memory, never longer than what is plugged reaches. What is unplugged below that is a hole, which
/// takes no memory unless a guest breaks the rules: one can have 256 MiB more in that way (`vmm_mem`), and no more.
struct Plugged {
    growth: Growth,
    /// Of each block.
    blocks: Vec<bool>,
    length: u64,
}

impl Plugged {
    fn new(growth: Growth) -> Self {
        // The device was checked to have at most 2^20.
        let count = usize::try_from(growth.size / MEMORY_STEP).unwrap_or_default();
        Self {
            growth,
            blocks: vec![false; count],
            length: 0,
        }
    }

    /// Where in the file a range is, if all of it is there.
    fn offset(&self, address: GuestAddress, length: u64) -> io::Result<u64> {
        address
            .0
            .checked_sub(self.growth.address.0)
            .filter(|offset| {
                let end = offset.checked_add(length);
                end.is_some_and(|end| end <= self.growth.size)
            })
            .ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }

    fn set(&mut self, offset: u64, length: u64, plugged: bool) {
        let first = (offset / MEMORY_STEP) as usize;
        let count = (length / MEMORY_STEP) as usize;
        for block in self.blocks.iter_mut().skip(first).take(count) {
            *block = plugged;
        }
    }

    fn fit(&mut self, length: u64) -> io::Result<()> {
        if length != self.length {
            ftruncate(&*self.growth.file, length)?;
            self.length = length;
        }
        Ok(())
    }
}

impl Blocks for Plugged {
    fn plug(&mut self, address: GuestAddress, length: u64) -> io::Result<()> {
        let offset = self.offset(address, length)?;
        self.fit(self.length.max(offset + length))?;
        self.set(offset, length, true);
        Ok(())
    }

    fn unplug(&mut self, address: GuestAddress, length: u64) -> io::Result<()> {
        let offset = self.offset(address, length)?;
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&*self.growth.file, hole, offset, length)?;
        self.set(offset, length, false);
        let last = self.blocks.iter().rposition(|&plugged| plugged);
        // What is behind it is empty: if the file stays longer, that is no error.
        let _ = self.fit(last.map_or(0, |last| (last as u64 + 1) * MEMORY_STEP));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileExt, MetadataExt};
    use vmm_machine::{Backing, GuestRam};

    #[test]
    fn the_file_is_as_long_as_what_is_plugged_and_forgets_the_rest() {
        let ram = GuestRam::new(64 << 20, 8 * MEMORY_STEP, Backing::Private).expect("memory");
        let growth = ram.growth().expect("it can grow").clone();
        let mut plugged = Plugged::new(growth.clone());
        let length = || growth.file.metadata().expect("a file").len() / MEMORY_STEP;
        let at = |block: u64| GuestAddress(growth.address.0 + block * MEMORY_STEP);
        plugged.plug(at(2), MEMORY_STEP).expect("plugs");
        plugged.plug(at(4), 2 * MEMORY_STEP).expect("plugs");
        assert_eq!(length(), 6);
        for block in [2, 4, 5] {
            let place = block * MEMORY_STEP;
            growth.file.write_all_at(&[7], place).expect("writes");
        }
        plugged.unplug(at(2), MEMORY_STEP).expect("unplugs");
        assert_eq!(length(), 6, "what is above it stays");
        let pages = growth.file.metadata().expect("a file").blocks() * 512;
        assert!(pages <= 2 * MEMORY_STEP, "{pages} bytes for two blocks");
        plugged.unplug(at(4), 2 * MEMORY_STEP).expect("unplugs");
        assert_eq!(length(), 0);
        plugged.plug(at(5), MEMORY_STEP).expect("plugs");
        let mut byte = [1];
        growth
            .file
            .read_exact_at(&mut byte, 5 * MEMORY_STEP)
            .expect("reads");
        assert_eq!(byte, [0], "the guest gets zeros");
        for (block, count) in [(7, 2), (u64::MAX / MEMORY_STEP, 1)] {
            let address = GuestAddress(
                growth
                    .address
                    .0
                    .wrapping_add(block.wrapping_mul(MEMORY_STEP)),
            );
            plugged
                .plug(address, count * MEMORY_STEP)
                .expect_err("it is outside");
        }
    }
}
