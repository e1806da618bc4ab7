//! The smallest guest: a kernel's first program that says it is there.

use crate::archive::Archive;

/// The leaf of CPUID that it asks for. Every processor answers that by leaving the guest, so the host sees it, whatever
/// the monitor: no device is needed.
pub const LEAF: u32 = 0x434f_4646;

/// Asks for the leaf, then waits for signals that never come.
const CODE: [u8; 16] = [
    0xb8, 0x46, 0x46, 0x4f, 0x43, // mov eax, LEAF
    0x0f, 0xa2, // cpuid
    0xb8, 0x22, 0x00, 0x00, 0x00, // wait: mov eax, SYS_pause
    0x0f, 0x05, // syscall
    0xeb, 0xf7, // jmp wait
];

const ADDRESS: u64 = 0x40_0000;
const HEAD: u64 = 64 + 56;

/// It as an ELF program of one piece.
fn program() -> Vec<u8> {
    let size = HEAD + CODE.len() as u64;
    let mut bytes = Vec::new();
    bytes.extend([0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    for half in [2_u16, 62] {
        bytes.extend(half.to_le_bytes());
    }
    bytes.extend(1_u32.to_le_bytes());
    for word in [ADDRESS + HEAD, 64, 0] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(0_u32.to_le_bytes());
    for half in [64_u16, 56, 1, 0, 0, 0] {
        bytes.extend(half.to_le_bytes());
    }
    // Loaded, to be read and executed.
    for word in [1_u32, 5] {
        bytes.extend(word.to_le_bytes());
    }
    for word in [0, ADDRESS, ADDRESS, size, size, 0x1000] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(CODE);
    bytes
}

/// An initial RAM disk with nothing else.
pub fn image() -> Vec<u8> {
    let mut archive = Archive::default();
    archive.file("init", &program());
    archive.finish()
}
