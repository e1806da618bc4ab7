//! Files with holes: where the stored bytes belong.

use std::io::{self, Read};

use tar::GnuSparseHeader;

use super::pax::{self, PaxSparse};
use super::tar::{BLOCK, TarReader, invalid};

/// Pieces that a map may have. GNU tar needs one per hole.
const MOST_PIECES: usize = 1 << 16;

/// A sparse file's stored pieces, in the order of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SparseMap {
    /// Length of the file with its holes.
    pub(crate) real_size: u64,
    /// Offset in the file and length.
    pub(crate) pieces: Vec<(u64, u64)>,
}

impl SparseMap {
    pub(super) fn new(real_size: u64) -> Self {
        Self {
            real_size,
            pieces: Vec::new(),
        }
    }

    fn push(&mut self, offset: u64, length: u64) -> io::Result<()> {
        if self.pieces.len() >= MOST_PIECES {
            return Err(invalid(format!(
                "a sparse file has more than {MOST_PIECES} pieces"
            )));
        }
        self.pieces.push((offset, length));
        Ok(())
    }

    /// Pieces must follow each other inside the file and need exactly the bytes that are stored.
    pub(super) fn check(&self, stored: u64) -> io::Result<()> {
        let mut end = 0_u64;
        let mut sum = 0_u64;
        for (offset, length) in &self.pieces {
            let next = offset.checked_add(*length);
            match next {
                Some(next) if *offset >= end && next <= self.real_size => end = next,
                _ => return Err(invalid("a sparse file's map is not in order".to_owned())),
            }
            sum += length;
        }
        if sum != stored || i64::try_from(self.real_size).is_err() {
            return Err(invalid(format!(
                "a sparse file's map covers {sum} bytes where {stored} are stored"
            )));
        }
        Ok(())
    }
}

/// Adds one piece of the old GNU format; unused slots are skipped.
pub(super) fn push_gnu(map: &mut SparseMap, part: &GnuSparseHeader) -> io::Result<()> {
    if part.is_empty() {
        return Ok(());
    }
    map.push(part.offset()?, part.length()?)
}

/// Reads the map of the PAX formats 0.1 and 1.0.
pub(super) fn from_pax<R: Read>(
    declared: PaxSparse,
    content: &mut TarReader<R>,
) -> io::Result<SparseMap> {
    let real_size = declared
        .real_size
        .ok_or_else(|| invalid("a sparse file without its real size".to_owned()))?;
    let mut map = SparseMap::new(real_size);
    let wrong = || invalid("a sparse file's map is malformed".to_owned());
    if declared.map_in_content {
        let mut numbers = MapInContent {
            content,
            block: Vec::new(),
            at: 0,
        };
        let count = numbers.next()?;
        if count > MOST_PIECES as u64 {
            return Err(wrong());
        }
        for _ in 0..count {
            let offset = numbers.next()?;
            let length = numbers.next()?;
            map.push(offset, length)?;
        }
    } else {
        let text = declared.map.ok_or_else(wrong)?;
        let mut numbers = text.split(|byte| *byte == b',').map(pax::number);
        while let Some(offset) = numbers.next() {
            let length = numbers.next().flatten();
            let (Some(offset), Some(length)) = (offset, length) else {
                return Err(wrong());
            };
            map.push(offset, length)?;
        }
    }
    // GNU tar ends a map with an empty piece at the file's end.
    map.pieces.retain(|(_, length)| *length > 0);
    Ok(map)
}

/// Decimal numbers, one a line, padded to whole blocks.
struct MapInContent<'a, R> {
    content: &'a mut TarReader<R>,
    block: Vec<u8>,
    at: usize,
}

impl<R: Read> MapInContent<'_, R> {
    fn next(&mut self) -> io::Result<u64> {
        let mut digits = Vec::new();
        loop {
            if self.at == self.block.len() {
                self.block.resize(BLOCK, 0);
                self.content.read_exact(&mut self.block)?;
                self.at = 0;
            }
            let byte = self.block[self.at];
            self.at += 1;
            match byte {
                b'\n' => break,
                _ if digits.len() < 20 => digits.push(byte),
                _ => break,
            }
        }
        pax::number(&digits).ok_or_else(|| invalid("a sparse file's map is malformed".to_owned()))
    }
}
