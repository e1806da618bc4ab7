//! dockerd and containerd with folders, sockets, mounts and a network of their own.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, Once};
use std::time::Duration;

use crate::runtime::Release;
use harness::{Cofferdam, image, wait_until};
use rustix::process::{Pid, Signal, kill_process};

/// Longer than anything takes here, on a loaded machine that emulates processors.
pub const LIMIT: Duration = Duration::from_secs(240);

/// How a daemon is set up.
#[derive(Debug, Default)]
pub struct Options {
    /// Containers run on while it does not.
    pub live_restore: bool,
    /// The runtime of containers that name none, and of image builds.
    pub default_runtime: Option<&'static str>,
}

/// A running pair of them. Dropping it removes its containers and ends everything.
pub struct Daemon {
    release: Release,
    cofferdam: Cofferdam,
    docker: Mutex<Option<Child>>,
    containerd: Mutex<Option<Child>>,
    /// The archive of the large image, and whether it was loaded.
    debian: PathBuf,
    has_debian: Once,
    /// Ends when this process does: it reads from a pipe of ours.
    holder: Child,
    _stdin: ChildStdin,
}

impl Daemon {
    /// Starts them, with the image `busybox` loaded.
    ///
    /// # Errors
    /// A sentence that says what is missing here.
    pub fn start(release: &Release, options: &Options) -> Result<Self, String> {
        let containerd = release.containerd.join("containerd");
        let programs = [
            &release.client,
            &release.daemon,
            &*containerd,
            Path::new("/usr/bin/nsenter"),
            Path::new("/usr/sbin/iptables"),
        ];
        if let Some(program) = programs.iter().find(|path| !path.exists()) {
            return Err(format!(
                "{} is missing: `packaging/deps.sh test` installs it",
                program.display()
            ));
        }
        let (busybox, debian) = (image("busybox.docker.tar")?, image("debian.docker.tar")?);
        let cofferdam = Cofferdam::new().ok_or("see above")?;
        write_settings(&cofferdam, options);
        let (holder, stdin) = hold_namespaces();
        let daemon = Self {
            release: release.clone(),
            docker: Mutex::new(None),
            containerd: Mutex::new(None),
            holder,
            _stdin: stdin,
            cofferdam,
            debian,
            has_debian: Once::new(),
        };
        daemon.start_containerd();
        daemon.start_docker();
        daemon.load(&busybox, "busybox:latest", "busybox");
        Ok(daemon)
    }

    /// Loads an image, and gives it a name without a registry's, as people write them.
    fn load(&self, archive: &Path, from: &str, to: &str) {
        let from = format!("localhost/{from}");
        let mut load = self.client(&["load", "--quiet", "--input"]);
        load.arg(archive);
        for mut command in [load, self.client(&["tag", &from, to])] {
            let done = command.output();
            assert!(
                done.as_ref().is_ok_and(|done| done.status.success()),
                "{command:?}: {done:?}"
            );
        }
    }

    /// Loads the image `debian`, unless it is there: it is a large one, and few cases need it.
    pub fn load_debian(&self) {
        self.has_debian
            .call_once(|| self.load(&self.debian, "debian:bookworm", "debian"));
    }

    /// Which engine it is.
    pub fn release(&self) -> &Release {
        &self.release
    }

    /// A folder for volumes and other files of tests.
    pub fn folder(&self) -> &Path {
        self.cofferdam.folder()
    }

    /// Where runtimes keep their containers' state.
    pub fn states(&self) -> PathBuf {
        self.folder().join("docker-run/runtime-runc/moby")
    }

    /// Where containerd keeps the bundles of Docker's containers.
    pub fn tasks(&self) -> PathBuf {
        self.folder()
            .join("containerd-run/io.containerd.runtime.v2.task/moby")
    }

