//! The file that a template is.
//!
//! ```text
//! magic, 8 bytes │ length of the head, u32 little-endian │ SHA-256 of head and state │ head, JSON │ state │ pages
//! ```
//!
//! The pages are those of the head's parts, one part after the other. They have no digest: that would cost every start
//! milliseconds, the file is root's and written at once, and its length tells one that was cut off.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::memory::{self, PAGE};

const MAGIC: &[u8; 8] = b"COFFTPL1";
const DIGEST: usize = 32;
const HEAD_AT: u64 = 8 + 4 + DIGEST as u64;

/// A head is a few KiB.
const HEAD_LIMIT: u32 = 4 << 20;

/// QEMU's devices need some 150 KiB.
pub const STATE_LIMIT: u64 = 16 << 20;

/// What begins the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    /// Bytes of the guest's memory.
    memory: u64,
    /// Bytes of the devices' state.
    state: u64,
    /// Begin and length of the parts of the memory that are here.
    parts: Vec<(u64, u64)>,
}

/// A template that is whole.
#[derive(Debug)]
pub struct Template {
    file: File,
    memory: u64,
    parts: Vec<(u64, u64)>,
    pages_at: u64,
    /// The state of the devices.
    pub state: Vec<u8>,
}

/// Writes a template.
pub fn write(mut out: &File, memory: (&File, u64), state: &[u8]) -> io::Result<()> {
    if state.len() as u64 > STATE_LIMIT {
        return Err(invalid("the devices have too much state"));
    }
    let parts = memory::used(memory.0)?;
    let head = serde_json::to_vec(&Head {
        memory: memory.1,
        state: state.len() as u64,
        parts: parts.clone(),
    })?;
    let length = u32::try_from(head.len())
        .ok()
        .filter(|&length| length <= HEAD_LIMIT)
        .ok_or_else(|| invalid("the memory is in too many pieces"))?;
    out.write_all(MAGIC)?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(&digest(&head, state))?;
    out.write_all(&head)?;
    out.write_all(state)?;
    let mut at = HEAD_AT + u64::from(length) + state.len() as u64;
    for (begin, length) in parts {
        memory::copy((memory.0, begin), (out, at), length)?;
        at += length;
    }
    Ok(())
}

impl Template {
    /// Reads all but the pages, and checks what is there.
    pub fn open(file: File, memory: u64) -> io::Result<Self> {
        let mut start = [0; HEAD_AT as usize];
        file.read_exact_at(&mut start, 0)?;
        let (magic, rest) = start.split_at(MAGIC.len());
        let (length, expected) = rest.split_at(4);
        if magic != MAGIC {
            return Err(invalid("it is none"));
        }
        let length = u32::from_le_bytes(length.try_into().unwrap_or_default());
        if length > HEAD_LIMIT {
            return Err(invalid("its head is too long"));
        }
        let mut head_bytes = vec![0; length as usize];
        file.read_exact_at(&mut head_bytes, HEAD_AT)?;
        let head: Head = serde_json::from_slice(&head_bytes)?;
        if head.state > STATE_LIMIT {
            return Err(invalid("its state is too long"));
        }
        let state_at = HEAD_AT + u64::from(length);
        let mut state = vec![0; usize::try_from(head.state).map_err(io::Error::other)?];
        file.read_exact_at(&mut state, state_at)?;
        if digest(&head_bytes, &state)[..] != *expected {
            return Err(invalid("its digest is wrong"));
        }
        if head.memory != memory {
            return Err(invalid("it is of a machine with another memory"));
        }
        let pages_at = state_at + head.state;
        let pages = check(&head)?;
        if file.metadata()?.len() != pages_at + pages {
            return Err(invalid("it is not as long as it should be"));
        }
        Ok(Self {
            file,
            memory,
            parts: head.parts,
            pages_at,
            state,
        })
    }

