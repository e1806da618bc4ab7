//! What is booted: kernels, images and command lines of any shape.

use std::fs::File;
use std::io::Write;
use std::sync::OnceLock;

use rustix::fs::{MemfdFlags, memfd_create};
use vmm_machine::testing::load;
use vmm_machine::{Backing, Guest, GuestRam};

use crate::input::Input;

/// Below the hole for devices, and on both sides of it. They are never given back, so there is one of each.
static MEMORY: [(u64, OnceLock<GuestRam>); 2] = [
    (64 << 20, OnceLock::new()),
    ((3 << 30) + (64 << 20), OnceLock::new()),
];

fn file() -> File {
    let file = memfd_create(c"input", MemfdFlags::CLOEXEC).expect("memory");
    File::from(file)
}

/// Loads a kernel.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (size, memory) = &MEMORY[input.below(2)];
    let ram = memory.get_or_init(|| GuestRam::new(*size, 0, Backing::Private).expect("memory"));
    let image_size = match input.byte() & 7 {
        0..=2 => None,
        3 | 4 => Some(u64::from(input.short())),
        5 => Some((*size).saturating_sub(u64::from(input.short()))),
        6 => Some(*size + u64::from(input.short())),
        // The longest that a file can be, and less.
        _ => Some(input.long() >> 1),
    };
    let image = image_size.map(|size| {
        let image = file();
        // An empty one is as good when there can be none of that size.
        let _ = image.set_len(size);
        image
    });
    let processors = input.byte() % 65;
    let line = usize::from(input.short()) % 4096;
    let devices = vec!["virtio_mmio.device=4K@0xd0000000:5".to_owned(); input.below(16)];
    let mut kernel = file();
    kernel.write_all(input.rest()).expect("memory");
    let mut guest = Guest { kernel, image };
    let _ = load(ram, &mut guest, "x".repeat(line), processors, &devices);
}