    /// The client's command.
    pub fn client(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.release.client);
        command
            .current_dir(self.folder())
            .env("DOCKER_HOST", format!("unix://{}", self.socket().display()))
            .env("DOCKER_CONFIG", self.folder().join("client"))
            .env("DOCKER_BUILDKIT", "0")
            .args(args);
        command
    }

    fn socket(&self) -> PathBuf {
        self.folder().join("docker.sock")
    }

    /// Starts containerd and waits until it listens.
    pub fn start_containerd(&self) {
        let mut command = self.inside(
            &self.release.containerd.join("containerd"),
            "containerd.log",
        );
        command
            .arg("--config")
            .arg(self.folder().join("containerd.toml"));
        let child = command.spawn().expect("containerd starts");
        *self.containerd.lock().expect("a lock") = Some(child);
        let socket = self.folder().join("containerd.sock");
        let up = wait_until(LIMIT, || UnixStream::connect(&socket).is_ok());
        assert!(up, "containerd does not listen: {}", self.log());
    }

    /// Starts dockerd and waits until it answers.
    pub fn start_docker(&self) {
        let mut command = self.inside(&self.release.daemon, "dockerd.log");
        command
            .arg("--config-file")
            .arg(self.folder().join("daemon.json"));
        let child = command.spawn().expect("dockerd starts");
        *self.docker.lock().expect("a lock") = Some(child);
        let up = wait_until(LIMIT, || {
            self.client(&["version"])
                .stderr(Stdio::null())
                .output()
                .is_ok_and(|done| done.status.success())
        });
        assert!(up, "dockerd does not answer: {}", self.log());
    }

    /// Ends dockerd as `kill -9` does.
    pub fn kill_docker(&self) {
        end(&self.docker);
    }

    /// Ends containerd as `kill -9` does.
    pub fn kill_containerd(&self) {
        end(&self.containerd);
    }

    /// A command of the daemons' namespaces that does not outlive this process.
    fn inside(&self, program: &Path, log: &str) -> Command {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder().join(log))
            .expect("a log");
        let mut path = OsString::from(self.cofferdam.prefix().join("bin"));
        // Before the machine's own: each dockerd has its proxy of ports, each containerd its shim for runc.
        for folder in [
            self.release.daemon.parent(),
            Some(&*self.release.containerd),
        ] {
            path.push(":");
            path.push(folder.expect("a folder"));
        }
        path.push(":/usr/sbin:/usr/bin:/sbin:/bin");
        let mut command = Command::new("/usr/bin/nsenter");
        command
            .arg(format!("--target={}", self.holder.id()))
            .args(["--mount", "--net", "--", "setpriv", "--pdeathsig", "KILL"])
            .arg(program)
            .env_clear()
            .env("PATH", path)
            .env("COFFERDAM_CONFIG", self.cofferdam.config())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        command
    }

    /// Runs something on a thread in the network namespace of the daemons, which has nothing but what they make.
    pub fn inside_network<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let path = format!("/proc/{}/ns/net", self.holder.id());
        harness::inside(Path::new(&path), work)
    }

    /// Gives that namespace an address of its own, once.
    pub fn add_address(&self, address: IpAddr) {
        let added = Command::new("/usr/bin/nsenter")
            .arg(format!("--target={}", self.holder.id()))
            .args(["--net", "--", "ip", "addr", "replace"])
            .arg(format!("{address}/32"))
            .args(["dev", "lo"])
            .status();
        assert!(added.expect("iproute2's ip").success(), "no {address}");
    }

    /// The end of both daemons' logs.
    pub fn log(&self) -> String {
        ["containerd.log", "dockerd.log"]
            .map(|name| {
                let text = fs::read_to_string(self.folder().join(name)).unwrap_or_default();
                let lines: Vec<_> = text.lines().collect();
                lines[lines.len().saturating_sub(30)..].join("\n")
            })
            .join("\n")
    }

    /// Mounts of containers in the daemons' namespace.
    fn mounts(&self) -> Vec<String> {
        let table =
            fs::read_to_string(format!("/proc/{}/mountinfo", self.holder.id())).unwrap_or_default();
        let own = self.folder().to_string_lossy().into_owned();
        table
            .lines()
            .filter_map(|line| line.split(' ').nth(4))
            .filter(|point| point.starts_with(&own))
            // Docker's own: its storage, and network namespaces that it clears away from time to time.
            .filter(|point| !point.ends_with("/docker") && !point.contains("/netns"))
            .map(str::to_owned)
            .collect()
    }

    /// Whether no container, state, mount or process is left.
    ///
    /// # Errors
    /// What is left.
    pub fn leaves_nothing(&self) -> Result<(), String> {
        let mut left = Vec::new();
        let none = wait_until(Duration::from_secs(60), || {
            left = self.left();
            left.is_empty()
        });
        if none { Ok(()) } else { Err(left.join("\n")) }
    }

    fn left(&self) -> Vec<String> {
        let all = self.client(&["ps", "--all", "--quiet"]).output();
        let all = all.map(|done| String::from_utf8_lossy(&done.stdout).into_owned());
        let mut left: Vec<_> = all
            .unwrap_or_else(|error| error.to_string())
            .lines()
            .map(str::to_owned)
            .collect();
        left.extend(
            [self.states(), self.tasks()]
                .into_iter()
                .flat_map(fs::read_dir)
                .flatten()
                .flatten()
                .map(|entry| entry.path().display().to_string()),
        );
        left.extend(self.mounts());
        let own = [&self.docker, &self.containerd]
            .map(|child| child.lock().expect("a lock").as_ref().map(Child::id));
        left.extend(
            self.cofferdam
                .processes()
                .into_iter()
                .filter(|(pid, _)| !own.contains(&Some(pid.cast_unsigned())))
                .map(|(pid, command)| format!("process {pid}: {command}")),
        );
        left
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("logs of the daemons:\n{}", self.log());
        }
        let ids = self.client(&["ps", "--all", "--quiet"]).output();
        let ids = ids.map(|done| String::from_utf8_lossy(&done.stdout).into_owned());
        for id in ids.unwrap_or_default().split_whitespace() {
            let _gone = self.client(&["rm", "--force", "--volumes", id]).output();
        }
        self.kill_docker();
        self.kill_containerd();
        for (pid, _) in self.cofferdam.processes() {
            if let Some(pid) = Pid::from_raw(pid) {
                let _ended = kill_process(pid, Signal::KILL);
            }
        }
        // The mounts go with their namespace.
        let _ended = self.holder.kill();
        let _reaped = self.holder.wait();
    }
}

