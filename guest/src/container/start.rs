//! Starting a container's first process.

use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use oci_spec::runtime::Spec;
use rustix::fs::{Mode, OFlags};

use super::create::state_folder;
use super::outcome::Outcome;
use super::{ContainerError, Containers, Failure, State, share};
use crate::helper::Report;

impl Containers {
    /// Lets the first process execute its command, and returns when it has, or could not.
    ///
    /// # Errors
    /// When there is no such container or it was started before.
    pub async fn start(&self, id: &str) -> Result<Result<(), Failure>, ContainerError> {
        let container = self.get(id)?;
        let _busy = container.operation.lock().await;
        container.require("start", &[State::Created])?;
        share::look_again(&container.spec).await;
        notify(id).map_err(ContainerError::kernel(
            "reach the container's first process",
        ))?;
        let report = container.inner().report.take();
        let Some(mut report) = report else {
            return Err(ContainerError::State {
                operation: "start",
                id: id.to_owned(),
                state: container.state(),
            });
        };
        container.inner().started = true;
        let mut outcome = Outcome::default();
        let mut executing = false;
        loop {
            match report.next().await {
                Ok(Some(Report::Executing)) => executing = true,
                Ok(Some(line)) => outcome.note(line),
                Ok(None) => break,
                Err(source) => {
                    let doing = "read the report of the container's first process";
                    return Err(ContainerError::Kernel { doing, source });
                }
            }
        }
        if executing && !outcome.has_failed() {
            return Ok(Ok(()));
        }
        // It is about to end, or has ended, which is what the host will see next.
        Ok(Err(outcome.failure(&format!(
            "the container's first process ended before its command{}",
            after_hooks(&container.spec)
        ))))
    }
}

/// Names the hooks that ran before: libcontainer does not say whose failure it tells.
fn after_hooks(spec: &Spec) -> String {
    let hooks = spec
        .hooks()
        .as_ref()
        .and_then(|hooks| hooks.start_container().as_deref());
    let paths: Vec<_> = hooks
        .unwrap_or_default()
        .iter()
        .map(|hook| hook.path().display().to_string())
        .collect();
    match paths.is_empty() {
        true => String::new(),
        false => format!(" (startContainer hooks: {})", paths.join(", ")),
    }
}

/// Tells libcontainer's part of the first process to go on.
fn notify(id: &str) -> io::Result<()> {
    // By way of the folder's descriptor, because a socket's path may have 107 bytes only.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open(state_folder().join(id), flags, Mode::empty())?;
    let path = format!("/proc/self/fd/{}/notify.sock", folder.as_raw_fd());
    UnixStream::connect(path)?.write_all(b"start container")
}
