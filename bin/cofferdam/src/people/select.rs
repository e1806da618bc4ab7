//! Finding containers by what people type.

use anyhow::{Result, bail};
use sandbox::SandboxError;
use sandbox::state::{Record, RunRecord, Store};

/// A container that `run` made of an image.
#[derive(Debug)]
pub struct Found {
    /// All of its record.
    pub record: Record,
    /// What `run` remembers.
    pub run: RunRecord,
}

/// All of them.
pub fn all(store: &Store) -> Result<Vec<Found>> {
    let records = store.list().map_err(SandboxError::from)?;
    Ok(records
        .into_iter()
        .filter_map(|record| {
            let run = record.run.clone()?;
            Some(Found { record, run })
        })
        .collect())
}

/// The one of this name, or the only one whose name begins so.
pub fn one(store: &Store, text: &str) -> Result<Found> {
    if text.is_empty() {
        bail!("a container's name is not empty");
    }
    let mut fitting: Vec<_> = all(store)?
        .into_iter()
        .filter(|found| found.record.id.as_str().starts_with(text))
        .collect();
    if let Some(exact) = fitting
        .iter()
        .position(|found| found.record.id.as_str() == text)
    {
        return Ok(fitting.swap_remove(exact));
    }
    match (fitting.pop(), fitting.len()) {
        (Some(found), 0) => Ok(found),
        (Some(_), more) => bail!(
            "{} containers' names begin with {text}: give more of it",
            more + 1
        ),
        (None, _) => bail!("no container of `run` is called {text} (`cofferdam ps -a` lists them)"),
    }
}

/// Does something for each name, goes on after failures, and tells of them together.
pub fn each(texts: &[String], mut act: impl FnMut(&str) -> Result<()>) -> Result<()> {
    let mut failures = Vec::new();
    for text in texts {
        if let Err(error) = act(text) {
            failures.push(format!("{error:#}"));
        }
    }
    if failures.is_empty() {
        return Ok(());
    }
    bail!("{}", failures.join("\n"))
}
