//! The configuration: one TOML file and drop-ins, typed, with a default for every key.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Variable that names a configuration file instead of the installed one.
pub const CONFIG_VARIABLE: &str = "COFFERDAM_CONFIG";

/// What can go wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("cannot read configuration {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("configuration {path} is wrong: {detail}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Line, key and what was expected.
        detail: String,
    },
    /// A value that cannot work.
    #[error("configuration: `{key}` {problem}")]
    Value {
        /// The key.
        key: &'static str,
        /// What is wrong with its value.
        problem: String,
    },
}

/// Which virtual machine monitor runs sandboxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendChoice {
    /// Our own on KVM when a probe has run guest code on it, else QEMU with emulation.
    Auto,
    /// Our own on KVM or not at all.
    Kvm,
    /// QEMU with KVM or not at all.
    QemuKvm,
    /// QEMU with emulation (TCG).
    QemuTcg,
}

/// Whether sandboxes start from templates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TemplateChoice {
    /// Where there is one; one of the default size is made when it is missed.
    Auto,
    /// Where there is one; none is made unless somebody asks for it.
    Manual,
    /// Every sandbox boots.
    Never,
}

/// Everything that can be configured. `docs/configuration.md` is the reference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Virtual machine monitor: `auto`, `kvm`, `qemukvm` or `qemutcg`.
    pub backend: BackendChoice,
    /// Refuse to run under emulation.
    pub require_hardware: bool,
    /// Guest kernel, an uncompressed x86-64 ELF with a PVH entry.
    pub kernel: PathBuf,
    /// Guest initramfs.
    pub initrd: PathBuf,
    /// Words added to the guest kernel's command line.
    pub kernel_parameters: Vec<String>,
    /// The QEMU program; a plain name is looked up in PATH.
    pub qemu: PathBuf,
    /// Our virtual machine monitor's program.
    pub vmm: PathBuf,
    /// Have the host's kernel pass packets between tap and guest where it has vhost-net.
    pub vhost_net: bool,
    /// Connect programs of guest and host by ports of virtio-vsock, over a socket of each sandbox.
    pub vsock: bool,
    /// Our file server program.
    pub file_server: PathBuf,
    /// Guest memory in MiB of a sandbox whose containers set no limit.
    pub default_memory_mib: u64,
    /// Guest memory in MiB added to the containers' limits, for the guest's kernel and agent.
    pub memory_overhead_mib: u64,
    /// Guest memory of huge pages that the host has set aside.
    pub huge_pages: bool,
    /// Virtual CPUs of a sandbox whose containers set no limit.
    pub default_vcpus: u32,
    /// Most virtual CPUs one sandbox may have.
    pub max_vcpus: u32,
    /// Guest memory in MiB that a sandbox can get while it runs.
    pub spare_memory_mib: u64,
    /// Virtual CPUs that a sandbox can get while it runs.
    pub spare_vcpus: u32,
    /// Seconds a guest may take from its start until its agent answers.
    pub boot_timeout_seconds: u64,
    /// Whether sandboxes start from templates: `auto`, `manual` or `never`.
    pub template: TemplateChoice,
    /// Where templates are kept.
    pub template_directory: PathBuf,
    /// First of the user ids that VMMs run as: this number plus the pid of the sandbox's driver.
    pub vmm_uid_base: u32,
    /// Where images and writable layers of `cofferdam run` are kept.
    pub data_directory: PathBuf,
    /// Network cards of a sandbox beside those for the interfaces that are there at its start.
    pub spare_network_cards: usize,
    /// Drop frames of guests that their interface would not have sent.
    pub anti_spoofing: bool,
    /// Address and prefix of the bridge of `cofferdam run --net bridge`.
    pub bridge_network: String,
    /// Folders with CNI plugins.
    pub cni_plugin_directories: Vec<PathBuf>,
    /// Where the networks of `cofferdam run --net cni:NAME` are described.
    pub cni_network_directory: PathBuf,
    /// Annotations of containers that count.
    pub allowed_annotations: Vec<String>,
    /// Registries (host or host:port) that may be spoken to without TLS, beside loopback.
    pub insecure_registries: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self::with_prefix(&installed_prefix())
    }
}

impl Config {
    /// The usual QEMU program.
    pub const QEMU: &str = "qemu-system-x86_64";

    fn with_prefix(prefix: &Path) -> Self {
        Self {
            backend: BackendChoice::Auto,
            require_hardware: false,
            kernel: prefix.join("lib/cofferdam/vmlinux"),
            initrd: prefix.join("lib/cofferdam/initramfs.cpio"),
            kernel_parameters: Vec::new(),
            qemu: PathBuf::from(Self::QEMU),
            vmm: prefix.join("libexec/cofferdam/cofferdam-vmm"),
            vhost_net: true,
            vsock: false,
            file_server: prefix.join("libexec/cofferdam/cofferdam-fs"),
            default_memory_mib: 256,
            memory_overhead_mib: 128,
            huge_pages: false,
            default_vcpus: 1,
            max_vcpus: most_vcpus(),
            spare_memory_mib: 16_384,
            spare_vcpus: 3,
            boot_timeout_seconds: 60,
            template: TemplateChoice::Auto,
            template_directory: PathBuf::from("/run/cofferdam-templates"),
            vmm_uid_base: 1_879_048_192,
            data_directory: PathBuf::from("/var/lib/cofferdam"),
            spare_network_cards: 1,
            anti_spoofing: true,
            bridge_network: "10.209.0.1/16".to_owned(),
            cni_plugin_directories: vec!["/usr/lib/cni".into(), "/opt/cni/bin".into()],
            cni_network_directory: PathBuf::from("/etc/cni/net.d"),
            allowed_annotations: Vec::new(),
            insecure_registries: Vec::new(),
        }
    }

