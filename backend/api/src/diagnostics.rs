//! The last words of a guest and of its VMM.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::watch;

/// How many lines of each source an error message shows.
const SHOWN_LINES: usize = 20;

/// The end of what a guest wrote on its console and of what its VMM complained about. Control characters are replaced:
/// a guest can't send escape sequences to the terminal of whoever reads its errors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diagnostics {
    /// The end of the guest's console.
    pub console: String,
    /// The end of the VMM's stderr.
    pub vmm: String,
}

impl Diagnostics {
    /// Makes printable text of what was collected.
    #[must_use]
    pub fn new(console: &Tail, vmm: &Tail) -> Self {
        Self {
            console: console.printable(),
            vmm: vmm.printable(),
        }
    }
}

/// A new line and the last lines of each source; nothing when there is nothing to show.
impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (title, text) in [
            ("end of the VMM's messages", &self.vmm),
            ("end of the guest's console", &self.console),
        ] {
            let lines: Vec<&str> = text
                .lines()
                .filter(|line| !line.trim().is_empty())
                .collect();
            if lines.is_empty() {
                continue;
            }
            write!(f, "\n{title}:")?;
            for line in &lines[lines.len().saturating_sub(SHOWN_LINES)..] {
                write!(f, "\n  {line}")?;
            }
        }
        Ok(())
    }
}

/// A buffer that keeps the last bytes of a stream.
#[derive(Debug)]
pub struct Ring {
    bytes: VecDeque<u8>,
    limit: usize,
}

impl Ring {
    /// A ring that keeps the last `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            bytes: VecDeque::new(),
            limit,
        }
    }

    /// Adds bytes and forgets the oldest ones past the limit.
    pub fn push(&mut self, data: &[u8]) {
        let data = &data[data.len().saturating_sub(self.limit)..];
        let excess = (self.bytes.len() + data.len()).saturating_sub(self.limit);
        self.bytes.drain(..excess);
        self.bytes.extend(data);
    }

    /// The kept bytes as text without control characters other than the line feed.
    #[must_use]
    pub fn printable(&self) -> String {
        let (front, back) = self.bytes.as_slices();
        let bytes = [front, back].concat();
        String::from_utf8_lossy(&bytes)
            .chars()
            .filter(|&c| c != '\r')
            .map(|c| match c {
                '\n' => '\n',
                '\t' => ' ',
                c if c.is_control() => '\u{fffd}',
                c => c,
            })
            .collect()
    }
}

/// The end of a stream that a task reads until it closes, so that its writer never waits.
#[derive(Debug)]
pub struct Tail {
    ring: Arc<Mutex<Ring>>,
    closed: watch::Receiver<()>,
}

impl Tail {
    /// Starts reading `stream`, keeping its last `limit` bytes. Call it inside a tokio runtime.
    #[must_use]
    pub fn of(mut stream: impl AsyncRead + Send + Unpin + 'static, limit: usize) -> Self {
        let ring = Arc::new(Mutex::new(Ring::new(limit)));
        let kept = Arc::clone(&ring);
        let (open, closed) = watch::channel(());
        tokio::spawn(async move {
            let mut buffer = vec![0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                lock(&kept).push(&buffer[..count]);
            }
            drop(open);
        });
        Self { ring, closed }
    }

    /// The kept end, printable.
    #[must_use]
    pub fn printable(&self) -> String {
        lock(&self.ring).printable()
    }

    /// Waits, at most for `limit`, until the stream was closed and read to its end: after the writer's death, the
    /// last words may still be under way.
    pub async fn settle(&self, limit: Duration) {
        let mut closed = self.closed.clone();
        // An error means that the sender is gone, which is what is waited for.
        let _ = tokio::time::timeout(limit, closed.changed()).await;
    }
}

fn lock(ring: &Mutex<Ring>) -> MutexGuard<'_, Ring> {
    ring.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_keeps_the_last_bytes() {
        let mut ring = Ring::new(4);
        ring.push(b"ab");
        ring.push(b"cde");
        assert_eq!(ring.printable(), "bcde");
        ring.push(b"0123456789");
        assert_eq!(ring.printable(), "6789");
    }

    #[test]
    fn a_guest_can_not_send_escape_sequences() {
        let mut ring = Ring::new(64);
        ring.push(b"\x1b]0;owned\x07\r\nnext\x9b\n");
        let text = ring.printable();
        assert!(
            text.chars().all(|c| c == '\n' || !c.is_control()),
            "{text:?}"
        );
        assert!(text.ends_with("next\u{fffd}\n"), "{text:?}");
    }

    #[test]
    fn the_display_shows_the_end() {
        let console: String = (0..100).map(|i| format!("line {i}\n")).collect();
        let text = Diagnostics {
            console,
            vmm: String::new(),
        }
        .to_string();
        assert!(
            text.starts_with("\nend of the guest's console:\n  line 80\n"),
            "{text}"
        );
        assert!(text.ends_with("line 99"), "{text}");
        assert_eq!(Diagnostics::default().to_string(), "");
    }
}
