//! A streaming tar reader with bounds.
//!
//! The `tar` crate parses the header block; the sequence of blocks is read here, because that
//! crate collects extended headers of any length in memory and splits PAX records at newlines,
//! which binary attribute values contain. Formats: POSIX.1-2017 `pax`, GNU tar's manual
//! appendix D.

use std::io::{self, Read, Seek, SeekFrom};

use tar::{EntryType, Header};

use super::pax::{self, PaxRecords};
use super::sparse::{self, SparseMap};

/// Length of a tar block.
pub(crate) const BLOCK: usize = 512;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink,
    HardLink,
    Fifo,
    CharDevice,
    BlockDevice,
    /// A type flag that nothing here understands.
    Unknown(u8),
}

/// One entry, long names and extended headers already applied.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    /// As written in the archive: not trusted in any way.
    pub(crate) path: Vec<u8>,
    /// Target of a link, as written in the archive.
    pub(crate) link: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    /// Seconds and nanoseconds since 1970.
    pub(crate) mtime: (i64, u32),
    /// Bytes of content that follow in the stream.
    pub(crate) stored_size: u64,
    /// Where the content lies when the file has holes.
    pub(crate) sparse: Option<SparseMap>,
    /// Extended attributes, names without the `SCHILY.xattr.` prefix.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Major and minor number of a device.
    pub(crate) device: (u32, u32),
    /// Where the content begins in the stream.
    pub(crate) offset: u64,
}

/// Reads entries one after another; content that the caller leaves unread is skipped.
pub(crate) struct TarReader<R> {
    input: R,
    skip: fn(&mut R, u64) -> io::Result<()>,
    header_limit: u64,
    position: u64,
    content_left: u64,
    padding: u64,
}

impl<R: Read> TarReader<R> {
    /// Reads from a stream. No extended header may be longer than `header_limit` bytes.
    pub(crate) fn new(input: R, header_limit: u64) -> Self {
        Self::with_skip(input, header_limit, |input, count| {
            if io::copy(&mut input.take(count), &mut io::sink())? < count {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Ok(())
        })
    }

    fn with_skip(input: R, header_limit: u64, skip: fn(&mut R, u64) -> io::Result<()>) -> Self {
        Self {
            input,
            skip,
            header_limit,
            position: 0,
            content_left: 0,
            padding: 0,
        }
    }

    pub(crate) fn into_inner(self) -> R {
        self.input
    }

    /// The next entry, or `None` at the end of the archive.
    pub(crate) fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        let mut long_path = None;
        let mut long_link = None;
        let mut records = PaxRecords::default();
        loop {
            let Some(header) = self.next_header()? else {
                return Ok(None);
            };
            let flag = header.as_old().linkflag[0];
            match flag {
                b'L' => long_path = Some(self.read_long_name(&header)?),
                b'K' => long_link = Some(self.read_long_name(&header)?),
                b'x' => {
                    let body = self.read_extension(&header)?;
                    records = pax::parse(&body)?;
                }
                // Global records (a comment, from git) change no entry: docker ignores them too.
                b'g' => {
                    self.read_extension(&header)?;
                }
                _ => {
                    let entry = self.entry(&header, long_path, long_link, records)?;
                    return Ok(Some(entry));
                }
            }
        }
    }

