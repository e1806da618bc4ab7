//! The folder of a container that `run` made of an image: `<data_directory>/containers/<id>`.
//!
//! ```text
//! owner.json      which state directory knows it, and which process makes it
//! config.json     the bundle
//! rootfs/         empty: the layers are mounted where only the guest sees them
//! upper/ work/    the writable layer
//! hosts hostname resolv.conf  shown in /etc
//! container.log   output of a container in the background
//! ```
//!
//! It appears by one rename before the container's name is taken, and goes while the name is still taken. What kills
//! and reboots leave between the two is known by `owner.json`, and [`sweep`] takes it.

use std::fs::{self, DirBuilder, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use oci_spec::runtime::Spec;
use rustix::fs::{RenameFlags, renameat_with};
use sandbox::client;
use sandbox::config::Config;
use sandbox::state::{ProcessIdentity, Record, StateError, Store};
use sandbox::{ContainerId, SandboxError};
use sandbox_image::{Image, ImageStore, Settings};
use serde::{Deserialize, Serialize};

use super::removal::remove_tree;

const OWNER: &str = "owner.json";
/// Prefix of folders that are not finished; no container's name begins so.
const TEMPORARY: &str = "~";

/// What the container calls itself and others.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a> {
    /// Its own name.
    pub hostname: &'a str,
    /// Whom it asks for others' addresses.
    pub resolv_conf: Option<&'a str>,
}

/// Who a folder belongs to.
#[derive(Debug, Serialize, Deserialize)]
struct Owner {
    root: PathBuf,
    id: ContainerId,
    creator: ProcessIdentity,
}

/// Where the images are.
pub fn images(config: &Config) -> Result<ImageStore> {
    let settings = Settings {
        insecure_registries: config.insecure_registries.clone(),
        ..Settings::default()
    };
    Ok(ImageStore::open_with(
        &config.data_directory.join("images"),
        settings,
    )?)
}

/// The folder that a container of this name has.
pub fn folder(config: &Config, id: &ContainerId) -> PathBuf {
    id.below(&config.data_directory.join("containers"))
}

/// Makes a container's folder, and leases its image.
pub fn create(
    config: &Config,
    store: &Store,
    id: &ContainerId,
    spec: &Spec,
    names: Names<'_>,
    image: Option<&Image>,
) -> Result<PathBuf> {
    let folder = folder(config, id);
    let parent = config.data_directory.join("containers");
    make(&parent, 0o711, true)?;
    let parent = parent
        .canonicalize()
        .with_context(|| format!("cannot find {}", parent.display()))?;
    let temporary = parent.join(format!("{TEMPORARY}{}.{id}", std::process::id()));
    remove_tree(&temporary)?;
    let owner = Owner {
        root: store.root().to_owned(),
        id: id.clone(),
        creator: ProcessIdentity::current(),
    };
    let made = fill(&temporary, &owner, spec, names, image.is_some()).and_then(|()| {
        let flags = RenameFlags::NOREPLACE;
        let cwd = rustix::fs::CWD;
        match renameat_with(cwd, &temporary, cwd, &folder, flags) {
            Err(rustix::io::Errno::EXIST) => {
                Err(SandboxError::from(StateError::Exists(id.clone())).into())
            }
            other => other.with_context(|| format!("cannot make {}", folder.display())),
        }
    });
    if made.is_err() {
        remove_tree(&temporary)?;
    }
    made?;
    if let Some(image) = image
        && let Err(error) = images(config)?.lease(image, id.as_str())
    {
        remove_tree(&folder)?;
        return Err(error.into());
    }
    Ok(folder)
}

fn fill(folder: &Path, owner: &Owner, spec: &Spec, names: Names<'_>, layered: bool) -> Result<()> {
    make(folder, 0o700, false)?;
    write(folder, OWNER, &serde_json::to_vec(owner)?)?;
    write(folder, "config.json", &serde_json::to_vec_pretty(spec)?)?;
    let hostname = names.hostname;
    write(folder, "hostname", format!("{hostname}\n").as_bytes())?;
    let hosts = format!(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t{hostname}\n"
    );
    write(folder, "hosts", hosts.as_bytes())?;
    let mut readable = vec!["hosts", "hostname"];
    if let Some(text) = names.resolv_conf {
        write(folder, "resolv.conf", text.as_bytes())?;
        readable.push("resolv.conf");
    }
    // The container's users read them, whatever umask we have.
    for name in readable {
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o644))
            .with_context(|| format!("cannot make {name} readable"))?;
    }
    if layered {
        // The root file system's own folder is the upper one.
        for (name, mode) in [("rootfs", 0o755), ("upper", 0o755), ("work", 0o700)] {
            make(&folder.join(name), mode, false)?;
            fs::set_permissions(folder.join(name), fs::Permissions::from_mode(mode))
                .with_context(|| format!("cannot set the mode of {name}"))?;
        }
    }
    Ok(())
}

