//! Refusing what cannot be done, by name, before anything has started.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Linux, LinuxNamespaceType, LinuxSeccompAction, Mount, Process, Spec};

use super::namespaces::{Neighbours, Owner, is_of_pod};
use super::pinned::Pinned;
use super::{apparmor, devices, hooks, network, propagation, resources, shm};

/// Why a container of this spec cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// The spec contradicts the runtime-spec or itself.
    #[error("invalid spec: {0}")]
    Invalid(String),
    /// The spec is fine, and we cannot do it.
    #[error("unsupported: {what}: {why}")]
    Unsupported {
        /// The field or option.
        what: String,
        /// Why not, and what to do instead.
        why: String,
    },
    /// A folder or file that the spec names is not there.
    #[error("{what} {path}")]
    Path {
        /// What it is to the spec.
        what: &'static str,
        /// The path.
        path: PathBuf,
        /// Why it cannot be used.
        #[source]
        source: std::io::Error,
    },
}

pub(super) fn invalid(text: impl Into<String>) -> SpecError {
    SpecError::Invalid(text.into())
}

pub(super) fn unsupported(what: impl Into<String>, why: impl Into<String>) -> SpecError {
    SpecError::Unsupported {
        what: what.into(),
        why: why.into(),
    }
}

/// File systems that the guest mounts for a container.
const GUEST_FILE_SYSTEMS: [&str; 8] = [
    "bind", "cgroup", "cgroup2", "devpts", "mqueue", "proc", "sysfs", "tmpfs",
];

/// Checks all of a spec, of a container that has a sandbox of its own.
///
/// # Errors
/// The first thing that is wrong or that we cannot do.
pub fn check(spec: &Spec, bundle: &Path) -> Result<(), SpecError> {
    check_with(spec, bundle, &Neighbours::default())
}

/// Checks all of a spec, of a container that may share namespaces with these.
///
/// # Errors
/// As [`check`].
pub fn check_with(spec: &Spec, bundle: &Path, neighbours: &Neighbours) -> Result<(), SpecError> {
    check_version(spec.version())?;
    for (name, present) in [
        ("solaris", spec.solaris().is_some()),
        ("windows", spec.windows().is_some()),
        ("vm", spec.vm().is_some()),
    ] {
        if present {
            return Err(unsupported(
                name,
                "this runtime makes Linux containers; its virtual machine is set in config.toml",
            ));
        }
    }
    let process = spec
        .process()
        .as_ref()
        .ok_or_else(|| invalid("process is missing"))?;
    check_process(process)?;
    check_root(spec, bundle)?;
    for mount in spec.mounts().iter().flatten() {
        check_mount(mount, bundle, neighbours)?;
    }
    if let Some(hooks) = spec.hooks() {
        hooks::check(hooks)?;
    }
    check_name("hostname", spec.hostname().as_deref())?;
    check_name("domainname", spec.domainname().as_deref())?;
    let linux = spec
        .linux()
        .as_ref()
        .ok_or_else(|| invalid("linux is missing"))?;
    check_linux(linux, neighbours, is_of_pod(spec))
}

fn check_version(version: &str) -> Result<(), SpecError> {
    let mut numbers = version.split(['.', '-', '+']);
    let major = numbers.next().and_then(|text| text.parse::<u32>().ok());
    let minor = numbers.next().and_then(|text| text.parse::<u32>().ok());
    match (major, minor) {
        (Some(1), Some(_)) => Ok(()),
        (Some(_), Some(_)) => Err(unsupported(
            format!("ociVersion {version:?}"),
            "versions 1.x are known",
        )),
        _ => Err(invalid(format!("ociVersion {version:?} is not a version"))),
    }
}

/// The kernel's limit.
const NAME_MAX: usize = 64;

fn check_name(field: &str, name: Option<&str>) -> Result<(), SpecError> {
    match name {
        Some(name) if name.len() > NAME_MAX => Err(invalid(format!(
            "{field} {name:?} is longer than {NAME_MAX} bytes"
        ))),
        _ => Ok(()),
    }
}

