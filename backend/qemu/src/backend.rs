//! Making machines.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use backend_api::{
    Accelerator, Backend, BackendError, Capabilities, Phase, Privileges, Templates, Vm, VmConfig,
};
use backend_process::{Confinement, Device, Identity};

use backend_host::image::{self, Image};
use backend_host::kvm::{self, Access};
use backend_host::{is_program, memory, settings};

use crate::command::Clock;
use crate::tsc;
use crate::vm::{Kernel, Origin, Prepared, QemuVm};

/// The program's name where no path is given.
const PROGRAM: &str = "qemu-system-x86_64";

/// Where it is looked for when `PATH` is not set.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// The same (Linux `Documentation/admin-guide/devices.txt`).
const KVM_DEVICE: Device = Device {
    name: c"kvm",
    number: (10, 232),
};

/// The most virtual CPUs that a machine gets.
const MAX_VCPUS: u32 = 64;

/// QEMU's microvm has 8 places for virtio devices; the random generator, the link and the share take one each.
const MAX_NICS: usize = 5;

/// How QEMU is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QemuConfig {
    /// The program; looked for in `PATH` when there is none.
    pub binary: Option<PathBuf>,
    /// How guest code is executed.
    pub accelerator: Accelerator,
}

/// The backend. Making one does nothing yet.
#[derive(Debug, Clone)]
pub struct QemuBackend {
    config: QemuConfig,
}

impl QemuBackend {
    /// A backend that uses QEMU in this way.
    #[must_use]
    pub fn new(config: QemuConfig) -> Self {
        Self { config }
    }

    /// The QEMU program that is used.
    ///
    /// # Errors
    /// [`BackendError::File`] when there is none.
    pub fn program(&self) -> Result<PathBuf, BackendError> {
        let missing = |path: &Path| BackendError::File {
            what: "VMM program",
            path: path.to_owned(),
            source: io::ErrorKind::NotFound.into(),
        };
        if let Some(path) = &self.config.binary {
            return if path.is_absolute() && is_program(path) {
                Ok(path.clone())
            } else {
                Err(missing(path))
            };
        }
        let folders = std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
        std::env::split_paths(&folders)
            .map(|folder| folder.join(PROGRAM))
            .find(|path| path.is_absolute() && is_program(path))
            .ok_or_else(|| missing(Path::new(PROGRAM)))
    }

    /// How guest code is executed.
    pub(crate) fn accelerator(&self) -> Accelerator {
        self.config.accelerator
    }

    /// What a guest is booted from; with a memory it will be a template.
    pub(crate) async fn kernel(
        &self,
        config: &VmConfig,
        memory: Option<OwnedFd>,
    ) -> Result<Kernel, BackendError> {
        let reader = match config.privileges {
            Privileges::Drop { uid, gid } => Some((uid, gid)),
            Privileges::Inherit => None,
        };
        let kernel = Image::open("guest kernel", &config.kernel, reader)?;
        image::check_kernel(&kernel)?;
        let initrd = Image::open("guest image", &config.initrd, reader)?;
        let clock = match self.config.accelerator {
            Accelerator::Kvm => Clock::Paravirtual,
            Accelerator::Emulation => Clock::Tsc {
                khz: tsc::khz().await.map_err(|source| BackendError::System {
                    phase: Phase::Create,
                    action: "cannot find the rate of the host's time stamp counter".to_owned(),
                    source,
                })?,
            },
        };
        Ok(Kernel {
            kernel,
            initrd,
            clock,
            memory,
        })
    }

    /// What a machine needs beside what it begins with.
    pub(crate) fn prepare(
        &self,
        config: VmConfig,
        origin: Origin,
    ) -> Result<Prepared, BackendError> {
        let program = self.program()?;
        let confinement = self.confinement(config.privileges)?;
        memory::check(config.memory_bytes)?;
        Ok(Prepared {
            program,
            confinement,
            accelerator: self.config.accelerator,
            origin,
            config,
        })
    }

    /// The user that QEMU becomes, with the way to KVM.
    fn confinement(&self, privileges: Privileges) -> Result<Confinement, BackendError> {
        let wanted = self.config.accelerator == Accelerator::Kvm;
        let fail = |source| BackendError::Accelerator {
            device: kvm::DEVICE,
            source,
        };
        if wanted {
            kvm::open(Path::new(kvm::DEVICE)).map_err(fail)?;
        }
        let Privileges::Drop { uid, gid } = privileges else {
            return Ok(Confinement::default());
        };
        let mut groups = Vec::new();
        let mut device = None;
        if wanted {
            match kvm::access(Path::new(kvm::DEVICE)).map_err(fail)? {
                Access::Everybody => {}
                Access::Group(group) => groups.push(group),
                Access::Root => device = Some(KVM_DEVICE),
            }
        }
        // Namespaces need root, which is there when it is to be dropped.
        Ok(Confinement {
            identity: Some(Identity { uid, gid, groups }),
            namespaces: true,
            device,
            ..Confinement::default()
        })
    }
}

#[async_trait]
impl Backend for QemuBackend {
    fn name(&self) -> &'static str {
        "qemu"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            accelerator: self.config.accelerator,
            share: true,
            pause: true,
            resize: false,
            plug: false,
            devices: 0,
            // Its monitor knows nothing of virtio devices but what is unstable.
            count: false,
            sockets: false,
            huge_pages: false,
            nics: MAX_NICS,
            nic_queues: MAX_VCPUS,
            max_vcpus: MAX_VCPUS,
            boot_deadline: Duration::from_secs(30),
        }
    }

    async fn create(&self, config: VmConfig) -> Result<Box<dyn Vm>, BackendError> {
        settings::check(&config, &self.capabilities())?;
        let origin = Origin::Kernel(self.kernel(&config, None).await?);
        Ok(Box::new(QemuVm::new(self.prepare(config, origin)?)))
    }

    fn templates(&self) -> Option<&dyn Templates> {
        (self.config.accelerator == Accelerator::Emulation).then_some(self)
    }
}
