//! The machines, each with every device that is measured.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use backend_api::{Backend, Disk, Image, LinkIo, Nic, Share, Vm};
use backend_kvm::{KvmBackend, KvmConfig};
use rustix::io::{FdFlags, fcntl_setfd};
use sandbox_share::{Entry, EntryKind, ShareConfig, ShareServer};
use tokio::net::UnixListener;
use tokio::time::timeout;

use super::contents::Contents;
use super::link::{Link, Listener};
use super::wire::Wire;
use crate::files::Files;
use crate::monitors::{self, Guest, Running};

/// Serial numbers of the disks.
pub const RAW: &str = "raw";
/// The same as `RAW`, but by io_uring where that is a choice.
pub const RING: &str = "ring";
pub const EROFS: &str = "erofs";

/// What the guest mounts by.
pub const TAG: &str = "files";

/// The port of its host that the guest calls.
const PORT: u32 = 1024;

/// How long a boot may take.
const LIMIT: Duration = Duration::from_secs(120);

/// A monitor.
pub enum Kind {
    Own(PathBuf),
    /// The program, and the folder of its files.
    Qemu(PathBuf, PathBuf),
}

impl Kind {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Own(_) => "cofferdam-vmm",
            Self::Qemu(..) => "QEMU microvm",
        }
    }
}

/// A machine whose guest answers.
pub struct Machine {
    pub link: Link,
    /// To the same program in the guest.
    pub serial: Option<Link>,
    pub wire: Wire,
    running: Booted,
    _share: ShareServer,
}

/// What runs it.
enum Booted {
    Own(Box<dyn Vm>),
    Qemu {
        /// The file of its console.
        console: PathBuf,
        _process: Running,
    },
}

/// What it is made of.
pub struct Parts<'a> {
    pub files: &'a Files,
    pub contents: &'a Contents,
    pub guest: &'a Guest,
    /// The program of the file server.
    pub server: &'a Path,
    /// Whether the host's kernel passes packets.
    pub vhost_net: bool,
    /// Of the network.
    pub number: u8,
}

impl Machine {
    /// Boots one.
    pub async fn boot(kind: &Kind, parts: &Parts<'_>) -> Result<Self> {
        let (server, share) = share(parts).await?;
        let (wire, queue) = Wire::new(parts.number)?;
        let booted = match kind {
            Kind::Own(program) => own(program, parts, share, queue).await,
            Kind::Qemu(program, folder) => qemu(program, folder, parts, share, queue).await,
        };
        let (running, link, serial) = booted.with_context(|| format!("boot on {}", kind.name()))?;
        Ok(Self {
            link: Link::new(link),
            serial: serial.map(Link::new),
            wire,
            running,
            _share: server,
        })
    }

    /// The last words of the guest and of its monitor.
    pub fn told(&self) -> String {
        match &self.running {
            Booted::Own(machine) => machine.diagnostics().to_string(),
            // QEMU's own are seen already.
            Booted::Qemu { console, .. } => fs::read_to_string(console).unwrap_or_default(),
        }
    }
}

async fn share(parts: &Parts<'_>) -> Result<(ShareServer, OwnedFd)> {
    let mut server = ShareServer::spawn(ShareConfig {
        program: parts.server.to_owned(),
        entries: vec![Entry {
            path: "tree".into(),
            kind: EntryKind::Bind {
                source: parts.contents.tree.clone(),
                readonly: true,
                recursive: false,
            },
        }],
        deadline: LIMIT,
        groups: Vec::new(),
    })?;
    server.ready().await?;
    let socket = server.vmm_socket().context("the server has no socket")?;
    Ok((server, socket))
}

fn open(path: &Path) -> Result<OwnedFd> {
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    Ok(file.into())
}

