//! An initramfs: the "newc" format, as the kernel's Documentation/driver-api/early-userspace has it.

/// An archive being written.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.entries += 1;
        let head = [
            self.entries,
            mode,
            0,
            0,
            1,
            0,
            u32::try_from(content.len()).expect("a small file"),
            0,
            0,
            device.0,
            device.1,
            u32::try_from(name.len() + 1).expect("a short name"),
            0,
        ];
        self.bytes.extend(b"070701");
        for number in head {
            self.bytes.extend(format!("{number:08x}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }

    pub fn folder(&mut self, name: &str) {
        self.entry(name, 0o040_755, (0, 0), b"");
    }

    pub fn file(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entry(name, 0o100_000 | mode, (0, 0), content);
    }

    pub fn link(&mut self, name: &str, target: &str) {
        self.entry(name, 0o120_777, (0, 0), target.as_bytes());
    }

    pub fn character_device(&mut self, name: &str, device: (u32, u32)) {
        self.entry(name, 0o020_600, device, b"");
    }

    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), b"");
        self.bytes
    }
}
