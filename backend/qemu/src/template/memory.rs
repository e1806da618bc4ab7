//! A guest's memory as a file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, SeekFrom, memfd_create, seek};
use rustix::io::Errno;

/// Memory is looked at and copied in pieces of this size.
pub const PAGE: u64 = 4096;

/// A piece that fits a processor's cache: it is read and written at once.
const PIECE: usize = 128 << 10;

/// An empty memory, which QEMU may open again by its descriptor.
pub fn empty(size: u64) -> io::Result<File> {
    let file = File::from(memfd_create("ram", MemfdFlags::CLOEXEC)?);
    file.set_len(size)?;
    Ok(file)
}

/// The parts that hold anything but zeroes: where they begin and how long they are, in order.
pub fn used(memory: &File) -> io::Result<Vec<(u64, u64)>> {
    let mut parts: Vec<(u64, u64)> = Vec::new();
    let mut page = [0; PAGE as usize];
    let mut at = 0;
    while let Some(start) = find(memory, SeekFrom::Data(at))? {
        let Some(end) = find(memory, SeekFrom::Hole(start))? else {
            break;
        };
        for offset in (start..end).step_by(page.len()) {
            memory.read_exact_at(&mut page, offset)?;
            if page == [0; PAGE as usize] {
                continue;
            }
            match parts.last_mut() {
                Some((begin, length)) if *begin + *length == offset => *length += PAGE,
                _ => parts.push((offset, PAGE)),
            }
        }
        at = end;
    }
    Ok(parts)
}

fn find(memory: &File, from: SeekFrom) -> io::Result<Option<u64>> {
    match seek(memory, from) {
        Ok(offset) => Ok(Some(offset)),
        // There is no more.
        Err(Errno::NXIO) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Copies `length` bytes between files.
pub fn copy(from: (&File, u64), to: (&File, u64), length: u64) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    let mut done = 0;
    while done < length {
        let size = usize::try_from(length - done).map_or(PIECE, |rest| rest.min(PIECE));
        from.0.read_exact_at(&mut piece[..size], from.1 + done)?;
        to.0.write_all_at(&piece[..size], to.1 + done)?;
        done += size as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_zeroes_do_not_count_and_neighbours_are_one_part() {
        let memory = empty(64 * PAGE).expect("a memory");
        for page in [3, 4, 5, 20] {
            memory.write_all_at(&[7], page * PAGE + 9).expect("written");
        }
        memory.write_all_at(&[0; 4096], 40 * PAGE).expect("written");
        assert_eq!(
            used(&memory).expect("parts"),
            [(3 * PAGE, 3 * PAGE), (20 * PAGE, PAGE)]
        );
        assert_eq!(used(&empty(PAGE).expect("a memory")).expect("parts"), []);
    }

    #[test]
    fn a_copy_is_the_same() {
        let (from, to) = (empty(4 << 20).expect("one"), empty(4 << 20).expect("two"));
        let bytes: Vec<u8> = (0..300_000_u32).map(|n| n.to_le_bytes()[1]).collect();
        from.write_all_at(&bytes, 1000).expect("written");
        copy((&from, 1000), (&to, 5), 300_000).expect("copied");
        let mut read = vec![0; bytes.len()];
        to.read_exact_at(&mut read, 5).expect("read");
        assert!(read == bytes);
        let beyond = copy((&from, (4 << 20) - 1), (&to, 0), 2);
        assert!(beyond.is_err());
    }
}
