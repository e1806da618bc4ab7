//! Debian's containerd with its CRI plugin, with folders, a socket and a network of its own.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::outcome::finish;
use crate::processes::wait_until;

/// Longer than anything takes here, on a loaded machine that emulates processors.
const LIMIT: Duration = Duration::from_secs(240);

/// Where Debian puts CNI's plugins.
pub const CNI_PLUGINS: &str = "/usr/lib/cni";

/// The image of a pod's own container, which only waits.
pub const PAUSE: &str = "localhost/pause:latest";

/// containerd's namespace of what CRI makes.
const PODS: &str = "k8s.io";

/// A daemon. Dropping it ends it, and not its containers: it is for namespaces that end with the test (see
/// [`crate::enclosure`]).
#[derive(Debug)]
pub struct Containerd {
    folder: PathBuf,
    daemon: Child,
}

impl Containerd {
    /// Why there can be none here.
    #[must_use]
    pub fn missing() -> Option<String> {
        let programs = [
            "/usr/bin/containerd",
            "/usr/bin/containerd-shim-runc-v2",
            "/usr/bin/ctr",
            "/usr/lib/cni/bridge",
            "/usr/sbin/runc",
        ];
        let missing = programs.iter().find(|path| !Path::new(path).exists())?;
        Some(format!(
            "{missing} is missing: `packaging/deps.sh test` installs it"
        ))
    }

    /// Starts one with everything in `folder`, with the shims of an installation and this configuration for ours.
    ///
    /// # Errors
    /// A sentence that says what does not come up.
    pub fn start(folder: &Path, prefix: &Path, config: &Path) -> Result<Self, String> {
        let text = |error: std::io::Error| format!("{}: {error}", folder.display());
        fs::create_dir_all(folder.join("net.d")).map_err(text)?;
        fs::write(folder.join("containerd.toml"), settings(folder)).map_err(text)?;
        let network = network(folder).to_string();
        fs::write(folder.join("net.d/10-pods.conflist"), network).map_err(text)?;
        write_runc(folder, prefix, config).map_err(text)?;
        let log = File::create(folder.join("containerd.log")).map_err(text)?;
        let path = format!(
            "{}:/usr/sbin:/usr/bin:/sbin:/bin",
            prefix.join("bin").display()
        );
        let daemon = Command::new("/usr/bin/containerd")
            .arg("--config")
            .arg(folder.join("containerd.toml"))
            .env("PATH", path)
            .env("COFFERDAM_CONFIG", config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| format!("containerd does not start: {error}"))?;
        let engine = Self {
            folder: folder.to_owned(),
            daemon,
        };
        let answers = || finish(engine.ctr(PODS).arg("version"), LIMIT).code == 0;
        if wait_until(LIMIT, answers) {
            return Ok(engine);
        }
        Err(format!("containerd does not answer: {}", engine.log()))
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.daemon.id().cast_signed()
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its socket, for CRI, too.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.join("c.sock")
    }

    /// A program that is our OCI command with the test's configuration, for containerd's runc shim.
    #[must_use]
    pub fn command(&self) -> PathBuf {
        self.folder.join("cofferdam-as-runc")
    }

    /// The client, in one of containerd's namespaces.
    #[must_use]
    pub fn ctr(&self, namespace: &str) -> Command {
        let mut command = Command::new("/usr/bin/ctr");
        command
            .current_dir(&self.folder)
            .arg("--address")
            .arg(self.socket())
            .args(["--namespace", namespace]);
        command
    }

    /// Loads an image from a docker archive into one of containerd's namespaces.
    ///
    /// # Errors
    /// What `ctr` says.
    pub fn import(&self, namespace: &str, archive: &Path) -> Result<(), String> {
        let done = finish(
            self.ctr(namespace).args(["images", "import"]).arg(archive),
            LIMIT,
        );
        match done.code {
            0 => Ok(()),
            _ => Err(format!("cannot load {}: {done:?}", archive.display())),
        }
    }

    /// Loads an image and, made from it, that of pods' own containers, for CRI.
    ///
    /// # Errors
    /// What is wrong with the archive, or what `ctr` says.
    pub fn import_for_pods(&self, archive: &Path) -> Result<(), String> {
        self.import(PODS, archive)?;
        let pause = self.folder.join("pause.docker.tar");
        make_pause(archive, &self.folder.join("pause"), &pause)?;
        self.import(PODS, &pause)
    }

