//! Device programs of cgroups (BPF_PROG_TYPE_CGROUP_DEVICE).
// UNSAFETY: bpf(2) takes a pointer to a union and its size. The two structures below are the
// members for the two commands used, as in linux/bpf.h, fully initialised.
#![expect(unsafe_code, reason = "bpf has no safe wrapper")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const PROG_LOAD: i32 = 5;
const PROG_ATTACH: i32 = 8;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;

/// One instruction, `struct bpf_insn`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BpfInstruction {
    /// Operation.
    pub(crate) code: u8,
    /// Source register in the upper, destination register in the lower half.
    pub(crate) registers: u8,
    /// Jump distance or place in memory.
    pub(crate) offset: i16,
    /// Number used by the operation.
    pub(crate) immediate: i32,
}

#[repr(C)]
#[derive(Default)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct Attach {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
}

/// The kernel gives up checking a program when a signal comes: a child may end at any moment.
const ATTEMPTS: usize = 100;

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
    // SAFETY: `attributes` is one of the structures above, whose pointers (only in Load) point to
    // memory that outlives the call.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(done).map_err(io::Error::other)
}

/// Loads `program` and makes it the one device program of `cgroup`, in place of an earlier one.
pub(crate) fn attach_device_program(
    cgroup: BorrowedFd<'_>,
    program: &[BpfInstruction],
) -> io::Result<()> {
    let license = c"Apache-2.0";
    let loaded = bpf(
        PROG_LOAD,
        &mut Load {
            prog_type: TYPE_CGROUP_DEVICE,
            insn_cnt: u32::try_from(program.len()).map_err(io::Error::other)?,
            insns: program.as_ptr() as u64,
            license: license.as_ptr() as u64,
            ..Load::default()
        },
    )?;
    // SAFETY: a successful BPF_PROG_LOAD returns a new descriptor, which nobody else owns.
    let loaded = unsafe { OwnedFd::from_raw_fd(loaded) };
    let fd = |fd: i32| u32::try_from(fd).map_err(io::Error::other);
    bpf(
        PROG_ATTACH,
        &mut Attach {
            target_fd: fd(cgroup.as_raw_fd())?,
            attach_bpf_fd: fd(loaded.as_raw_fd())?,
            attach_type: ATTACH_CGROUP_DEVICE,
            // No flags: a program attached before is replaced, one below needs no permission.
            ..Attach::default()
        },
    )?;
    Ok(())
}
