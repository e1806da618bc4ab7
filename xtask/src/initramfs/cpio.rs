//! Writing cpio archives in the "newc" format that the kernel unpacks.
//!
//! Follows Linux `Documentation/driver-api/early-userspace/buffer-format.rst`: each entry is a header
//! of fourteen eight-digit hexadecimal fields, its name, its content, each padded to four bytes.

use std::num::TryFromIntError;

const DIRECTORY: u32 = 0o040_000;
const CHARACTER_DEVICE: u32 = 0o020_000;
const REGULAR: u32 = 0o100_000;
const TRAILER: &str = "TRAILER!!!";

/// An archive in memory. Owner is root everywhere, and times are zero: the same content gives the
/// same bytes.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    inodes: u32,
}

impl Archive {
    /// Adds a folder.
    pub fn directory(&mut self, name: &str, mode: u32) -> Result<(), TryFromIntError> {
        self.entry(name, DIRECTORY | mode, 2, (0, 0), &[])
    }

    /// Adds a character device.
    pub fn character_device(
        &mut self,
        name: &str,
        mode: u32,
        device: (u32, u32),
    ) -> Result<(), TryFromIntError> {
        self.entry(name, CHARACTER_DEVICE | mode, 1, device, &[])
    }

    /// Adds a regular file.
    pub fn file(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<(), TryFromIntError> {
        self.entry(name, REGULAR | mode, 1, (0, 0), content)
    }

    /// Ends the archive.
    pub fn finish(mut self) -> Result<Vec<u8>, TryFromIntError> {
        self.entry(TRAILER, 0, 1, (0, 0), &[])?;
        Ok(self.bytes)
    }

    fn entry(
        &mut self,
        name: &str,
        mode: u32,
        links: u32,
        device: (u32, u32),
        content: &[u8],
    ) -> Result<(), TryFromIntError> {
        self.inodes += 1;
        self.bytes.extend_from_slice(b"070701");
        let fields = [
            self.inodes,
            mode,
            0, // uid
            0, // gid
            links,
            0, // mtime
            u32::try_from(content.len())?,
            0, // major and minor of the file system
            0,
            device.0,
            device.1,
            u32::try_from(name.len() + 1)?,
            0, // checksum, unused in this format
        ];
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
        Ok(())
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_have_the_documented_layout() {
        let mut archive = Archive::default();
        archive.directory("dev", 0o755).unwrap();
        archive
            .character_device("dev/console", 0o600, (5, 1))
            .unwrap();
        archive.file("init", 0o755, b"hello").unwrap();
        let bytes = archive.finish().unwrap();

        let mut offset = 0;
        let mut seen = Vec::new();
        loop {
            let field = |index: usize| {
                let start = offset + 6 + 8 * index;
                let text = std::str::from_utf8(&bytes[start..start + 8]).unwrap();
                usize::from_str_radix(text, 16).unwrap()
            };
            assert_eq!(&bytes[offset..offset + 6], b"070701");
            assert_eq!(offset % 4, 0);
            let name_start = offset + 110;
            let name = &bytes[name_start..name_start + field(11) - 1];
            let content_start = (name_start + field(11)).next_multiple_of(4);
            let content = &bytes[content_start..content_start + field(6)];
            let next = (content_start + field(6)).next_multiple_of(4);
            seen.push((
                String::from_utf8(name.to_vec()).unwrap(),
                field(1),
                (field(9), field(10)),
                content.to_vec(),
            ));
            if name == TRAILER.as_bytes() {
                assert_eq!(next, bytes.len());
                break;
            }
            offset = next;
        }
        let expected = [
            ("dev", 0o040_755, (0, 0), &b""[..]),
            ("dev/console", 0o020_600, (5, 1), b""),
            ("init", 0o100_755, (0, 0), b"hello"),
            (TRAILER, 0, (0, 0), b""),
        ];
        for (seen, expected) in seen.iter().zip(expected) {
            let (name, mode, device, content) = expected;
            assert_eq!(*seen, (name.to_owned(), mode, device, content.to_vec()));
        }
        assert_eq!(seen.len(), expected.len());
    }
}