    fn entry(
        &mut self,
        header: &Header,
        long_path: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
        mut records: PaxRecords,
    ) -> io::Result<Entry> {
        let path = records
            .path
            .take()
            .or(long_path)
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let link = records.link.take().or(long_link).unwrap_or_else(|| {
            header
                .link_name_bytes()
                .map(std::borrow::Cow::into_owned)
                .unwrap_or_default()
        });
        let kind = kind_of(header, &path);
        let has_content = matches!(kind, Kind::File | Kind::Unknown(_));
        let fields = header.as_old();
        let size = match records.size {
            Some(size) => size,
            None => unsigned(&fields.size)?,
        };
        self.begin_content(if has_content { size } else { 0 })?;
        let mut entry = Entry {
            kind,
            path,
            link,
            mode: (unsigned(&fields.mode)? & 0o7777) as u32,
            uid: records.uid.map_or_else(|| unsigned(&fields.uid), Ok)?,
            gid: records.gid.map_or_else(|| unsigned(&fields.gid), Ok)?,
            mtime: match records.mtime {
                Some(time) => time,
                None => (number(&fields.mtime)?, 0),
            },
            stored_size: self.content_left,
            sparse: None,
            xattrs: std::mem::take(&mut records.xattrs),
            device: match kind {
                Kind::CharDevice | Kind::BlockDevice => device(header)?,
                _ => (0, 0),
            },
            offset: 0,
        };
        if header.entry_type() == EntryType::GNUSparse {
            entry.sparse = Some(self.read_gnu_sparse(header)?);
        } else if let Some(declared) = records.sparse.take() {
            if let Some(name) = declared.name.clone() {
                entry.path = name;
            }
            entry.sparse = Some(sparse::from_pax(declared, self)?);
        }
        entry.stored_size = self.content_left;
        entry.offset = self.position;
        if let Some(map) = &entry.sparse {
            map.check(entry.stored_size)?;
        }
        Ok(entry)
    }

    /// Skips what is left of the entry before and reads a checked header; `None` at the end.
    fn next_header(&mut self) -> io::Result<Option<Header>> {
        let rest = self.content_left.saturating_add(self.padding);
        if rest > 0 {
            (self.skip)(&mut self.input, rest)?;
            self.position += rest;
            self.content_left = 0;
            self.padding = 0;
        }
        let mut block = [0; BLOCK];
        if !self.read_block(&mut block)? || block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let header = Header::from_byte_slice(&block);
        if unsigned(&header.as_old().cksum)? != checksum(&block) {
            return Err(invalid(format!(
                "tar header at byte {} has a wrong checksum",
                self.position - BLOCK as u64
            )));
        }
        Ok(Some(header.clone()))
    }

    /// False at a clean end of the stream.
    fn read_block(&mut self, block: &mut [u8; BLOCK]) -> io::Result<bool> {
        let mut filled = 0;
        while filled < BLOCK {
            match self.input.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.position += BLOCK as u64;
        Ok(true)
    }

    fn begin_content(&mut self, size: u64) -> io::Result<()> {
        // Far above any real size, and low enough that no sum below can overflow.
        if size > 1 << 60 {
            return Err(invalid(format!("an entry claims to have {size} bytes")));
        }
        self.content_left = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        Ok(())
    }

    fn read_extension(&mut self, header: &Header) -> io::Result<Vec<u8>> {
        let size = unsigned(&header.as_old().size)?;
        if size > self.header_limit {
            return Err(invalid(format!(
                "an extended header has {size} bytes, more than the limit of {}",
                self.header_limit
            )));
        }
        self.begin_content(size)?;
        let mut body = Vec::new();
        self.read_to_end(&mut body)?;
        Ok(body)
    }

    fn read_long_name(&mut self, header: &Header) -> io::Result<Vec<u8>> {
        let mut name = self.read_extension(header)?;
        if let Some(end) = name.iter().position(|byte| *byte == 0) {
            name.truncate(end);
        }
        Ok(name)
    }

    fn read_gnu_sparse(&mut self, header: &Header) -> io::Result<SparseMap> {
        let gnu = header
            .as_gnu()
            .ok_or_else(|| invalid("a sparse entry without a GNU header".to_owned()))?;
        let mut map = SparseMap::new(gnu.real_size()?);
        for part in &gnu.sparse {
            sparse::push_gnu(&mut map, part)?;
        }
        let mut more = gnu.is_extended();
        while more {
            // These blocks lie in front of the content and are not counted in its size.
            let mut block = tar::GnuExtSparseHeader::new();
            if !self.read_block(block.as_mut_bytes())? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            for part in block.sparse() {
                sparse::push_gnu(&mut map, part)?;
            }
            more = block.is_extended();
        }
        Ok(map)
    }
}

impl<R: Read + Seek> TarReader<R> {
    /// Reads from a file, where skipping costs nothing. A skip past the end is not noticed: the
    /// caller compares offsets with the file's length.
    pub(crate) fn seekable(input: R, header_limit: u64) -> Self {
        Self::with_skip(input, header_limit, |input, count| {
            let count = i64::try_from(count).map_err(|_| io::ErrorKind::InvalidData)?;
            input.seek(SeekFrom::Current(count)).map(drop)
        })
    }
}

/// Reads the content of the current entry.
impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.content_left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        if wanted == 0 {
            return Ok(0);
        }
        let count = self.input.read(&mut buffer[..wanted])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.content_left -= count as u64;
        self.position += count as u64;
        Ok(count)
    }
}

