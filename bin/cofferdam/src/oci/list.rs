//! `list`: containers of this state directory.

use std::process::ExitCode;

use anyhow::Result;
use sandbox::client::Client;
use sandbox::driver::{OciState, oci_state};
use sandbox::state::StateError;
use sandbox::{ContainerId, SandboxError};

use crate::cli::{ListArgs, ListFormat};
use crate::context::Context;

/// Runs the command.
pub fn run(context: &Context, args: &ListArgs) -> Result<ExitCode> {
    let store = context.store()?;
    let records = store.list().map_err(SandboxError::from)?;
    if args.quiet {
        for record in &records {
            println!("{}", record.id);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut states = Vec::new();
    for record in records {
        match state(&store, &record.id) {
            Ok(state) => states.push(state),
            // Deleted meanwhile.
            Err(SandboxError::State(StateError::Missing(_))) => {}
            Err(error) => return Err(error.into()),
        }
    }
    match args.format {
        ListFormat::Json => println!("{}", serde_json::to_string(&states)?),
        ListFormat::Table => {
            let rows = states.into_iter().map(|state| {
                let pid = state.pid.to_string();
                [
                    state.id,
                    pid,
                    state.status.to_owned(),
                    state.bundle.display().to_string(),
                    state.created,
                    "root".to_owned(),
                ]
            });
            print!(
                "{}",
                table(["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"], rows)
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn state(store: &sandbox::state::Store, id: &ContainerId) -> Result<OciState, SandboxError> {
    let mut client = Client::find(store, id)?;
    let status = client.status()?;
    Ok(oci_state(client.record(), status))
}

/// Columns as wide as their widest cell.
pub fn table<const COLUMNS: usize>(
    head: [&str; COLUMNS],
    rows: impl Iterator<Item = [String; COLUMNS]>,
) -> String {
    let rows: Vec<_> = std::iter::once(head.map(str::to_owned))
        .chain(rows)
        .collect();
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<_> = (0..COLUMNS).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}   "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
