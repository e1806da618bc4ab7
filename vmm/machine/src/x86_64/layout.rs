//! Who lives where in the guest's address space.
//!
//! ```text
//!   0 ── zero page, page tables, command line ── 639 KiB ── MP table ── 1 MiB ── kernel … image ── 3 GiB
//!   3.25 GiB ── devices     4 GiB ── more memory     a multiple of 2 GiB ── memory that comes while the guest runs
//!   the next multiple of 2 GiB ── images
//! ```

use vm_memory::GuestAddress;

/// The global descriptor table of the entry.
pub const GDT: u64 = 0x500;

/// The kernel's boot parameters (Linux `Documentation/arch/x86/zero-page.rst`).
pub const ZERO_PAGE: u64 = 0x7000;

/// The stack of the entry: the kernel sets its own at once.
pub const STACK: u64 = 0x8ff0;

/// Page tables of the entry, three pages: they map the first GiB to itself.
pub const PAGE_TABLES: u64 = 0x9000;

/// The kernel's command line.
pub const COMMAND_LINE: u64 = 0x2_0000;

/// The longest command line, with its end, in bytes (Linux `COMMAND_LINE_SIZE`).
pub const COMMAND_LINE_SIZE: usize = 2048;

/// The end of the memory below the first MiB that the kernel may use; the pointer to the MP table is behind it, where
/// kernels look.
pub const LOW_END: u64 = 0x9_fc00;

/// The MP table itself.
pub const MP_TABLE: u64 = 0xf_0000;

/// The end of the MP table's place.
pub const MP_TABLE_END: u64 = 0x10_0000;

/// Where kernels may be.
pub const HIGH: u64 = 0x10_0000;

/// The end of memory below the hole for devices.
pub const HOLE: u64 = 0xc000_0000;

/// The end of the hole.
pub const HOLE_END: u64 = 1 << 32;

/// The registers of the first device; the others follow.
pub const DEVICES: u64 = 0xd000_0000;

/// How many devices there may be: as many as an I/O interrupt controller has lines, but for the first, which Linux takes
/// for none.
pub const DEVICE_LIMIT: u8 = 23;

/// The I/O interrupt controller.
pub const IOAPIC: u32 = 0xfec0_0000;

/// The local interrupt controllers.
pub const LAPIC: u32 = 0xfee0_0000;

/// Three pages that KVM needs on processors that cannot run real mode in a guest.
pub const TSS: usize = 0xfffb_d000;

/// What memory that comes later is aligned to: the largest piece in which Linux takes memory up.
const PIECE: u64 = 2 << 30;

/// Where memory begins that comes while the guest runs, behind this many bytes that are there at once.
pub fn growth(bytes: u64) -> Option<GuestAddress> {
    let end = HOLE_END.checked_add(bytes.saturating_sub(HOLE))?;
    end.checked_next_multiple_of(PIECE).map(GuestAddress)
}

/// Where images can be, behind this many bytes that are there at once and `more` that can come, for a processor whose
/// addresses have so many bits: the first address, and the one behind the last.
pub fn images(bytes: u64, more: u64, address_bits: u32) -> (u64, u64) {
    let end = 1_u64.checked_shl(address_bits).unwrap_or(u64::MAX);
    let begin = growth(bytes)
        .and_then(|behind| behind.0.checked_add(more))
        .and_then(|behind| behind.checked_next_multiple_of(PIECE));
    (begin.unwrap_or(end).min(end), end)
}

/// Where memory is, for this many bytes of it.
pub fn ram(bytes: u64) -> Vec<(GuestAddress, usize)> {
    let low = bytes.min(HOLE);
    let mut list = vec![(GuestAddress(0), low as usize)];
    if bytes > low {
        list.push((GuestAddress(HOLE_END), (bytes - low) as usize));
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_comes_later_is_behind_all_other() {
        assert_eq!(growth(64 << 20), Some(GuestAddress(4 << 30)));
        assert_eq!(growth(HOLE), Some(GuestAddress(4 << 30)));
        assert_eq!(growth(HOLE + 1), Some(GuestAddress(6 << 30)));
        assert_eq!(growth(8 << 30), Some(GuestAddress(10 << 30)));
        assert_eq!(growth(u64::MAX), None);
    }

    #[test]
    fn images_are_behind_memory_that_comes_later() {
        const GIB: u64 = 1 << 30;
        assert_eq!(images(64 << 20, 0, 36), (4 * GIB, 64 * GIB));
        assert_eq!(images(HOLE + 1, 1, 36), (8 * GIB, 64 * GIB));
        assert_eq!(images(8 * GIB, 2 * GIB, 36), (12 * GIB, 64 * GIB));
        assert_eq!(images(70 * GIB, 0, 36), (64 * GIB, 64 * GIB));
        assert_eq!(images(u64::MAX, u64::MAX, 64), (u64::MAX, u64::MAX));
    }

    #[test]
    fn memory_has_a_hole() {
        assert_eq!(ram(64 << 20), [(GuestAddress(0), 64 << 20)]);
        assert_eq!(ram(HOLE), [(GuestAddress(0), 3 << 30)]);
        let more = ram(HOLE + (1 << 20));
        assert_eq!(
            more,
            [(GuestAddress(0), 3 << 30), (GuestAddress(1 << 32), 1 << 20)]
        );
    }
}
