//! Making machines.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use backend_api::{
    Accelerator, Backend, BackendError, Capabilities, Nic, Privileges, Vm, VmConfig,
};
use backend_host::image::{self, Image};
use backend_host::{is_program, kvm, memory, settings};
use backend_process::{Confinement, Identity, Limits};

use crate::vm::{KvmVm, Prepared};

/// The most virtual CPUs that a machine gets.
const MAX_VCPUS: u32 = 64;

/// A machine has 23 places for devices; console, random numbers, the link, the balloon, memory that grows and the share take
/// one each.
const MAX_NICS: usize = 7;

/// What is left: for disks, images, and what comes later.
const MAX_DEVICES: usize = 23 - 6 - MAX_NICS;

/// The most queues of a card. With vhost-net each brings two descriptors, and all of them come with one message.
const MAX_QUEUES: u32 = 8;

/// Where the host's kernel passes packets between a tap and a guest by itself, if it has that.
const VHOST_NET: &str = "/dev/vhost-net";

/// What a VMM may use. Machines of one driver have one user, and share the number of threads; each has one for each
/// virtual CPU and two more. Descriptors are for 1024 connections, and for queues of devices.
const LIMITS: Limits = Limits {
    descriptors: Some(4096),
    processes: Some(4096),
    locked_bytes: Some(0),
};

/// What rings of `io_uring` may take of memory that is locked, until the VMM has made its own and gives this up: newer kernels
/// count them so (6.18 does, 6.1 does not), 28 KiB for a disk, all machines of a user together.
const RING_BYTES: u64 = 16 << 20;

/// How the VMM is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvmConfig {
    /// The program, an absolute path.
    pub program: PathBuf,
    /// Whether the host's kernel may pass a card's packets where it has vhost-net: quicker, but then it is the kernel that
    /// reads the guest's rings.
    pub vhost_net: bool,
}

/// The backend. Making one does nothing yet.
#[derive(Debug, Clone)]
pub struct KvmBackend {
    config: KvmConfig,
}

impl KvmBackend {
    /// A backend that uses the VMM in this way.
    #[must_use]
    pub fn new(config: KvmConfig) -> Self {
        Self { config }
    }

    /// The VMM's program.
    ///
    /// # Errors
    /// [`BackendError::File`] when it is not there.
    pub fn program(&self) -> Result<&Path, BackendError> {
        let path = &self.config.program;
        if path.is_absolute() && is_program(path) {
            Ok(path)
        } else {
            Err(BackendError::File {
                what: "VMM program",
                path: path.clone(),
                source: io::ErrorKind::NotFound.into(),
            })
        }
    }
}

/// One descriptor for each of a card's queues, or none where it is not wanted or the host does not have it: the VMM then
/// passes packets.
pub(crate) fn vhosts(nic: &Nic, wanted: bool) -> Vec<OwnedFd> {
    if !wanted {
        return Vec::new();
    }
    let open = || File::options().read(true).write(true).open(VHOST_NET);
    (0..nic.queues.len())
        .map(|_| open().map(OwnedFd::from))
        .collect::<io::Result<_>>()
        .unwrap_or_else(|error| {
            tracing::debug!(%error, "without {VHOST_NET}");
            Vec::new()
        })
}

#[async_trait]
impl Backend for KvmBackend {
    fn name(&self) -> &'static str {
        "kvm"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            accelerator: Accelerator::Kvm,
            share: true,
            pause: true,
            resize: true,
            plug: true,
            devices: MAX_DEVICES,
            count: true,
            sockets: true,
            huge_pages: true,
            nics: MAX_NICS,
            nic_queues: MAX_QUEUES,
            max_vcpus: MAX_VCPUS,
            boot_deadline: Duration::from_secs(30),
        }
    }

    async fn create(&self, config: VmConfig) -> Result<Box<dyn Vm>, BackendError> {
        settings::check(&config, &self.capabilities())?;
        let program = self.program()?.to_owned();
        // The VMM gets what is open already, and reads it as a descriptor: whoever may read the file does not matter.
        let kernel = Image::open("guest kernel", &config.kernel, None)?;
        image::check_kernel(&kernel)?;
        let image = Image::open("guest image", &config.initrd, None)?;
        let device =
            kvm::open(Path::new(kvm::DEVICE)).map_err(|source| BackendError::Accelerator {
                device: kvm::DEVICE,
                source,
            })?;
        if config.huge_pages {
            memory::check_huge(config.memory_bytes)?;
        } else {
            memory::check(config.memory_bytes)?;
        }
        let vhost_net = self.config.vhost_net;
        let vhosts = config.nics.iter().map(|nic| vhosts(nic, vhost_net));
        let vhosts = vhosts.collect();
        Ok(Box::new(KvmVm::new(Prepared {
            program,
            confinement: confinement(config.privileges, !config.disks.is_empty()),
            kvm: device.into(),
            kernel: kernel.into_fd(),
            image: image.into_fd(),
            vhosts,
            vhost_net,
            config,
        })))
    }
}

/// How a VMM is confined that has these privileges, and perhaps disks from the boot.
#[must_use]
pub fn confinement(privileges: Privileges, disks: bool) -> Confinement {
    match privileges {
        Privileges::Drop { uid, gid } => Confinement {
            identity: Some(Identity {
                uid,
                gid,
                groups: Vec::new(),
            }),
            namespaces: true,
            // It gets everything by descriptors, and is linked statically.
            alone: true,
            device: None,
            limits: Limits {
                locked_bytes: Some(if disks { RING_BYTES } else { 0 }),
                ..LIMITS
            },
        },
        Privileges::Inherit => Confinement::default(),
    }
}
