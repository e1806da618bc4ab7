//! Instructions, and how they become a program.

use std::os::fd::{AsRawFd, OwnedFd};

/// One instruction, `struct bpf_insn` of linux/bpf.h.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u8,
    /// Source register in the upper, destination register in the lower half.
    pub registers: u8,
    /// Jump distance or place in memory.
    pub offset: i16,
    /// Number used by the operation.
    pub immediate: i32,
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
pub struct Jump(usize);

/// Instructions on their way to a program. Registers are given by their numbers: 0 has results, 1 to 5 are arguments of
/// calls, 6 to 9 survive them, 10 points to the end of 512 bytes of memory.
#[derive(Debug, Default)]
pub struct Assembly {
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
    pub fn load(&mut self, to: u8, from: u8, offset: i16) {
        self.push(LOAD_WORD, to, from, offset, 0);
    }

    /// Loads a byte that another register points to.
    pub fn load_byte(&mut self, to: u8, from: u8, offset: i16) {
        self.push(LOAD_BYTE, to, from, offset, 0);
    }

    /// Stores four bytes of a number where a register points to.
    pub fn store_value(&mut self, to: u8, offset: i16, value: i32) {
        self.push(STORE_VALUE, to, 0, offset, value);
    }

    /// Copies a register.
    pub fn copy(&mut self, to: u8, from: u8) {
        self.push(MOVE, to, from, 0, 0);
    }

    /// Sets a register.
    pub fn set(&mut self, to: u8, value: i32) {
        self.push(MOVE_VALUE, to, 0, 0, value);
    }

    /// Adds to a register.
    pub fn add(&mut self, to: u8, value: i32) {
        self.push(ADD_VALUE, to, 0, 0, value);
    }

    /// Keeps these bits of a register.
    pub fn keep(&mut self, to: u8, bits: i32) {
        self.push(AND_VALUE, to, 0, 0, bits);
    }

    /// Shifts a register to the left.
    pub fn shift_left(&mut self, to: u8, bits: i32) {
        self.push(SHIFT_LEFT, to, 0, 0, bits);
    }

    /// Shifts a register to the right.
    pub fn shift_right(&mut self, to: u8, bits: i32) {
        self.push(SHIFT_RIGHT, to, 0, 0, bits);
    }

    /// Makes a number of four bytes that came from the network, or the other way round.
    pub fn swap_word(&mut self, to: u8) {
        self.push(TO_BIG_ENDIAN, to, 0, 0, 32);
    }

    /// Makes a register point to a map.
    pub fn point_to(&mut self, to: u8, map: &OwnedFd) {
        self.push(LOAD_WIDE, to, MAP_DESCRIPTOR, 0, map.as_raw_fd());
        self.push(0, 0, 0, 0, 0);
    }

    /// Calls one of the kernel's functions.
    pub fn call(&mut self, function: i32) {
        self.push(CALL, 0, 0, 0, function);
    }

    /// Jumps, wherever [`land`](Self::land) says.
    pub fn jump(&mut self) -> Jump {
        self.push(JUMP, 0, 0, 0, 0)
    }

    /// Jumps if a register has this value.
    pub fn jump_if(&mut self, register: u8, value: i32) -> Jump {
        self.push(JUMP_IF, register, 0, 0, value)
    }

    /// Jumps unless a register has this value.
    pub fn jump_unless(&mut self, register: u8, value: i32) -> Jump {
        self.push(JUMP_UNLESS, register, 0, 0, value)
    }

    /// The next instruction is where these jumps lead.
    pub fn land(&mut self, jumps: impl IntoIterator<Item = Jump>) {
        for Jump(at) in jumps {
            let distance = self.instructions.len() - at - 1;
            // Programs here are a few dozen instructions long.
            self.instructions[at].offset = i16::try_from(distance).unwrap_or(i16::MAX);
        }
    }

    /// Ends with this result.
    pub fn end(&mut self, result: i32) {
        self.set(0, result);
        self.push(EXIT, 0, 0, 0, 0);
    }
}

impl AsRef<[Instruction]> for Assembly {
    fn as_ref(&self) -> &[Instruction] {
        &self.instructions
    }
}