    /// Copies the pages to where they belong in an empty memory of the same size.
    pub fn fill(&self, memory: &File) -> io::Result<()> {
        debug_assert_eq!(
            memory.metadata().map(|data| data.len()).ok(),
            Some(self.memory)
        );
        let mut at = self.pages_at;
        for &(begin, length) in &self.parts {
            memory::copy((&self.file, at), (memory, begin), length)?;
            at += length;
        }
        Ok(())
    }
}

/// Whether the parts are whole pages within the memory, in order; their length.
fn check(head: &Head) -> io::Result<u64> {
    let mut end = 0;
    let mut sum = 0;
    for &(begin, length) in &head.parts {
        let next = begin
            .checked_add(length)
            .filter(|&next| next <= head.memory);
        let whole = begin.is_multiple_of(PAGE) && length.is_multiple_of(PAGE) && length > 0;
        match next {
            Some(next) if whole && begin >= end => end = next,
            _ => return Err(invalid("its parts are not those of a memory")),
        }
        sum += length;
    }
    Ok(sum)
}

fn digest(head: &[u8], state: &[u8]) -> [u8; DIGEST] {
    Sha256::new()
        .chain_update(head)
        .chain_update(state)
        .finalize()
        .into()
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMORY: u64 = 64 << 20;

    fn template() -> File {
        let memory = memory::empty(MEMORY).expect("a memory");
        for page in [0, 7, 8, 16_383] {
            let bytes = [u8::try_from(page % 251 + 1).expect("small"); 4096];
            memory.write_all_at(&bytes, page * PAGE).expect("written");
        }
        let file = tempfile::tempfile().expect("a file");
        write(&file, (&memory, MEMORY), b"devices").expect("written");
        file
    }

    fn open(file: &File) -> io::Result<Template> {
        Template::open(file.try_clone().expect("a descriptor"), MEMORY)
    }

    #[test]
    fn what_was_written_is_read() {
        let template = open(&template()).expect("a template");
        assert_eq!(template.state, b"devices");
        let memory = memory::empty(MEMORY).expect("a memory");
        template.fill(&memory).expect("filled");
        for (page, byte) in [(0, 1), (1, 0), (8, 9), (16_383, 69)] {
            let mut read = [0; 4096];
            memory.read_exact_at(&mut read, page * PAGE).expect("read");
            assert_eq!(read, [byte; 4096], "page {page}");
        }
    }

    #[test]
    fn any_damage_of_head_or_state_is_noticed() {
        let whole = template();
        let length = whole.metadata().expect("metadata").len();
        let head = length - 4 * PAGE;
        for at in 0..head {
            let mut byte = [0];
            whole.read_exact_at(&mut byte, at).expect("read");
            whole.write_all_at(&[byte[0] ^ 0x20], at).expect("written");
            assert!(open(&whole).is_err(), "byte {at}");
            whole.write_all_at(&byte, at).expect("written");
        }
        assert!(open(&whole).is_ok());
        for wrong in [0, 4, 43, 44, head - 1, head, length - 1, length + 1] {
            let file = template();
            file.set_len(wrong).expect("another length");
            assert!(open(&file).is_err(), "{wrong} bytes");
        }
    }

    #[test]
    fn a_template_of_another_size_is_refused() {
        assert!(Template::open(template(), MEMORY * 2).is_err());
    }

    #[test]
    fn parts_outside_the_memory_are_refused() {
        let check = |parts: &[(u64, u64)]| {
            check(&Head {
                memory: MEMORY,
                state: 0,
                parts: parts.to_vec(),
            })
        };
        assert_eq!(check(&[(0, PAGE), (PAGE, PAGE)]).expect("good"), 2 * PAGE);
        for bad in [
            vec![(MEMORY, PAGE)],
            vec![(0, MEMORY + PAGE)],
            vec![(u64::MAX - 4095, PAGE)],
            vec![(PAGE, PAGE), (0, PAGE)],
            vec![(0, 2 * PAGE), (PAGE, PAGE)],
            vec![(1, PAGE)],
            vec![(0, 5)],
            vec![(0, 0)],
        ] {
            assert!(check(&bad).is_err(), "{bad:?}");
        }
    }
}
