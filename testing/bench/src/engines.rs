//! Whole operations through engines, each with runc and with ours.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use cri::{Client, Pod};
use harness::{Containerd, VMM, descendant};

use crate::docker::Docker;
use crate::idle::Role;

/// As engines name the image.
pub const IMAGE: &str = "localhost/busybox:latest";

/// containerd's namespace of what `ctr` runs.
const NAMESPACE: &str = "bench";

/// Pods at the same time.
const PODS: usize = 10;

/// Rounds with so many pods: they take long.
const CROWDS: u32 = 2;

/// One operation with both runtimes, round by round.
#[derive(Debug)]
pub struct Operation {
    pub name: &'static str,
    pub runc: Vec<Duration>,
    pub ours: Vec<Duration>,
}

/// Everything that engines were measured with.
#[derive(Debug, Default)]
pub struct Times {
    pub operations: Vec<Operation>,
    /// Engines that could not be measured, and why.
    pub missing: Vec<String>,
}

impl Times {
    fn add(&mut self, name: &'static str, is_ours: bool, time: Duration) {
        let known = self
            .operations
            .iter()
            .position(|operation| operation.name == name);
        let place = known.unwrap_or_else(|| {
            self.operations.push(Operation {
                name,
                runc: Vec::new(),
                ours: Vec::new(),
            });
            self.operations.len() - 1
        });
        let operation = &mut self.operations[place];
        match is_ours {
            true => operation.ours.push(time),
            false => operation.runc.push(time),
        }
    }
}

/// Engines that run.
pub struct Engines {
    containerd: Option<(Containerd, Client)>,
    docker: Option<Docker>,
    missing: Vec<String>,
    logs: PathBuf,
    archive: PathBuf,
}

impl Engines {
    /// Starts those that are installed, with the shims and the command of an installation.
    pub fn start(folder: &Path, prefix: &Path, config: &Path) -> Result<Self> {
        let archive = harness::image("busybox.docker.tar").map_err(anyhow::Error::msg)?;
        let logs = folder.join("logs");
        fs::create_dir_all(&logs).context("cannot make a folder")?;
        let mut engines = Self {
            containerd: None,
            docker: None,
            missing: Vec::new(),
            logs,
            archive,
        };
        match Containerd::missing() {
            Some(reason) => engines.missing.push(reason),
            None => engines.start_containerd(&folder.join("containerd"), prefix, config)?,
        }
        match Docker::missing() {
            Some(reason) => engines.missing.push(reason),
            None => {
                let docker = Docker::start(&folder.join("docker"), prefix, config)?;
                docker.call(&["load", "--quiet", "--input"], &engines.archive)?;
                engines.docker = Some(docker);
            }
        }
        for reason in &engines.missing {
            eprintln!("NOT MEASURED: {reason}");
        }
        Ok(engines)
    }

    fn start_containerd(&mut self, folder: &Path, prefix: &Path, config: &Path) -> Result<()> {
        let engine = Containerd::start(folder, prefix, config).map_err(anyhow::Error::msg)?;
        engine
            .import(NAMESPACE, &self.archive)
            .and_then(|()| engine.import_for_pods(&self.archive))
            .map_err(anyhow::Error::msg)?;
        let client = Client::new(&engine.socket()).map_err(anyhow::Error::msg)?;
        self.containerd = Some((engine, client));
        Ok(())
    }

    /// Everything once, `rounds` times, after one round whose figures are dropped.
    pub fn measure(&self, rounds: u32) -> Result<Times> {
        let mut times = Times {
            missing: self.missing.clone(),
            ..Times::default()
        };
        for round in 0..=rounds {
            eprintln!("engines: round {round} of {rounds}");
            let mut dropped = Times::default();
            let times = if round == 0 { &mut dropped } else { &mut times };
            for is_ours in [false, true] {
                self.containers(times, is_ours)?;
                self.docker(times, is_ours)?;
                if let Some((_, client)) = &self.containerd {
                    self.pod(client, times, is_ours)?;
                }
            }
        }
        if let Some((_, client)) = &self.containerd {
            for round in 0..CROWDS.min(rounds) {
                eprintln!("{PODS} pods at once: round {} of {CROWDS}", round + 1);
                for is_ours in [false, true] {
                    let time = self.crowd(client, is_ours)?;
                    times.add("10 pods at once, until all have a container", is_ours, time);
                }
            }
        }
        Ok(times)
    }

    fn containers(&self, times: &mut Times, is_ours: bool) -> Result<()> {
        let Some((engine, _)) = &self.containerd else {
            return Ok(());
        };
        let runtime = if is_ours {
            "io.containerd.cofferdam.v2"
        } else {
            "io.containerd.runc.v2"
        };
        let mut command = engine.ctr(NAMESPACE);
        command.args(["run", "--rm", "--runtime", runtime, IMAGE, "bench", "true"]);
        times.add("`ctr run --rm` of `true`", is_ours, timed(&mut command)?);
        Ok(())
    }

