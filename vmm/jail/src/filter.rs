//! Lists as the kernel applies them.

use std::collections::BTreeMap;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

use crate::JailError;
use crate::rule::Rule;
use crate::rules;

/// What a thread is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The first thread while it makes the machine, and all others before they have their own.
    Setup,
    /// The first thread while the guest runs.
    Main,
    /// The first thread while a guest runs whose machine takes more devices.
    Plugger,
    /// The thread that serves devices.
    Devices,
    /// The same where disks are served by `io_uring`.
    RingDevices,
    /// A thread that reads and writes a disk's file.
    Disk,
    /// A thread that runs a virtual CPU.
    Vcpu,
    /// The same where disks are served by `io_uring`.
    RingVcpu,
}

impl Role {
    fn rules(self) -> Vec<Rule> {
        let lists: &[&[Rule]] = match self {
            Self::Setup => &[
                &rules::EVERYBODY,
                &rules::MAIN,
                &rules::WORK,
                &rules::DEVICES,
                &rules::VCPU,
                &rules::RING,
                &rules::DISK,
                &rules::PLUG,
                &rules::SETUP,
            ],
            Self::Main => &[&rules::EVERYBODY, &rules::MAIN],
            // It starts threads of disks, which begin with its list.
            Self::Plugger => &[
                &rules::EVERYBODY,
                &rules::MAIN,
                &rules::WORK,
                &rules::DISK,
                &rules::PLUG,
            ],
            Self::Disk => &[&rules::EVERYBODY, &rules::DISK],
            Self::Devices => &[&rules::EVERYBODY, &rules::WORK, &rules::DEVICES],
            Self::RingDevices => &[
                &rules::EVERYBODY,
                &rules::WORK,
                &rules::DEVICES,
                &rules::RING,
            ],
            Self::Vcpu => &[&rules::EVERYBODY, &rules::WORK, &rules::VCPU],
            Self::RingVcpu => &[&rules::EVERYBODY, &rules::WORK, &rules::VCPU, &rules::RING],
        };
        let mut all = lists.concat();
        if !matches!(self, Self::Main | Self::Disk) {
            // What a network card asks of its tap and of vhost-net while it runs, by whichever thread.
            all.extend(vmm_net::IOCTLS.map(Rule::request));
        }
        all
    }
}

/// What a call that is not in the list leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Violation {
    /// The end of the process, at once.
    Kill,
    /// A line that names the call, and the end of the process.
    Tell,
}

impl Default for Violation {
    fn default() -> Self {
        if cfg!(debug_assertions) {
            Self::Tell
        } else {
            Self::Kill
        }
    }
}

/// The list of one role, compiled.
#[derive(Debug, Clone)]
pub struct Filter(BpfProgram);

impl Filter {
    /// Compiles a list for this process: it is for no other.
    ///
    /// # Errors
    /// [`JailError::Filter`] and [`JailError::Rule`].
    pub fn new(role: Role, violation: Violation) -> Result<Self, JailError> {
        let process = std::process::id();
        let mut compiled: BTreeMap<i64, Vec<_>> = BTreeMap::new();
        let rules = role.rules();
        let (free, bound): (Vec<&Rule>, Vec<_>) = rules.iter().partition(|rule| rule.is_free());
        for rule in bound {
            let one = rule.compiled(process).map_err(JailError::Rule)?;
            compiled.entry(rule.call).or_default().push(one);
        }
        // Behind the others, whose conditions it makes void: none at all is what always holds.
        compiled.extend(free.iter().map(|rule| (rule.call, Vec::new())));
        let end = match violation {
            Violation::Kill => SeccompAction::KillProcess,
            Violation::Tell => SeccompAction::Trap,
        };
        compile(compiled, end, SeccompAction::Allow).map(Self)
    }

    /// Has the calling thread, and those that it starts from now on, keep to it. There is no way back.
    ///
    /// # Errors
    /// [`JailError::Filter`].
    pub fn apply(&self) -> Result<(), JailError> {
        seccompiler::apply_filter(&self.0).map_err(JailError::Filter)
    }
}

/// Makes the kernel deny that it has `clone3`, whose flags lie in memory where no filter sees them. The C library then does
/// without it. A filter has one answer for all its calls, so this is one beside the lists, which let the call pass.
pub(crate) fn answer_as_an_old_kernel() -> Result<(), JailError> {
    let calls = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let absent = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
    let program = compile(calls, SeccompAction::Allow, absent)?;
    seccompiler::apply_filter(&program).map_err(JailError::Filter)
}

fn compile(
    calls: BTreeMap<i64, Vec<seccompiler::SeccompRule>>,
    mismatch: SeccompAction,
    matching: SeccompAction,
) -> Result<BpfProgram, JailError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(JailError::Rule)?;
    SeccompFilter::new(calls, mismatch, matching, arch)
        .and_then(BpfProgram::try_from)
        .map_err(JailError::Rule)
}
