//! OCI runtime conformance cases that know only a command name.
//!
//! `conformance --runtime runc` drives any command that is compatible with runc's interface through
//! real bundles, and checks what containers and engines can observe. The cases are proven on runc
//! and crun before they count for Cofferdam; where a VM must differ, the case says why.
//!
//! Every case runs in a process of its own (a re-exec of this program) which is a child subreaper, as
//! conmon and containerd-shim are: it waits for the pid in `--pid-file`, and after the case whatever is
//! still among its descendants was left behind by the runtime.

mod bundle;
mod case;
mod cases;
mod container;
mod environment;
mod leftovers;
mod pipes;
mod reaper;
mod runner;
mod runtime;
mod terminal;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Parser;

/// Run OCI runtime conformance cases against a runtime command.
#[derive(Debug, Clone, Parser)]
#[command(version)]
pub struct Options {
    /// The runtime: a command name or a path.
    #[arg(long, required_unless_present = "list")]
    pub runtime: Option<PathBuf>,
    /// A global argument put before every command of the runtime; may be repeated.
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub runtime_arg: Vec<String>,
    /// Run only cases whose name contains this; may be repeated.
    #[arg(long, value_name = "SUBSTR")]
    pub filter: Vec<String>,
    /// How many cases run at once.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub jobs: u16,
    /// Print the names of the cases and end.
    #[arg(long)]
    pub list: bool,
    /// Expect a virtual machine: cases that must differ there check the machine's side.
    #[arg(long)]
    pub expect_vm: bool,
    /// The bound on one case, in seconds.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 120,
        env = "CONFORMANCE_CASE_TIMEOUT"
    )]
    pub case_timeout: u64,
    /// Unmount the unified hierarchy of a hybrid cgroup layout in a private mount namespace first;
    /// crun refuses to work with it.
    #[arg(long)]
    pub hide_unified_cgroup: bool,
    /// Count a skipped case as a failure.
    #[arg(long)]
    pub deny_skips: bool,
    /// Leave the directories of the cases for inspection.
    #[arg(long)]
    pub keep: bool,
    /// The static busybox that the bundles are made of.
    #[arg(long, value_name = "PATH", default_value = "/bin/busybox")]
    pub busybox: PathBuf,
    /// Run this one case in this process; used by the runner.
    #[arg(long, hide = true, requires = "work_dir")]
    pub one: Option<String>,
    /// The directory of that case.
    #[arg(long, hide = true)]
    pub work_dir: Option<PathBuf>,
}

fn main() -> ExitCode {
    let mut options = Options::parse();
    // Cases run it from folders of their own.
    if let Some(runtime) = options.runtime.take() {
        options.runtime = Some(whole(runtime));
    }
    match dispatch(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("conformance: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// A path that works from any folder; a plain name is looked up in PATH.
fn whole(runtime: PathBuf) -> PathBuf {
    if runtime.components().count() == 1 {
        return runtime;
    }
    std::path::absolute(&runtime).unwrap_or(runtime)
}

fn dispatch(options: &Options) -> Result<bool> {
    let selected = runner::select(&options.filter);
    if options.list {
        for case in &selected {
            match case.vm {
                case::Vm::Same => println!("{}", case.name),
                case::Vm::Differs(reason) => println!("{}  (in a VM: {reason})", case.name),
            }
        }
        return Ok(true);
    }
    if let Some(name) = &options.one {
        let dir = options
            .work_dir
            .as_ref()
            .context("--one needs --work-dir")?;
        let case = cases::all()
            .find(|case| case.name == name)
            .with_context(|| format!("no case named {name}"))?;
        return environment::run_one(options, case, dir);
    }
    if !rustix::process::geteuid().is_root() {
        bail!("containers with all their limits need root; run this as root");
    }
    if selected.is_empty() {
        bail!("no case matches {:?}", options.filter);
    }
    if options.hide_unified_cgroup {
        runner::hide_unified_cgroup()?;
    }
    runner::run(options, &selected)
}
