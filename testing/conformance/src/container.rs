//! One container of a case, from `create` on.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::pipes::{self, Reader, Writer};
use crate::reaper::{self, Exit};
use crate::runtime::{Call, Runtime, shorten};

/// A container that `create` made, with its streams.
#[derive(Debug)]
pub struct Container<'r> {
    runtime: &'r Runtime,
    /// Its id.
    pub id: String,
    /// The pid from the pid file.
    pub pid: i32,
    /// The writing end of its standard input, until taken.
    pub stdin: Option<Writer>,
    /// Its standard output.
    pub stdout: Reader,
    /// Its standard error, with what `create` itself wrote there.
    pub stderr: Reader,
}

impl<'r> Container<'r> {
    /// `create` a container with pipes for its streams and a pid file.
    pub fn create(runtime: &'r Runtime, bundle: &Path, id: &str, flags: &[&str]) -> Result<Self> {
        let deadline = runtime.deadline();
        let (stdin, stdin_end) = pipes::input(deadline)?;
        let (stdout, stdout_end) = pipes::output(deadline)?;
        let (mut stderr, stderr_end) = pipes::output(deadline)?;
        let pid_file = pid_file_of(bundle, id);
        let finished = runtime
            .call([
                "create",
                "--bundle",
                &bundle.to_string_lossy(),
                "--pid-file",
                &pid_file.to_string_lossy(),
            ])
            .args(flags)
            .args(&[id])
            .stdin(stdin_end)
            .stdout(stdout_end)
            .stderr(stderr_end)
            .run()?;
        if finished.exit != Exit::Code(0) {
            let message = stderr.text().unwrap_or_default();
            anyhow::bail!("create ended with {}: {}", finished.exit, shorten(&message));
        }
        let pid = read_pid(&pid_file)?;
        Ok(Self {
            runtime,
            id: id.to_owned(),
            pid,
            stdin: Some(stdin),
            stdout,
            stderr,
        })
    }

    /// The runtime it belongs to.
    pub fn runtime(&self) -> &'r Runtime {
        self.runtime
    }

    /// A command of the runtime on this container: `command` is put before its id, `rest` after it.
    pub fn call(&self, command: &[&str], rest: &[&str]) -> Call<'r> {
        self.runtime.call(command).args(&[&self.id]).args(rest)
    }

    /// `start`.
    pub fn start(&self) -> Result<()> {
        self.call(&["start"], &[]).ok().map(drop)
    }

    /// `kill` with a signal.
    pub fn kill(&self, signal: &str) -> Result<()> {
        self.call(&["kill"], &[signal]).ok().map(drop)
    }

    /// `delete`.
    pub fn delete(&self) -> Result<()> {
        self.call(&["delete"], &[]).ok().map(drop)
    }

    /// `exec` of a shell script, whose output is captured.
    pub fn exec(&self, script: &str) -> Call<'r> {
        self.call(&["exec"], &["/bin/sh", "-c", script])
    }

    /// The output of a shell script run by `exec`, which must succeed.
    pub fn exec_text(&self, script: &str) -> Result<String> {
        Ok(self.exec(script).ok()?.text().trim_end().to_owned())
    }

    /// What `state` prints.
    pub fn state(&self) -> Result<Value> {
        self.call(&["state"], &[]).ok()?.json()
    }

    /// The status that `state` prints.
    pub fn status(&self) -> Result<String> {
        Ok(self.state()?["status"]
            .as_str()
            .context("the state has no status")?
            .to_owned())
    }

    /// Demand a status.
    pub fn expect_status(&self, wanted: &str) -> Result<()> {
        let status = self.status()?;
        ensure!(status == wanted, "the status is {status:?}, not {wanted:?}");
        Ok(())
    }

    /// Demand a status that follows an event which may still be under way.
    pub fn reach_status(&self, wanted: &str) -> Result<()> {
        loop {
            let status = self.status()?;
            if status == wanted {
                return Ok(());
            }
            // Each round runs a command of the runtime, which takes its time: no sleep is needed.
            ensure!(
                Instant::now() < self.runtime.deadline(),
                "the status stays {status:?} instead of {wanted:?}"
            );
        }
    }

    /// The exit status of the process in the pid file, which the case's process inherits.
    pub fn wait(&self) -> Result<Exit> {
        reaper::wait(self.pid, self.runtime.deadline())
    }

    /// Demand how it ends.
    pub fn expect_exit(&self, wanted: Exit) -> Result<()> {
        let exit = self.wait()?;
        ensure!(
            exit == wanted,
            "the container ended with {exit} instead of {wanted}"
        );
        Ok(())
    }
}

/// The pid file that `Container::create` asks for.
pub fn pid_file_of(bundle: &Path, id: &str) -> PathBuf {
    bundle.join(format!("{id}.pid"))
}

/// The process id in a pid file.
pub fn read_pid(file: &Path) -> Result<i32> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("read the pid file {}", file.display()))?;
    let pid = text
        .trim_end_matches('\n')
        .parse()
        .with_context(|| format!("the pid file holds {text:?}"))?;
    ensure!(pid > 1, "the pid file holds {pid}");
    Ok(pid)
}
