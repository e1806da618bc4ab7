//! `kill`: signals a container.

use std::process::ExitCode;
use std::str::FromStr;

use anyhow::{Result, bail};
use nix::sys::signal::Signal;
use sandbox::SandboxError;
use sandbox::control::{FailureKind, Request};
use sandbox::state::Status;

use crate::cli::KillArgs;
use crate::context::Context;

/// The largest signal number of Linux.
const LAST: u8 = 64;

/// Runs the command.
pub fn run(context: &Context, args: &KillArgs) -> Result<ExitCode> {
    let asks = args.signal == "0";
    let signal = if asks { 0 } else { parse(&args.signal)? };
    let mut client = context.find(&args.id)?;
    if asks {
        // As kill(2): whether there is a process to signal.
        return match client.status()? {
            Status::Stopped => bail!("container not running"),
            _ => Ok(ExitCode::SUCCESS),
        };
    }
    match client.request(
        "signalling the container",
        &Request::Kill {
            signal,
            all: args.all,
        },
    ) {
        // containerd looks for these words to tell that it is gone already.
        Err(SandboxError::Process(failure)) if failure.kind == FailureKind::State => {
            bail!("container not running")
        }
        Err(error) => Err(error.into()),
        Ok(_) => Ok(ExitCode::SUCCESS),
    }
}

/// A signal's number: from `15`, `TERM`, `SIGTERM`, `term`, `RTMIN+3`.
pub fn parse(text: &str) -> Result<u8> {
    if let Ok(number) = text.parse::<u8>()
        && (1..=LAST).contains(&number)
    {
        return Ok(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Ok(signal) = Signal::from_str(&format!("SIG{name}")) {
        return Ok(signal as u8);
    }
    // Real-time signals have no names but these; glibc keeps 32 and 33 for itself.
    let real_time = match name {
        "RTMIN" => Some(34),
        "RTMAX" => Some(LAST),
        _ => name
            .strip_prefix("RTMIN+")
            .and_then(|offset| 34_u8.checked_add(offset.parse().ok()?))
            .or_else(|| {
                name.strip_prefix("RTMAX-")
                    .and_then(|offset| LAST.checked_sub(offset.parse().ok()?))
            }),
    };
    match real_time.filter(|number| (34..=LAST).contains(number)) {
        Some(number) => Ok(number),
        None => bail!("unknown signal {text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_signals() {
        for (text, number) in [
            ("9", 9),
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigterm", 15),
            ("64", 64),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("usr1", 10),
        ] {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
        for text in [
            "",
            "0",
            "65",
            "-9",
            "SIGNOTHING",
            "RTMIN+31",
            "RTMAX-31",
            "9x",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
