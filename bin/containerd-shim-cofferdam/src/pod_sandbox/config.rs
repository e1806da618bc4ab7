//! The pod that a sandbox is made for, as Kubernetes' runtime interface describes it, made into what the rest knows: the
//! spec of a sandbox container, and the files that containers of the pod have in common.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use containerd_shim_protos::protobuf::well_known_types::any::Any;
use oci_spec::runtime::{Mount, Spec};
use protobuf::Message;
use serde_json::json;

include!(concat!(env!("OUT_DIR"), "/messages.rs"));

use crate::pod_sandbox::holder;
use pod::{DnsConfig, NamespaceMode, PodSandboxConfig};

/// The message's name.
const TYPE: &str = "runtime.v1.PodSandboxConfig";

/// Where in the bundle the file system of the sandbox's own program is. containerd's own folder has to stay empty.
pub const ROOT: &str = "holder";

/// It.
#[derive(Debug, Default)]
pub struct Config(PodSandboxConfig);

impl Config {
    /// Reads it; without options it is a pod that asks for nothing.
    ///
    /// # Errors
    /// A sentence: it is of another type, or damaged.
    pub fn read(options: Option<&Any>) -> Result<Self, String> {
        let Some(options) = options.filter(|options| !options.type_url.is_empty()) else {
            return Ok(Self::default());
        };
        let name = options.type_url.rsplit('/').next().unwrap_or_default();
        if name != TYPE {
            return Err(format!("sandbox options of type {name}: {TYPE} is known"));
        }
        PodSandboxConfig::parse_from_bytes(&options.value)
            .map(Self)
            .map_err(|error| format!("sandbox options: {error}"))
    }

    /// The spec of its sandbox. `network` is the namespace that the engine made for it.
    ///
    /// # Errors
    /// When the spec cannot be made.
    pub fn spec(&self, id: &str, network: &str) -> Result<Spec, serde_json::Error> {
        let linux = &self.0.linux;
        let modes = &linux.security_context.namespace_options;
        let mut namespaces = vec![json!({ "type": "mount" }), json!({ "type": "uts" })];
        for (kind, mode) in [("pid", modes.pid), ("ipc", modes.ipc)] {
            if mode != NamespaceMode::NODE.into() {
                namespaces.push(json!({ "type": kind }));
            }
        }
        if modes.network != NamespaceMode::NODE.into() {
            namespaces.push(if network.is_empty() {
                json!({ "type": "network" })
            } else {
                json!({ "type": "network", "path": network })
            });
        }
        let mut annotations = self.0.annotations.clone();
        let limits = &linux.resources;
        for (name, number) in [
            ("memory", limits.memory_limit_in_bytes),
            ("cpu-quota", limits.cpu_quota),
            ("cpu-period", limits.cpu_period),
        ] {
            if number > 0 {
                annotations.insert(
                    format!("io.kubernetes.cri.sandbox-{name}"),
                    number.to_string(),
                );
            }
        }
        let mut spec: Spec = serde_json::from_value(json!({
            "ociVersion": "1.0.2",
            "root": { "path": ROOT, "readonly": true },
            // Run only where a pod needs it.
            "process": {
                "user": { "uid": 0, "gid": 0 }, "args": [holder::PATH], "cwd": "/", "noNewPrivileges": true
            },
            "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"] },
                { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"] },
            ],
            "annotations": annotations,
            "linux": { "namespaces": namespaces, "sysctl": linux.sysctls },
        }))?;
        if !self.0.hostname.is_empty() {
            spec.set_hostname(Some(self.0.hostname.clone()));
        }
        if let Some(of_spec) = spec.linux_mut()
            && !linux.cgroup_parent.is_empty()
        {
            of_spec.set_cgroups_path(Some(group(&linux.cgroup_parent, id)));
        }
        Ok(spec)
    }

    /// Writes the files that containers of the pod have in common.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&self, files: &Path) -> io::Result<()> {
        fs::create_dir_all(files)?;
        let hostname = &self.0.hostname;
        fs::write(files.join("hostname"), format!("{hostname}\n"))?;
        // As engines do: what the node knows. kubelet brings its own.
        let hosts = fs::read("/etc/hosts").or_else(missing_is_empty)?;
        fs::write(files.join("hosts"), hosts)?;
        let resolver = match self.0.dns_config.as_ref() {
            Some(dns) => lines(dns).into_bytes(),
            None => fs::read("/etc/resolv.conf").or_else(missing_is_empty)?,
        };
        fs::write(files.join("resolv.conf"), resolver)
    }
}

/// The sandbox's control group, as containerd names it below the pod's: in systemd's form below a slice.
fn group(parent: &str, id: &str) -> PathBuf {
    let parent = Path::new(parent);
    match parent.file_name().and_then(|name| name.to_str()) {
        Some(slice) if slice.ends_with(".slice") => format!("{slice}:cri-containerd:{id}").into(),
        _ => parent.join(id),
    }
}

fn missing_is_empty(error: io::Error) -> io::Result<Vec<u8>> {
    match error.kind() {
        io::ErrorKind::NotFound => Ok(Vec::new()),
        _ => Err(error),
    }
}

/// A resolver's configuration, resolv.conf(5).
fn lines(dns: &DnsConfig) -> String {
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text += &format!("search {}\n", dns.searches.join(" "));
    }
    for server in &dns.servers {
        text += &format!("nameserver {server}\n");
    }
    if !dns.options.is_empty() {
        text += &format!("options {}\n", dns.options.join(" "));
    }
    text
}

