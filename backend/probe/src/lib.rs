//! Finding out whether a backend can run guest code here: by running some to its end, never by the existence of
//! `/dev/kvm`.
//!
//! A KVM device can open, create machines and virtual CPUs, and still not run a kernel: nested virtualization that is
//! half there does that. So the probe boots the real guest kernel and image with the parameter [`PARAMETER`], for which
//! the guest's init prints [`PROOF`] on its console and reboots, and believes nothing else.

mod cache;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backend_api::{
    Backend, BackendError, Diagnostics, Privileges, SpareDevices, Vm, VmConfig, VmExit,
};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

pub use cache::{CacheError, cached};

/// The kernel parameter that asks the guest's init for the proof.
pub const PARAMETER: &str = "cofferdam.probe";

/// What the guest's init prints when it got that far.
pub const PROOF: &str = "cofferdam-probe-ok";

/// How long a probe takes at most, unless the caller wants otherwise. A nested guest on a busy machine needs five
/// seconds.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Memory of the machine that is booted.
const MEMORY: u64 = 128 << 20;

/// What is probed.
#[derive(Clone)]
pub struct Probe {
    /// Whose machines.
    pub backend: Arc<dyn Backend>,
    /// Its VMM program: another one may do better or worse.
    pub program: PathBuf,
    /// The guest kernel.
    pub kernel: PathBuf,
    /// The guest image.
    pub initrd: PathBuf,
    /// Who the VMM runs as.
    pub privileges: Privileges,
    /// How long the whole may take.
    pub deadline: Duration,
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeOutcome {
    /// Guest code ran to its end.
    Works {
        /// From the VMM's start to its exit.
        elapsed: Duration,
    },
    /// It did not.
    Unusable {
        /// Why.
        reason: Unusable,
    },
}

/// Why an accelerator can't be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Unusable {
    /// `/dev/kvm` does not exist: no virtualization in the processor, or none passed on to this machine, or the module
    /// is not loaded.
    NoDevice,
    /// `/dev/kvm` may not be opened.
    NoPermission {
        /// The operating system's answer.
        detail: String,
    },
    /// The VMM could not start a guest.
    VmmFailed {
        /// What it said.
        detail: String,
    },
    /// The VMM ended before the guest proved anything.
    GuestDidNotRun {
        /// How it ended and what it said.
        detail: String,
    },
    /// The guest did not get to its end in time: it hangs, or is far too slow.
    GuestHung {
        /// How long it was waited for.
        waited: Duration,
        /// The last line on its console; empty when it wrote nothing at all.
        last_line: String,
    },
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDevice => f.write_str(
                "there is no /dev/kvm: the processor has no virtualization, it is switched off in the firmware, this \
                 machine is a VM without nested virtualization, or the kvm module is not loaded",
            ),
            Self::NoPermission { detail } => write!(f, "/dev/kvm cannot be opened: {detail}"),
            Self::VmmFailed { detail } => write!(f, "the VMM could not start a guest: {detail}"),
            Self::GuestDidNotRun { detail } => write!(
                f,
                "/dev/kvm opens, but cannot run a guest kernel: {detail}"
            ),
            Self::GuestHung { waited, last_line } => {
                let waited = waited.as_secs_f32();
                write!(f, "/dev/kvm opens, but a guest kernel did not get to its end in {waited:.1} s")?;
                if last_line.is_empty() {
                    f.write_str(" and wrote nothing")
                } else {
                    write!(f, "; the last it wrote: {last_line}")
                }
            }
        }
    }
}

impl Probe {
    /// Boots the guest and waits for the proof, at most for the deadline. Leaves nothing behind.
    ///
    /// # Errors
    /// When nothing can be said about the accelerator: the VMM, the guest kernel or the guest image are missing or wrong,
    /// or there is no memory for a guest.
    pub async fn run(&self) -> Result<ProbeOutcome, BackendError> {
        let config = VmConfig {
            name: "probe".to_owned(),
            kernel: self.kernel.clone(),
            initrd: self.initrd.clone(),
            cmdline: vec![PARAMETER.to_owned()],
            memory_bytes: MEMORY,
            spare_memory_bytes: 0,
            vcpus: 1,
            spare_vcpus: 0,
            share: None,
            huge_pages: false,
            sockets: None,
            nics: Vec::new(),
            disks: Vec::new(),
            images: Vec::new(),
            spare_devices: SpareDevices::default(),
            network: None,
            groups: Vec::new(),
            privileges: self.privileges,
        };
        let unusable = |reason| Ok(ProbeOutcome::Unusable { reason });
        let mut vm = match self.backend.create(config).await {
            Ok(vm) => vm,
            Err(BackendError::Accelerator { source, .. }) => {
                return unusable(match source.kind() {
                    std::io::ErrorKind::NotFound => Unusable::NoDevice,
                    _ => Unusable::NoPermission {
                        detail: plain(&source),
                    },
                });
            }
            Err(error) => return Err(error),
        };
        let start = Instant::now();
        let exit = timeout(self.deadline, run_to_end(&mut *vm)).await;
        let elapsed = start.elapsed();
        vm.stop().await?;
        let said = vm.diagnostics();
        match exit {
            Ok(Ok(_)) if proved(&said) => Ok(ProbeOutcome::Works { elapsed }),
            Ok(Ok(exit)) => unusable(Unusable::GuestDidNotRun {
                detail: format!("the VMM {exit}{}", last_words(&said)),
            }),
            Ok(Err(error)) => unusable(Unusable::VmmFailed {
                detail: error.to_string(),
            }),
            Err(_elapsed) => unusable(Unusable::GuestHung {
                waited: elapsed,
                last_line: last_line(&said.console).to_owned(),
            }),
        }
    }
}

async fn run_to_end(vm: &mut dyn Vm) -> Result<VmExit, BackendError> {
    match vm.boot().await {
        // The link stays open: the VMM must end because of the guest alone.
        Ok(_link) => Ok(vm.wait().await),
        // It may well have been the guest code that ended the VMM so soon.
        Err(BackendError::Exited { exit, .. }) => Ok(exit),
        Err(error) => Err(error),
    }
}

fn proved(said: &Diagnostics) -> bool {
    said.console.lines().any(|line| line.trim() == PROOF)
}

/// The end of what the VMM said, or else of what the guest said, on one line.
fn last_words(said: &Diagnostics) -> String {
    let text = if last_line(&said.vmm).is_empty() {
        &said.console
    } else {
        &said.vmm
    };
    let mut lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .rev()
        .take(3)
        .collect();
    lines.reverse();
    lines.iter().fold(String::new(), |all, line| {
        format!("{all}{}{line}", if all.is_empty() { ": " } else { "; " })
    })
}

fn last_line(text: &str) -> &str {
    text.lines()
        .rev()
        .map(str::trim)
        .find(|line| !line.is_empty())
        .unwrap_or_default()
}

fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error")
        .next()
        .unwrap_or_default()
        .to_lowercase()
}
