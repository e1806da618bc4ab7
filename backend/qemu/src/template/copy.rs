//! Going on where a template stopped.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use backend_api::{BackendError, Phase, Vm, VmConfig};
use rustix::fs::{MemfdFlags, memfd_create};
use serde_json::json;
use tokio::task::JoinHandle;

use super::file::Template;
use super::{fail, memory};
use crate::QemuBackend;
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
}

/// A machine that goes on where the template stopped.
pub fn copy(
    backend: &QemuBackend,
    config: VmConfig,
    template: File,
) -> Result<Box<dyn Vm>, BackendError> {
    backend.check(&config)?;
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
    pub fn hand_over(self) -> ([OwnedFd; 2], Restoring) {
        let restoring = Restoring {
            state: self.state.as_raw_fd(),
            filling: self.filling,
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
        let silent = |_| MonitorError::Silent {
            command: "migrate-incoming",
            deadline: DEADLINE,
        };
        let resumed = tokio::time::timeout(DEADLINE, monitor.until(|seen| seen.resumed)).await;
        resumed.map_err(silent)??;
        Ok(())
    }
}
