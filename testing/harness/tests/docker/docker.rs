//! The client, for one case with one runtime.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use harness::{Outcome, Running, finish, start, wait_until};

use crate::daemon::{Daemon, LIMIT};
use crate::runtime::Runtime;

/// Docker as one case sees it: its containers have a label and a prefix of their own.
pub struct Docker<'a> {
    /// Whose containers are made.
    pub runtime: Runtime,
    daemon: &'a Daemon,
    case: String,
}

impl<'a> Docker<'a> {
    /// For the case of this name.
    pub fn new(daemon: &'a Daemon, runtime: Runtime, case: &str) -> Self {
        let runtime_name = format!("{runtime:?}").to_lowercase();
        Self {
            runtime,
            daemon,
            case: format!("{}-{runtime_name}", case.replace("::", "-")),
        }
    }

    /// The engine.
    pub fn daemon(&self) -> &Daemon {
        self.daemon
    }

    /// Makes a network that goes with the case; answers its name.
    pub fn network(&self, name: &str, options: &[&str]) -> String {
        let name = self.name(name);
        let label = format!("case={}", self.case);
        let args = [&["network", "create", "--label", &label], options, &[&name]];
        self.ok(&args.concat());
        name
    }

    /// Ids of the case's networks.
    fn networks(&self) -> Vec<String> {
        let filter = format!("label=case={}", self.case);
        let ids = self.run(&["network", "ls", "--quiet", "--filter", &filter]);
        ids.stdout.split_whitespace().map(str::to_owned).collect()
    }

    /// A container's, volume's or image's name that only this case uses.
    pub fn name(&self, name: &str) -> String {
        format!("{}-{name}", self.case)
    }

    /// A folder that only this case uses.
    pub fn folder(&self) -> PathBuf {
        let folder = self.daemon.folder().join("cases").join(&self.case);
        fs::create_dir_all(&folder).expect("a folder");
        folder
    }

    /// The client's command; `run` and `create` get the runtime and, unless they name one, no network.
    pub fn command(&self, args: &[&str]) -> Command {
        let label = format!("case={}", self.case);
        match args.split_first() {
            Some((&verb @ ("run" | "create"), rest)) => {
                let mut own = vec![verb, "--runtime", self.runtime.name(), "--label", &label];
                if !rest.iter().any(|arg| arg.starts_with("--network")) {
                    own.extend(["--network", "none"]);
                }
                self.daemon.client(&[&own, rest].concat())
            }
            _ => self.daemon.client(args),
        }
    }

    /// Runs it.
    pub fn run(&self, args: &[&str]) -> Outcome {
        finish(&mut self.command(args), LIMIT)
    }

    /// Runs it with this stdin.
    pub fn run_with(&self, stdin: &[u8], args: &[&str]) -> Outcome {
        start(&mut self.command(args), Some(stdin.to_vec())).finish(LIMIT)
    }

    /// Starts it with an open stdin.
    pub fn start(&self, args: &[&str]) -> Running {
        start(&mut self.command(args), None)
    }

    /// Runs it and wants success.
    pub fn ok(&self, args: &[&str]) -> String {
        let done = self.run(args);
        assert_eq!(
            done.code, 0,
            "docker {args:?} with {:?}: {done:?}",
            self.runtime
        );
        done.stdout
    }

    /// What a shell script prints in a container with these options.
    pub fn sh(&self, options: &[&str], script: &str) -> String {
        self.ok(&[&["run", "--rm"], options, &["busybox", "sh", "-c", script]].concat())
    }

    /// As [`Docker::sh`], whether it succeeds or not.
    pub fn try_sh(&self, options: &[&str], script: &str) -> Outcome {
        self.run(&[&["run", "--rm"], options, &["busybox", "sh", "-c", script]].concat())
    }

    /// Starts a container in the background; answers its name.
    pub fn background(&self, options: &[&str], command: &[&str]) -> String {
        let name = self.name("c");
        self.ok(&[
            &["run", "--detach", "--name", &name],
            options,
            &["busybox"],
            command,
        ]
        .concat());
        name
    }

    /// A field of a container.
    pub fn inspect(&self, name: &str, field: &str) -> String {
        self.ok(&["inspect", "--format", &format!("{{{{{field}}}}}"), name])
            .trim()
            .to_owned()
    }

    /// Waits until a field of a container is this.
    pub fn expect(&self, name: &str, field: &str, value: &str) {
        let came = wait_until(LIMIT, || self.inspect(name, field) == value);
        assert!(
            came,
            "{field} is {:?}, not {value:?}, with {:?}",
            self.inspect(name, field),
            self.runtime
        );
    }

    /// Waits until the logs of a container hold this.
    pub fn expect_log(&self, name: &str, text: &str) {
        let came = wait_until(LIMIT, || self.run(&["logs", name]).stdout.contains(text));
        assert!(
            came,
            "{text:?} is not logged with {:?}: {:?}",
            self.runtime,
            self.run(&["logs", name])
        );
    }

    /// Ids of the case's containers.
    pub fn containers(&self) -> Vec<String> {
        let filter = format!("label=case={}", self.case);
        let ids = self.ok(&["ps", "--all", "--quiet", "--no-trunc", "--filter", &filter]);
        ids.split_whitespace().map(str::to_owned).collect()
    }

    /// Removes the case's containers, which has to leave no state of the runtime's.
    pub fn leaves_nothing(&self) {
        let ids = self.containers();
        for id in &ids {
            self.ok(&["rm", "--force", "--volumes", id]);
        }
        for id in self.networks() {
            self.ok(&["network", "rm", &id]);
        }
        let left: Vec<_> = ids
            .iter()
            .flat_map(|id| [self.daemon.states(), self.daemon.tasks()].map(|all| all.join(id)))
            .filter(|path| path.exists())
            .collect();
        assert!(left.is_empty(), "left with {:?}: {left:?}", self.runtime);
    }
}

impl Drop for Docker<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let filter = format!("label=case={}", self.case);
            let ids = self
                .run(&["ps", "--all", "--quiet", "--filter", &filter])
                .stdout;
            for id in ids.split_whitespace() {
                let removed = self.run(&["rm", "--force", "--volumes", id]);
                eprintln!("cleared up: {removed:?}");
            }
            for id in self.networks() {
                let removed = self.run(&["network", "rm", &id]);
                eprintln!("cleared up: {removed:?}");
            }
        }
    }
}
