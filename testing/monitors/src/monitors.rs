//! The monitors, each started as its users do.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use backend_api::{Backend, LinkIo, Privileges, SpareDevices, Vm, VmConfig};
use backend_kvm::{KvmBackend, KvmConfig};
use serde_json::json;
use tokio::io::AsyncReadExt;

use crate::files::{self, Files};

/// What the guest's kernel is told by every monitor.
pub const LINE: &str = "quiet 8250.nr_uarts=0 panic=-1 reboot=t";

/// A user that no other software has.
const USER: Privileges = Privileges::Drop {
    uid: 64_125,
    gid: 64_125,
};

/// What is booted.
pub struct Guest {
    pub kernel: PathBuf,
    pub image: PathBuf,
    pub memory_mib: u64,
}

/// One monitor.
pub enum Monitor {
    /// See `bare`.
    Bare,
    /// Ours, confined as it is when containers run in it.
    Own(PathBuf),
    /// QEMU, program and folder of its files.
    Qemu(PathBuf, PathBuf),
    Firecracker(PathBuf),
    CloudHypervisor(PathBuf),
}

/// A monitor that runs a guest, until it is dropped.
pub enum Running {
    Process(Child),
    /// With its link, as a guest that loses it ends.
    Own {
        machine: Box<dyn Vm>,
        _link: LinkIo,
    },
}

impl Monitor {
    /// Those that are there.
    pub fn all(
        files: &Files,
        own: &Path,
        firecracker: Option<&Path>,
        cloud_hypervisor: Option<&Path>,
    ) -> Result<Vec<Self>> {
        let mut all = vec![Self::Bare, Self::Own(files.copy(own)?)];
        if let Some(qemu) = files::find("qemu-system-x86_64") {
            let firmware = Path::new("/usr/share/qemu/qboot.rom");
            files.copy(firmware)?;
            all.push(Self::Qemu(files.program(&qemu)?, files.path().to_owned()));
        } else {
            eprintln!("monitors: no qemu-system-x86_64 here: it is left out");
        }
        if let Some(program) = firecracker {
            all.push(Self::Firecracker(files.program(program)?));
        }
        if let Some(program) = cloud_hypervisor {
            all.push(Self::CloudHypervisor(files.program(program)?));
        }
        Ok(all)
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Bare => "bare KVM program, no devices",
            Self::Own(_) => "cofferdam-vmm, confined: console, link, random numbers, balloon",
            Self::Qemu(..) => "QEMU microvm, no devices",
            Self::Firecracker(_) => "Firecracker, no devices",
            Self::CloudHypervisor(_) => "Cloud Hypervisor, no devices",
        }
    }

    /// Starts it.
    pub async fn start(&self, files: &Files, guest: &Guest) -> Result<Running> {
        let memory = guest.memory_mib;
        let mut command = match self {
            Self::Own(program) => return own(program, guest).await,
            Self::Bare => {
                let program = std::env::current_exe().context("find this program")?;
                let mut command = Command::new(program);
                command.arg("bare").arg("--kernel").arg(&guest.kernel);
                command.arg("--image").arg(&guest.image);
                command.args(["--memory", &memory.to_string(), "--line", LINE]);
                command
            }
            Self::Qemu(program, folder) => {
                let mut command = qemu(program, folder, guest);
                command.args(["-append", LINE]);
                command
            }
            Self::Firecracker(program) => {
                let config = json!({
                    "boot-source": {
                        "kernel_image_path": guest.kernel,
                        "initrd_path": guest.image,
                        "boot_args": LINE,
                    },
                    "drives": [],
                    "machine-config": { "vcpu_count": 1, "mem_size_mib": memory },
                });
                let config = files.add("firecracker.json", config.to_string().as_bytes())?;
                let mut command = Command::new(program);
                command.args(["--no-api", "--config-file"]).arg(config);
                command
            }
            Self::CloudHypervisor(program) => {
                let mut command = Command::new(program);
                command
                    .arg("--kernel")
                    .arg(&guest.kernel)
                    .arg("--initramfs")
                    .arg(&guest.image)
                    .args(["--cmdline", LINE, "--cpus", "boot=1"])
                    .args(["--memory", &format!("size={memory}M")])
                    .args(["--console", "off", "--serial", "off"]);
                command
            }
        };
        let child = command
            .env("LD_LIBRARY_PATH", files.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("start {}", self.name()))?;
        Ok(Running::Process(child))
    }
}

/// QEMU's smallest machine, without devices and the kernel's command line.
pub fn qemu(program: &Path, folder: &Path, guest: &Guest) -> Command {
    let mut command = Command::new(program);
    command
        .args(["-machine", "microvm,acpi=off,x-option-roms=off,rtc=on"])
        .args(["-accel", "kvm", "-cpu", "host"])
        .args(["-m", &guest.memory_mib.to_string()])
        .args(["-nodefaults", "-no-user-config", "-display", "none"])
        .arg("-no-reboot")
        .arg("-L")
        .arg(folder)
        .arg("-kernel")
        .arg(&guest.kernel)
        .arg("-initrd")
        .arg(&guest.image)
        .env("LD_LIBRARY_PATH", folder);
    command
}

/// Ours as a sandbox has it, without share and network.
async fn own(program: &Path, guest: &Guest) -> Result<Running> {
    let mut machine = machine(program, guest).await?;
    let link = machine.boot().await?;
    Ok(Running::Own {
        machine,
        _link: link,
    })
}

async fn machine(program: &Path, guest: &Guest) -> Result<Box<dyn Vm>> {
    let backend = KvmBackend::new(KvmConfig {
        program: program.to_owned(),
        vhost_net: false,
    });
    Ok(backend.create(config(guest)).await?)
}

/// A machine of ours without devices that a guest need not have.
pub fn config(guest: &Guest) -> VmConfig {
    VmConfig {
        name: "monitors".to_owned(),
        kernel: guest.kernel.clone(),
        initrd: guest.image.clone(),
        cmdline: Vec::new(),
        memory_bytes: guest.memory_mib << 20,
        spare_memory_bytes: 0,
        spare_vcpus: 0,
        vcpus: 1,
        share: None,
        huge_pages: false,
        sockets: None,
        nics: Vec::new(),
        disks: Vec::new(),
        images: Vec::new(),
        spare_devices: SpareDevices::default(),
        network: None,
        groups: Vec::new(),
        privileges: USER,
    }
}

/// Boots our guest image on our monitor until the agent has said its first word.
pub async fn until_agent(program: &Path, guest: &Guest) -> Result<Running> {
    let mut machine = machine(program, guest).await?;
    let mut link = machine.boot().await?;
    link.read_u8().await.context("the agent does not call")?;
    Ok(Running::Own {
        machine,
        _link: link,
    })
}

impl Running {
    /// Ours.
    pub fn own(machine: Box<dyn Vm>, link: LinkIo) -> Self {
        Self::Own {
            machine,
            _link: link,
        }
    }

    pub fn pid(&self) -> Option<u32> {
        match self {
            Self::Process(child) => Some(child.id()),
            Self::Own { machine, .. } => machine.pid(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Self::Process(child) = self {
            // Failures mean that it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
