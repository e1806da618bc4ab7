//! The bundle that all runtimes run: busybox, with the namespaces and limits that runc's `spec` writes.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;

/// A static busybox.
const BUSYBOX: &str = "/bin/busybox";

/// A bundle on disk.
#[derive(Debug)]
pub struct Bundle(PathBuf);

impl Bundle {
    /// Makes one that runs a command of busybox's.
    pub fn make(folder: &Path, command: &[&str]) -> Result<Self> {
        Self::with(folder, &spec(command))
    }

    /// Makes one in a network namespace that is there, with a writable `/tmp`.
    pub fn with_network(folder: &Path, command: &[&str], namespace: &Path) -> Result<Self> {
        let mut spec = spec(command);
        let shared = json!({ "type": "network", "path": namespace });
        let namespaces = spec["linux"]["namespaces"].as_array_mut();
        for own in namespaces.into_iter().flatten() {
            if own["type"] == shared["type"] {
                *own = shared.clone();
            }
        }
        let memory = json!({ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs" });
        let mounts = spec["mounts"].as_array_mut();
        mounts
            .into_iter()
            .for_each(|mounts| mounts.push(memory.clone()));
        Self::with(folder, &spec)
    }

    fn with(folder: &Path, spec: &serde_json::Value) -> Result<Self> {
        let root = folder.join("rootfs");
        for name in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
            fs::create_dir_all(root.join(name)).context("cannot make a root file system")?;
        }
        fs::copy(BUSYBOX, root.join("bin/busybox"))
            .with_context(|| format!("{BUSYBOX}: Debian's busybox-static has it"))?;
        for name in ["true", "sleep"] {
            symlink("busybox", root.join("bin").join(name)).context("cannot link busybox")?;
        }
        let config = folder.join("config.json");
        fs::write(&config, spec.to_string())
            .with_context(|| format!("cannot write {}", config.display()))?;
        Ok(Self(folder.to_owned()))
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

fn spec(command: &[&str]) -> serde_json::Value {
    let capabilities = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    let mount = |destination: &str, kind: &str, options: &[&str]| json!({ "destination": destination, "type": kind, "source": kind, "options": options });
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": command,
            "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/"],
            "cwd": "/",
            "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "bench",
        "mounts": [
            mount("/proc", "proc", &[]),
            mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"])
        ],
        "linux": {
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": [{ "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }],
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/sched_debug", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}