    fn docker(&self, times: &mut Times, is_ours: bool) -> Result<()> {
        let Some(docker) = &self.docker else {
            return Ok(());
        };
        let runtime = if is_ours { "cofferdam" } else { "runc" };
        let run = |options: &[&str], command: &[&str]| {
            let mut client = docker.client(&["run", "--runtime", runtime]);
            client.args(options).arg(IMAGE).args(command);
            timed(&mut client)
        };
        times.add(
            "`docker run --rm` of `true`",
            is_ours,
            run(&["--rm"], &["true"])?,
        );
        run(&["--detach", "--name", "bench"], &["sleep", "3600"])?;
        let exec = || timed(&mut docker.client(&["exec", "bench", "true"]));
        // The first one finds nothing in caches; engines run health checks all the time.
        exec()?;
        times.add("`docker exec` of `true`", is_ours, exec()?);
        timed(&mut docker.client(&["rm", "--force", "bench"]))?;
        Ok(())
    }

    fn pod(&self, client: &Client, times: &mut Times, is_ours: bool) -> Result<()> {
        let start = Instant::now();
        let (pod, container) = self.start_pod(client, is_ours, "bench")?;
        times.add(
            "pod start: sandbox and first container (CRI)",
            is_ours,
            start.elapsed(),
        );
        let start = Instant::now();
        let second = pod.start("second", IMAGE, &["sleep", "3600"])?;
        times.add("a further container in it", is_ours, start.elapsed());
        pod.exec(&container, &["true"])?;
        let start = Instant::now();
        let (code, _) = pod.exec(&container, &["true"])?;
        times.add("`ExecSync` of `true`", is_ours, start.elapsed());
        if code != 0 {
            bail!("exec of true ended with {code}");
        }
        pod.remove(&second)?;
        pod.end()?;
        Ok(())
    }

    fn start_pod<'a>(
        &self,
        client: &'a Client,
        is_ours: bool,
        name: &str,
    ) -> Result<(Pod<'a>, String)> {
        let handler = if is_ours { "cofferdam" } else { "runc" };
        let cgroup = format!("/cofferdam-bench-{}/{name}", std::process::id());
        let pod = Pod::run(client, (handler, name), &cgroup, &self.logs)
            .with_context(|| format!("no pod with {handler}"))?;
        let container = pod.start("first", IMAGE, &["sleep", "3600"])?;
        Ok((pod, container))
    }

    fn crowd(&self, client: &Client, is_ours: bool) -> Result<Duration> {
        let start = Instant::now();
        let pods = thread::scope(|scope| {
            let start = |number| {
                scope.spawn(move || self.start_pod(client, is_ours, &format!("bench{number}")))
            };
            let threads: Vec<_> = (0..PODS).map(start).collect();
            let joined = threads.into_iter().map(|thread| match thread.join() {
                Ok(done) => done,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            joined.collect::<Result<Vec<_>>>()
        })?;
        let elapsed = start.elapsed();
        for (pod, _) in pods {
            pod.end()?;
        }
        Ok(elapsed)
    }

    /// Runs something while a pod of ours with one container idles; answers what it answers. Nothing where there is no
    /// containerd.
    pub fn with_idle_pod<T>(&self, work: impl FnOnce(Vec<Role>) -> Result<T>) -> Result<Option<T>> {
        let Some((engine, client)) = &self.containerd else {
            return Ok(None);
        };
        let (pod, _) = self.start_pod(client, true, "idle")?;
        let done = roles(engine).and_then(work);
        pod.end()?;
        done.map(Some)
    }
}

/// The processes behind the only pod of ours.
fn roles(engine: &Containerd) -> Result<Vec<Role>> {
    // A shim leaves its parent for the namespace's first process.
    let shim = [engine.pid(), 1]
        .into_iter()
        .find_map(|parent| descendant(parent, "containerd-shim-cofferdam"))
        .context("the pod has no shim")?;
    let helper = |role, name| -> Result<Role> {
        let pid = descendant(shim, name).with_context(|| format!("the pod has no {role}"))?;
        Ok((role, pid))
    };
    let mut all = vec![("shim", shim)];
    for (role, name) in [("file server", "cofferdam-fs"), ("VMM", VMM)] {
        all.push(helper(role, name)?);
    }
    Ok(all)
}

/// Removes the control groups of pods, which an engine leaves to kubelet.
pub fn remove_groups() {
    harness::remove_groups(&format!("cofferdam-bench-{}", std::process::id()));
}

/// Runs a command to its end.
pub fn timed(command: &mut Command) -> Result<Duration> {
    let start = Instant::now();
    let done = command
        .stdin(Stdio::null())
        .output()
        .context("cannot start it")?;
    let elapsed = start.elapsed();
    if !done.status.success() {
        let stderr = String::from_utf8_lossy(&done.stderr).into_owned();
        bail!("{command:?} ended with {}: {}", done.status, stderr.trim());
    }
    Ok(elapsed)
}
