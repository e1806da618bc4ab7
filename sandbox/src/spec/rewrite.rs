//! A container's spec as the guest gets it: the same document, with the guest's paths and without the host's matters.

use std::path::{Path, PathBuf};

use cofferdam_protocol::SHARE_MOUNT;
use oci_spec::runtime::{HooksBuilder, LinuxNamespace, LinuxNamespaceType, Spec};
use sandbox_share::{Entry, EntryKind};

use crate::id::ContainerId;
use crate::spec::check::{SpecError, guest_device, is_bind};
use crate::spec::namespaces::{Neighbours, OF_CONTAINER, Owner};
use crate::spec::pinned::Pinned;
use crate::spec::{apparmor, devices, propagation, resources, shm};

/// Where a container's root file system comes from.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rootfs {
    /// The folder that the spec names.
    Bundle,
    /// Image layers with a writable layer on top, mounted where only the guest sees them.
    Layers {
        /// Read-only layers, the lowest first.
        layers: Vec<PathBuf>,
        /// The writable layer.
        upper: PathBuf,
        /// overlayfs' own folder, beside `upper`.
        work: PathBuf,
    },
}

/// What a spec becomes.
#[derive(Debug, Clone)]
pub struct GuestSpec {
    /// For the agent.
    pub spec: Spec,
    /// What the sandbox's share has to show for it.
    pub entries: Vec<Entry>,
}

/// Rewrites a checked spec for the guest, of a container that has a sandbox of its own.
///
/// # Errors
/// [`SpecError`] when a path has gone since the check.
pub fn rewrite(
    id: &ContainerId,
    spec: &Spec,
    bundle: &Path,
    rootfs: &Rootfs,
) -> Result<GuestSpec, SpecError> {
    rewrite_with(id, spec, bundle, rootfs, &Neighbours::default())
}

/// Rewrites a checked spec for the guest, of a container that may share namespaces with these.
///
/// # Errors
/// As [`rewrite`].
pub fn rewrite_with(
    id: &ContainerId,
    spec: &Spec,
    bundle: &Path,
    rootfs: &Rootfs,
    neighbours: &Neighbours,
) -> Result<GuestSpec, SpecError> {
    let mut spec = spec.clone();
    let mut entries = Vec::new();
    let share = Path::new(id.as_str());

    let mut root = spec.root().clone().unwrap_or_default();
    entries.push(Entry {
        path: share.join("rootfs"),
        kind: match rootfs {
            Rootfs::Bundle => EntryKind::Bind {
                source: real(&bundle.join(root.path()))?,
                readonly: false,
                recursive: true,
            },
            Rootfs::Layers {
                layers,
                upper,
                work,
            } => EntryKind::Overlay {
                lower: layers.iter().rev().cloned().collect(),
                upper: upper.clone(),
                work: work.clone(),
            },
        },
    });
    root.set_path(Path::new(SHARE_MOUNT).join(share).join("rootfs"));
    spec.set_root(Some(root));

    let mut mounts = spec.mounts().clone().unwrap_or_default();
    for (number, mount) in mounts.iter_mut().enumerate() {
        if !is_bind(mount) {
            continue;
        }
        let named = bundle.join(mount.source().clone().unwrap_or_default());
        let source = match shm::unmade(mount, &named, neighbours) {
            Some(_) => named,
            None => real(&named)?,
        };
        if let Some(device) = guest_device(&source) {
            mount.set_source(Some(device.into()));
            continue;
        }
        let sharing = (id, spec.linux().as_ref(), neighbours);
        if let Some(memory) = shm::source(mount, &source, sharing) {
            mount
                .set_typ(Some("bind".to_owned()))
                .set_source(Some(memory));
            continue;
        }
        let options = mount.options().clone().unwrap_or_default();
        let path = share.join("mounts").join(number.to_string());
        mount.set_source(Some(Path::new(SHARE_MOUNT).join(&path)));
        entries.push(Entry {
            path,
            kind: EntryKind::Bind {
                source,
                readonly: is_readonly(&options),
                recursive: options.iter().any(|option| option == "rbind"),
            },
        });
    }
    spec.set_mounts(Some(mounts));

    if let Some(process) = spec.process_mut() {
        apparmor::translate(process);
    }
    if let Some(hooks) = spec.hooks().clone() {
        let inside = hooks
            .start_container()
            .clone()
            .filter(|hooks| !hooks.is_empty());
        spec.set_hooks(
            inside.and_then(|hooks| HooksBuilder::default().start_container(hooks).build().ok()),
        );
    }
    if let Some(mut linux) = spec.linux().clone() {
        let mut namespaces = linux.namespaces().clone().unwrap_or_default();
        namespaces.retain_mut(|namespace| in_guest(namespace, neighbours));
        // Engines on a host with cgroup v1 ask for none, and expect that a container sees its own limits all the same.
        if !namespaces
            .iter()
            .any(|namespace| namespace.typ() == LinuxNamespaceType::Cgroup)
        {
            let mut own = LinuxNamespace::default();
            own.set_typ(LinuxNamespaceType::Cgroup);
            namespaces.push(own);
        }
        if !namespaces
            .iter()
            .any(|namespace| namespace.typ() == LinuxNamespaceType::Uts)
        {
            // The pod's name, which the guest has.
            spec.set_hostname(None);
            spec.set_domainname(None);
        }
        linux.set_namespaces(Some(namespaces));
        linux.set_cgroups_path(Some(Path::new("/").join(share)));
        devices::keep_guests(&mut linux);
        propagation::translate(&mut linux);
        resources::translate(&mut linux);
        spec.set_linux(Some(linux));
    }
    Ok(GuestSpec { spec, entries })
}

/// Makes a namespace the guest's; false: it is one that the guest has anyway.
fn in_guest(namespace: &mut LinuxNamespace, neighbours: &Neighbours) -> bool {
    if namespace.typ() == LinuxNamespaceType::Network {
        return false;
    }
    let Some(path) = namespace.path().clone() else {
        return true;
    };
    match neighbours.owner(namespace.typ(), &path) {
        Some(Owner::Sandbox) => return false,
        Some(Owner::Container(id)) => {
            namespace.set_path(Some(format!("{OF_CONTAINER}{id}").into()));
        }
        // The first that names it brings it.
        None if Pinned::at(namespace.typ(), &path).is_some() => {
            namespace.set_path(None);
        }
        // What the check has refused is refused by the guest too.
        None => {}
    }
    true
}

/// The last of `ro` and `rw` counts, as for mount(8); `rro` too.
fn is_readonly(options: &[String]) -> bool {
    options
        .iter()
        .rev()
        .find_map(|option| match option.as_str() {
            "ro" | "rro" => Some(true),
            "rw" | "rrw" => Some(false),
            _ => None,
        })
        .unwrap_or(false)
}

fn real(path: &Path) -> Result<PathBuf, SpecError> {
    std::fs::canonicalize(path).map_err(|source| SpecError::Path {
        what: "mount source",
        path: path.to_owned(),
        source,
    })
}
