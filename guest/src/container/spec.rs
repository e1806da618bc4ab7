//! What of a spec the guest changes, or refuses, before libcontainer sees it.
//!
//! The host has put the guest's paths into it. What is left here: to refuse by name what cannot
//! be done in the guest, and to write out what libcontainer would otherwise decide differently
//! from runc.

use std::fs::{self, File};
use std::path::Path;

use oci_spec::runtime::{
    Capabilities, Hooks, Linux, LinuxCapabilities, LinuxNamespaceType, LinuxSeccomp,
    LinuxSeccompAction, Process, Spec,
};

use super::namespaces::is_of_container;
use super::paths::{has_namespace, source_of};
use super::{ContainerError, apparmor};
use crate::cgroup::Cgroup;
use crate::helper::home_in;

/// Makes `spec` ready for libcontainer.
pub(super) fn prepare(spec: &mut Spec, cgroup: &Cgroup) -> Result<(), ContainerError> {
    refuse_hooks(spec.hooks().as_ref())?;
    let Some(root) = spec.root() else {
        return Err(ContainerError::invalid("root", "is missing"));
    };
    if !root.path().is_dir() {
        let problem = format!("{} is no folder in the guest", root.path().display());
        return Err(ContainerError::invalid("root.path", problem));
    }
    let mut linux = spec.linux().clone().unwrap_or_default();
    check_linux(&linux)?;
    linux.set_cgroups_path(Some(cgroup.spec_path()));
    if !has_namespace(spec, LinuxNamespaceType::Network) {
        network_sysctls(&mut linux)?;
        if has_namespace(spec, LinuxNamespaceType::User) {
            bind_sysfs(spec);
        }
    }
    spec.set_linux(Some(linux));

    let Some(mut process) = spec.process().clone() else {
        return Err(ContainerError::invalid("process", "is missing"));
    };
    prepare_process(&mut process)?;
    add_home(&mut process, spec);
    spec.set_process(Some(process));
    Ok(())
}

/// Makes a process, the first or a later one, ready.
pub(super) fn prepare_process(process: &mut Process) -> Result<(), ContainerError> {
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        return Err(ContainerError::invalid("process.args", "is empty"));
    }
    if !process.cwd().is_absolute() {
        let problem = format!("{:?} is not an absolute path", process.cwd());
        return Err(ContainerError::invalid("process.cwd", problem));
    }
    if process
        .selinux_label()
        .as_ref()
        .is_some_and(|label| !label.is_empty())
        && !Path::new("/sys/fs/selinux/enforce").exists()
    {
        let problem = "the guest's kernel has no SELinux";
        return Err(ContainerError::invalid("process.selinuxLabel", problem));
    }
    // libcontainer takes a `false` that is written out for a reason not to load the filter of
    // system calls while it still may.
    if process.no_new_privileges() == Some(false) {
        process.set_no_new_privileges(None);
    }
    apparmor::prepare(process)?;
    // Without a list libcontainer leaves every capability; runc leaves none.
    let mut capabilities = process.capabilities().clone().unwrap_or_else(none);
    for (set, is_missing) in [
        (
            LinuxCapabilities::set_bounding as SetCapabilities,
            capabilities.bounding().is_none(),
        ),
        (
            LinuxCapabilities::set_effective,
            capabilities.effective().is_none(),
        ),
        (
            LinuxCapabilities::set_permitted,
            capabilities.permitted().is_none(),
        ),
        (
            LinuxCapabilities::set_inheritable,
            capabilities.inheritable().is_none(),
        ),
        (
            LinuxCapabilities::set_ambient,
            capabilities.ambient().is_none(),
        ),
    ] {
        if is_missing {
            set(&mut capabilities, Some(Capabilities::new()));
        }
    }
    process.set_capabilities(Some(capabilities));
    Ok(())
}

type SetCapabilities = fn(&mut LinuxCapabilities, Option<Capabilities>) -> &mut LinuxCapabilities;

fn none() -> LinuxCapabilities {
    let mut capabilities = LinuxCapabilities::default();
    capabilities
        .set_bounding(None)
        .set_effective(None)
        .set_permitted(None)
        .set_inheritable(None)
        .set_ambient(None);
    capabilities
}

/// Sets HOME if it is not: libcontainer would ask the C library, which must not be asked.
fn add_home(process: &mut Process, spec: &Spec) {
    let mut env = process.env().clone().unwrap_or_default();
    if env.iter().any(|entry| {
        entry
            .strip_prefix("HOME=")
            .is_some_and(|home| !home.is_empty())
    }) {
        return;
    }
    env.retain(|entry| !entry.starts_with("HOME="));
    let uid = process.user().uid();
    let home = source_of(spec, Path::new("/etc/passwd"))
        .and_then(|(root, path)| Some(home_in(File::open(root).ok()?, &path, uid)))
        .unwrap_or_else(|| "/".to_owned());
    env.push(format!("HOME={home}"));
    process.set_env(Some(env));
}

