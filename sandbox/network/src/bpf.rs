//! eBPF: instructions, and the calls that bring a program into the kernel.
#![expect(unsafe_code, reason = "bpf has no safe wrapper")]
// UNSAFETY: bpf(2) takes a pointer to a union and its size. The structures below are the members for the commands used,
// as in linux/bpf.h, fully initialised; pointers in them are to memory that the caller of `bpf` keeps alive.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const MAP_CREATE: i32 = 0;
const MAP_UPDATE: i32 = 2;
const PROGRAM_LOAD: i32 = 5;
const LINK_CREATE: i32 = 28;

/// `BPF_MAP_TYPE_SOCKMAP`.
const SOCKET_MAP: u32 = 15;

/// The kernel gives up checking a program when a signal comes.
const ATTEMPTS: usize = 100;

/// One instruction, `struct bpf_insn`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Instruction {
    code: u8,
    /// Source register in the upper, destination register in the lower half.
    registers: u8,
    offset: i16,
    immediate: i32,
}

// `linux/bpf_common.h` and `linux/bpf.h`: operations by what they are put together of.
const LOAD_WORD: u8 = 0x61;
const LOAD_BYTE: u8 = 0x71;
const LOAD_WIDE: u8 = 0x18;
const MOVE: u8 = 0xbf;
const MOVE_VALUE: u8 = 0xb7;
const STORE_VALUE: u8 = 0x62;
const ADD_VALUE: u8 = 0x07;
const AND_VALUE: u8 = 0x57;
const SHIFT_LEFT: u8 = 0x67;
const SHIFT_RIGHT: u8 = 0x77;
const TO_BIG_ENDIAN: u8 = 0xdc;
const JUMP: u8 = 0x05;
const JUMP_IF: u8 = 0x15;
const JUMP_UNLESS: u8 = 0x55;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
/// Of a wide load: the value is a map's descriptor.
const MAP_DESCRIPTOR: u8 = 1;

/// A jump to a place that is known later.
#[derive(Debug)]
pub(crate) struct Jump(usize);

/// Instructions on their way to a program. Registers are given by their numbers: 0 has results, 1 to 5 are arguments of
/// calls, 6 to 9 survive them, 10 points to the end of 512 bytes of memory.
#[derive(Debug, Default)]
pub(crate) struct Assembly {
    instructions: Vec<Instruction>,
}

impl Assembly {
    fn push(&mut self, code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Jump {
        self.instructions.push(Instruction {
            code,
            registers: from << 4 | to,
            offset,
            immediate,
        });
        Jump(self.instructions.len() - 1)
    }

    /// Loads four bytes that another register points to.
    pub(crate) fn load(&mut self, to: u8, from: u8, offset: i16) {
        self.push(LOAD_WORD, to, from, offset, 0);
    }

    /// Loads a byte that another register points to.
    pub(crate) fn load_byte(&mut self, to: u8, from: u8, offset: i16) {
        self.push(LOAD_BYTE, to, from, offset, 0);
    }

    /// Stores four bytes of a number where a register points to.
    pub(crate) fn store_value(&mut self, to: u8, offset: i16, value: i32) {
        self.push(STORE_VALUE, to, 0, offset, value);
    }

    /// Copies a register.
    pub(crate) fn copy(&mut self, to: u8, from: u8) {
        self.push(MOVE, to, from, 0, 0);
    }

    /// Sets a register.
    pub(crate) fn set(&mut self, to: u8, value: i32) {
        self.push(MOVE_VALUE, to, 0, 0, value);
    }

    /// Adds to a register.
    pub(crate) fn add(&mut self, to: u8, value: i32) {
        self.push(ADD_VALUE, to, 0, 0, value);
    }

    /// Keeps these bits of a register.
    pub(crate) fn keep(&mut self, to: u8, bits: i32) {
        self.push(AND_VALUE, to, 0, 0, bits);
    }

    /// Shifts a register to the left.
    pub(crate) fn shift_left(&mut self, to: u8, bits: i32) {
        self.push(SHIFT_LEFT, to, 0, 0, bits);
    }

    /// Shifts a register to the right.
    pub(crate) fn shift_right(&mut self, to: u8, bits: i32) {
        self.push(SHIFT_RIGHT, to, 0, 0, bits);
    }

    /// Makes a number of four bytes that came from the network, or the other way round.
    pub(crate) fn swap_word(&mut self, to: u8) {
        self.push(TO_BIG_ENDIAN, to, 0, 0, 32);
    }

    /// Makes a register point to a map.
    pub(crate) fn point_to(&mut self, to: u8, map: &OwnedFd) {
        self.push(LOAD_WIDE, to, MAP_DESCRIPTOR, 0, map.as_raw_fd());
        self.push(0, 0, 0, 0, 0);
    }

    /// Calls one of the kernel's functions.
    pub(crate) fn call(&mut self, function: i32) {
        self.push(CALL, 0, 0, 0, function);
    }

    /// Jumps, wherever [`land`](Self::land) says.
    pub(crate) fn jump(&mut self) -> Jump {
        self.push(JUMP, 0, 0, 0, 0)
    }

    /// Jumps if a register has this value.
    pub(crate) fn jump_if(&mut self, register: u8, value: i32) -> Jump {
        self.push(JUMP_IF, register, 0, 0, value)
    }

    /// Jumps unless a register has this value.
    pub(crate) fn jump_unless(&mut self, register: u8, value: i32) -> Jump {
        self.push(JUMP_UNLESS, register, 0, 0, value)
    }

    /// The next instruction is where these jumps lead.
    pub(crate) fn land(&mut self, jumps: impl IntoIterator<Item = Jump>) {
        for Jump(at) in jumps {
            let distance = self.instructions.len() - at - 1;
            // Programs here are a few dozen instructions long.
            self.instructions[at].offset = i16::try_from(distance).unwrap_or(i16::MAX);
        }
    }

    /// Ends with this result.
    pub(crate) fn end(&mut self, result: i32) {
        self.set(0, result);
        self.push(EXIT, 0, 0, 0, 0);
    }
}

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
pub(crate) fn socket_map(entries: u32) -> io::Result<OwnedFd> {
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
pub(crate) fn insert(map: &OwnedFd, key: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
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
pub(crate) fn load(kind: u32, attach_type: u32, program: &Assembly) -> io::Result<OwnedFd> {
    let license = c"Apache-2.0";
    bpf(
        PROGRAM_LOAD,
        &mut Load {
            kind,
            count: u32::try_from(program.instructions.len()).map_err(io::Error::other)?,
            instructions: program.instructions.as_ptr() as u64,
            license: license.as_ptr() as u64,
            attach_type,
            ..Load::default()
        },
    )
    .map(owned)
}

/// Has a program run in this place of what `target` stands for, until the answer is closed.
pub(crate) fn link(
    program: &OwnedFd,
    target: BorrowedFd<'_>,
    attach_type: u32,
) -> io::Result<OwnedFd> {
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
