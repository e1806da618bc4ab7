//! What a case works with, and the process that runs one case.

use std::cell::{Cell, RefCell};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::Options;
use crate::bundle::Bundle;
use crate::case::{Case, Verdict};
use crate::container::Container;
use crate::reaper;
use crate::runtime::{Finished, Runtime};
use crate::terminal::ConsoleSocket;
use crate::{leftovers, runner};

/// What a case works with: the runtime, a directory and ids of its own.
#[derive(Debug)]
pub struct Env {
    /// The runtime under test.
    pub runtime: Arc<Runtime>,
    /// The directory of this case.
    pub dir: PathBuf,
    /// Whether containers are expected to be virtual machines.
    pub vm: bool,
    busybox: PathBuf,
    next: Cell<u32>,
    ids: RefCell<Vec<String>>,
}

impl Env {
    /// The instant by which every wait must end.
    pub fn deadline(&self) -> Instant {
        self.runtime.deadline()
    }

    fn number(&self) -> u32 {
        self.next.replace(self.next.get() + 1)
    }

    /// A fresh container id.
    pub fn id(&self) -> String {
        let id = format!("cf{}n{}", std::process::id(), self.number());
        self.ids.borrow_mut().push(id.clone());
        id
    }

    /// A fresh bundle with a plain configuration.
    pub fn bundle(&self) -> Result<Bundle> {
        let path = self.dir.join(format!("b{}", self.number()));
        Bundle::make(&path, &self.busybox, self.vm)
    }

    /// A fresh bundle whose process is this shell script.
    pub fn script(&self, script: &str) -> Result<Bundle> {
        let mut bundle = self.bundle()?;
        bundle.script(script);
        Ok(bundle)
    }

    /// A fresh directory outside all bundles.
    pub fn directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.dir.join(format!("{name}{}", self.number()));
        fs::create_dir(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(path)
    }

    /// A fresh console socket.
    pub fn console(&self) -> Result<ConsoleSocket> {
        ConsoleSocket::listen(
            &self.dir.join(format!("c{}", self.number())),
            self.deadline(),
        )
    }

    /// `create` a container of `bundle`.
    pub fn create(&self, bundle: &Bundle) -> Result<Container<'_>> {
        self.create_with(bundle, &[])
    }

    /// `create` with more flags.
    pub fn create_with(&self, bundle: &Bundle, flags: &[&str]) -> Result<Container<'_>> {
        bundle.write()?;
        Container::create(&self.runtime, &bundle.path, &self.id(), flags)
    }

    /// `create` and `start` a container of `bundle`.
    pub fn start(&self, bundle: &Bundle) -> Result<Container<'_>> {
        let container = self.create(bundle)?;
        container.start()?;
        Ok(container)
    }

    /// A started container that runs until it is killed, for `exec` and the like.
    pub fn sleeper(&self) -> Result<Container<'_>> {
        self.start(self.bundle()?.args(&["/bin/sleep", "100000"]))
    }

    /// `run` a bundle in the foreground with captured output.
    pub fn run(&self, bundle: &Bundle) -> Result<Finished> {
        bundle.write()?;
        self.runtime
            .call([
                "run",
                "--bundle",
                &bundle.path.to_string_lossy(),
                &self.id(),
            ])
            .run()
    }

    /// `run` a bundle which must succeed; its standard output.
    pub fn run_text(&self, bundle: &Bundle) -> Result<String> {
        Ok(self.run(bundle)?.ok()?.text().trim_end().to_owned())
    }

    /// `run` must refuse the bundle with a message that names one of `things`.
    pub fn refuses(&self, bundle: &Bundle, things: &[&str]) -> Result<()> {
        self.run(bundle)?.refused(things).map(drop)
    }

    /// Whether the runtime is the reference runtime `name`, by what `--version` says.
    pub fn is_reference(&self, name: &str) -> Result<bool> {
        let version = self.runtime.version()?;
        Ok(version.split_whitespace().next() == Some(name))
    }

    /// Whether the runtime knows a command that not every runtime has.
    pub fn has_command(&self, command: &str) -> Result<bool> {
        let help = self.runtime.call([command, "--help"]).run()?;
        Ok(!format!("{}{}", help.text(), help.stderr).contains("unknown command"))
    }

    /// Demand that no trace of any container is left, as after a refused `create`.
    pub fn nothing_left(&self) -> Result<()> {
        let listed = self.runtime.call(["list", "--quiet"]).ok()?.text();
        ensure!(listed.trim().is_empty(), "`list` still shows {listed:?}");
        let left = leftovers::find(&self.dir, self.runtime.root(), &self.ids.borrow());
        ensure!(left.is_empty(), "left behind: {}", left.join("; "));
        Ok(())
    }
}

