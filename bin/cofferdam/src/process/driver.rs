//! The hidden command that becomes a sandbox's driver.

use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::cli::HiddenArgs;
use crate::process::spawn;
use crate::report;

/// Runs a driver until its container has ended.
pub fn run(args: &HiddenArgs) -> Result<ExitCode> {
    let socket = spawn::adopt_socket()?;
    // A session of its own: no signal of the caller's terminal reaches it.
    rustix::process::setsid().context("cannot leave the session")?;
    std::env::set_current_dir("/").context("cannot change to /")?;
    report::open_log(args.log.as_deref(), args.log_format, args.debug)
        .context("cannot open the log")?;
    sandbox::timeline::mark("a driver begins", None);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let done = runtime.block_on(sandbox::driver::main(
        socket,
        |order| spawn::maker(args, order),
        vec!["victim".into()],
    ));
    // What is still blocked in there (a hook that was given up) must not keep the driver.
    runtime.shutdown_background();
    if let Err(error) = &done {
        tracing::error!(error = sandbox::chain(error), "driver failed");
    }
    done?;
    Ok(ExitCode::SUCCESS)
}
