//! Initial RAM disks (cpio, "newc").

/// One that is being written.
#[derive(Default)]
pub struct Archive(Vec<u8>);

impl Archive {
    /// Adds a folder.
    pub fn folder(&mut self, name: &str) {
        self.add(name, 0o040_755, (0, 0), &[]);
    }

    /// Adds a program, or another file.
    pub fn file(&mut self, name: &str, content: &[u8]) {
        self.add(name, 0o100_755, (0, 0), content);
    }

    /// Adds the console: what the guest's first program writes to.
    pub fn console(&mut self) {
        self.add("dev/console", 0o020_600, (5, 1), &[]);
    }

    /// All of it.
    pub fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, (0, 0), &[]);
        self.0
    }

    fn add(&mut self, name: &str, mode: usize, device: (usize, usize), content: &[u8]) {
        let fields = [
            1,
            mode,
            0,
            0,
            1,
            0,
            content.len(),
            0,
            0,
            device.0,
            device.1,
            name.len() + 1,
            0,
        ];
        self.0.extend(b"070701");
        for field in fields {
            self.0.extend(format!("{field:08x}").into_bytes());
        }
        self.0.extend(name.as_bytes());
        self.0.push(0);
        self.align();
        self.0.extend(content);
        self.align();
    }

    fn align(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}
