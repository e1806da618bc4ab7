//! Runtimes, known by their command only.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use harness::{Actors, VMM};

use crate::bundle::Bundle;
use crate::idle::Role;

/// Longer than any command takes.
const STOPPED: Duration = Duration::from_secs(60);

/// A command that is compatible with runc's.
#[derive(Debug)]
pub struct Runtime {
    name: &'static str,
    program: PathBuf,
    state: PathBuf,
    /// Configuration, of ours only.
    config: Option<PathBuf>,
    options: &'static [&'static str],
}

/// How long each operation of one round took.
#[derive(Debug)]
pub struct Round {
    run: Duration,
    create_start: Duration,
    exec: Duration,
    delete: Duration,
    delete_force: Duration,
}

/// The same of all rounds.
#[derive(Debug, Default)]
pub struct Times {
    /// `run` of `true`, from its start to its exit, the container's removal included.
    pub run: Vec<Duration>,
    /// `create` and `start` together.
    pub create_start: Vec<Duration>,
    /// `exec` of `true`.
    pub exec: Vec<Duration>,
    /// `delete` of a container that has stopped.
    pub delete: Vec<Duration>,
    /// `delete --force` of one that runs.
    pub delete_force: Vec<Duration>,
}

impl Times {
    pub fn add(&mut self, round: &Round) {
        self.run.push(round.run);
        self.create_start.push(round.create_start);
        self.exec.push(round.exec);
        self.delete.push(round.delete);
        self.delete_force.push(round.delete_force);
    }
}

impl Runtime {
    /// Ours first, from a template and booted, and those that are in PATH.
    pub fn installed(ours: &Path, folder: &Path) -> Result<Vec<Self>> {
        let mut list = Vec::new();
        for (name, template) in [("cofferdam", "auto"), ("booted", "never")] {
            let config = folder.join(format!("{name}.toml"));
            let templates = folder.join("templates");
            // What is measured is emulation, also where there is more.
            let text = format!(
                "backend = \"qemutcg\"\ntemplate = \"{template}\"\ntemplate_directory = {templates:?}\n"
            );
            std::fs::write(&config, text).context("cannot write a configuration")?;
            list.push(Self {
                name,
                program: ours.to_owned(),
                state: folder.join(format!("state-{name}")),
                config: Some(config),
                options: &[],
            });
        }
        // No network of its own for runsc: it wants a configured one.
        let others: [(&str, &[&str]); 3] =
            [("runc", &[]), ("crun", &[]), ("runsc", &["--network=none"])];
        let folders = std::env::var_os("PATH").unwrap_or_default();
        for (name, options) in others {
            let found = std::env::split_paths(&folders)
                .chain(["/usr/sbin".into()])
                .map(|folder| folder.join(name))
                .find(|path| path.is_file());
            list.extend(found.map(|program| Self {
                name,
                program,
                state: folder.join(format!("state-{name}")),
                config: None,
                options,
            }));
        }
        Ok(list)
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its configuration, if it is ours.
    pub fn config(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// Its name and version.
    pub fn description(&self) -> String {
        let printed = Command::new(&self.program).arg("--version").output();
        let text = printed.map(|done| String::from_utf8_lossy(&done.stdout).into_owned());
        let version = text.as_deref().unwrap_or_default().lines().next();
        match version.and_then(|line| line.rsplit(' ').next()) {
            Some(version) => format!("{} {version}", self.name),
            None => self.name.to_owned(),
        }
    }

    /// Everything once.
    pub fn round(&self, short: &Bundle, long: &Bundle) -> Result<Round> {
        let bundle = |bundle: &Bundle| bundle.path().display().to_string();
        let (short, long) = (bundle(short), bundle(long));
        let run = self.call(&["run", "--bundle", &short, "bench-run"])?;
        let create_start =
            self.call(&["create", "--bundle", &long, "bench"])? + self.call(&["start", "bench"])?;
        // The first one finds nothing in caches; engines run health checks all the time.
        self.call(&["exec", "bench", "/bin/true"])?;
        let exec = self.call(&["exec", "bench", "/bin/true"])?;
        self.call(&["kill", "bench", "KILL"])?;
        self.until_stopped("bench")?;
        let delete = self.call(&["delete", "bench"])?;
        self.call(&["create", "--bundle", &long, "bench"])?;
        self.call(&["start", "bench"])?;
        let delete_force = self.call(&["delete", "--force", "bench"])?;
        Ok(Round {
            run,
            create_start,
            exec,
            delete,
            delete_force,
        })
    }

    /// Runs something while a container of ours idles; answers what it answers.
    pub fn with_idle<T>(
        &self,
        bundle: &Bundle,
        work: impl FnOnce(Vec<Role>) -> Result<T>,
    ) -> Result<T> {
        let id = "bench-idle";
        let path = bundle.path().display().to_string();
        self.call(&["create", "--bundle", &path, id])?;
        let done = self
            .call(&["start", id])
            .and_then(|_| self.roles(id))
            .and_then(work);
        self.call(&["delete", "--force", id])?;
        done
    }

    /// The processes behind a container of ours.
    fn roles(&self, id: &str) -> Result<Vec<Role>> {
        let actors = Actors::read(&self.state, id).context("the container has no state")?;
        let roles = [
            ("driver", Some(actors.driver)),
            ("proxy", Some(actors.proxy)),
            ("file server", actors.helper("cofferdam-fs")),
            ("VMM", actors.helper(VMM)),
        ];
        let found = roles.into_iter().map(|(role, pid)| {
            let pid = pid.with_context(|| format!("the sandbox has no {role}"))?;
            Ok((role, pid))
        });
        found.collect()
    }

    /// Runs a command to its end.
    pub fn call(&self, args: &[&str]) -> Result<Duration> {
        // Files: what a container inherits must not keep anybody waiting.
        let output = tempfile::tempfile().context("cannot make a file")?;
        let copy = |file: &File| file.try_clone().context("cannot copy a descriptor");
        let mut command = self.command(args);
        command
            .stdin(Stdio::null())
            .stdout(copy(&output)?)
            .stderr(copy(&output)?);
        let start = Instant::now();
        let status = command.status().context("cannot start it")?;
        let elapsed = start.elapsed();
        if !status.success() {
            let mut text = String::new();
            let mut output = output;
            // Without the words, the status is said alone.
            let _read =
                std::io::Seek::rewind(&mut output).and_then(|()| output.read_to_string(&mut text));
            bail!("{} ended with {status}: {}", args.join(" "), text.trim());
        }
        Ok(elapsed)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .envs(self.config.iter().map(|path| ("COFFERDAM_CONFIG", path)))
            .arg("--root")
            .arg(&self.state)
            .args(self.options)
            .args(args);
        command
    }

    fn until_stopped(&self, id: &str) -> Result<()> {
        let deadline = Instant::now() + STOPPED;
        while Instant::now() < deadline {
            let done = self
                .command(&["state", id])
                .output()
                .context("cannot start it")?;
            let state: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap_or_default();
            if state["status"] == "stopped" {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("{id} does not stop");
    }
}
