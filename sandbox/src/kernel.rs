//! Whether a guest kernel of the user's own has what it needs, for the error that tells of a guest that did not come up.
//!
//! A kernel with `CONFIG_IKCONFIG` carries its configuration: between two marks, compressed by gzip (Linux
//! `kernel/configs.c`). A bzImage has that inside its compressed payload (`Documentation/arch/x86/boot.rst`).

use std::fs;
use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;

/// What a guest cannot come up without, on any backend, as `docs/configuration.md` lists it.
const NEEDED: [&str; 13] = [
    "CONFIG_64BIT",
    "CONFIG_BLK_DEV_INITRD",
    "CONFIG_CGROUPS",
    "CONFIG_FUSE_FS",
    "CONFIG_KVM_GUEST",
    "CONFIG_UNIX",
    "CONFIG_VIRTIO_CONSOLE",
    "CONFIG_VIRTIO_FS",
    "CONFIG_VIRTIO_MMIO",
    "CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES",
    "CONFIG_VIRTIO_VSOCKETS",
    "CONFIG_VSOCKETS",
    "CONFIG_X86_MPPARSE",
];

/// What the configuration of a kernel is between.
const MARKS: (&[u8], &[u8]) = (b"IKCFG_ST", b"IKCFG_ED");

/// No kernel is longer, unpacked; no configuration either.
const KERNEL: u64 = 256 << 20;
const CONFIGURATION: u64 = 4 << 20;

/// A sentence for people whose own kernel does not come up: what it lacks, or where that stands.
pub(crate) fn advice(path: &Path) -> String {
    let name = path.display();
    let remedy = "see `kernel` in docs/configuration.md";
    match fs::read(path).ok().as_deref().and_then(configuration) {
        None => format!(
            "the kernel {name} does not say what is built into it (CONFIG_IKCONFIG): {remedy}"
        ),
        Some(text) => match missing(&text)[..] {
            [] => format!("the kernel {name} has built in what it cannot come up without"),
            ref missing => format!(
                "the kernel {name} lacks {}, which have to be built in (y): {remedy}",
                missing.join(", ")
            ),
        },
    }
}

/// What is not built in.
fn missing(configuration: &str) -> Vec<&'static str> {
    let has = |option: &str| {
        configuration
            .lines()
            .any(|line| line.strip_prefix(option) == Some("=y"))
    };
    NEEDED.into_iter().filter(|option| !has(option)).collect()
}

/// The configuration in a kernel's file.
fn configuration(kernel: &[u8]) -> Option<String> {
    match payload(kernel) {
        Some(payload) => embedded(&unpacked(payload, KERNEL)?),
        None => embedded(kernel),
    }
}

/// What is compressed in a bzImage.
fn payload(kernel: &[u8]) -> Option<&[u8]> {
    if kernel.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let word = |at: usize| {
        let bytes = kernel.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let sectors = match kernel.get(0x1f1)? {
        0 => 4,
        &sectors => usize::from(sectors),
    };
    let begin = (sectors + 1).checked_mul(512)?.checked_add(word(0x248)?)?;
    kernel.get(begin..begin.checked_add(word(0x24c)?)?)
}

fn embedded(kernel: &[u8]) -> Option<String> {
    let find = |mark: &[u8], from: usize| {
        let rest = kernel.get(from..)?;
        let at = rest.windows(mark.len()).position(|window| window == mark)?;
        Some(from + at)
    };
    let begin = find(MARKS.0, 0)? + MARKS.0.len();
    let end = find(MARKS.1, begin)?;
    let text = unpacked(&kernel[begin..end], CONFIGURATION)?;
    String::from_utf8(text).ok()
}

/// As far as gzip has done it: other ways of compression are not looked into.
fn unpacked(bytes: &[u8], limit: u64) -> Option<Vec<u8>> {
    let mut unpacked = Vec::new();
    let read = GzDecoder::new(bytes).take(limit).read_to_end(&mut unpacked);
    read.ok().map(|_| unpacked)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn vmlinux(options: &[&str]) -> Vec<u8> {
        let text: String = options
            .iter()
            .map(|option| format!("{option}=y\n"))
            .collect();
        [
            b"\x7fELF".as_slice(),
            MARKS.0,
            &packed(text.as_bytes()),
            MARKS.1,
        ]
        .concat()
    }

    fn bzimage(vmlinux: &[u8]) -> Vec<u8> {
        let payload = packed(vmlinux);
        let mut image = vec![0; 3 * 512];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x248..0x24c].copy_from_slice(&512_u32.to_le_bytes());
        let length = u32::try_from(payload.len()).unwrap();
        image[0x24c..0x250].copy_from_slice(&length.to_le_bytes());
        image.extend(payload);
        image
    }

    #[test]
    fn what_a_kernel_lacks_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kernel");
        let said = |kernel: &[u8]| {
            fs::write(&path, kernel).unwrap();
            advice(&path)
        };
        let whole = vmlinux(&NEEDED);
        let some: Vec<_> = NEEDED
            .into_iter()
            .filter(|option| *option != "CONFIG_X86_MPPARSE")
            .collect();
        let some = vmlinux(&some);
        for (whole, some) in [
            (whole.clone(), some.clone()),
            (bzimage(&whole), bzimage(&some)),
        ] {
            assert!(said(&whole).contains("has built in"), "{}", said(&whole));
            assert!(
                said(&some).contains("lacks CONFIG_X86_MPPARSE,"),
                "{}",
                said(&some)
            );
        }
        for none in [
            &b"\x7fELF"[..],
            &whole[..whole.len() / 2],
            &bzimage(&whole)[..700],
            b"",
        ] {
            assert!(said(none).contains("does not say"), "{}", said(none));
        }
    }
}
