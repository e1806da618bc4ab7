//! One line of a list.

use seccompiler::{BackendError, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};

/// What an argument must be. Arguments count from 0; all but pointers are 32 bits to the kernel, whatever the rest of
/// the register holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// This value.
    Is(u8, u32),
    /// All of these bits are set.
    Has(u8, u32),
    /// None of these bits is set.
    Lacks(u8, u32),
    /// A null pointer.
    Null(u8),
    /// The number of this process.
    Own(u8),
}

/// A system call that is allowed, with its number, if all conditions hold. Several rules may be about the same call.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    pub call: i64,
    conditions: [Option<Condition>; 2],
}

impl Rule {
    pub const fn call(call: i64) -> Self {
        Self {
            call,
            conditions: [None; 2],
        }
    }

    pub const fn when(call: i64, condition: Condition) -> Self {
        Self {
            call,
            conditions: [Some(condition), None],
        }
    }

    pub const fn and(self, condition: Condition) -> Self {
        Self {
            conditions: [self.conditions[0], Some(condition)],
            ..self
        }
    }

    /// A request by `ioctl`. Whoever gets hold of another descriptor than was meant can make no other.
    pub const fn request(number: u32) -> Self {
        Self::when(libc::SYS_ioctl, Condition::Is(1, number))
    }

    /// Whether it has no condition.
    pub fn is_free(&self) -> bool {
        self.conditions.iter().flatten().next().is_none()
    }

    /// As the compiler of filters wants a rule that has a condition.
    pub fn compiled(&self, process: u32) -> Result<SeccompRule, BackendError> {
        self.conditions
            .iter()
            .flatten()
            .map(|condition| condition.compiled(process))
            .collect::<Result<Vec<_>, _>>()
            .and_then(SeccompRule::new)
    }
}

impl Condition {
    fn compiled(self, process: u32) -> Result<SeccompCondition, BackendError> {
        use SeccompCmpArgLen::{Dword, Qword};
        use SeccompCmpOp::{Eq, MaskedEq};
        let (argument, length, operation, value) = match self {
            Self::Is(argument, value) => (argument, Dword, Eq, u64::from(value)),
            Self::Has(argument, bits) => {
                let bits = u64::from(bits);
                (argument, Dword, MaskedEq(bits), bits)
            }
            Self::Lacks(argument, bits) => (argument, Dword, MaskedEq(u64::from(bits)), 0),
            Self::Null(argument) => (argument, Qword, Eq, 0),
            Self::Own(argument) => (argument, Dword, Eq, u64::from(process)),
        };
        SeccompCondition::new(argument, length, operation, value)
    }
}
