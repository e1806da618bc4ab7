//! Docker's daemon with folders, a socket and a bridge of its own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;

/// Debian's client: another one may come first in the path.
const CLIENT: &str = "/usr/bin/docker";

const DAEMON: &str = "/usr/sbin/dockerd";

/// Longer than anything takes.
const LIMIT: Duration = Duration::from_secs(120);

/// A daemon with a containerd of its own. Dropping it ends it.
pub struct Docker {
    folder: PathBuf,
    daemon: Child,
}

impl Docker {
    /// Why there can be none here.
    pub fn missing() -> Option<String> {
        let programs = [CLIENT, DAEMON, "/usr/bin/containerd"];
        let missing = programs.iter().find(|path| !Path::new(path).exists())?;
        Some(format!(
            "{missing} is missing: `packaging/deps.sh test` installs it"
        ))
    }

    /// Starts one with the command of an installation as a further runtime.
    pub fn start(folder: &Path, prefix: &Path, config: &Path) -> Result<Self> {
        fs::create_dir_all(folder).context("cannot make a folder")?;
        let settings = json!({
            "hosts": [format!("unix://{}", folder.join("d.sock").display())],
            "data-root": folder.join("data"),
            "exec-root": folder.join("run"),
            "pidfile": folder.join("docker.pid"),
            "bip": "10.135.0.1/16",
            "runtimes": { "cofferdam": { "path": prefix.join("bin/cofferdam") } },
        });
        let file = folder.join("daemon.json");
        fs::write(&file, settings.to_string()).context("cannot write a configuration")?;
        let log = File::create(folder.join("log")).context("cannot make a log")?;
        let daemon = Command::new(DAEMON)
            .arg("--config-file")
            .arg(file)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("COFFERDAM_CONFIG", config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("cannot start dockerd")?;
        let docker = Self {
            folder: folder.to_owned(),
            daemon,
        };
        let answers = || harness::finish(&mut docker.client(&["version"]), LIMIT).code == 0;
        if harness::wait_until(LIMIT, answers) {
            return Ok(docker);
        }
        let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
        bail!("dockerd does not answer: {log}")
    }

    /// The client's command.
    pub fn client(&self, args: &[&str]) -> Command {
        let mut command = Command::new(CLIENT);
        let socket = self.folder.join("d.sock");
        command
            .env("DOCKER_HOST", format!("unix://{}", socket.display()))
            .env("DOCKER_CONFIG", self.folder.join("client"))
            .args(args);
        command
    }

    /// Runs the client with a path behind its words.
    pub fn call(&self, args: &[&str], path: &Path) -> Result<()> {
        let done = harness::finish(self.client(args).arg(path), LIMIT);
        if done.code != 0 {
            bail!("docker {args:?} ended with {}: {}", done.code, done.stderr);
        }
        Ok(())
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // Failures mean that it has ended already.
        let _ended = self.daemon.kill();
        let _reaped = self.daemon.wait();
    }
}
