//! The hidden command that makes a template beside a container that has just been started.

use std::io::Read;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use sandbox::template::{self, Order};

use crate::cli::HiddenArgs;
use crate::process::spawn;
use crate::report;

/// No order is longer.
const ORDER_LIMIT: u64 = 64 << 10;

/// The lowest priority: containers come first.
const NICENESS: i32 = 19;

/// Runs the command.
pub fn run(args: &HiddenArgs) -> Result<ExitCode> {
    spawn::close_inherited()?;
    // A session of its own: no signal of the caller's terminal reaches it.
    rustix::process::setsid().context("cannot leave the session")?;
    std::env::set_current_dir("/").context("cannot change to /")?;
    report::open_log(args.log.as_deref(), args.log_format, args.debug)
        .context("cannot open the log")?;
    rustix::process::nice(NICENESS).context("cannot lower the priority")?;
    let mut text = String::new();
    std::io::stdin()
        .take(ORDER_LIMIT)
        .read_to_string(&mut text)
        .context("cannot read the order")?;
    let order: Order = serde_json::from_str(&text).context("the order is wrong")?;
    if order.accounted {
        sandbox::cgroup::leave().context("cannot leave the container's control groups")?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    match runtime.block_on(template::make(&order, false)) {
        Ok(_made) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            // Nobody waits for it: the next start that misses it says so again.
            tracing::warn!(error = sandbox::chain(&error), "no template was made");
            Ok(ExitCode::FAILURE)
        }
    }
}
