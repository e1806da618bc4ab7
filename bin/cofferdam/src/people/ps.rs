//! `ps` without a name: the containers that `run` made of images.

use std::process::ExitCode;

use anyhow::Result;
use sandbox::SandboxError;
use sandbox::client::Client;
use sandbox::state::{ExitStatus, Record, StateError, Status, Store};
use serde::Serialize;

use super::{age, select};
use crate::cli::{ListFormat, PsArgs};
use crate::context::Context;
use crate::oci::list::table;

/// Digits of a generated name that tell containers apart.
const SHORT_ID: usize = 12;
/// Characters of a command that fit a line.
const COMMAND_WIDTH: usize = 30;

/// One line.
#[derive(Debug, Serialize)]
struct Line {
    id: String,
    image: Option<String>,
    command: Vec<String>,
    created: String,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    oom_killed: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished: Option<String>,
}

/// Runs the command.
pub fn run(context: &Context, args: &PsArgs) -> Result<ExitCode> {
    let store = context.store()?;
    let mut lines = Vec::new();
    for found in select::all(&store)? {
        match line(&store, &found) {
            Ok(line) if args.all || line.status != Status::Stopped.as_str() => lines.push(line),
            // Not asked for, or removed meanwhile.
            Ok(_) | Err(SandboxError::State(StateError::Missing(_))) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // The newest first; RFC 3339 times of one length sort as text.
    lines.sort_by(|one, other| other.created.cmp(&one.created));
    if args.quiet {
        for line in &lines {
            println!("{}", line.id);
        }
        return Ok(ExitCode::SUCCESS);
    }
    match args.format {
        ListFormat::Json => println!("{}", serde_json::to_string(&lines)?),
        ListFormat::Table => {
            let rows = lines.iter().map(|line| {
                [
                    short(&line.id),
                    line.image.clone().unwrap_or_else(|| "<rootfs>".to_owned()),
                    command(&line.command),
                    age::ago(Some(&line.created)),
                    status(line),
                ]
            });
            print!(
                "{}",
                table(["CONTAINER", "IMAGE", "COMMAND", "CREATED", "STATUS"], rows)
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn line(store: &Store, found: &select::Found) -> Result<Line, SandboxError> {
    let mut client = Client::find(store, &found.record.id)?;
    let status = client.status()?;
    // It may have ended since it was listed.
    let record = store.load(&found.record.id)?;
    let exit = exit(&record, status);
    Ok(Line {
        id: record.id.to_string(),
        image: found.run.image.clone(),
        command: found.run.command.clone(),
        created: record.created,
        status: status.as_str(),
        exit_code: exit.map(|exit| exit.code),
        oom_killed: exit.map(|exit| exit.oom_killed),
        finished: record.finished,
    })
}

/// A container whose driver was killed went with it.
fn exit(record: &Record, status: Status) -> Option<ExitStatus> {
    (status == Status::Stopped).then(|| record.exit.unwrap_or(ExitStatus::LOST))
}

/// A generated name, as far as it is needed; others whole.
fn short(id: &str) -> String {
    let is_generated = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_generated {
        id.chars().take(SHORT_ID).collect()
    } else {
        id.to_owned()
    }
}

fn command(words: &[String]) -> String {
    let line: String = words
        .join(" ")
        .chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect();
    if line.chars().count() <= COMMAND_WIDTH {
        return line;
    }
    let cut: String = line.chars().take(COMMAND_WIDTH - 1).collect();
    format!("{cut}…")
}

fn status(line: &Line) -> String {
    let up = || {
        age::since(&line.created)
            .map(age::words)
            .unwrap_or_default()
    };
    match line.exit_code {
        Some(code) => format!("Exited ({code}) {}", age::ago(line.finished.as_deref()))
            .trim_end()
            .to_owned(),
        None if line.status == Status::Running.as_str() => format!("Up {}", up()),
        None if line.status == Status::Paused.as_str() => format!("Up {} (paused)", up()),
        None => {
            let mut word = line.status.to_owned();
            word[..1].make_ascii_uppercase();
            word
        }
    }
}