async fn own(
    program: &Path,
    parts: &Parts<'_>,
    share: OwnedFd,
    queue: OwnedFd,
) -> Result<(Booted, LinkIo, Option<LinkIo>)> {
    let backend = KvmBackend::new(KvmConfig {
        program: program.to_owned(),
        vhost_net: parts.vhost_net,
    });
    let disk = |serial: &str, path| -> Result<Disk> {
        Ok(Disk {
            file: open(path)?,
            read_only: true,
            serial: serial.to_owned(),
        })
    };
    let mut config = monitors::config(parts.guest);
    config.disks.push(disk(RAW, &parts.contents.disk)?);
    if let Some(erofs) = &parts.contents.erofs {
        config.disks.push(disk(EROFS, erofs)?);
        config.images.push(Image { file: open(erofs)? });
    }
    config.share = Some(Share {
        tag: TAG.to_owned(),
        socket: share,
    });
    config.nics.push(Nic {
        mac: [2, 0, 0, 0, 0, parts.number],
        queues: vec![queue],
    });
    let mut machine: Box<dyn Vm> = backend.create(config).await?;
    let link = machine.boot().await?;
    Ok((Booted::Own(machine), link, None))
}

async fn qemu(
    program: &Path,
    folder: &Path,
    parts: &Parts<'_>,
    share: OwnedFd,
    queue: OwnedFd,
) -> Result<(Booted, LinkIo, Option<LinkIo>)> {
    let socket = parts.files.path().join(format!("port{}", parts.number));
    let console = parts.files.path().join(format!("console{}", parts.number));
    let port = UnixListener::bind(&socket).context("listen for QEMU's port")?;
    let listener = Listener::new(PORT)?;
    let mut command = monitors::qemu(program, folder, parts.guest);
    let memory = parts.guest.memory_mib;
    command
        .args(["-append", &format!("{} console=hvc0", monitors::LINE)])
        .args(["-global", "virtio-mmio.force-legacy=off"])
        .arg("-object")
        .arg(format!(
            "memory-backend-memfd,id=ram,size={memory}M,share=on"
        ))
        .args(["-machine", "memory-backend=ram"])
        .args(["-device", "vhost-vsock-device,guest-cid=3"])
        .arg("-chardev")
        .arg(format!("socket,id=port,path={}", socket.display()))
        .args(["-device", "virtio-serial-device,max_ports=2"])
        .arg("-chardev")
        .arg(format!("file,id=console,path={}", console.display()))
        .args(["-device", "virtconsole,chardev=console"])
        .args(["-device", "virtserialport,chardev=port,name=measured"]);
    let mut disk = |serial: &str, path: &Path, how: &str| {
        command
            .arg("-drive")
            .arg(format!(
                "file={},format=raw,if=none,id={serial},read-only=on,aio={how}",
                path.display()
            ))
            .arg("-device")
            .arg(format!("virtio-blk-device,drive={serial},serial={serial}"));
    };
    disk(RAW, &parts.contents.disk, "threads");
    disk(RING, &parts.contents.disk, "io_uring");
    if let Some(erofs) = &parts.contents.erofs {
        disk(EROFS, erofs, "threads");
    }
    let vhost = if parts.vhost_net { "on" } else { "off" };
    command
        .arg("-chardev")
        .arg(format!("socket,id=share,fd={}", share.as_raw_fd()))
        .arg("-device")
        .arg(format!(
            "vhost-user-fs-device,chardev=share,queue-size=1024,tag={TAG}"
        ))
        .arg("-netdev")
        .arg(format!("tap,id=net,fd={},vhost={vhost}", queue.as_raw_fd()))
        .args(["-device", "virtio-net-device,netdev=net"])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    // For QEMU; this program starts nothing else before they are closed.
    fcntl_setfd(&share, FdFlags::empty())?;
    fcntl_setfd(&queue, FdFlags::empty())?;
    let child = command.spawn().context("start QEMU")?;
    let running = Running::Process(child);
    drop((share, queue));
    let (serial, _) = timeout(LIMIT, port.accept())
        .await
        .context("QEMU does not open its port")??;
    let link = listener.accept().await?;
    let booted = Booted::Qemu {
        console,
        _process: running,
    };
    Ok((booted, link, Some(Box::new(serial))))
}
