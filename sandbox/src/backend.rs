//! Which backend runs sandboxes here.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backend_api::{Accelerator, Backend, Privileges};
use backend_kvm::{KvmBackend, KvmConfig};
use backend_probe::Probe;
use backend_qemu::{QemuBackend, QemuConfig};

pub use backend_probe::ProbeOutcome;

use crate::config::{BackendChoice, Config};
use crate::error::{SandboxError, chain};

/// Where the outcome of the probe is remembered until the host is booted again, for every state directory.
const PROBE_FILE: &str = "/run/cofferdam-probe.json";

/// The backend to use, and why.
#[derive(Clone)]
pub struct Choice {
    /// The backend.
    pub backend: Arc<dyn Backend>,
    /// Why it is not another; nothing when there is no more to say.
    pub because: Option<String>,
}

impl fmt::Debug for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Choice")
            .field("backend", &self.backend.name())
            .field("because", &self.because)
            .finish()
    }
}

/// Chooses as the configuration says. `auto` takes KVM only when a guest has run on it to its end, which is tried once
/// per boot of the host.
///
/// # Errors
/// [`SandboxError::NoBackend`] when the configuration wants what this machine does not have.
pub async fn choose(config: &Config) -> Result<Choice, SandboxError> {
    let refuse = |reason: String| Err(SandboxError::NoBackend(reason));
    let own = || -> Arc<dyn Backend> { Arc::new(own(config)) };
    let qemu = |accelerator| -> Arc<dyn Backend> { Arc::new(qemu(config, accelerator)) };
    let (backend, because) = match config.backend {
        BackendChoice::Kvm => (own(), None),
        BackendChoice::QemuKvm => (qemu(Accelerator::Kvm), None),
        BackendChoice::QemuTcg => (
            qemu(Accelerator::Emulation),
            Some("the configuration says so".to_owned()),
        ),
        BackendChoice::Auto => match probe_kvm(config).await? {
            ProbeOutcome::Works { .. } => (own(), None),
            ProbeOutcome::Unusable { reason } => {
                (qemu(Accelerator::Emulation), Some(reason.to_string()))
            }
        },
    };
    let accelerator = backend.capabilities().accelerator;
    if accelerator == Accelerator::Emulation && config.require_hardware {
        return refuse(format!(
            "`require_hardware` is set, and hardware virtualization is not used: {}",
            because.unwrap_or_default()
        ));
    }
    Ok(Choice { backend, because })
}

/// What the probe of KVM found, with our own VMM or with QEMU, as the configuration says.
///
/// # Errors
/// When it cannot be tried at all.
pub async fn probe_kvm(config: &Config) -> Result<ProbeOutcome, SandboxError> {
    let (backend, program): (Arc<dyn Backend>, _) = if config.backend == BackendChoice::QemuKvm {
        let backend = qemu(config, Accelerator::Kvm);
        let program = backend.program()?;
        (Arc::new(backend), program)
    } else {
        let backend = own(config);
        let program = backend.program()?.to_owned();
        (Arc::new(backend), program)
    };
    let probe = Probe {
        backend,
        program,
        kernel: config.kernel.clone(),
        initrd: config.initrd.clone(),
        privileges: privileges(config),
        deadline: backend_probe::DEADLINE,
    };
    backend_probe::cached(&probe, Path::new(PROBE_FILE))
        .await
        .map_err(|error| SandboxError::NoBackend(format!("cannot probe KVM: {}", chain(&error))))
}

/// The QEMU program, which is used where our own VMM is not.
///
/// # Errors
/// When it is not there.
pub fn program(config: &Config) -> Result<PathBuf, SandboxError> {
    Ok(qemu(config, Accelerator::Emulation).program()?)
}

fn own(config: &Config) -> KvmBackend {
    KvmBackend::new(KvmConfig {
        program: config.vmm.clone(),
        vhost_net: config.vhost_net,
    })
}

fn qemu(config: &Config, accelerator: Accelerator) -> QemuBackend {
    QemuBackend::new(QemuConfig {
        binary: binary(config),
        accelerator,
    })
}

/// A plain name is looked up in PATH by the backend.
fn binary(config: &Config) -> Option<PathBuf> {
    (config.qemu != Path::new(Config::QEMU)).then(|| config.qemu.clone())
}

/// An id of its own for each machine: no two drivers live with one pid.
pub(crate) fn privileges(config: &Config) -> Privileges {
    if rustix::process::geteuid().is_root() {
        let id = config.vmm_uid_base.saturating_add(std::process::id());
        Privileges::Drop { uid: id, gid: id }
    } else {
        Privileges::Inherit
    }
}
