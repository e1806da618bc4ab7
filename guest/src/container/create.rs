//! Making a container.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use cofferdam_protocol::CreateContainerRequest;
use oci_spec::OciSpecError;
use oci_spec::runtime::{LinuxNamespaceType, LinuxSeccomp, Spec};
use rustix::fs::{Mode, OFlags, ResolveFlags, mkdirat, openat2};
use tokio::sync::Mutex as AsyncMutex;

use super::outcome::Outcome;
use super::paths::{has_namespace, owner, source_of};
use super::{
    Container, ContainerError, Containers, FOLDER, Failure, Inner, copy_up, share, shm, spec,
};
use crate::cgroup::{Cgroup, OomCount, OomWatch};
use crate::helper::{CreateRequest, Report, ReportReader, Request};
use crate::process::End;

/// The longest name: it becomes that of a folder.
const ID_MAX: usize = 255;

impl Containers {
    /// Makes a container whose first process waits for its start; the process's id.
    ///
    /// # Errors
    /// When the request is wrong. A container that cannot be made is a [`Failure`].
    pub async fn create(
        &self,
        request: CreateContainerRequest,
    ) -> Result<Result<i32, Failure>, ContainerError> {
        check_id(&request.id)?;
        let reservation = Reservation::new(self, &request.id)?;
        let cgroup = Cgroup::new(format!("c{}", self.number()));
        let made = self.make(&request, &cgroup).await;
        match made {
            Ok(Ok(container)) => {
                let pid = container.inner().init.pid();
                reservation.fill(container);
                Ok(Ok(pid))
            }
            failed => {
                let removed = cgroup.remove().await;
                remove_folders(&request.id);
                shm::remove(&request.id);
                share::let_go(&request.id).await;
                removed.map_err(ContainerError::file("remove cgroup", cgroup.path()))?;
                failed.map(|made| made.map(|_| 0))
            }
        }
    }

    async fn make(
        &self,
        request: &CreateContainerRequest,
        cgroup: &Cgroup,
    ) -> Result<Result<Arc<Container>, Failure>, ContainerError> {
        let id = request.id.as_str();
        let bundle = bundle(id);
        fs::create_dir_all(&bundle).map_err(ContainerError::file("make folder", &bundle))?;
        let mut spec = load(&bundle.join("config.json"), &request.spec)?;
        spec::prepare(&mut spec, cgroup)?;
        self.share_namespaces(&mut spec)?;
        shm::make(&mut spec)?;
        let copied_up = copy_up::take(&mut spec);
        let (on_disk, seccomp) = without_filter(&spec);
        save(&bundle.join("config.json"), &on_disk)?;
        make_cwd(&spec);

        let owner = owner(&spec);
        let size = spec
            .process()
            .as_ref()
            .and_then(|process| process.console_size());
        let face = self
            .face(is_terminal(&spec), request.stdio.get_or_default(), owner)
            .await?;
        let expectation = self.reaper.expect();
        let order = Request::Create(Box::new(CreateRequest {
            id: id.to_owned(),
            bundle: bundle.clone(),
            user_namespace: has_namespace(&spec, LinuxNamespaceType::User),
            state: state_folder(),
            console: face.console(),
            seccomp,
            inheritable: spec
                .process()
                .as_ref()
                .and_then(|process| process.capabilities().as_ref())
                .and_then(|sets| sets.inheritable().clone())
                .unwrap_or_default(),
        }));
        let mut report = self.helper.order(&order, face.stdio())?.report;
        let pid = match created(&mut report).await? {
            Ok(pid) => pid,
            Err(failure) => return Ok(Err(with_memory(failure, &spec))),
        };
        if let Some(root) = spec.root() {
            copy_up::fill(root.path(), pid, &copied_up)?;
        }
        let oom = Arc::new(OomCount::new(cgroup.clone()));
        let end = End {
            exit: expectation.claim(pid),
            oom: Arc::clone(&oom),
        };
        let process = face.process(pid, end, size).await?;
        let resources = spec
            .linux()
            .as_ref()
            .and_then(|linux| linux.resources().as_ref());
        let rules = resources.and_then(|resources| resources.devices().as_deref());
        cgroup.allow_devices(rules.unwrap_or_default())?;
        self.watch_memory(id, cgroup);
        Ok(Ok(Arc::new(Container {
            id: id.to_owned(),
            spec,
            operation: AsyncMutex::new(()),
            inner: Mutex::new(Inner {
                init: Arc::new(process),
                started: false,
                paused: false,
                report: Some(report),
                execs: HashMap::new(),
            }),
            cgroup: cgroup.clone(),
            oom,
        })))
    }

    /// Passes on when the kernel kills a process of the container for want of memory.
    fn watch_memory(&self, id: &str, cgroup: &Cgroup) {
        // A kernel of the user's own may have no memory controller: then nothing happens.
        let Ok(mut watch) = OomWatch::new(cgroup.clone()) else {
            return;
        };
        let (oom, id) = (self.oom.clone(), id.to_owned());
        tokio::spawn(async move {
            while let Ok(true) = watch.next().await {
                // When the host does not take events, those that wait say the same.
                let _ = oom.try_send(id.clone());
            }
        });
    }
}

/// Reads a spec by way of `path`.
///
/// libcontainer reads it from there again. Under emulation it matters that both use the same
/// code: its first run, when it is translated, takes far longer than all others.
fn load(path: &Path, bytes: &[u8]) -> Result<Spec, ContainerError> {
    fs::write(path, bytes).map_err(ContainerError::file("write", path))?;
    Spec::load(path).map_err(|error| match error {
        OciSpecError::SerDe(source) => ContainerError::Malformed {
            what: "the container's spec",
            source,
        },
        other => ContainerError::invalid("spec", other.to_string()),
    })
}