fn kind_of(header: &Header, path: &[u8]) -> Kind {
    match header.as_old().linkflag[0] {
        // Version 7 tar had no type for directories, and some writers still follow it.
        b'0' | 0 | b'7' if path.ends_with(b"/") => Kind::Directory,
        b'0' | 0 | b'7' | b'S' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' => Kind::CharDevice,
        b'4' => Kind::BlockDevice,
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        other => Kind::Unknown(other),
    }
}

/// The sum of all bytes, those of the checksum field counted as spaces.
fn checksum(block: &[u8; BLOCK]) -> u64 {
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
    sum(&block[..148]) + 8 * u64::from(b' ') + sum(&block[156..])
}

/// A numeric field: octal digits between spaces and NUL bytes, or GNU's binary form, whose first
/// bit is set. An empty field is zero, as everyone reads it (the `tar` crate does not).
fn number(field: &[u8]) -> io::Result<i64> {
    let wrong = || {
        invalid(format!(
            "{:?} is not a number of a tar header",
            String::from_utf8_lossy(field)
        ))
    };
    if let Some(first) = field.first().filter(|first| **first & 0x80 != 0) {
        // Two's complement over the field without its first bit.
        let start: i128 = if first & 0x40 != 0 { -1 } else { 0 };
        let value = field
            .iter()
            .enumerate()
            .fold(start, |value, (index, byte)| {
                let byte = if index == 0 {
                    byte & 0x7f | (start as u8 & 0x80)
                } else {
                    *byte
                };
                (value << 8) | i128::from(byte)
            });
        return i64::try_from(value).map_err(|_| wrong());
    }
    let end = field
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(field.len());
    let digits = field[..end].trim_ascii();
    if digits.is_empty() {
        return Ok(0);
    }
    std::str::from_utf8(digits)
        .ok()
        .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|digits| i64::from_str_radix(digits, 8).ok())
        .ok_or_else(wrong)
}

fn unsigned(field: &[u8]) -> io::Result<u64> {
    u64::try_from(number(field)?)
        .map_err(|_| invalid("a negative number in a tar header".to_owned()))
}

/// Major and minor number; the oldest format has neither.
fn device(header: &Header) -> io::Result<(u32, u32)> {
    let (major, minor) = match (header.as_ustar(), header.as_gnu()) {
        (Some(ustar), _) => (ustar.dev_major, ustar.dev_minor),
        (None, Some(gnu)) => (gnu.dev_major, gnu.dev_minor),
        (None, None) => return Ok((0, 0)),
    };
    let part = |field: [u8; 8]| {
        u32::try_from(number(&field)?)
            .map_err(|_| invalid("a device number out of range".to_owned()))
    };
    Ok((part(major)?, part(minor)?))
}

pub(super) fn invalid(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_two_forms() {
        for (field, value) in [
            (&b"0000644\0"[..], 0o644),
            (b"   755 \0", 0o755),
            (b"\0\0\0\0\0\0\0\0", 0),
            (b"        ", 0),
            (b"77777777", 0o77_777_777),
            (b"\x80\0\0\0\0\0\x01\x02", 258),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", -2),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00", -256),
        ] {
            assert_eq!(number(field).unwrap(), value, "{field:?}");
        }
        for bad in [
            &b"8"[..],
            b"-1",
            b"0x1",
            b"1 2",
            b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            assert!(number(bad).is_err(), "{bad:?}");
        }
    }
}
