//! containerd with its CRI plugin, folders, socket and network of its own.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use cri::Client;
use cri::v1::{ImageSpec, PullImageRequest, StatusRequest, VersionRequest};
use harness::{Cofferdam, Registry, wait_until};
use rustix::process::{Pid, Signal, kill_process};

use crate::lab::end_groups;
use crate::{images, namespaces};

/// Longer than a start takes here.
const LIMIT: Duration = Duration::from_secs(120);

/// Which containerd, and where its programs are.
#[derive(Debug, Clone)]
pub struct Release {
    /// What names of tests call it.
    pub name: String,
    /// Where its programs are; nothing: in the machine's own folders.
    pub programs: Option<PathBuf>,
}

impl Release {
    /// The program's file.
    fn program(&self, name: &str) -> PathBuf {
        match &self.programs {
            Some(folder) => folder.join(name),
            None => PathBuf::from(name),
        }
    }

    /// The version that the program tells, as two numbers; nothing when it does not run.
    pub fn version(&self) -> Option<(u32, u32)> {
        let told = Command::new(self.program("containerd"))
            .arg("--version")
            .output()
            .ok()?;
        let told = String::from_utf8_lossy(&told.stdout).into_owned();
        let mut numbers = told.split_whitespace().nth(2)?.split('.');
        let mut number = || numbers.next()?.trim_start_matches('v').parse().ok();
        Some((number()?, number()?))
    }
}

/// A daemon. Dropping it ends it.
#[derive(Debug)]
pub struct Engine {
    /// Its version as two numbers.
    pub version: (u32, u32),
    /// Sets its network apart from that of others.
    pub number: u8,
    /// Calls to it.
    pub client: Client,
    /// Ours, as its shim is told of it.
    pub cofferdam: Cofferdam,
    release: Release,
    daemon: Mutex<Child>,
    registry: Registry,
}

impl Engine {
    /// Starts one.
    ///
    /// # Errors
    /// A sentence that says what is missing or does not come up.
    pub fn start(release: &Release, number: u8) -> Result<Self, String> {
        let version = release
            .version()
            .ok_or_else(|| format!("containerd {} does not tell its version", release.name))?;
        let cofferdam = Cofferdam::new().ok_or("Cofferdam is not built")?;
        let folder = cofferdam.folder();
        let registry = Registry::start(folder).ok_or("docker-registry does not start")?;
        let layouts = folder.join("layouts");
        for (name, layout) in images::write(Path::new(cofferdam.busybox()), &layouts) {
            registry.push(&layout, name);
        }
        network(folder, number);
        let config = configuration(&cofferdam, version, &registry.address);
        fs::write(folder.join("containerd.toml"), config).expect("a configuration");
        let daemon = spawn(release, &cofferdam)?;
        let engine = Self {
            version,
            number,
            client: Client::new(&folder.join("c.sock"))?,
            release: release.clone(),
            daemon: Mutex::new(daemon),
            registry,
            cofferdam,
        };
        engine.wait_until_ready()?;
        for name in ["busybox", "configured"] {
            engine.pull(name)?;
        }
        Ok(engine)
    }

    fn wait_until_ready(&self) -> Result<(), String> {
        let is_ready = || {
            let version = async |mut calls: Runtime| calls.version(VersionRequest::default()).await;
            let status = async |mut calls: Runtime| calls.status(StatusRequest::default()).await;
            self.client.runtime(version).is_ok()
                && self.client.runtime(status).is_ok_and(|answer| {
                    let status = answer.status.unwrap_or_default();
                    !status.conditions.is_empty()
                        && status.conditions.iter().all(|condition| {
                            condition.status || condition.r#type.contains("Deprecat")
                        })
                })
        };
        if wait_until(LIMIT, is_ready) {
            return Ok(());
        }
        Err(format!("containerd is not ready: {}", self.log()))
    }

    /// Puts an image into the registry that nobody else uses; answers its name.
    pub fn own_image(&self, name: &str) -> String {
        let folder = self.cofferdam.folder().join("layouts");
        let layout = images::own(&folder, name);
        self.registry.push(&layout, name);
        self.image(name)
    }