/// Has a container's spec use what the pod's containers have in common, unless an engine or user has mounted something
/// there: the pod's name files, and one `/dev/shm`, which the guest makes in the place of a folder that does not exist.
pub fn supply(spec: &mut Spec, files: &Path) {
    let is_readonly = spec
        .root()
        .as_ref()
        .is_some_and(|root| root.readonly() == Some(true));
    let access = if is_readonly { "ro" } else { "rw" };
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    for (place, name, access) in [
        ("/etc/hostname", "hostname", access),
        ("/etc/hosts", "hosts", access),
        ("/etc/resolv.conf", "resolv.conf", access),
        ("/dev/shm", "shm", "rw"),
    ] {
        let there = mounts
            .iter()
            .position(|mount| mount.destination() == Path::new(place));
        if there.is_some_and(|number| !is_engines(&mounts[number])) {
            continue;
        }
        let mut own = Mount::default();
        own.set_destination(place.into())
            .set_typ(Some("bind".to_owned()))
            .set_source(Some(files.join(name)))
            .set_options(Some(
                ["rbind", "rprivate", access].map(str::to_owned).to_vec(),
            ));
        match there {
            Some(number) => mounts[number] = own,
            None => mounts.push(own),
        }
    }
    spec.set_mounts(Some(mounts));
}

/// Whether a mount is the engine's default: a file system of a container's own, or a file that nobody has made.
fn is_engines(mount: &Mount) -> bool {
    match mount.typ().as_deref() {
        Some("tmpfs") => true,
        _ => mount.source().as_ref().is_some_and(|path| !path.exists()),
    }
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::LinuxNamespaceType;

    use super::*;

    fn any(message: &PodSandboxConfig) -> Any {
        let mut any = Any::new();
        any.type_url = TYPE.to_owned();
        any.value = message.write_to_bytes().unwrap();
        any
    }

    #[test]
    fn a_pod_becomes_the_spec_of_a_sandbox() {
        let mut message = PodSandboxConfig::new();
        message.hostname = "web".to_owned();
        let linux = message.linux.mut_or_insert_default();
        linux.cgroup_parent = "/pods/a".to_owned();
        linux
            .resources
            .mut_or_insert_default()
            .memory_limit_in_bytes = 64 << 20;
        let config = Config::read(Some(&any(&message))).unwrap();
        let spec = config.spec("s1", "/run/netns/a").unwrap();
        assert_eq!(spec.hostname().as_deref(), Some("web"));
        let network = sandbox::spec::network_path(&spec);
        assert_eq!(network, Some(PathBuf::from("/run/netns/a")));
        let own = spec.linux().as_ref().unwrap().cgroups_path().clone();
        assert_eq!(own, Some(PathBuf::from("/pods/a/s1")));
        let below_a_slice = group("/kubepods.slice/kubepods-pod1.slice", "s1");
        assert_eq!(
            below_a_slice,
            Path::new("kubepods-pod1.slice:cri-containerd:s1")
        );
        let annotations = spec.annotations().as_ref().unwrap();
        assert_eq!(annotations["io.kubernetes.cri.sandbox-memory"], "67108864");
    }

    #[test]
    fn namespaces_of_the_node_are_left_out_for_the_check_to_refuse() {
        let mut message = PodSandboxConfig::new();
        let linux = message.linux.mut_or_insert_default();
        let modes = linux.security_context.mut_or_insert_default();
        modes.namespace_options.mut_or_insert_default().pid = NamespaceMode::NODE.into();
        let spec = Config(message).spec("s1", "").unwrap();
        let namespaces = spec.linux().as_ref().unwrap().namespaces().clone().unwrap();
        let has = |kind| namespaces.iter().any(|one| one.typ() == kind);
        assert!(!has(LinuxNamespaceType::Pid) && has(LinuxNamespaceType::Network));
    }

    #[test]
    fn options_of_another_kind_are_told() {
        let mut wrong = any(&PodSandboxConfig::new());
        wrong.type_url = "other.Config".to_owned();
        assert!(Config::read(Some(&wrong)).unwrap_err().contains("other"));
        wrong = any(&PodSandboxConfig::new());
        wrong.value = vec![0x12, 0x70];
        assert!(Config::read(Some(&wrong)).is_err());
        Config::read(None).unwrap();
    }

    #[test]
    fn files_stand_in_for_those_that_nobody_made() {
        let folder = tempfile::tempdir().unwrap();
        let mut message = PodSandboxConfig::new();
        let dns = message.dns_config.mut_or_insert_default();
        dns.servers = vec!["192.0.2.1".to_owned()];
        dns.searches = vec!["a.test".to_owned(), "b.test".to_owned()];
        Config(message).write(folder.path()).unwrap();
        let resolver = fs::read_to_string(folder.path().join("resolv.conf")).unwrap();
        assert_eq!(resolver, "search a.test b.test\nnameserver 192.0.2.1\n");

        let own = folder.path().join("resolv.conf");
        let mut spec: Spec = serde_json::from_value(json!({
            "ociVersion": "1.0.2",
            "mounts": [
                { "destination": "/etc/hosts", "type": "bind", "source": "/nonexistent/hosts" },
                { "destination": "/etc/resolv.conf", "type": "bind", "source": own },
                { "destination": "/dev/shm", "type": "tmpfs", "source": "shm" },
            ],
        }))
        .unwrap();
        let files = folder.path().join("files");
        supply(&mut spec, &files);
        let mounts = spec.mounts().clone().unwrap();
        let source = |place: &str| {
            let mut all = mounts.iter();
            let mount = all.find(|mount| mount.destination() == Path::new(place));
            mount.unwrap().source().clone().unwrap()
        };
        assert_eq!(source("/etc/hosts"), files.join("hosts"));
        assert_eq!(source("/etc/hostname"), files.join("hostname"));
        assert_eq!(source("/etc/resolv.conf"), own);
        assert_eq!(source("/dev/shm"), files.join("shm"));
        assert_eq!(mounts.len(), 4);
    }
}
