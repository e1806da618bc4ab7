//! The commands that people use, from end to end.

mod background;
mod boot_time;
mod counters;
mod images;
mod install;
mod kills;
mod resize;
mod run;
mod vsock;

use std::time::Duration;

/// Longer than anything takes here.
const LIMIT: Duration = Duration::from_secs(180);
