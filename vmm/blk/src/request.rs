//! What a driver asks for (5.2.6).
//!
//! ```text
//!   readable: type, reserved, sector ▏ data to write, or a segment to discard
//!   writable: data that is read      ▏ status, the last byte
//! ```
//!
//! How this is cut into descriptors is the driver's business.

use std::sync::Arc;

use vm_memory::VolatileSlice;
use vmm_virtio::{Broken, Chain, Memory, copy_from, copy_to, total};

use crate::buffers::{Buffers, StatusByte};
use crate::configuration::{MOST_DISCARDED, MOST_ZEROED, SECTOR};
use crate::engine::{Action, Job};

/// Types of requests.
mod kind {
    pub(super) const IN: u32 = 0;
    pub(super) const OUT: u32 = 1;
    pub(super) const FLUSH: u32 = 4;
    pub(super) const GET_ID: u32 = 8;
    pub(super) const DISCARD: u32 = 11;
    pub(super) const WRITE_ZEROES: u32 = 13;
}

/// The length of type, a reserved field and a sector.
const HEADER: usize = 16;

/// `VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP`.
const UNMAP: u32 = 1;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    Ok = 0,
    IoError = 1,
    Unsupported = 2,
}

/// What requests are checked against.
pub(crate) struct Terms {
    /// How many bytes there are: as told to the driver, and in truth.
    pub(crate) end: u64,
    /// What offsets and lengths are multiples of.
    pub(crate) granule: u64,
    pub(crate) read_only: bool,
    pub(crate) discard: bool,
    pub(crate) zero: bool,
    /// What is written must be on the medium when the driver hears of it.
    pub(crate) write_through: bool,
    pub(crate) serial: [u8; 20],
}

/// Who has asked, and how to answer.
pub(crate) struct Request {
    pub(crate) queue: u16,
    pub(crate) head: u16,
    pub(crate) kind: Kind,
    /// How many bytes it moves, or covers.
    pub(crate) bytes: u64,
    pub(crate) status: StatusByte,
    /// How much of the writable part is valid, from its beginning: after success, and after failure.
    pub(crate) success: u32,
    pub(crate) failure: u32,
    /// To be followed by a flush.
    pub(crate) sync_after: bool,
    /// How often the host wanted it to be tried again.
    pub(crate) attempts: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Write,
    Flush,
    Discard,
    Zero,
    /// What is answered at once.
    Other,
}

/// What to do about a request.
pub(crate) enum Parsed {
    Job(Box<Job>),
    Answer(Request, Code),
}

impl Parsed {
    /// What it costs, in bytes.
    pub(crate) fn cost(&self) -> u64 {
        match self {
            // A discard moves nothing; zeros may have to be written.
            Self::Job(job) if job.action != Action::Discard => job.request.bytes,
            _ => 0,
        }
    }
}

/// Understands a request.
///
/// # Errors
/// [`Broken`] when there is no room for a status: then there is no way to tell the driver.
pub(crate) fn parse(
    chain: &Chain<'_>,
    queue: u16,
    memory: &Arc<Memory>,
    terms: &Terms,
) -> Result<Parsed, Broken> {
    const NO_STATUS: Broken = Broken("a request has no room for its status");
    let room = total(&chain.writable).checked_sub(1).ok_or(NO_STATUS)?;
    let (input, status) = split(&chain.writable, room)?;
    let status = status
        .iter()
        .find_map(|slice| StatusByte::of(memory, slice))
        .ok_or(NO_STATUS)?;
    let mut header = [0; HEADER];
    let complete = copy_from(&chain.readable, &mut header) == HEADER;
    let (_, output) = split(&chain.readable, HEADER)?;
    let (kind, sector) = read_header(header);
    // The status is the only valid byte, if it is the first.
    let only_status = u32::from(room == 0);
    let mut request = Request {
        queue,
        head: chain.head(),
        kind: Kind::Other,
        bytes: 0,
        status,
        success: only_status,
        failure: only_status,
        sync_after: false,
        attempts: 0,
    };
    if !complete {
        return Ok(Parsed::Answer(request, Code::IoError));
    }
    let task = match kind {
        kind::IN => terms.read(sector, &input, memory, &mut request),
        kind::OUT => terms.write(sector, &output, memory, &mut request),
        kind::FLUSH => terms.flush(&mut request),
        kind::GET_ID => terms.identify(&input, &mut request),
        kind::DISCARD if terms.discard => terms.discard(&output, &mut request),
        kind::WRITE_ZEROES if terms.zero => terms.zero(&output, &mut request),
        _ => Err(Code::Unsupported),
    };
    Ok(match task {
        Err(code) => Parsed::Answer(request, code),
        Ok(task) => Parsed::Job(Box::new(Job {
            action: task.action,
            offset: task.offset,
            length: request.bytes,
            buffers: task.buffers,
            request,
        })),
    })
}

struct Task {
    action: Action,
    offset: u64,
    buffers: Buffers,
}

