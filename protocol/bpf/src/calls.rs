//! bpf(2).
#![expect(unsafe_code, reason = "bpf has no safe wrapper")]
// UNSAFETY: bpf(2) takes a pointer to a union and its size. The structures below are the members for the commands used,
// as in linux/bpf.h, fully initialised; pointers in them are to memory that the caller of `bpf` keeps alive.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::Instruction;

const MAP_CREATE: i32 = 0;
const MAP_UPDATE: i32 = 2;
const PROGRAM_LOAD: i32 = 5;
const PROGRAM_ATTACH: i32 = 8;
const LINK_CREATE: i32 = 28;

/// `BPF_MAP_TYPE_SOCKMAP`.
const SOCKET_MAP: u32 = 15;

/// The kernel gives up checking a program when a signal comes: a child may end at any moment.
const ATTEMPTS: usize = 100;

#[repr(C)]
#[derive(Default)]
struct NewMap {
    kind: u32,
    key_size: u32,
    value_size: u32,
    entries: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct Update {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
}

#[repr(C)]
#[derive(Default)]
struct Attach {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
    replaced: u32,
}

#[repr(C)]
#[derive(Default)]
struct NewLink {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
}

fn bpf<T>(command: i32, attributes: &mut T) -> io::Result<i32> {
    let mut result = once(command, attributes);
    for _ in 1..ATTEMPTS {
        match &result {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => break,
        }
        result = once(command, attributes);
    }
    result
}

fn once<T>(command: i32, attributes: &mut T) -> io::Result<i32> {
    let size = size_of::<T>();
    // SAFETY: `attributes` is one of the structures above, whose pointers are to memory that outlives the call.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(done).map_err(io::Error::other)
}

fn owned(descriptor: i32) -> OwnedFd {
    // SAFETY: the commands that this is called after return a new descriptor, which nobody else owns.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

fn number(descriptor: &impl AsRawFd) -> io::Result<u32> {
    u32::try_from(descriptor.as_raw_fd()).map_err(io::Error::other)
}

/// A map of sockets by small numbers.
///
/// # Errors
/// The kernel's answer.
pub fn socket_map(entries: u32) -> io::Result<OwnedFd> {
    bpf(
        MAP_CREATE,
        &mut NewMap {
            kind: SOCKET_MAP,
            key_size: 4,
            value_size: 8,
            entries,
            ..NewMap::default()
        },
    )
    .map(owned)
}

/// Puts a socket into a map.
///
/// # Errors
/// The kernel's answer: it is no socket that listens or is connected, or there is no such place.
pub fn insert(map: &OwnedFd, key: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
    let value = u64::from(number(&socket)?);
    bpf(
        MAP_UPDATE,
        &mut Update {
            map: number(map)?,
            key: (&raw const key) as u64,
            value: (&raw const value) as u64,
            ..Update::default()
        },
    )
    .map(drop)
}

/// Loads a program of this kind (`BPF_PROG_TYPE_…`) for this place (`BPF_…`, 0: any).
///
/// # Errors
/// The kernel's answer: it does not take the program, or anything from this process.
pub fn load(
    kind: u32,
    attach_type: u32,
    program: &(impl AsRef<[Instruction]> + ?Sized),
) -> io::Result<OwnedFd> {
    let program = program.as_ref();
    let license = c"Apache-2.0";
    bpf(
        PROGRAM_LOAD,
        &mut Load {
            kind,
            count: u32::try_from(program.len()).map_err(io::Error::other)?,
            instructions: program.as_ptr() as u64,
            license: license.as_ptr() as u64,
            attach_type,
            ..Load::default()
        },
    )
    .map(owned)
}

/// Has a program run in this place of what `target` stands for, until the answer is closed.
///
/// # Errors
/// The kernel's answer: another program may be there already.
pub fn link(program: &OwnedFd, target: BorrowedFd<'_>, attach_type: u32) -> io::Result<OwnedFd> {
    bpf(
        LINK_CREATE,
        &mut NewLink {
            program: number(program)?,
            target: number(&target)?,
            attach_type,
            flags: 0,
        },
    )
    .map(owned)
}

/// Makes a program the one in this place of a control group, in place of an earlier one, as long as the group is there.
///
/// # Errors
/// The kernel's answer.
pub fn attach(program: &OwnedFd, group: BorrowedFd<'_>, attach_type: u32) -> io::Result<()> {
    bpf(
        PROGRAM_ATTACH,
        &mut Attach {
            target: number(&group)?,
            program: number(program)?,
            attach_type,
            // No flags: a program attached before is replaced, one below needs no permission.
            ..Attach::default()
        },
    )
    .map(drop)
}