    /// An image's name in the registry.
    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}:latest", self.registry.address)
    }

    fn pull(&self, name: &str) -> Result<(), String> {
        let request = PullImageRequest {
            image: Some(ImageSpec {
                image: self.image(name),
                ..ImageSpec::default()
            }),
            ..PullImageRequest::default()
        };
        let pulled = self
            .client
            .images(async |mut calls| calls.pull_image(request).await);
        pulled
            .map(drop)
            .map_err(|error| format!("cannot pull {name}: {error}\n{}", self.log()))
    }

    /// The end of what the daemon and its shims complain of.
    pub fn log(&self) -> String {
        let path = self.cofferdam.folder().join("containerd.log");
        let log = fs::read_to_string(path).unwrap_or_default();
        let lines: Vec<_> = log
            .lines()
            .filter(|line| !line.contains("level=info"))
            .collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// Kills the daemon as nothing can prepare for, and starts it anew with what it has on disk.
    /// `meanwhile` runs while there is none.
    pub fn kill_and_restart_after(&self, meanwhile: impl FnOnce()) {
        let mut daemon = self.daemon.lock().expect("nobody panicked here");
        daemon.kill().expect("a daemon to kill");
        let _reaped = daemon.wait();
        meanwhile();
        *daemon = spawn(&self.release, &self.cofferdam).expect("containerd starts again");
        drop(daemon);
        self.wait_until_ready().expect("containerd comes back");
    }

    /// Ends it; answers what is left of pods: processes, and namespaces and mounts that nobody needs.
    pub fn end(self) -> Vec<String> {
        let mut left: Vec<String> = Vec::new();
        let gone = wait_until(Duration::from_secs(30), || {
            left = self
                .helpers()
                .into_iter()
                .map(|(pid, line)| format!("process {pid}: {line}"))
                .chain(namespaces::mounts(&self.cofferdam.folder().join("run")))
                .chain(namespaces::mounts(Path::new("/run/netns")))
                .collect();
            left.is_empty()
        });
        if gone { Vec::new() } else { left }
    }

    /// Processes that have this daemon's folder in their command line, but for daemon and registry.
    pub fn helpers(&self) -> Vec<(i32, String)> {
        let folder = self.cofferdam.folder().display().to_string();
        let daemon = self.daemon.lock().expect("nobody panicked here").id();
        let mut all = namespaces::processes();
        all.retain(|(pid, line)| {
            pid.cast_unsigned() != daemon
                && line.contains(&folder)
                && !line.contains("registry.yml")
        });
        all
    }
}

/// What calls are made with.
type Runtime = cri::v1::runtime_service_client::RuntimeServiceClient<tonic::transport::Channel>;

impl Drop for Engine {
    fn drop(&mut self) {
        let folder = self.cofferdam.folder();
        if let Some(name) = folder.file_name() {
            end_groups(&name.to_string_lossy());
        }
        if let Ok(mut daemon) = self.daemon.lock() {
            let pid = Pid::from_raw(daemon.id().cast_signed()).expect("a pid");
            let _asked = kill_process(pid, Signal::TERM);
            let ended = wait_until(Duration::from_secs(20), || {
                !matches!(daemon.try_wait(), Ok(None))
            });
            if !ended {
                let _killed = daemon.kill();
                let _reaped = daemon.wait();
            }
        }
    }
}

fn spawn(release: &Release, cofferdam: &Cofferdam) -> Result<Child, String> {
    let folder = cofferdam.folder();
    let log = File::options()
        .create(true)
        .append(true)
        .open(folder.join("containerd.log"))
        .expect("a log");
    // Shims are found here: ours in the prefix, runc's beside its containerd.
    let mut path = vec![cofferdam.prefix().join("bin")];
    path.extend(release.programs.clone());
    let own = env::var_os("PATH").unwrap_or_default();
    path.extend(env::split_paths(&own));
    path.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let program = release.program("containerd");
    Command::new(&program)
        .arg("--config")
        .arg(folder.join("containerd.toml"))
        .env("PATH", env::join_paths(path).expect("a path"))
        .env("COFFERDAM_CONFIG", cofferdam.config())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .map_err(|error| format!("cannot start {}: {error}", program.display()))
}

/// A bridge for all pods of this daemon, with addresses of both families.
fn network(folder: &Path, number: u8) {
    let configured = folder.join("net.d");
    fs::create_dir_all(&configured).expect("a folder");
    let leases = folder.join("leases");
    let list = serde_json::json!({
        "cniVersion": "0.4.0",
        "name": format!("pods{number}"),
        "plugins": [
            {
                "type": "bridge",
                "bridge": format!("pods{number}"),
                "isGateway": true,
                "ipMasq": false,
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "dataDir": leases,
                    "ranges": [
                        [{ "subnet": format!("10.133.{number}.0/24") }],
                        [{ "subnet": format!("fd13:3:{number}::/64") }],
                    ],
                    "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
                },
            },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    });
    fs::write(configured.join("10-pods.conflist"), list.to_string()).expect("a network");
}

fn configuration(cofferdam: &Cofferdam, version: (u32, u32), registry: &str) -> String {
    let ours = "runtime_type = \"io.containerd.cofferdam.v2\"\n\
                privileged_without_host_devices = true\n\
                pod_annotations = [\"io.cofferdam.*\"]";
    let by_itself = format!("{ours}\nsandboxer = \"shim\"");
    let mut runtimes = vec![("cofferdam", ours)];
    // containerd before 2.0 cannot have the shim make sandboxes.
    if version >= (2, 0) {
        runtimes.push(("sandboxer", &by_itself));
    }
    let pause = format!("{registry}/{}:latest", images::PAUSE);
    harness::cri_settings(cofferdam.folder(), &pause, &runtimes)
}