fn end(child: &Mutex<Option<Child>>) {
    if let Some(mut child) = child.lock().expect("a lock").take() {
        let _ended = child.kill();
        let _reaped = child.wait();
    }
}

/// A process in namespaces of its own, with loopback up, that ends when its stdin does.
fn hold_namespaces() -> (Child, ChildStdin) {
    let mut holder = Command::new("unshare")
        .args(["--mount", "--net", "--propagation", "private", "sh", "-c"])
        .arg("PATH=$PATH:/usr/sbin:/sbin ip link set lo up && echo ready && exec cat")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("unshare starts");
    let stdin = holder.stdin.take().expect("a pipe");
    let stdout = holder.stdout.take().expect("a pipe");
    let mut line = String::new();
    BufReader::new(stdout.take(64))
        .read_line(&mut line)
        .expect("an answer");
    assert_eq!(line, "ready\n", "namespaces cannot be made");
    (holder, stdin)
}

fn write_settings(cofferdam: &Cofferdam, options: &Options) {
    let folder = cofferdam.folder();
    // What Docker does not use, by the names of containerd 1 and 2: it has sockets and folders elsewhere.
    let unused = [
        "io.containerd.grpc.v1.cri",
        "io.containerd.cri.v1.images",
        "io.containerd.cri.v1.runtime",
        "io.containerd.nri.v1.nri",
    ];
    let containerd = format!(
        "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = {unused:?}\n[grpc]\naddress = {:?}\n[plugins.\"io.containerd.internal.v1.opt\"]\npath = {:?}\n",
        folder.join("containerd-root"),
        folder.join("containerd-run"),
        folder.join("containerd.sock"),
        folder.join("containerd-opt"),
    );
    fs::write(folder.join("containerd.toml"), containerd).expect("a configuration");
    let docker = serde_json::json!({
        "hosts": [format!("unix://{}", folder.join("docker.sock").display())],
        "containerd": folder.join("containerd.sock"),
        "data-root": folder.join("docker"),
        "exec-root": folder.join("docker-run"),
        "pidfile": folder.join("docker.pid"),
        "live-restore": options.live_restore,
        "default-runtime": options.default_runtime.unwrap_or("runc"),
        "runtimes": { "cofferdam": { "path": cofferdam.program() } },
    });
    fs::write(folder.join("daemon.json"), docker.to_string()).expect("a configuration");
}