fn refuse_hooks(hooks: Option<&Hooks>) -> Result<(), ContainerError> {
    let Some(hooks) = hooks else {
        return Ok(());
    };
    let prestart = hooks.prestart();
    for (name, list) in [
        ("prestart", prestart),
        ("createRuntime", hooks.create_runtime()),
        ("createContainer", hooks.create_container()),
        ("poststart", hooks.poststart()),
        ("poststop", hooks.poststop()),
    ] {
        if list.as_ref().is_some_and(|list| !list.is_empty()) {
            let problem = "its programs are the host's and cannot run in the guest";
            return Err(ContainerError::invalid(format!("hooks.{name}"), problem));
        }
    }
    Ok(())
}

fn check_linux(linux: &Linux) -> Result<(), ContainerError> {
    for namespace in linux.namespaces().iter().flatten() {
        if let Some(path) = namespace.path()
            && !is_of_container(path)
        {
            let field = format!("linux.namespaces[{}]", namespace.typ());
            let problem = format!("{} is a namespace of the host's", path.display());
            return Err(ContainerError::invalid(field, problem));
        }
    }
    if linux.intel_rdt().is_some() {
        let problem = "the guest's processor has no resource director";
        return Err(ContainerError::invalid("linux.intelRdt", problem));
    }
    if linux
        .mount_label()
        .as_ref()
        .is_some_and(|label| !label.is_empty())
        && !Path::new("/sys/fs/selinux/enforce").exists()
    {
        let problem = "the guest's kernel has no SELinux";
        return Err(ContainerError::invalid("linux.mountLabel", problem));
    }
    if linux
        .net_devices()
        .as_ref()
        .is_some_and(|devices| !devices.is_empty())
    {
        let problem = "the host's network devices are not in the guest";
        return Err(ContainerError::invalid("linux.netDevices", problem));
    }
    linux.seccomp().as_ref().map_or(Ok(()), check_seccomp)
}

/// Sets what concerns the network in the guest itself, whose network is the container's.
fn network_sysctls(linux: &mut Linux) -> Result<(), ContainerError> {
    let Some(mut sysctls) = linux.sysctl().clone() else {
        return Ok(());
    };
    let of_network = |key: &str| key.starts_with("net.") || key.starts_with("net/");
    for (key, value) in sysctls.extract_if(|key, _| of_network(key)) {
        // As sysctl(8) reads them: with slashes, dots are part of a name (of an interface).
        let name = if key.contains('/') {
            key.clone()
        } else {
            key.replace('.', "/")
        };
        if name
            .split('/')
            .any(|part| part.is_empty() || part == "." || part == "..")
        {
            let problem = "is no name of a kernel parameter";
            return Err(ContainerError::invalid(
                format!("linux.sysctl {key:?}"),
                problem,
            ));
        }
        let path = Path::new("/proc/sys").join(name);
        fs::write(&path, value).map_err(ContainerError::file("write", path))?;
    }
    linux.set_sysctl(Some(sysctls));
    Ok(())
}

/// In a user namespace sysfs can be mounted only together with a network namespace; without one
/// the guest's is bound, as Podman does it.
fn bind_sysfs(spec: &mut Spec) {
    let Some(mut mounts) = spec.mounts().clone() else {
        return;
    };
    for mount in &mut mounts {
        if mount.typ().as_deref() != Some("sysfs") {
            continue;
        }
        let mut options = mount.options().clone().unwrap_or_default();
        options.push("rbind".to_owned());
        mount
            .set_typ(Some("bind".to_owned()))
            .set_source(Some("/sys".into()))
            .set_options(Some(options));
    }
    spec.set_mounts(Some(mounts));
}

fn check_seccomp(profile: &LinuxSeccomp) -> Result<(), ContainerError> {
    let notify = LinuxSeccompAction::ScmpActNotify;
    let used = profile
        .syscalls()
        .iter()
        .flatten()
        .any(|rule| rule.action() == notify);
    if used || profile.default_action() == notify || profile.listener_path().is_some() {
        let problem =
            "SCMP_ACT_NOTIFY needs a listener, and those of the host are not in the guest";
        return Err(ContainerError::invalid("linux.seccomp", problem));
    }
    Ok(())
}
