//! Bundles: a root filesystem of busybox and a `config.json` that cases change.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};

/// Lines of the container's `/etc/passwd`.
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\n";
/// Lines of the container's `/etc/group`.
const GROUP: &str = "root:x:0:\nuser:x:1000:\nextra:x:2000:user\n";

/// A bundle directory and the configuration to be written into it.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// The bundle directory.
    pub path: PathBuf,
    config: Value,
}

impl Bundle {
    /// Make a bundle in `path` whose root filesystem holds the static `busybox`.
    pub fn make(path: &Path, busybox: &Path, vm: bool) -> Result<Self> {
        make_rootfs(&path.join("rootfs"), busybox)
            .with_context(|| format!("make a root filesystem in {}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            config: default_config(vm),
        })
    }

    /// A path inside the root filesystem, from the host.
    pub fn rootfs(&self, inside: &str) -> PathBuf {
        self.path
            .join("rootfs")
            .join(inside.trim_start_matches('/'))
    }

    /// Set the value at a `/`-separated path, making objects on the way.
    pub fn set(&mut self, pointer: &str, value: Value) -> &mut Self {
        let mut place = &mut self.config;
        for key in pointer.trim_start_matches('/').split('/') {
            if !place.is_object() {
                *place = Value::Object(Map::new());
            }
            place = &mut place[key];
        }
        *place = value;
        self
    }

    /// Remove the value at a `/`-separated path.
    pub fn remove(&mut self, pointer: &str) -> &mut Self {
        if let Some((parent, key)) = pointer.rsplit_once('/')
            && let Some(Value::Object(object)) = self.config.pointer_mut(parent)
        {
            object.remove(key);
        }
        self
    }

    /// Append to the array at a `/`-separated path.
    pub fn push(&mut self, pointer: &str, value: Value) -> &mut Self {
        match self.config.pointer_mut(pointer) {
            Some(Value::Array(items)) => items.push(value),
            _ => {
                self.set(pointer, json!([value]));
            }
        }
        self
    }

    /// Take another configuration.
    pub fn replace(&mut self, config: Value) {
        self.config = config;
    }

    /// The value at a `/`-separated path.
    pub fn get(&self, pointer: &str) -> Value {
        self.config.pointer(pointer).cloned().unwrap_or(Value::Null)
    }

    /// The words the container runs.
    pub fn args(&mut self, words: &[&str]) -> &mut Self {
        self.set("/process/args", json!(words))
    }

    /// The container runs this shell script.
    pub fn script(&mut self, script: &str) -> &mut Self {
        self.args(&["/bin/sh", "-c", script])
    }

    /// Add a mount.
    pub fn mount(
        &mut self,
        destination: &str,
        kind: &str,
        source: &str,
        options: &[&str],
    ) -> &mut Self {
        let mount =
            json!({"destination": destination, "type": kind, "source": source, "options": options});
        self.push("/mounts", mount)
    }

    /// Bind `source` to `destination`.
    pub fn bind(&mut self, source: &Path, destination: &str, options: &[&str]) -> &mut Self {
        let options = [&["bind"], options].concat();
        self.mount(destination, "bind", &source.to_string_lossy(), &options)
    }

    /// Use these capabilities in all sets but the inheritable and ambient ones.
    pub fn capabilities(&mut self, names: &[&str]) -> &mut Self {
        self.set(
            "/process/capabilities",
            json!({"bounding": names, "effective": names, "permitted": names}),
        )
    }

    /// Write `config.json`.
    pub fn write(&self) -> Result<()> {
        let text =
            serde_json::to_vec_pretty(&self.config).context("serialize the configuration")?;
        self.write_text(&text)
    }

    /// Write these bytes as `config.json`.
    pub fn write_text(&self, text: &[u8]) -> Result<()> {
        let file = self.path.join("config.json");
        fs::write(&file, text).with_context(|| format!("write {}", file.display()))
    }
}

fn make_rootfs(rootfs: &Path, busybox: &Path) -> Result<()> {
    for dir in [
        "bin",
        "dev",
        "etc",
        "home/user",
        "mnt",
        "proc",
        "root",
        "run",
        "sys",
        "tmp",
        "var",
    ] {
        fs::create_dir_all(rootfs.join(dir))?;
    }
    fs::set_permissions(rootfs.join("tmp"), Permissions::from_mode(0o1777))?;
    fs::write(rootfs.join("etc/passwd"), PASSWD)?;
    fs::write(rootfs.join("etc/group"), GROUP)?;
    let copy = rootfs.join("bin/busybox");
    fs::hard_link(busybox, &copy).or_else(|error| match error.kind() {
        ErrorKind::AlreadyExists => Ok(()),
        _ => fs::copy(busybox, &copy).map(|_| ()),
    })?;
    let list = busybox.with_file_name("applets");
    for applet in fs::read_to_string(&list)
        .with_context(|| format!("read {}", list.display()))?
        .lines()
    {
        match symlink("busybox", rootfs.join("bin").join(applet)) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

/// Put busybox and the list of its applets into `dir`, for bundles to link to; answers the copy's path.
pub fn prepare_busybox(busybox: &Path, dir: &Path) -> Result<PathBuf> {
    fs::create_dir_all(dir)?;
    let copy = dir.join("busybox");
    fs::copy(busybox, &copy)
        .with_context(|| format!("copy {} (Debian: busybox-static)", busybox.display()))?;
    let list = Command::new(&copy)
        .arg("--list")
        .output()
        .context("run busybox --list")?;
    ensure!(list.status.success(), "busybox --list failed");
    fs::write(dir.join("applets"), list.stdout)?;
    Ok(copy)
}

fn default_config(vm: bool) -> Value {
    let capabilities = [
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FOWNER",
        "CAP_FSETID",
        "CAP_KILL",
        "CAP_MKNOD",
        "CAP_NET_BIND_SERVICE",
        "CAP_NET_RAW",
        "CAP_SETFCAP",
        "CAP_SETGID",
        "CAP_SETPCAP",
        "CAP_SETUID",
        "CAP_SYS_CHROOT",
    ];
    let mut namespaces = vec![
        json!({"type": "pid"}),
        json!({"type": "ipc"}),
        json!({"type": "uts"}),
        json!({"type": "mount"}),
        json!({"type": "network"}),
    ];
    // A cgroup namespace over cgroup v1 only confuses; engines ask for it where v2 is.
    if vm || Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        namespaces.push(json!({"type": "cgroup"}));
    }
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/true"],
            "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true
        },
        "root": {"path": "rootfs", "readonly": false},
        "hostname": "conformance",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
             "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
             "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs",
             "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
             "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}
        ],
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": namespaces,
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}
