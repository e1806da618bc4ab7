//! The kernel's boot parameters, its "zero page" (Linux `Documentation/arch/x86/boot.rst`, 64-bit protocol).

use linux_loader::loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use vm_memory::{Bytes, GuestAddress};
use vmm_virtio::Memory;

use super::layout;

/// `boot_flag` and `header` of the protocol.
const BOOT_FLAG: u16 = 0xaa55;
const HEADER: u32 = u32::from_le_bytes(*b"HdrS");

/// A boot loader without a number of its own.
const OTHER_LOADER: u8 = 0xff;

/// What an ELF kernel, which has no header to say so, is aligned to.
const ALIGNMENT: u32 = 0x100_0000;

/// Memory that may be used.
const USABLE: u32 = 1;

/// Writes the parameters. `header` is what a bzImage begins with.
pub fn write(
    memory: &Memory,
    header: Option<setup_header>,
    command_line: usize,
    image: (u32, u32),
    ram: impl Iterator<Item = (u64, u64)>,
) -> Result<(), vm_memory::GuestMemoryError> {
    let mut params = boot_params {
        hdr: header.unwrap_or(setup_header {
            boot_flag: BOOT_FLAG,
            header: HEADER,
            kernel_alignment: ALIGNMENT,
            ..setup_header::default()
        }),
        ..boot_params::default()
    };
    params.hdr.type_of_loader = OTHER_LOADER;
    params.hdr.cmd_line_ptr = layout::COMMAND_LINE as u32;
    params.hdr.cmdline_size = command_line as u32;
    (params.hdr.ramdisk_image, params.hdr.ramdisk_size) = image;
    let mut entries = 0;
    let mut add = |addr, size| {
        params.e820_table[entries] = boot_e820_entry {
            addr,
            size,
            type_: USABLE,
        };
        entries += 1;
    };
    add(0, layout::LOW_END);
    for (start, size) in ram {
        let begin = start.max(layout::HIGH);
        add(begin, start + size - begin);
    }
    params.e820_entries = entries as u8;
    memory.write_obj(params, GuestAddress(layout::ZERO_PAGE))
}
