//! Running another process in a container.

use std::sync::Arc;

use cofferdam_protocol::ExecProcessRequest;
use oci_spec::runtime::{LinuxNamespaceType, LinuxPersonalityDomain, Process, Spec};
use rustix::thread::ThreadNameSpaceType;

use super::outcome::Outcome;
use super::paths::in_guest;
use super::{Container, ContainerError, Containers, Failure, State, spec};
use crate::helper::{ExecRequest, Report, Request};
use crate::process::End;

/// Execution domains of linux/personality.h.
const PER_LINUX: u32 = 0;
const PER_LINUX32: u32 = 8;

impl Containers {
    /// Runs a process; returns its id when it has executed its command.
    ///
    /// # Errors
    /// When the request is wrong. A process that cannot be run is a [`Failure`].
    pub async fn exec(
        &self,
        request: ExecProcessRequest,
    ) -> Result<Result<i32, Failure>, ContainerError> {
        let container = self.get(&request.container_id)?;
        if request.exec_id.is_empty() {
            return Err(ContainerError::invalid("exec_id", "is empty"));
        }
        let malformed = |source| ContainerError::Malformed {
            what: "the process",
            source,
        };
        let mut process: Process = serde_json::from_slice(&request.process).map_err(malformed)?;
        spec::prepare_process(&mut process)?;
        refuse(&process)?;
        let _busy = container.operation.lock().await;
        container.require("exec in", &[State::Created, State::Running])?;
        let reservation = Reservation::new(&container, &request.exec_id)?;

        let user = process.user();
        let owner = in_guest(&container.spec, user.uid(), user.gid());
        let terminal = process.terminal() == Some(true);
        let size = process.console_size();
        let face = self
            .face(terminal, request.stdio.get_or_default(), owner)
            .await?;
        let expectation = self.reaper.expect();
        let order = Request::Exec(Box::new(ExecRequest {
            init: container.inner().init.pid(),
            process,
            namespaces: namespaces(&container.spec).bits(),
            cgroup: container.cgroup.path().to_owned(),
            seccomp: linux(&container.spec).and_then(|linux| linux.seccomp().clone()),
            personality: personality(&container.spec),
            console: face.console(),
        }));
        let mut report = self.helper.order(&order, face.stdio())?.report;

        let mut outcome = Outcome::default();
        let (mut pid, mut executing) = (None, false);
        loop {
            match report.next().await {
                Ok(Some(Report::Pid(number))) => pid = Some(number),
                Ok(Some(Report::Executing)) => executing = true,
                Ok(Some(line)) => outcome.note(line),
                Ok(None) => break,
                Err(source) => {
                    let doing = "read the report of the container helper";
                    return Err(ContainerError::Kernel { doing, source });
                }
            }
        }
        let pid = match pid {
            Some(pid) if executing && !outcome.has_failed() => pid,
            _ => return Ok(Err(outcome.failure("the process ended before its command"))),
        };
        let end = End {
            exit: expectation.claim(pid),
            oom: Arc::clone(&container.oom),
        };
        let process = face.process(pid, end, size).await?;
        reservation.fill(process);
        Ok(Ok(pid))
    }

    /// Forgets a process that has ended.
    ///
    /// # Errors
    /// When there is none or it has not ended.
    pub fn forget(&self, id: &str, exec: &str) -> Result<(), ContainerError> {
        let container = self.get(id)?;
        let process = container.process(exec)?;
        if exec.is_empty() || !process.has_ended() {
            return Err(ContainerError::Process {
                id: id.to_owned(),
                exec: exec.to_owned(),
                problem: "has not ended or is the container's first",
            });
        }
        container.inner().execs.remove(exec);
        Ok(())
    }
}

/// A place for a process's name, free again unless it is filled.
struct Reservation<'a> {
    container: &'a Container,
    exec: &'a str,
    filled: bool,
}

impl<'a> Reservation<'a> {
    fn new(container: &'a Container, exec: &'a str) -> Result<Self, ContainerError> {
        let mut inner = container.inner();
        if inner.execs.contains_key(exec) {
            return Err(ContainerError::ProcessExists {
                id: container.id.clone(),
                exec: exec.to_owned(),
            });
        }
        inner.execs.insert(exec.to_owned(), None);
        drop(inner);
        Ok(Self {
            container,
            exec,
            filled: false,
        })
    }

    fn fill(mut self, process: crate::process::Process) {
        self.filled = true;
        let process = Some(Arc::new(process));
        self.container
            .inner()
            .execs
            .insert(self.exec.to_owned(), process);
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if !self.filled {
            self.container.inner().execs.remove(self.exec);
        }
    }
}

/// What a later process cannot have.
fn refuse(process: &Process) -> Result<(), ContainerError> {
    for (field, is_set) in [
        ("process.ioPriority", process.io_priority().is_some()),
        ("process.scheduler", process.scheduler().is_some()),
        (
            "process.execCPUAffinity",
            process.exec_cpu_affinity().is_some(),
        ),
    ] {
        if is_set {
            let problem = "is not supported for a process in a running container";
            return Err(ContainerError::invalid(field, problem));
        }
    }
    Ok(())
}

fn linux(spec: &Spec) -> Option<&oci_spec::runtime::Linux> {
    spec.linux().as_ref()
}

/// The namespaces of its own that the container was given.
fn namespaces(spec: &Spec) -> ThreadNameSpaceType {
    let list = linux(spec).and_then(|linux| linux.namespaces().as_deref());
    list.unwrap_or_default()
        .iter()
        .map(|namespace| match namespace.typ() {
            LinuxNamespaceType::Mount => ThreadNameSpaceType::MOUNT,
            LinuxNamespaceType::Cgroup => ThreadNameSpaceType::CONTROL_GROUP,
            LinuxNamespaceType::Uts => ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME,
            LinuxNamespaceType::Ipc => ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION,
            LinuxNamespaceType::User => ThreadNameSpaceType::USER,
            LinuxNamespaceType::Pid => ThreadNameSpaceType::PROCESS_ID,
            LinuxNamespaceType::Network => ThreadNameSpaceType::NETWORK,
            LinuxNamespaceType::Time => ThreadNameSpaceType::TIME,
        })
        .fold(ThreadNameSpaceType::empty(), ThreadNameSpaceType::union)
}

fn personality(spec: &Spec) -> Option<u32> {
    let domain = linux(spec)?.personality().as_ref()?.domain();
    Some(match domain {
        LinuxPersonalityDomain::PerLinux => PER_LINUX,
        LinuxPersonalityDomain::PerLinux32 => PER_LINUX32,
    })
}
