//! `ps ID`: the processes of a container. The table is for people and has the guest's pids. The list in JSON is for
//! engines, which look its pids up on the host (`docker top`): a pid of the guest is somebody else's there.

use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Result, bail};
use sandbox::control::{Reply, Request};

use crate::cli::ListFormat;
use crate::context::Context;
use crate::oci::list::table;

/// Runs the command.
pub fn run(context: &Context, id: &str, format: ListFormat) -> Result<ExitCode> {
    let mut client = context.find(id)?;
    let reply = client.request("listing processes", &Request::Processes)?;
    let Reply::Processes(processes) = reply else {
        bail!("unexpected answer of the driver: {reply:?}")
    };
    match format {
        ListFormat::Json => {
            let init = client.record().init.iter().map(|init| init.pid);
            println!("{}", serde_json::to_string(&init.collect::<Vec<_>>())?);
        }
        ListFormat::Table => {
            let rows = processes.into_iter().map(|process| {
                let seconds = process.cpu_time_ms / 1000;
                let started =
                    UNIX_EPOCH + Duration::from_secs(u64::try_from(process.started).unwrap_or(0));
                let started = humantime::format_rfc3339_seconds(started).to_string();
                [
                    process.uid.to_string(),
                    process.pid.to_string(),
                    process.ppid.to_string(),
                    // The time of day alone, as ps(1) shows it.
                    started.get(11..16).unwrap_or("?").to_owned(),
                    format!(
                        "{:02}:{:02}:{:02}",
                        seconds / 3600,
                        seconds / 60 % 60,
                        seconds % 60
                    ),
                    process.command,
                ]
            });
            print!(
                "{}",
                table(["UID", "PID", "PPID", "STIME", "TIME", "CMD"], rows)
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}