/// Checks a process object, of a spec or of an exec.
///
/// # Errors
/// As [`check`].
pub fn check_process(process: &Process) -> Result<(), SpecError> {
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        return Err(invalid("process.args must not be empty"));
    }
    if !process.cwd().is_absolute() {
        return Err(invalid(format!(
            "process.cwd {:?} must be an absolute path",
            process.cwd()
        )));
    }
    for variable in process.env().iter().flatten() {
        // In runc's words.
        match variable.split_once('=') {
            None => {
                return Err(invalid(format!(
                    "invalid environment variable: {variable:?}"
                )));
            }
            Some(("", _)) => {
                return Err(invalid(format!(
                    "environment variable name can't be empty: {variable:?}"
                )));
            }
            Some(_) => {}
        }
    }
    if let Some(label) = process
        .selinux_label()
        .as_deref()
        .filter(|label| !label.is_empty())
    {
        return Err(unsupported(
            format!("process.selinuxLabel {label:?}"),
            "the guest has no SELinux policy; use `label=disable`, the virtual machine is the wall",
        ));
    }
    if let Some(profile) = apparmor::unknown(process) {
        return Err(unsupported(
            format!("process.apparmorProfile {profile:?}"),
            "profiles of the host are not loaded into guests; use the engine's default profile or `unconfined`",
        ));
    }
    let mut seen = Vec::new();
    for limit in process.rlimits().iter().flatten() {
        if seen.contains(&limit.typ()) {
            return Err(invalid(format!(
                "process.rlimits has {:?} twice",
                limit.typ()
            )));
        }
        seen.push(limit.typ());
        if limit.soft() > limit.hard() {
            return Err(invalid(format!(
                "process.rlimits {:?}: soft {} is above hard {}",
                limit.typ(),
                limit.soft(),
                limit.hard()
            )));
        }
    }
    Ok(())
}

fn check_root(spec: &Spec, bundle: &Path) -> Result<(), SpecError> {
    let root = spec
        .root()
        .as_ref()
        .ok_or_else(|| invalid("root is missing"))?;
    let path = bundle.join(root.path());
    let found = fs::metadata(&path).map_err(|source| SpecError::Path {
        what: "root file system",
        path: path.clone(),
        source,
    })?;
    if !found.is_dir() {
        return Err(SpecError::Path {
            what: "root file system",
            path,
            source: std::io::ErrorKind::NotADirectory.into(),
        });
    }
    Ok(())
}

/// Whether a mount takes its content from a path.
pub(crate) fn is_bind(mount: &Mount) -> bool {
    mount.typ().as_deref() == Some("bind")
        || mount
            .options()
            .iter()
            .flatten()
            .any(|option| option == "bind" || option == "rbind")
}

fn check_mount(mount: &Mount, bundle: &Path, neighbours: &Neighbours) -> Result<(), SpecError> {
    let destination = mount.destination();
    let name = format!("mount on {}", destination.display());
    if destination.as_os_str().is_empty() {
        return Err(invalid("a mount without destination"));
    }
    for option in mount.options().iter().flatten() {
        if option == "idmap" || option == "ridmap" {
            return Err(unsupported(
                format!("{name}: option {option}"),
                "ids cannot be mapped over virtio-fs",
            ));
        }
    }
    if !is_bind(mount) {
        let kind = mount.typ().as_deref().unwrap_or("none");
        if !GUEST_FILE_SYSTEMS.contains(&kind) {
            return Err(unsupported(
                format!("{name}: file system {kind:?}"),
                format!("the guest mounts {}", GUEST_FILE_SYSTEMS.join(", ")),
            ));
        }
        return Ok(());
    }
    propagation::check_volume(&name, mount)?;
    let source = mount
        .source()
        .as_ref()
        .ok_or_else(|| invalid(format!("{name}: a bind mount without source")))?;
    let path = bundle.join(source);
    if shm::unmade(mount, &path, neighbours).is_some() {
        return Ok(());
    }
    let kind = fs::metadata(&path)
        .map_err(|error| SpecError::Path {
            what: "mount source",
            path: path.clone(),
            source: error,
        })?
        .file_type();
    let real = fs::canonicalize(&path).map_err(|error| SpecError::Path {
        what: "mount source",
        path: path.clone(),
        source: error,
    })?;
    for host_tree in ["/proc", "/sys", "/dev"] {
        // What is mounted below /dev is ordinary (an engine's shm); the tree itself is the host's hardware.
        let inside = if host_tree == "/dev" {
            real == Path::new("/dev")
        } else {
            real.starts_with(host_tree)
        };
        if inside {
            return Err(unsupported(
                format!("{name}: bind mount of {}", real.display()),
                format!(
                    "it would show the host's kernel to the container; mount the guest's own {host_tree} instead"
                ),
            ));
        }
    }
    let special = if kind.is_socket() {
        "a socket"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_block_device() || kind.is_char_device() && guest_device(&real).is_none() {
        "a device"
    } else {
        return Ok(());
    };
    Err(unsupported(
        format!("{name}: bind mount of {}", real.display()),
        format!(
            "{special} of the host ends at the virtual machine's wall; share a folder or use the network"
        ),
    ))
}

/// The guest's own path of a character device that it has too.
pub(crate) fn guest_device(path: &Path) -> Option<&'static str> {
    [
        "/dev/null",
        "/dev/zero",
        "/dev/full",
        "/dev/random",
        "/dev/urandom",
        "/dev/tty",
    ]
    .into_iter()
    .find(|device| path == Path::new(device))
}

