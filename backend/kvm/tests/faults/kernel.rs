//! Kernels of a few instructions.

use std::io::Write;

use tempfile::NamedTempFile;

/// Where they are in the guest's memory.
const PLACE: u64 = 0x100_0000;

/// An ELF program that is loaded at [`PLACE`] and begins there, in 64-bit mode, with interrupts off.
pub fn program(instructions: &[u8]) -> NamedTempFile {
    let mut bytes = vec![0; 64 + 56];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, &[0x7f, b'E', b'L', b'F', 2, 1, 1]);
    // An executable for x86-64, whose one program header follows.
    put(16, &2_u16.to_le_bytes());
    put(18, &62_u16.to_le_bytes());
    put(24, &PLACE.to_le_bytes());
    put(32, &64_u64.to_le_bytes());
    put(52, &64_u16.to_le_bytes());
    put(54, &56_u16.to_le_bytes());
    put(56, &1_u16.to_le_bytes());
    // To be loaded: what is behind the headers.
    let length = instructions.len() as u64;
    put(64, &1_u32.to_le_bytes());
    put(72, &120_u64.to_le_bytes());
    put(88, &PLACE.to_le_bytes());
    put(96, &length.to_le_bytes());
    put(104, &length.to_le_bytes());
    bytes.extend(instructions);
    let mut file = NamedTempFile::new().expect("a file");
    file.write_all(&bytes).expect("writes");
    file
}

/// `lidt` of a table without entries, and an invalid instruction.
pub const TRIPLE_FAULT: [u8; 19] = [
    0x0f, 0x01, 0x1d, 2, 0, 0, 0, 0x0f, 0x0b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];

/// `jmp` to 512 MiB, where the page tables lead and no memory is.
pub const NOWHERE: [u8; 7] = [0xb8, 0, 0, 0, 0x20, 0xff, 0xe0];

/// `hlt`, again and again, though no interrupt ends the first.
pub const HALT: [u8; 3] = [0xf4, 0xeb, 0xfd];

/// `jmp` to itself.
pub const SPIN: [u8; 2] = [0xeb, 0xfe];
