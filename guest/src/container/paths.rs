//! A container's paths and ids as the guest knows them, before the container exists.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType, Spec};

/// The folder that a path inside the container is below, and the rest of the path. `None` when
/// it is in a file system that does not exist yet.
///
/// A path into a bind mount of a single file is that file in its folder.
pub(super) fn source_of(spec: &Spec, path: &Path) -> Option<(PathBuf, PathBuf)> {
    let covering = spec
        .mounts()
        .iter()
        .flatten()
        .rev()
        .filter(|mount| path.starts_with(mount.destination()))
        .max_by_key(|mount| mount.destination().components().count());
    let Some(mount) = covering else {
        let root = spec.root().as_ref()?.path();
        return Some((root.clone(), path.to_owned()));
    };
    let options = mount.options().as_deref().unwrap_or_default();
    let bind = options
        .iter()
        .any(|option| option == "bind" || option == "rbind")
        || mount.typ().as_deref() == Some("bind");
    let source = mount.source().as_ref().filter(|_| bind)?;
    let rest = path.strip_prefix(mount.destination()).ok()?;
    if rest.as_os_str().is_empty() {
        let name = source.file_name()?;
        return Some((source.parent()?.to_owned(), PathBuf::from(name)));
    }
    Some((source.clone(), rest.to_owned()))
}

/// Whether the container is to have a namespace of its own of this type.
pub(super) fn has_namespace(spec: &Spec, typ: LinuxNamespaceType) -> bool {
    let linux = spec.linux().as_ref();
    let mut list = linux
        .and_then(|linux| linux.namespaces().as_deref())
        .into_iter()
        .flatten();
    list.any(|namespace| namespace.typ() == typ)
}

/// The user of the container's first process, as the guest knows it.
pub(super) fn owner(spec: &Spec) -> (u32, u32) {
    let user = spec
        .process()
        .as_ref()
        .map(|process| process.user().clone())
        .unwrap_or_default();
    in_guest(spec, user.uid(), user.gid())
}

/// A user and group of the container's in the guest's numbers.
pub(super) fn in_guest(spec: &Spec, uid: u32, gid: u32) -> (u32, u32) {
    let map = |mappings: &Option<Vec<LinuxIdMapping>>, id: u32| {
        let mappings = mappings.as_deref().unwrap_or_default();
        let found = mappings.iter().find_map(|mapping| {
            let offset = id.checked_sub(mapping.container_id())?;
            (offset < mapping.size()).then(|| mapping.host_id().saturating_add(offset))
        });
        found.unwrap_or(id)
    };
    spec.linux().as_ref().map_or((uid, gid), |linux| {
        (
            map(linux.uid_mappings(), uid),
            map(linux.gid_mappings(), gid),
        )
    })
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::{MountBuilder, RootBuilder, SpecBuilder};

    use super::*;

    #[test]
    fn follows_the_innermost_mount() {
        let bind = |from: &str, to: &str| {
            MountBuilder::default()
                .source(from)
                .destination(to)
                .options(["rbind".to_owned()])
                .build()
                .expect("a mount")
        };
        let tmpfs = MountBuilder::default()
            .typ("tmpfs")
            .source("tmpfs")
            .destination("/tmp")
            .build()
            .expect("a mount");
        let spec = SpecBuilder::default()
            .root(
                RootBuilder::default()
                    .path("/share/rootfs")
                    .build()
                    .expect("a root"),
            )
            .mounts([
                bind("/share/1", "/data"),
                bind("/share/2/passwd", "/etc/passwd"),
                tmpfs,
            ])
            .build()
            .expect("a spec");
        let place = |path: &str| source_of(&spec, Path::new(path));
        let is = |root: &str, rest: &str| Some((PathBuf::from(root), PathBuf::from(rest)));
        assert_eq!(place("/etc/group"), is("/share/rootfs", "/etc/group"));
        assert_eq!(place("/etc/passwd"), is("/share/2", "passwd"));
        assert_eq!(place("/data/a/b"), is("/share/1", "a/b"));
        assert_eq!(place("/tmp/x"), None);
    }
}