    /// Reads the file that [`CONFIG_VARIABLE`] names, else the first of `<prefix>/etc/cofferdam/` and
    /// `/etc/cofferdam/` that has a `config.toml`, then the drop-ins `config.toml.d/*.toml` beside it
    /// in the order of their names; a later value replaces an earlier one.
    ///
    /// # Errors
    /// [`ConfigError`] when a file cannot be read or a key or value in it is not known.
    pub fn load() -> Result<Self, ConfigError> {
        match Self::file() {
            Some(path) => Self::from_file(&path),
            None => Self::default().checked(),
        }
    }

    /// The file that [`Config::load`] reads; nothing: there is none, and the defaults count.
    #[must_use]
    pub fn file() -> Option<PathBuf> {
        if let Some(path) = std::env::var_os(CONFIG_VARIABLE) {
            return Some(path.into());
        }
        let candidates = [
            installed_prefix().join("etc/cofferdam/config.toml"),
            "/etc/cofferdam/config.toml".into(),
        ];
        candidates.into_iter().find(|path| path.exists())
    }

    /// Reads one file and its drop-ins.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let mut merged = read_table(path)?;
        let mut folder = path.as_os_str().to_owned();
        folder.push(".d");
        for drop_in in drop_ins(Path::new(&folder))? {
            merged.extend(read_table(&drop_in)?);
        }
        let config: Self =
            toml::Value::Table(merged)
                .try_into()
                .map_err(|error: toml::de::Error| ConfigError::Malformed {
                    path: path.to_owned(),
                    detail: error.to_string(),
                })?;
        config.checked()
    }

    fn checked(self) -> Result<Self, ConfigError> {
        let bad = |key, problem: &str| {
            Err(ConfigError::Value {
                key,
                problem: problem.to_owned(),
            })
        };
        if self.default_memory_mib < 64 {
            return bad(
                "default_memory_mib",
                "is below 64, the least our guest boots with",
            );
        }
        if self.default_vcpus == 0 || self.default_vcpus > self.max_vcpus {
            return bad("default_vcpus", "must be between 1 and max_vcpus");
        }
        if self.boot_timeout_seconds == 0 {
            return bad("boot_timeout_seconds", "must be at least 1");
        }
        if self.spare_network_cards > 4 {
            return bad(
                "spare_network_cards",
                "is above 4: a virtual machine has room for 5 cards in all",
            );
        }
        if self.vmm_uid_base < 65_536 {
            return bad(
                "vmm_uid_base",
                "must be at least 65536, above the ids of people and services",
            );
        }
        Ok(self)
    }
}

/// `/usr/local` for a program `/usr/local/bin/cofferdam`.
fn installed_prefix() -> PathBuf {
    std::env::current_exe()
        .ok()
        .and_then(|program| Some(program.parent()?.parent()?.to_owned()))
        .unwrap_or_else(|| PathBuf::from("/usr/local"))
}

fn read_table(path: &Path) -> Result<toml::Table, ConfigError> {
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    let table: toml::Table =
        text.parse()
            .map_err(|error: toml::de::Error| ConfigError::Malformed {
                path: path.to_owned(),
                detail: error.to_string(),
            })?;
    // Each file is checked by itself, so that a wrong key is blamed on the file it stands in.
    let _typed: Config =
        toml::Value::Table(table.clone())
            .try_into()
            .map_err(|error: toml::de::Error| ConfigError::Malformed {
                path: path.to_owned(),
                detail: error.to_string(),
            })?;
    Ok(table)
}

fn drop_ins(folder: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let read = |source| ConfigError::Read {
        path: folder.to_owned(),
        source,
    };
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(read)?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(read)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// As many as the host has. Some more are taken, as limits may be raised on a small host; many more would hardly boot.
fn most_vcpus() -> u32 {
    let host = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u32::try_from(host).unwrap_or(u32::MAX).clamp(8, 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drop_ins_replace_values_in_their_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        fs::write(&path, "default_vcpus = 2\nbackend = \"qemutcg\"\n").unwrap();
        fs::create_dir(folder.path().join("config.toml.d")).unwrap();
        fs::write(
            folder.path().join("config.toml.d/20.toml"),
            "default_vcpus = 4\n",
        )
        .unwrap();
        fs::write(
            folder.path().join("config.toml.d/10.toml"),
            "default_vcpus = 3\nrequire_hardware = true\n",
        )
        .unwrap();
        let config = Config::from_file(&path).unwrap();
        assert_eq!(config.default_vcpus, 4);
        assert_eq!(config.backend, BackendChoice::QemuTcg);
        assert!(config.require_hardware);
    }

    #[test]
    fn unknown_keys_and_wrong_values_name_their_file_or_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        for (text, named) in [
            ("defualt_vcpus = 2", "defualt_vcpus"),
            ("backend = \"xen\"", "backend"),
            ("default_vcpus = 0", "default_vcpus"),
            ("default_memory_mib = 3", "default_memory_mib"),
            ("vmm_uid_base = 0", "vmm_uid_base"),
            ("spare_network_cards = 5", "spare_network_cards"),
        ] {
            fs::write(&path, text).unwrap();
            let error = Config::from_file(&path).unwrap_err().to_string();
            assert!(error.contains(named), "{text}: {error}");
        }
    }
    #[test]
    fn the_reference_mentions_every_key() {
        let reference = include_str!("../../../docs/configuration.md");
        let keys = toml::Table::try_from(Config::default()).unwrap();
        for key in keys.keys() {
            assert!(
                reference.contains(&format!("## `{key}`")),
                "docs/configuration.md has no section of `{key}`"
            );
        }
    }
}
