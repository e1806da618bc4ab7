//! `containerd-shim-cofferdam-v2`: what containerd starts for a container or pod of the runtime `io.containerd.cofferdam.v2`.
//!
//! containerd runs it three ways, told apart by the last word of the command line:
//!
//! ```text
//!  … start    finds the shim of the container's group or starts one in the background, prints its address
//!  …          is that shim: owns the sandbox, answers the calls of containerd's task service   (serve, task)
//!  … delete   clears up behind a shim that was killed, with nothing but the bundle to go by    (cleanup)
//! ```
//!
//! A fourth word is ours: the shim starts itself with it, for the template that its sandbox has missed.
//!
//! The virtual machine lives and dies with the shim: `sandbox` starts it from the shim's only thread.

mod address;
mod bootstrap;
mod cleanup;
mod events;
mod flags;
mod info;
mod log;
mod options;
mod pod_sandbox;
mod record;
mod rootfs;
mod serve;
mod start;
mod status;
mod stdio;
mod task;

use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::flags::Flags;

fn main() -> ExitCode {
    match Flags::parse(std::env::args().skip(1)).and_then(|flags| dispatch(&flags)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // containerd shows what `start` and `delete` say. Nobody listens to the others.
            eprintln!("containerd-shim-cofferdam-v2: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(flags: &Flags) -> Result<()> {
    if flags.version {
        println!("containerd-shim-cofferdam-v2 {}", env!("CARGO_PKG_VERSION"));
        return Ok(());
    }
    if flags.info {
        return info::run();
    }
    match flags.action.as_str() {
        "start" => start::run(flags),
        "delete" => cleanup::run(flags),
        task::TEMPLATE_MAKER => {
            log::begin(&start::bundle(flags)?, &flags.id, flags.debug);
            let made = sandbox::template::serve();
            if let Err(error) = &made {
                // Nobody waits for it: the next start that misses it says so again.
                tracing::warn!(error = sandbox::chain(error), "no template was made");
            }
            Ok(made.map(drop)?)
        }
        "" => serve::run(flags),
        other => bail!("unknown action {other:?}: start and delete are known"),
    }
}
