//! Runs the selected cases, each in a process of its own, and reports.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, unshare};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount,
};
use rustix::process::Signal;
use serde_json::Value;

use crate::case::{Case, Vm};
use crate::runtime::shorten;
use crate::{Options, bundle, cases, leftovers, reaper};

/// The bound on cleaning up after a case.
pub const CLEANUP: Duration = Duration::from_secs(60);
/// Where the unified hierarchy of a hybrid layout is mounted.
const UNIFIED: &str = "/sys/fs/cgroup/unified";

/// How a case ended, as the runner counts it.
#[derive(Debug)]
enum End {
    Passed,
    Failed(String),
    Skipped(String),
}

/// The cases that match any of `filters`, or all.
pub fn select(filters: &[String]) -> Vec<Case> {
    cases::all()
        .filter(|case| {
            filters.is_empty()
                || filters
                    .iter()
                    .any(|filter| case.name.contains(filter.as_str()))
        })
        .collect()
}

/// Hide the unified hierarchy from this process and all it starts.
pub fn hide_unified_cgroup() -> Result<()> {
    if !Path::new(UNIFIED).is_dir() {
        return Ok(());
    }
    unshare(CloneFlags::CLONE_NEWNS).context("make a private mount namespace")?;
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .context("make mounts private")?;
    unmount(UNIFIED, UnmountFlags::DETACH).with_context(|| format!("unmount {UNIFIED}"))?;
    // crun makes its directories there all the same; they must not land in the host's tmpfs.
    mount("tmpfs", UNIFIED, "tmpfs", MountFlags::empty(), None)
        .with_context(|| format!("mount a tmpfs on {UNIFIED}"))
}

/// Run `selected`; `true` when none failed.
pub fn run(options: &Options, selected: &[Case]) -> Result<bool> {
    let base = tempfile::Builder::new()
        .prefix("conformance-")
        .tempdir()
        .context("make a temporary directory")?;
    let busybox = bundle::prepare_busybox(&options.busybox, &base.path().join("busybox"))?;
    reaper::become_subreaper()?;
    let options = Options {
        busybox,
        ..options.clone()
    };

    let next = AtomicUsize::new(0);
    let ends = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..options.jobs {
            scope.spawn(|| {
                while let Some(case) = selected.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let started = Instant::now();
                    let dir = base.path().join(case.name.replace('/', "-"));
                    let end = match run_case(&options, case, &dir) {
                        Ok(End::Skipped(reason)) if options.deny_skips => {
                            End::Failed(format!("skipped: {reason}"))
                        }
                        Ok(end) => end,
                        Err(error) => End::Failed(format!("{error:#}")),
                    };
                    report(&options, case, &end, started.elapsed());
                    if let Ok(mut ends) = ends.lock() {
                        ends.push((case.name, end));
                    }
                    leftovers::unmount_below(&dir);
                    if !options.keep && leftovers::mounts_below(&dir).is_empty() {
                        let _ = fs::remove_dir_all(&dir);
                    }
                }
            });
        }
    });
    leftovers::unmount_below(base.path());
    if options.keep {
        println!("kept {}", base.keep().display());
    }
    let ends = ends
        .into_inner()
        .map_err(|_| anyhow::anyhow!("a runner thread panicked"))?;
    Ok(summarize(&ends))
}

fn run_case(options: &Options, case: &Case, dir: &Path) -> Result<End> {
    fs::create_dir(dir).with_context(|| format!("create {}", dir.display()))?;
    let (out, err) = (dir.join("result"), dir.join("messages"));
    let runtime = options.runtime.as_ref().context("no runtime given")?;
    let mut command = Command::new(std::env::current_exe().context("find this program")?);
    command
        .arg("--one")
        .arg(case.name)
        .arg("--work-dir")
        .arg(dir)
        .arg("--runtime")
        .arg(runtime);
    command
        .arg("--busybox")
        .arg(&options.busybox)
        .arg("--case-timeout")
        .arg(options.case_timeout.to_string());
    for argument in &options.runtime_arg {
        command.arg(format!("--runtime-arg={argument}"));
    }
    if options.expect_vm {
        command.arg("--expect-vm");
    }
    // A process group of its own keeps the signals of cases off the runner and other cases.
    command
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(File::create(&out)?)
        .stderr(File::create(&err)?);
    let child = command.spawn().context("start the case")?;
    let pid = i32::try_from(child.id()).context("pid out of range")?;
    let deadline = Instant::now()
        + Duration::from_secs(options.case_timeout)
        + CLEANUP
        + Duration::from_secs(30);
    let ended = reaper::wait(pid, deadline);
    if ended.is_err() {
        for process in reaper::descendants(pid) {
            reaper::signal(process.pid, Signal::KILL);
        }
        reaper::signal(pid, Signal::KILL);
    }
    let ended = ended?;
    let result: Value = match serde_json::from_slice(&fs::read(&out)?) {
        Ok(result) => result,
        Err(_) => bail!(
            "the case's process ended with {ended}: {}",
            shorten(&fs::read_to_string(&err)?)
        ),
    };
    let detail = result["detail"].as_str().unwrap_or_default().to_owned();
    Ok(match result["verdict"].as_str() {
        Some("passed") => End::Passed,
        Some("skipped") => End::Skipped(detail),
        _ => {
            let commands: Vec<_> = result["commands"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            let last = commands[commands.len().saturating_sub(12)..].join("\n  ");
            let messages = fs::read_to_string(&err)?;
            End::Failed(
                format!("{detail}\n  {last}\n  {}", shorten(&messages))
                    .trim_end()
                    .to_owned(),
            )
        }
    })
}

fn report(options: &Options, case: &Case, end: &End, took: Duration) {
    let seconds = took.as_secs_f32();
    let line = match (end, case.vm) {
        (End::Passed, Vm::Differs(reason)) if options.expect_vm => {
            format!("ok      {} ({seconds:.1} s; in a VM: {reason})", case.name)
        }
        (End::Passed, _) => format!("ok      {} ({seconds:.1} s)", case.name),
        (End::Skipped(reason), _) => format!("skipped {} ({reason})", case.name),
        (End::Failed(_), _) => format!("FAILED  {} ({seconds:.1} s)", case.name),
    };
    // One write per line, so that parallel jobs do not mix theirs.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

fn summarize(ends: &[(&str, End)]) -> bool {
    let failures: Vec<_> = ends
        .iter()
        .filter_map(|(name, end)| match end {
            End::Failed(detail) => Some((name, detail)),
            End::Passed | End::Skipped(_) => None,
        })
        .collect();
    if !failures.is_empty() {
        println!("\nFailures:");
    }
    for (name, detail) in &failures {
        println!("\n{name}\n  {}", detail.replace('\n', "\n  "));
    }
    let passed = ends
        .iter()
        .filter(|(_, end)| matches!(end, End::Passed))
        .count();
    let skipped = ends.len() - passed - failures.len();
    println!(
        "\n{passed} passed, {} failed, {skipped} skipped",
        failures.len()
    );
    failures.is_empty()
}
