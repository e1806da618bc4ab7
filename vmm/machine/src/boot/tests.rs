//! What may be booted, and what not. Files are the caller's, but a user's own kernel may be anything.

use std::io::Write;

use proptest::prelude::*;
use vm_memory::ByteValued;

use super::*;
use crate::memory::Backing;

const MEMORY: u64 = 64 << 20;
const ENTRY: u64 = 0x100_0000;

fn ram() -> GuestRam {
    GuestRam::new(MEMORY, 0, Backing::Private).expect("memory")
}

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(bytes).expect("writes");
    file
}

/// An ELF program of one piece.
fn elf(entry: u64, place: u64, in_file: u64, in_memory: u64) -> Vec<u8> {
    let mut bytes = vec![0; 64 + 56];
    bytes[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1]);
    bytes[16..18].copy_from_slice(&2_u16.to_le_bytes());
    bytes[18..20].copy_from_slice(&62_u16.to_le_bytes());
    bytes[24..32].copy_from_slice(&entry.to_le_bytes());
    bytes[32..40].copy_from_slice(&64_u64.to_le_bytes());
    bytes[52..54].copy_from_slice(&64_u16.to_le_bytes());
    bytes[54..56].copy_from_slice(&56_u16.to_le_bytes());
    bytes[56..58].copy_from_slice(&1_u16.to_le_bytes());
    bytes[64..68].copy_from_slice(&1_u32.to_le_bytes());
    bytes[72..80].copy_from_slice(&120_u64.to_le_bytes());
    bytes[88..96].copy_from_slice(&place.to_le_bytes());
    bytes[96..104].copy_from_slice(&in_file.to_le_bytes());
    bytes[104..112].copy_from_slice(&in_memory.to_le_bytes());
    bytes.extend(std::iter::repeat_n(0xf4, 4096));
    bytes
}

/// Loads a guest and tells it of a machine with two processors and one device.
fn boot(ram: &GuestRam, kernel: &[u8], image: Option<&[u8]>, line: &str) -> Result<Loaded, Error> {
    let guest = Guest {
        kernel: file(kernel),
        image: image.map(file),
    };
    let loaded = Loading::start(ram.clone(), guest)?.wait()?;
    let shape = Shape {
        processors: 2,
        lines: 2,
    };
    describe(ram, &loaded, line.to_owned(), shape, &["device".to_owned()])?;
    Ok(loaded)
}

fn read<T: ByteValued>(ram: &GuestRam, address: u64) -> T {
    ram.shared()
        .read_obj(GuestAddress(address))
        .expect("memory")
}

#[test]
fn a_kernel_and_its_image_are_where_the_parameters_say() {
    let ram = ram();
    let kernel = elf(ENTRY, ENTRY, 4096, 8192);
    let loaded = boot(&ram, &kernel, Some(b"image"), "a b").expect("loads");
    assert_eq!(loaded.entry, ENTRY);
    assert_eq!(read::<u8>(&ram, ENTRY), 0xf4);
    let params: loader::bootparam::boot_params = read(&ram, layout::ZERO_PAGE);
    let header = params.hdr;
    let image = u64::from(header.ramdisk_image);
    assert_eq!({ header.ramdisk_size }, 5);
    assert_eq!(read::<[u8; 5]>(&ram, image), *b"image");
    assert!(image + 5 <= MEMORY && image % PAGE == 0);
    assert_eq!({ header.cmd_line_ptr }, layout::COMMAND_LINE as u32);
    assert_eq!(
        read::<[u8; 11]>(&ram, layout::COMMAND_LINE),
        *b"a b device\0"
    );
    assert_eq!(params.e820_entries, 2);
    let [low, high] = [0, 1].map(|number| {
        let entry = params.e820_table[number];
        (entry.addr, entry.size)
    });
    assert_eq!(low, (0, layout::LOW_END));
    assert_eq!(high, (layout::HIGH, MEMORY - layout::HIGH));
    assert_eq!(read::<[u8; 4]>(&ram, layout::LOW_END), *b"_MP_");
    assert_eq!(read::<[u8; 4]>(&ram, layout::MP_TABLE), *b"PCMP");
}

#[test]
fn kernels_that_are_none_are_refused() {
    let good = elf(ENTRY, ENTRY, 4096, 4096);
    let cases: [(&str, Vec<u8>); 7] = [
        ("empty", Vec::new()),
        ("text", b"no kernel at all".repeat(1000)),
        ("cut", good[..100].to_vec()),
        ("an entry in low memory", elf(0x1000, ENTRY, 4096, 4096)),
        ("outside memory", elf(ENTRY, MEMORY, 4096, 4096)),
        ("half outside memory", elf(ENTRY, MEMORY - 1, 4096, 4096)),
        ("longer than its file", elf(ENTRY, ENTRY, 1 << 20, 1 << 20)),
    ];
    for (what, bytes) in cases {
        let answer = boot(&ram(), &bytes, None, "");
        assert!(
            matches!(answer, Err(Error::Kernel(_))),
            "{what}: {answer:?}"
        );
    }
}

/// Below it are the tables and the parameters.
#[test]
fn no_image_gets_into_the_first_mebibyte() {
    let mut kernel = elf(ENTRY, ENTRY, 0, 0);
    // No piece at all.
    kernel[56..58].copy_from_slice(&0_u16.to_le_bytes());
    let image = vec![0; (MEMORY - layout::HIGH) as usize + 1];
    let answer = boot(&ram(), &kernel, Some(&image), "");
    assert!(matches!(answer, Err(Error::TooLarge { .. })), "{answer:?}");
}

#[test]
fn what_does_not_fit_is_refused() {
    let kernel = elf(ENTRY, ENTRY, 4096, MEMORY - ENTRY - 4096);
    let cases = [
        (vec![0; 4097], String::new(), "the guest image"),
        (
            vec![0; MEMORY as usize + 1],
            String::new(),
            "the guest image",
        ),
        (
            Vec::new(),
            "x".repeat(layout::COMMAND_LINE_SIZE),
            "the command line",
        ),
    ];
    for (image, line, expected) in cases {
        let answer = boot(&ram(), &kernel, Some(&image), &line);
        let Err(Error::TooLarge { what, .. }) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(what, expected);
    }
}

/// The head of a bzImage, with the fields that the loader goes by.
fn bzimage(fields: (u8, u16, u16, u32, u64, u8)) -> Vec<u8> {
    let (sectors, flag, version, pref32, pref64, load) = fields;
    let mut bytes = vec![0; 16 << 10];
    bytes[0x1f1] = sectors;
    bytes[0x1fe..0x200].copy_from_slice(&flag.to_le_bytes());
    bytes[0x202..0x206].copy_from_slice(b"HdrS");
    bytes[0x206..0x208].copy_from_slice(&version.to_le_bytes());
    bytes[0x211] = load;
    bytes[0x214..0x218].copy_from_slice(&pref32.to_le_bytes());
    bytes[0x258..0x260].copy_from_slice(&pref64.to_le_bytes());
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever an ELF file says, it is loaded within memory or refused.
    #[test]
    fn any_elf(entry: u64, place in prop_oneof![any::<u64>(), 0..2 * MEMORY], in_file: u64, in_memory: u64) {
        let _ = boot(&ram(), &elf(entry, place, in_file, in_memory), None, "");
    }

    /// So is whatever a bzImage says.
    #[test]
    fn any_bzimage(fields: (u8, u16, u16, u32, u64, u8)) {
        let _ = boot(&ram(), &bzimage(fields), None, "");
    }

    /// And any other bytes.
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let _ = boot(&ram(), &bytes, None, "");
    }
}
