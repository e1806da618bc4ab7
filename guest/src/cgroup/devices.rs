//! Which devices a container may use: a BPF program made of the spec's rules.
//!
//! The rules are those of runtime-spec 1.2 "Allowed Device list": later ones win. As runc does,
//! everything is denied first, and the devices that every container gets are allowed last.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use cofferdam_bpf::{self as bpf, Instruction};
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use super::Cgroup;

/// Why device rules cannot be put in force.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// A rule says nothing the kernel understands.
    #[error("device rule {rule} of linux.resources.devices: {problem}")]
    Rule {
        /// Its place in the list.
        rule: usize,
        /// What is wrong.
        problem: &'static str,
    },
    /// The kernel refuses the program.
    #[error("cannot put the device rules of {group} in force")]
    Attach {
        /// The cgroup.
        group: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// `BPF_PROG_TYPE_CGROUP_DEVICE`, and where it runs.
const PROGRAM: u32 = 15;
const PLACE: u32 = 6;

/// BPF_DEVCG_DEV_BLOCK and BPF_DEVCG_DEV_CHAR.
const BLOCK: i32 = 1;
const CHAR: i32 = 2;
/// BPF_DEVCG_ACC_*.
const MKNOD: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;
const ALL: i32 = MKNOD | READ | WRITE;

#[derive(Debug, Clone, Copy)]
struct Rule {
    allow: bool,
    kind: Option<i32>,
    major: Option<i32>,
    minor: Option<i32>,
    access: i32,
}

/// What every container may use, see runc's list of the same purpose.
const DEFAULTS: &[(i32, Option<i32>, Option<i32>, i32)] = &[
    (CHAR, None, None, MKNOD),
    (BLOCK, None, None, MKNOD),
    (CHAR, Some(1), Some(3), ALL),
    (CHAR, Some(1), Some(5), ALL),
    (CHAR, Some(1), Some(7), ALL),
    (CHAR, Some(1), Some(8), ALL),
    (CHAR, Some(1), Some(9), ALL),
    (CHAR, Some(5), Some(0), ALL),
    (CHAR, Some(5), Some(1), ALL),
    (CHAR, Some(5), Some(2), ALL),
    (CHAR, Some(136), None, ALL),
];

impl Cgroup {
    /// Puts `rules` in force, in place of those before.
    ///
    /// # Errors
    /// When a rule cannot be understood or the kernel refuses.
    pub fn allow_devices(&self, rules: &[LinuxDeviceCgroup]) -> Result<(), DeviceError> {
        let program = program(&all(rules)?);
        let attached = File::open(self.path())
            .and_then(|group| bpf::attach(&bpf::load(PROGRAM, 0, &program)?, group.as_fd(), PLACE));
        attached.map_err(|source| DeviceError::Attach {
            group: self.path().display().to_string(),
            source,
        })
    }
}

fn all(rules: &[LinuxDeviceCgroup]) -> Result<Vec<Rule>, DeviceError> {
    let mut list = Vec::with_capacity(rules.len() + DEFAULTS.len());
    for (place, rule) in rules.iter().enumerate() {
        let bad = |problem| DeviceError::Rule {
            rule: place,
            problem,
        };
        let number = |number: Option<i64>| match number {
            // As in runc, a negative number is any.
            None | Some(..0) => Ok(None),
            Some(number) => i32::try_from(number)
                .map(Some)
                .map_err(|_| bad("a device number is too large")),
        };
        let kind = match rule.typ() {
            None | Some(LinuxDeviceType::A) => None,
            Some(LinuxDeviceType::B) => Some(BLOCK),
            Some(LinuxDeviceType::C | LinuxDeviceType::U) => Some(CHAR),
            Some(LinuxDeviceType::P) => return Err(bad("a pipe is no device")),
        };
        let mut access = 0;
        for letter in rule.access().as_deref().unwrap_or("rwm").chars() {
            access |= match letter {
                'r' => READ,
                'w' => WRITE,
                'm' => MKNOD,
                _ => return Err(bad("access has a letter that is none of r, w, m")),
            };
        }
        list.push(Rule {
            allow: rule.allow(),
            kind,
            major: number(rule.major())?,
            minor: number(rule.minor())?,
            access,
        });
    }
    list.extend(DEFAULTS.iter().map(|&(kind, major, minor, access)| Rule {
        allow: true,
        kind: Some(kind),
        major,
        minor,
        access,
    }));
    Ok(list)
}

const R0: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const WORK: u8 = 6;

fn op(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction {
        code,
        registers: source << 4 | destination,
        offset,
        immediate,
    }
}

const LOAD_WORD: u8 = 0x61;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const MOVE: u8 = 0xbc;
const MOVE_NUMBER: u8 = 0xb4;
const JUMP_IF_NOT: u8 = 0x56;
const EXIT: u8 = 0x95;

/// The program: rules from last to first, the first that fits decides, none means no.
///
/// A request is for one or several kinds of access at once. A rule that allows must have all of
/// them; a rule that denies, at least one.
fn program(rules: &[Rule]) -> Vec<Instruction> {
    // struct bpf_cgroup_dev_ctx: access << 16 | type, major, minor.
    let mut code = vec![
        op(LOAD_WORD, KIND, CONTEXT, 0, 0),
        op(AND, KIND, 0, 0, 0xffff),
        op(LOAD_WORD, ACCESS, CONTEXT, 0, 0),
        op(SHIFT_RIGHT, ACCESS, 0, 0, 16),
        op(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        op(LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    for rule in rules.iter().rev() {
        // Tests that must hold, each `(register, value, whether equal)`.
        let mut block = Vec::new();
        let mut tests = Vec::new();
        for (register, wanted) in [(KIND, rule.kind), (MAJOR, rule.major), (MINOR, rule.minor)] {
            if let Some(wanted) = wanted {
                tests.push(block.len());
                block.push(op(JUMP_IF_NOT, register, 0, 0, wanted));
            }
        }
        if rule.access != ALL {
            // What is asked for beyond the rule must be nothing, or what it denies something.
            let mask = if rule.allow {
                ALL & !rule.access
            } else {
                rule.access
            };
            block.push(op(MOVE, WORK, ACCESS, 0, 0));
            block.push(op(AND, WORK, 0, 0, mask));
            if rule.allow {
                tests.push(block.len());
                block.push(op(JUMP_IF_NOT, WORK, 0, 0, 0));
            } else {
                // Not zero: go on to the decision, over the jump that leaves the rule.
                block.push(op(JUMP_IF_NOT, WORK, 0, 1, 0));
                tests.push(block.len());
                block.push(op(0x05, 0, 0, 0, 0));
            }
        }
        block.push(op(MOVE_NUMBER, R0, 0, 0, i32::from(rule.allow)));
        block.push(op(EXIT, 0, 0, 0, 0));
        let length = block.len();
        let always = tests.is_empty();
        for test in tests {
            block[test].offset = i16::try_from(length - test - 1).unwrap_or(i16::MAX);
        }
        code.extend(block);
        if always {
            // Rules before it never count, and the kernel refuses code that is never reached.
            return code;
        }
    }
    code.push(op(MOVE_NUMBER, R0, 0, 0, 0));
    code.push(op(EXIT, 0, 0, 0, 0));
    code
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::LinuxDeviceCgroupBuilder;

    use super::*;

    /// Runs a program as the kernel would, as far as ours use it.
    fn run(code: &[Instruction], kind: i32, access: i32, major: i32, minor: i32) -> bool {
        let mut registers = [0i32; 11];
        let mut at = 0usize;
        loop {
            let now = code[at];
            let to = usize::from(now.registers & 15);
            let from = usize::from(now.registers >> 4);
            at += 1;
            match now.code {
                LOAD_WORD => {
                    registers[to] = match now.offset {
                        0 => access << 16 | kind,
                        4 => major,
                        _ => minor,
                    };
                }
                AND => registers[to] &= now.immediate,
                SHIFT_RIGHT => registers[to] >>= now.immediate,
                MOVE => registers[to] = registers[from],
                MOVE_NUMBER => registers[to] = now.immediate,
                JUMP_IF_NOT if registers[to] != now.immediate => {
                    at += usize::try_from(now.offset).expect("forwards");
                }
                JUMP_IF_NOT => {}
                0x05 => at += usize::try_from(now.offset).expect("forwards"),
                EXIT => return registers[0] == 1,
                other => panic!("unknown operation {other:#x}"),
            }
        }
    }

    fn rule(
        allow: bool,
        kind: LinuxDeviceType,
        numbers: (i64, i64),
        access: &str,
    ) -> LinuxDeviceCgroup {
        LinuxDeviceCgroupBuilder::default()
            .allow(allow)
            .typ(kind)
            .major(numbers.0)
            .minor(numbers.1)
            .access(access)
            .build()
            .expect("a rule")
    }

    #[test]
    fn denies_everything_but_the_defaults() {
        let code = program(&all(&[]).expect("rules"));
        assert!(run(&code, CHAR, READ | WRITE, 1, 3), "/dev/null");
        assert!(run(&code, CHAR, READ | WRITE, 136, 7), "a terminal");
        assert!(run(&code, BLOCK, MKNOD, 8, 0), "making a node");
        assert!(!run(&code, BLOCK, READ, 8, 0), "a disk");
        assert!(!run(&code, CHAR, READ, 10, 229), "/dev/fuse");
        assert!(
            !run(&code, BLOCK, MKNOD | READ, 8, 0),
            "more than making a node"
        );
    }

    #[test]
    fn later_rules_win() {
        let rules = [
            rule(true, LinuxDeviceType::A, (-1, -1), "rwm"),
            rule(false, LinuxDeviceType::B, (8, 0), "w"),
            rule(true, LinuxDeviceType::C, (10, 229), "rw"),
        ];
        let code = program(&all(&rules).expect("rules"));
        assert!(run(&code, BLOCK, READ, 8, 0));
        assert!(!run(&code, BLOCK, READ | WRITE, 8, 0));
        assert!(run(&code, BLOCK, READ | WRITE, 8, 1));
        assert!(run(&code, CHAR, READ | WRITE, 10, 229));

        let rules = [
            rule(false, LinuxDeviceType::A, (-1, -1), "rwm"),
            rule(true, LinuxDeviceType::C, (10, 229), "r"),
        ];
        let code = program(&all(&rules).expect("rules"));
        assert!(run(&code, CHAR, READ, 10, 229));
        assert!(!run(&code, CHAR, READ | WRITE, 10, 229));
    }

    #[test]
    fn names_a_bad_rule() {
        let rules = [rule(true, LinuxDeviceType::C, (1, 3), "rx")];
        let error = all(&rules).expect_err("a bad letter").to_string();
        assert!(error.contains("device rule 0"), "{error}");
    }
}