    /// The end of what the daemon and its shims complain of.
    #[must_use]
    pub fn log(&self) -> String {
        let log = fs::read_to_string(self.folder.join("containerd.log")).unwrap_or_default();
        let lines: Vec<_> = log
            .lines()
            .filter(|line| !line.contains("level=info"))
            .collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ended = self.daemon.kill();
        let _reaped = self.daemon.wait();
    }
}

fn settings(folder: &Path) -> String {
    cri_settings(
        folder,
        PAUSE,
        &[("cofferdam", "runtime_type = \"io.containerd.cofferdam.v2\"")],
    )
}

/// containerd's configuration for pods: everything in `folder`, CNI's networks in `net.d` there, this image for the pods'
/// own containers; `runc` and these runtimes, each with its settings.
#[must_use]
pub fn cri_settings(folder: &Path, pause: &str, runtimes: &[(&str, &str)]) -> String {
    let cri = "plugins.\"io.containerd.grpc.v1.cri\"";
    let mut settings = format!(
        r#"version = 2
root = {root:?}
state = {state:?}
[grpc]
address = {socket:?}
[plugins."io.containerd.internal.v1.opt"]
path = {opt:?}
[{cri}]
sandbox_image = "{pause}"
restrict_oom_score_adj = true
disable_hugetlb_controller = true
tolerate_missing_hugetlb_controller = true
stream_server_address = "127.0.0.1"
stream_server_port = "0"
[{cri}.cni]
bin_dir = "{CNI_PLUGINS}"
conf_dir = {network:?}
[{cri}.containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"
[{cri}.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
"#,
        root = folder.join("root"),
        state = folder.join("run"),
        socket = folder.join("c.sock"),
        opt = folder.join("opt"),
        network = folder.join("net.d"),
    );
    for (name, text) in runtimes {
        settings += &format!("[{cri}.containerd.runtimes.{name}]\n{text}\n");
    }
    settings
}

/// A bridge for all pods.
fn network(folder: &Path) -> Value {
    json!({
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [{
            "type": "bridge",
            "bridge": "pods",
            "isGateway": true,
            "ipMasq": false,
            "ipam": {
                "type": "host-local",
                "dataDir": folder.join("leases"),
                "ranges": [[{ "subnet": "10.134.0.0/16" }]],
                "routes": [{ "dst": "0.0.0.0/0" }],
            },
        }],
    })
}

/// containerd's runc shim clears the environment, so the command is told its configuration in a script.
fn write_runc(folder: &Path, prefix: &Path, config: &Path) -> std::io::Result<()> {
    let path = folder.join("cofferdam-as-runc");
    let text = format!(
        "#!/bin/sh\nCOFFERDAM_CONFIG='{}' exec '{}' \"$@\"\n",
        config.display(),
        prefix.join("bin/cofferdam").display()
    );
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
}

/// Makes an archive that differs from another by its name and by what it runs.
fn make_pause(archive: &Path, folder: &Path, made: &Path) -> Result<(), String> {
    let text = |error: std::io::Error| format!("cannot make {}: {error}", made.display());
    fs::create_dir_all(folder).map_err(text)?;
    tar(&["--extract"], archive, folder)?;
    let read = |name: &Path| -> Result<Value, String> {
        let bytes = fs::read(name).map_err(text)?;
        serde_json::from_slice(&bytes).map_err(|error| format!("{}: {error}", name.display()))
    };
    let manifest = folder.join("manifest.json");
    let mut images = read(&manifest)?;
    images[0]["RepoTags"] = json!([PAUSE]);
    let config = images[0]["Config"].as_str().ok_or("no configuration")?;
    let config = folder.join(config);
    let mut image = read(&config)?;
    image["config"]["Entrypoint"] = json!(["sh", "-c", "while :; do sleep 100000 & wait; done"]);
    fs::write(&config, image.to_string()).map_err(text)?;
    fs::write(&manifest, images.to_string()).map_err(text)?;
    let names: Vec<_> = fs::read_dir(folder)
        .map_err(text)?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let mut args = vec!["--create"];
    args.extend(names.iter().map(String::as_str));
    tar(&args, made, folder)
}

fn tar(args: &[&str], archive: &Path, folder: &Path) -> Result<(), String> {
    let mut command = Command::new("tar");
    command
        .arg("--file")
        .arg(archive)
        .arg("--directory")
        .arg(folder)
        .args(args);
    let done = finish(&mut command, LIMIT);
    match done.code {
        0 => Ok(()),
        _ => Err(format!("{command:?}: {done:?}")),
    }
}
