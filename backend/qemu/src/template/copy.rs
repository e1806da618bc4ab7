//! Going on where a template stopped.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use backend_api::{Backend, BackendError, Phase, Vm, VmConfig};
use backend_host::settings;
use rustix::fs::{MemfdFlags, memfd_create};
use serde_json::json;
use tokio::task::JoinHandle;

use super::file::Template;
use super::{fail, memory};
use crate::QemuBackend;
use crate::command::{PLUG, PLUG_TRANSPORT, SHARE_QUEUE, SHARE_TRANSPORT};
use crate::monitor::{Monitor, MonitorError};
use crate::vm::{Origin, QemuVm};

/// How long QEMU may take to read the devices' state. It is short.
const DEADLINE: Duration = Duration::from_secs(20);

/// A template's memory and devices, for a QEMU that is about to be started.
#[derive(Debug)]
pub struct Restore {
    /// The memory, which is being filled.
    pub memory: OwnedFd,
    /// The devices' state.
    pub state: OwnedFd,
    /// Fills the memory.
    filling: JoinHandle<io::Result<()>>,
}

/// The same, while QEMU holds the descriptors.
#[derive(Debug)]
pub struct Restoring {
    state: RawFd,
    filling: JoinHandle<io::Result<()>>,
    /// The share's tag.
    share: Option<String>,
}

/// A machine that goes on where the template stopped.
pub fn copy(
    backend: &QemuBackend,
    config: VmConfig,
    template: File,
) -> Result<Box<dyn Vm>, BackendError> {
    settings::check(&config, &backend.capabilities())?;
    // First of all: it goes on beside the rest.
    let restore = Restore::begin(template, config.memory_bytes)
        .map_err(fail(Phase::Create, "cannot be used"))?;
    let prepared = backend.prepare(config, Origin::Template(restore))?;
    Ok(Box::new(QemuVm::new(prepared)))
}

impl Restore {
    fn begin(file: File, size: u64) -> io::Result<Self> {
        let template = Template::open(file, size)?;
        let mut state = File::from(memfd_create("devices", MemfdFlags::CLOEXEC)?);
        state.write_all(&template.state)?;
        io::Seek::rewind(&mut state)?;
        let memory = Arc::new(memory::empty(size)?);
        let target = Arc::clone(&memory);
        let filling = tokio::task::spawn_blocking(move || template.fill(&target));
        Ok(Self {
            memory: memory.try_clone()?.into(),
            state: state.into(),
            filling,
        })
    }

    /// The descriptors to hand over, and what is left to do.
    pub fn hand_over(self, share: Option<String>) -> ([OwnedFd; 2], Restoring) {
        let restoring = Restoring {
            state: self.state.as_raw_fd(),
            filling: self.filling,
            share,
        };
        ([self.memory, self.state], restoring)
    }
}

/// Why a machine did not come to life.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The memory could not be filled.
    #[error("cannot copy its memory")]
    Fill(#[source] io::Error),
    /// QEMU did not take it.
    #[error(transparent)]
    Monitor(#[from] MonitorError),
}

impl Restoring {
    /// Has QEMU, which waits for that, take the state and let the virtual CPUs run.
    pub async fn finish(self, monitor: &Monitor) -> Result<(), RestoreError> {
        monitor.ignore_shared_memory().await?;
        let filled = self.filling.await.unwrap_or_else(|error| Err(error.into()));
        filled.map_err(RestoreError::Fill)?;
        let uri = format!("fd:{}", self.state);
        monitor
            .execute_with("migrate-incoming", json!({ "uri": uri }))
            .await?;
        // QEMU ends when it cannot read it.
        let silent = |_| MonitorError::Silent {
            command: "migrate-incoming",
            deadline: DEADLINE,
        };
        let loaded = tokio::time::timeout(DEADLINE, monitor.until(|seen| seen.migrated.is_some()));
        loaded.await.map_err(silent)??;
        if let Some(tag) = &self.share {
            plug_share(monitor, tag).await?;
        }
        unplug(monitor).await?;
        monitor.execute("cont").await?;
        Ok(())
    }
}

/// Adds the share. The transport would not have it: its bus knows of no hot-plugging, for which QEMU asks the bus's
/// handler. Any will do, if it has nothing to say to new devices, as the bus of SCSI disks has not.
async fn plug_share(monitor: &Monitor, tag: &str) -> Result<(), MonitorError> {
    set_handler(monitor, SHARE_TRANSPORT, true).await?;
    let device = json!({
        "driver": "vhost-user-fs-device",
        "id": "share",
        "bus": bus(SHARE_TRANSPORT),
        "chardev": "share",
        "queue-size": SHARE_QUEUE,
        "tag": tag,
    });
    monitor.execute_with("device_add", device).await?;
    set_handler(monitor, SHARE_TRANSPORT, false).await
}

/// Takes away the device that has brought the handler.
async fn unplug(monitor: &Monitor) -> Result<(), MonitorError> {
    set_handler(monitor, PLUG_TRANSPORT, true).await?;
    monitor
        .execute_with("device_del", json!({ "id": PLUG }))
        .await?;
    set_handler(monitor, PLUG_TRANSPORT, false).await
}

async fn set_handler(monitor: &Monitor, transport: u32, set: bool) -> Result<(), MonitorError> {
    let handler = if set {
        format!("/machine/peripheral/{PLUG}/{PLUG}.0")
    } else {
        String::new()
    };
    let property = json!({
        "path": bus(transport),
        "property": "hotplug-handler",
        "value": handler,
    });
    monitor.execute_with("qom-set", property).await
}

fn bus(transport: u32) -> String {
    format!("virtio-mmio-bus.{transport}")
}