impl Terms {
    fn read(
        &self,
        sector: u64,
        input: &[VolatileSlice<'_>],
        memory: &Arc<Memory>,
        request: &mut Request,
    ) -> Result<Task, Code> {
        request.kind = Kind::Read;
        let all = total(input) as u64 + 1;
        request.success = u32::try_from(all).map_err(|_| Code::IoError)?;
        self.transfer(Action::Read, sector, input, memory, request)
    }

    fn write(
        &self,
        sector: u64,
        output: &[VolatileSlice<'_>],
        memory: &Arc<Memory>,
        request: &mut Request,
    ) -> Result<Task, Code> {
        request.kind = Kind::Write;
        let action = Action::Write {
            durable: self.write_through,
        };
        self.transfer(action, sector, output, memory, request)
    }

    fn transfer(
        &self,
        action: Action,
        sector: u64,
        data: &[VolatileSlice<'_>],
        memory: &Arc<Memory>,
        request: &mut Request,
    ) -> Result<Task, Code> {
        if self.read_only && action != Action::Read {
            return Err(Code::IoError);
        }
        request.bytes = total(data) as u64;
        let offset = self.range(sector, request.bytes)?;
        if request.bytes == 0 {
            return Err(Code::Ok);
        }
        Ok(Task {
            action,
            offset,
            buffers: Buffers::of(memory, data).ok_or(Code::IoError)?,
        })
    }

    fn flush(&self, request: &mut Request) -> Result<Task, Code> {
        request.kind = Kind::Flush;
        // What can't be written is on the medium.
        if self.read_only {
            return Err(Code::Ok);
        }
        Ok(Task {
            action: Action::Sync,
            offset: 0,
            buffers: Buffers::none(),
        })
    }

    /// The serial number (5.2.6.1): 20 bytes, of which a driver with less room gets fewer.
    fn identify(&self, input: &[VolatileSlice<'_>], request: &mut Request) -> Result<Task, Code> {
        let written = copy_to(input, &self.serial);
        let with_status = written + usize::from(written == total(input));
        // At most 21.
        request.success = with_status as u32;
        Err(Code::Ok)
    }

    fn discard(&self, output: &[VolatileSlice<'_>], request: &mut Request) -> Result<Task, Code> {
        request.kind = Kind::Discard;
        let (sector, count, flags) = segment(output)?;
        // No flag means anything here, unmapping least of all.
        if flags != 0 {
            return Err(Code::Unsupported);
        }
        self.cover(Action::Discard, sector, count, MOST_DISCARDED, request)
    }

    fn zero(&self, output: &[VolatileSlice<'_>], request: &mut Request) -> Result<Task, Code> {
        request.kind = Kind::Zero;
        let (sector, count, flags) = segment(output)?;
        if flags & !UNMAP != 0 {
            return Err(Code::Unsupported);
        }
        let action = Action::Zero {
            unmap: flags & UNMAP != 0,
        };
        self.cover(action, sector, count, MOST_ZEROED, request)
    }

    fn cover(
        &self,
        action: Action,
        sector: u64,
        count: u32,
        most: u32,
        request: &mut Request,
    ) -> Result<Task, Code> {
        if self.read_only || count > most {
            return Err(Code::IoError);
        }
        request.bytes = u64::from(count) * SECTOR;
        // What was discarded may come back after a crash; zeros may not be lost.
        request.sync_after = self.write_through && action != Action::Discard;
        let offset = self.range(sector, request.bytes)?;
        if count == 0 {
            return Err(Code::Ok);
        }
        Ok(Task {
            action,
            offset,
            buffers: Buffers::none(),
        })
    }

    /// Where a range begins in the file, if it is one of whole blocks and lies within.
    fn range(&self, sector: u64, length: u64) -> Result<u64, Code> {
        let offset = sector.checked_mul(SECTOR).ok_or(Code::IoError)?;
        let end = offset.checked_add(length).ok_or(Code::IoError)?;
        let whole = offset.is_multiple_of(self.granule) && length.is_multiple_of(self.granule);
        if whole && end <= self.end {
            Ok(offset)
        } else {
            Err(Code::IoError)
        }
    }
}

fn read_header(header: [u8; HEADER]) -> (u32, u64) {
    let [a, b, c, d, _, _, _, _, sector @ ..] = header;
    (u32::from_le_bytes([a, b, c, d]), u64::from_le_bytes(sector))
}

/// Sector, number of sectors and flags of the one segment that a request has.
fn segment(output: &[VolatileSlice<'_>]) -> Result<(u64, u32, u32), Code> {
    let mut bytes = [0; 16];
    if total(output) != bytes.len() || copy_from(output, &mut bytes) != bytes.len() {
        return Err(Code::IoError);
    }
    let [sector @ .., a, b, c, d, e, f, g, h] = bytes;
    Ok((
        u64::from_le_bytes(sector),
        u32::from_le_bytes([a, b, c, d]),
        u32::from_le_bytes([e, f, g, h]),
    ))
}

type Slices<'m> = Vec<VolatileSlice<'m>>;

/// Cuts slices in two behind so many bytes.
fn split<'m>(
    slices: &[VolatileSlice<'m>],
    mut at: usize,
) -> Result<(Slices<'m>, Slices<'m>), Broken> {
    const WRONG: Broken = Broken("a slice has another length than it has");
    let (mut before, mut behind) = (Vec::with_capacity(slices.len()), Vec::new());
    for slice in slices {
        let first = at.min(slice.len());
        if first > 0 {
            before.push(slice.subslice(0, first).map_err(|_| WRONG)?);
        }
        if first < slice.len() {
            behind.push(slice.offset(first).map_err(|_| WRONG)?);
        }
        at -= first;
    }
    Ok((before, behind))
}