/// Run one case in this process and print its result for the runner.
pub fn run_one(options: &Options, case: Case, dir: &Path) -> Result<bool> {
    reaper::become_subreaper()?;
    let deadline = Instant::now() + Duration::from_secs(options.case_timeout);
    let program = options.runtime.clone().context("--one needs --runtime")?;
    let runtime = Arc::new(Runtime::new(
        program,
        options.runtime_arg.clone(),
        dir,
        deadline,
    )?);
    let env = Env {
        runtime: Arc::clone(&runtime),
        dir: dir.to_owned(),
        vm: options.expect_vm,
        busybox: options.busybox.clone(),
        next: Cell::new(1),
        ids: RefCell::default(),
    };

    // The case runs in a thread so that even a wait that forgot its deadline cannot hold the cleanup.
    let (sender, receiver) = channel();
    let worker = thread::spawn(move || {
        let result = (case.run)(&env);
        let _ = sender.send((result, env.ids.take()));
    });
    let outcome = receiver.recv_timeout(Duration::from_secs(options.case_timeout + 5));
    let (mut problems, skipped, ids) = match outcome {
        Ok((Ok(Verdict::Passed), ids)) => (Vec::new(), None, ids),
        Ok((Ok(Verdict::Skipped(reason)), ids)) => (Vec::new(), Some(reason), ids),
        Ok((Err(error), ids)) => (vec![format!("{error:#}")], None, ids),
        Err(RecvTimeoutError::Timeout) => (
            vec!["the case hangs past its deadline".to_owned()],
            None,
            Vec::new(),
        ),
        Err(RecvTimeoutError::Disconnected) => {
            let _ = worker.join();
            (vec!["the case panicked".to_owned()], None, Vec::new())
        }
    };
    problems.extend(clean_up(options, dir, &ids)?);

    let verdict = match (&problems[..], &skipped) {
        ([], None) => "passed",
        ([], Some(_)) => "skipped",
        _ => "failed",
    };
    let mut detail = problems.join("\n");
    if let Some(reason) = skipped.filter(|_| problems.is_empty()) {
        detail = reason;
    }
    println!(
        "{}",
        json!({"verdict": verdict, "detail": detail, "commands": runtime.transcript()})
    );
    Ok(true)
}

/// Delete every container of the case, and report what is left all the same.
fn clean_up(options: &Options, dir: &Path, ids: &[String]) -> Result<Vec<String>> {
    let deadline = Instant::now() + runner::CLEANUP;
    let program = options.runtime.clone().context("--one needs --runtime")?;
    let runtime = Runtime::new(
        program,
        options.runtime_arg.clone(),
        &dir.join("cleanup"),
        deadline,
    )?;
    let root = dir.join("root");
    let mut problems = Vec::new();

    let listed = match runtime.call(["list", "--quiet"]).root(&root).run() {
        Ok(listed) => listed.text(),
        Err(error) => {
            problems.push(format!("clean-up: {error:#}"));
            String::new()
        }
    };
    for id in listed.lines().map(str::trim).filter(|id| !id.is_empty()) {
        let Err(error) = runtime.call(["delete", "--force", id]).root(&root).ok() else {
            continue;
        };
        // A foreground `run` that lost its streams may have deleted its container in the meantime.
        if runtime
            .call(["list", "--quiet"])
            .root(&root)
            .run()
            .is_ok_and(|listed| listed.text().contains(id))
        {
            problems.push(format!("clean-up: {error:#}"));
        }
    }
    problems.extend(
        leftovers::find(dir, &root, ids)
            .into_iter()
            .map(|thing| format!("left behind: {thing}")),
    );
    reaper::kill_descendants(Instant::now() + Duration::from_secs(10));
    Ok(problems)
}