fn check_linux(linux: &Linux, neighbours: &Neighbours, is_of_pod: bool) -> Result<(), SpecError> {
    check_namespaces(linux, neighbours, is_of_pod)?;
    devices::check(linux)?;
    if let Some(resources) = linux.resources() {
        resources::check(resources)?;
    }
    propagation::check(linux)?;
    if linux.intel_rdt().is_some() {
        return Err(unsupported(
            "linux.intelRdt",
            "cache classes belong to the host's kernel",
        ));
    }
    if let Some(label) = linux
        .mount_label()
        .as_deref()
        .filter(|label| !label.is_empty())
    {
        return Err(unsupported(
            format!("linux.mountLabel {label:?}"),
            "the guest has no SELinux policy",
        ));
    }
    if let Some(seccomp) = linux.seccomp() {
        let notifies = seccomp.default_action() == LinuxSeccompAction::ScmpActNotify
            || seccomp
                .syscalls()
                .iter()
                .flatten()
                .any(|rule| rule.action() == LinuxSeccompAction::ScmpActNotify);
        if notifies || seccomp.listener_path().is_some() {
            return Err(unsupported(
                "linux.seccomp: SCMP_ACT_NOTIFY",
                "its listener would be on the other side of the virtual machine's wall",
            ));
        }
    }
    Ok(())
}

fn check_namespaces(
    linux: &Linux,
    neighbours: &Neighbours,
    is_of_pod: bool,
) -> Result<(), SpecError> {
    use LinuxNamespaceType::{Ipc, Mount, Network, Pid, User, Uts};
    let namespaces = linux.namespaces().as_deref().unwrap_or_default();
    let mut seen = HashSet::new();
    for namespace in namespaces {
        if !seen.insert(namespace.typ()) {
            return Err(invalid(format!(
                "linux.namespaces has {} twice",
                namespace.typ()
            )));
        }
    }
    // Who asks for the host's network loses others of the host's namespaces with it.
    for kind in [Network, Pid, Mount, Ipc, Uts] {
        let Some(namespace) = namespaces.iter().find(|namespace| namespace.typ() == kind) else {
            if kind == Network {
                return Err(network::hosts());
            }
            return Err(unsupported(
                format!("the host's {kind} namespace"),
                "a container in a virtual machine cannot share it; give it one of its own",
            ));
        };
        if kind != Network
            && let Some(path) = namespace.path()
            && !can_share(kind, neighbours.owner(kind, path))
            // Outside of a pod nobody could be found who shares it.
            && !(is_of_pod && Pinned::at(kind, path).is_some_and(|pinned| pinned.is_empty(kind)))
        {
            return Err(unsupported(
                format!("joining the {kind} namespace {}", path.display()),
                "it is another kernel's; containers share namespaces only inside one sandbox",
            ));
        }
    }
    if let Some(path) = namespaces
        .iter()
        .find(|one| one.typ() == User)
        .and_then(|one| one.path().as_ref())
    {
        return Err(unsupported(
            format!("joining the user namespace {}", path.display()),
            "it is another kernel's",
        ));
    }
    match namespaces
        .iter()
        .find(|one| one.typ() == Network)
        .and_then(|one| one.path().as_ref())
    {
        Some(path) if neighbours.has_network(path) => Ok(()),
        _ if neighbours.is_joined() => Err(unsupported(
            "a network namespace that is not the sandbox's",
            "a virtual machine has one network, and all containers of a pod share it",
        )),
        Some(path) => network::check(path),
        None => Ok(()),
    }
}

/// Whether a container can be in this owner's namespace.
fn can_share(kind: LinuxNamespaceType, owner: Option<&Owner>) -> bool {
    use LinuxNamespaceType::{Ipc, Pid, Uts};
    match owner {
        Some(Owner::Container(_)) => matches!(kind, Ipc | Pid | Uts),
        // The guest's own processes are none of its business.
        Some(Owner::Sandbox) => matches!(kind, Ipc | Uts),
        None => false,
    }
}
