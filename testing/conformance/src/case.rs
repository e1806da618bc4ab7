//! What a case is, and how it can end.

use anyhow::Result;

use crate::environment::Env;

/// One check of one behaviour.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// `group/what-is-checked`.
    pub name: &'static str,
    /// Whether a runtime that puts containers into virtual machines must differ.
    pub vm: Vm,
    /// The check itself.
    pub run: fn(&Env) -> Result<Verdict>,
}

/// What a virtual machine changes about a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vm {
    /// Nothing: the same is demanded.
    Same,
    /// The case checks something else with `--expect-vm`, for this reason.
    Differs(&'static str),
}

/// How a case ended when it did not fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// All held.
    Passed,
    /// It could not be checked here, for a reason that was found by trying.
    Skipped(String),
}

/// A case that holds in a VM as on the host.
pub const fn case(name: &'static str, run: fn(&Env) -> Result<Verdict>) -> Case {
    Case {
        name,
        vm: Vm::Same,
        run,
    }
}

/// A case with an expectation of its own for VMs.
pub const fn differs(
    name: &'static str,
    reason: &'static str,
    run: fn(&Env) -> Result<Verdict>,
) -> Case {
    Case {
        name,
        vm: Vm::Differs(reason),
        run,
    }
}

/// The usual end of a case.
pub fn passed() -> Result<Verdict> {
    Ok(Verdict::Passed)
}

/// The end of a case that this machine or runtime gives no way to check.
pub fn skipped(reason: impl Into<String>) -> Result<Verdict> {
    Ok(Verdict::Skipped(reason.into()))
}
