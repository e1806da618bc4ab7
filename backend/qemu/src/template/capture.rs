//! Making a template.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::time::Duration;

use backend_api::{Backend, BackendError, Greeting, Phase, Vm, VmConfig};
use backend_host::settings;
use rustix::fs::{MemfdFlags, memfd_create};
use serde_json::json;

use super::{fail, file, memory};
use crate::QemuBackend;
use crate::monitor::{Monitor, MonitorError};
use crate::vm::{Origin, QemuVm};

/// How long the guest may take to wait for its next host. QEMU tells of it once a second.
const RETURN: Duration = Duration::from_secs(30);

/// How long QEMU may take to write the devices' state.
const SAVE: Duration = Duration::from_secs(20);

/// The name of the state's descriptor in QEMU.
const STATE: &str = "state";

/// Boots a guest and writes it to a file.
pub async fn capture(
    backend: &QemuBackend,
    config: VmConfig,
    greeting: Greeting,
    out: File,
) -> Result<(), BackendError> {
    settings::check(&config, &backend.capabilities())?;
    let size = config.memory_bytes;
    let memory = memory::empty(size).map_err(fail(Phase::Create, "has no memory"))?;
    let shared = memory
        .try_clone()
        .map_err(fail(Phase::Create, "has no memory"))?;
    let origin = backend
        .kernel(&config, Some(shared.into()))
        .await
        .map(Origin::Kernel)?;
    let mut vm = QemuVm::new(backend.prepare(config, origin)?);
    let link = vm.boot().await?;
    let monitor = vm.monitor(Phase::Run)?;
    // Told at once: that the port is open. It counts before the greeting, which needs it.
    greeting(link)
        .await
        .map_err(|source| BackendError::Template {
            phase: Phase::Boot,
            problem: "does not answer",
            source: Some(source),
        })?;
    let state = match save(monitor).await {
        Ok(state) => state,
        Err(error) => return Err(vm.explain(Phase::Run, error).await),
    };
    // It stands still for good.
    vm.stop().await?;
    let write = move || file::write(&out, (&memory, size), &read(state)?);
    tokio::task::spawn_blocking(write)
        .await
        .unwrap_or_else(|error| Err(error.into()))
        .map_err(fail(Phase::Stop, "cannot be written"))
}

async fn save(monitor: &Monitor) -> Result<File, MonitorError> {
    // Once for the host that has hung up, and once more.
    let returned = monitor.until(|seen| seen.port_open && seen.openings >= 2);
    within("the guest's port", RETURN, returned).await?;
    let state = memfd_create("devices", MemfdFlags::CLOEXEC)
        .map(File::from)
        .map_err(|errno| MonitorError::System(errno.into()))?;
    monitor.give(STATE, state.as_fd()).await?;
    monitor.ignore_shared_memory().await?;
    let uri = format!("fd:{STATE}");
    monitor
        .execute_with("migrate", json!({ "uri": uri }))
        .await?;
    let saved = monitor.until(|seen| seen.migrated.is_some());
    let seen = within("migrate", SAVE, saved).await?;
    if seen.migrated != Some(true) {
        return Err(MonitorError::Refused {
            command: "migrate",
            reason: "it failed".to_owned(),
        });
    }
    Ok(state)
}

async fn within<T>(
    command: &'static str,
    deadline: Duration,
    future: impl Future<Output = Result<T, MonitorError>>,
) -> Result<T, MonitorError> {
    let silent = |_| MonitorError::Silent { command, deadline };
    tokio::time::timeout(deadline, future)
        .await
        .map_err(silent)?
}

fn read(mut state: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::Seek::rewind(&mut state)?;
    // One byte more than is written to a template, which then refuses it.
    state.take(file::STATE_LIMIT + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