fn make(folder: &Path, mode: u32, recursive: bool) -> Result<()> {
    DirBuilder::new()
        .recursive(recursive)
        .mode(mode)
        .create(folder)
        .with_context(|| format!("cannot make {}", folder.display()))
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let path = folder.join(name);
    File::create_new(&path)
        .and_then(|mut file| file.write_all(bytes))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Removes a container with its folder, and gives its image back.
pub fn delete(store: &Store, id: &ContainerId, force: bool) -> Result<(), SandboxError> {
    client::delete_with(store, id, force, |record: &Record| {
        let Some(run) = &record.run else {
            return Ok(());
        };
        discard(&run.storage).map_err(|error| SandboxError::System {
            action: format!("remove {}", run.storage.display()),
            source: std::io::Error::other(format!("{error:#}")),
        })
    })
}

/// Removes a folder and gives its image back; nothing happens when it is gone.
pub fn discard(folder: &Path) -> Result<()> {
    let name = folder.file_name().and_then(|name| name.to_str());
    let data = folder.parent().and_then(Path::parent);
    if let (Some(name), Some(data)) = (name, data)
        && data.join("images").is_dir()
    {
        ImageStore::open(&data.join("images"))?.release(name)?;
    }
    let (Some(name), Some(parent)) = (name, folder.parent()) else {
        return remove_tree(folder);
    };
    // Under a name that says that it goes: a removal that is killed half way is finished by the next sweep.
    let temporary = parent.join(format!("{TEMPORARY}{}.gone.{name}", std::process::id()));
    remove_tree(&temporary)?;
    match fs::rename(folder, &temporary) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot remove {}", folder.display())),
        Ok(()) => remove_tree(&temporary),
    }
}

/// Removes what nobody will remove any more: folders without a container, and containers that were to be removed when
/// they ended, whose remover was killed. Best effort: the next call tries again.
pub fn sweep(config: &Config, store: &Store) {
    for record in store.list().unwrap_or_default() {
        if is_forgotten(&record)
            && let Err(error) = delete(store, &record.id, false)
        {
            tracing::warn!(%error, id = %record.id, "not removed");
        }
    }
    let Ok(entries) = fs::read_dir(config.data_directory.join("containers")) else {
        return;
    };
    for entry in entries.flatten() {
        let folder = entry.path();
        if !is_orphan(&folder) {
            continue;
        }
        let is_unfinished = entry.file_name().to_string_lossy().starts_with(TEMPORARY);
        let removed = if is_unfinished {
            remove_tree(&folder)
        } else {
            discard(&folder)
        };
        if let Err(error) = removed {
            tracing::warn!(%error, folder = %folder.display(), "not removed");
        }
    }
}

/// Whether a container was to be removed at its end and everybody who could is gone.
fn is_forgotten(record: &Record) -> bool {
    let is_gone = |process: Option<ProcessIdentity>| process.is_none_or(|one| !one.is_alive());
    record.run.as_ref().is_some_and(|run| run.remove)
        && is_gone(Some(record.creator))
        && is_gone(record.driver)
        && is_gone(record.init)
}

/// Whether a folder has no container, and nobody is making one with it.
fn is_orphan(folder: &Path) -> bool {
    let name = folder
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    if let Some(unfinished) = name.strip_prefix(TEMPORARY) {
        let creator = unfinished.split('.').next().unwrap_or_default();
        return creator.parse::<u32>().is_ok() && !Path::new("/proc").join(creator).exists();
    }
    let owner = fs::read(folder.join(OWNER))
        .ok()
        .and_then(|bytes| serde_json::from_slice::<Owner>(&bytes).ok());
    // What we did not make lies there for a reason.
    let Some(owner) = owner else { return false };
    if owner.creator.is_alive() || owner.id.as_str() != name {
        return false;
    }
    // After a boot of the host the state directory may be gone, which opening it would make again.
    if !owner.root.is_dir() {
        return true;
    }
    match Store::open(&owner.root).and_then(|store| store.load(&owner.id)) {
        Ok(record) => record.run.is_none_or(|run| run.storage != folder),
        Err(StateError::Missing(_)) => true,
        Err(_) => false,
    }
}

/// Takes back a folder whose container was not made.
pub fn discard_unless_known(store: &Store, id: &ContainerId, folder: &Path) -> Result<()> {
    let is_known = store
        .load(id)
        .is_ok_and(|record| record.run.is_some_and(|run| run.storage == folder));
    if is_known { Ok(()) } else { discard(folder) }
}