fn save(path: &Path, spec: &Spec) -> Result<(), ContainerError> {
    let bytes = serde_json::to_vec(spec).map_err(|source| ContainerError::Malformed {
        what: "the container's spec",
        source,
    })?;
    fs::write(path, bytes).map_err(ContainerError::file("write", path))
}

/// A place for a name in the table, free again unless it is filled.
struct Reservation<'a> {
    containers: &'a Containers,
    id: String,
    filled: bool,
}

impl<'a> Reservation<'a> {
    fn new(containers: &'a Containers, id: &str) -> Result<Self, ContainerError> {
        let mut table = containers.table();
        if table.contains_key(id) {
            return Err(ContainerError::ContainerExists { id: id.to_owned() });
        }
        table.insert(id.to_owned(), None);
        drop(table);
        Ok(Self {
            containers,
            id: id.to_owned(),
            filled: false,
        })
    }

    fn fill(mut self, container: Arc<Container>) {
        self.filled = true;
        self.containers
            .table()
            .insert(self.id.clone(), Some(container));
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if !self.filled {
            self.containers.table().remove(&self.id);
        }
    }
}

/// Reads the report of a worker until the container is made.
async fn created(report: &mut ReportReader) -> Result<Result<i32, Failure>, ContainerError> {
    let read = ContainerError::kernel("read the report of the container helper");
    let mut outcome = Outcome::default();
    let mut pid = None;
    let line = loop {
        match report.next().await {
            Ok(Some(Report::Created)) => break Ok(true),
            Ok(Some(Report::Pid(number))) => pid = Some(number),
            Ok(Some(line)) => outcome.note(line),
            Ok(None) => break Ok(false),
            Err(error) => break Err(error),
        }
    };
    match (line.map_err(read)?, pid) {
        (true, Some(pid)) => Ok(Ok(pid)),
        _ => Ok(Err(outcome.failure("the container was not made"))),
    }
}

/// What a container needs to be made, beside what it does then.
const LITTLE_MEMORY: i64 = 6 << 20;

/// Says that there was little memory: a process that the kernel kills for it says nothing.
fn with_memory(failure: Failure, spec: &Spec) -> Failure {
    let limit = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.resources().as_ref())
        .and_then(|resources| resources.memory().as_ref())
        .and_then(|memory| memory.limit())
        .filter(|limit| (1..LITTLE_MEMORY).contains(limit));
    match (failure, limit) {
        (Failure::Other(text), Some(limit)) => Failure::Other(format!(
            "{text} (its memory limit of {limit} bytes may be too small)"
        )),
        (failure, _) => failure,
    }
}

fn check_id(id: &str) -> Result<(), ContainerError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
    if id.is_empty() || id.len() > ID_MAX || id == "." || id == ".." || !id.chars().all(allowed) {
        return Err(ContainerError::invalid(
            "id",
            format!("{id:?} is no container id"),
        ));
    }
    Ok(())
}

pub(super) fn bundle(id: &str) -> PathBuf {
    Path::new(FOLDER).join("bundles").join(id)
}

pub(super) fn state_folder() -> PathBuf {
    Path::new(FOLDER).join("state")
}

/// Removes what a container leaves in memory.
pub(super) fn remove_folders(id: &str) {
    for folder in [bundle(id), state_folder().join(id)] {
        // A container that was never made has none.
        let _ = fs::remove_dir_all(folder);
    }
}

pub(super) fn is_terminal(spec: &Spec) -> bool {
    spec.process()
        .as_ref()
        .and_then(|process| process.terminal())
        == Some(true)
}

/// Makes the working directory if it is missing, as runc does for a container's first process.
///
/// Whatever goes wrong here is told better when the process enters it.
fn make_cwd(spec: &Spec) {
    let Some(process) = spec.process() else {
        return;
    };
    let Some((root, path)) = source_of(spec, process.cwd()) else {
        return;
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(root) = rustix::fs::open(&root, flags, Mode::empty()) else {
        return;
    };
    if openat2(&root, &path, flags, Mode::empty(), ResolveFlags::IN_ROOT).is_ok() {
        return;
    }
    let mut done = PathBuf::from("/");
    for part in path.components() {
        let std::path::Component::Normal(name) = part else {
            continue;
        };
        let beneath = openat2(&root, &done, flags, Mode::empty(), ResolveFlags::IN_ROOT);
        let Ok(folder) = beneath else {
            return;
        };
        // There already: that is the usual case.
        let _ = mkdirat(&folder, name, Mode::from_raw_mode(0o755));
        done.push(name);
    }
}

/// The spec for libcontainer, and the filter apart where it may be loaded last. Without `no_new_privs` it has to be
/// loaded by someone with rights, before they are given up.
fn without_filter(spec: &Spec) -> (Spec, Option<LinuxSeccomp>) {
    let mut on_disk = spec.clone();
    let last = spec
        .process()
        .as_ref()
        .is_some_and(|process| process.no_new_privileges() == Some(true));
    let filter = on_disk
        .linux_mut()
        .as_mut()
        .filter(|_| last)
        .and_then(|linux| {
            let filter = linux.seccomp().clone();
            linux.set_seccomp(None);
            filter
        });
    (on_disk, filter)
}
