//! `docs/compatibility.md`, of the cases with container engines that are written, and of what the checked-in list says of
//! them. A line of the list without a case is an error.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::places::Places;

const LIST: &str = "testing/compatibility.toml";

/// One engine's cases.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Engine {
    title: String,
    version: String,
    /// Other ways to run, and the cases that they run as well.
    #[serde(default)]
    also: Vec<Also>,
    /// The folder that has the cases' functions.
    sources: String,
    /// What each shows, where its name does not say it.
    #[serde(default)]
    cases: BTreeMap<String, String>,
    /// Those that are refused, and why.
    #[serde(default)]
    refused: BTreeMap<String, String>,
    /// Those that come out differently, and why.
    #[serde(default)]
    fails: BTreeMap<String, String>,
    /// Those that come out differently by one of the ways to have ours, `command`, `shim` or `sandboxer`, and why.
    #[serde(default)]
    fails_by: BTreeMap<String, BTreeMap<String, String>>,
}

/// Another release of an engine, or another way to have ours.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Also {
    /// What tests call it.
    #[serde(rename = "way")]
    _way: String,
    /// What marks its cases in the document.
    mark: String,
    /// What it is, for the document.
    version: String,
    cases: BTreeSet<String>,
}

impl Engine {
    /// The ways by which a case comes out differently, and why.
    fn exceptions(&self, case: &str) -> Vec<(&str, &str)> {
        let exceptions = self.fails_by.iter();
        exceptions
            .filter_map(|(way, cases)| Some((way.as_str(), cases.get(case)?.as_str())))
            .collect()
    }

    /// What marks a case that other ways run, too.
    fn marks(&self, case: &str) -> String {
        let ways = self.also.iter().filter(|also| also.cases.contains(case));
        ways.map(|also| format!(" `{}`", also.mark)).collect()
    }
}

/// The document's text.
pub fn document(places: &Places) -> Result<Vec<u8>> {
    let text =
        fs::read_to_string(places.root.join(LIST)).with_context(|| format!("read {LIST}"))?;
    let mut engines: BTreeMap<String, Engine> =
        toml::from_str(&text).with_context(|| format!("read {LIST}"))?;
    for (name, engine) in &mut engines {
        complete(name, engine, &places.root)?;
    }
    Ok(render(&engines).into_bytes())
}

/// Adds the cases that the list leaves to their names.
fn complete(name: &str, engine: &mut Engine, root: &Path) -> Result<()> {
    let written = functions(&root.join(&engine.sources))?;
    let named = engine
        .cases
        .keys()
        .chain(engine.refused.keys())
        .chain(engine.fails.keys())
        .chain(engine.fails_by.values().flat_map(BTreeMap::keys))
        .chain(engine.also.iter().flat_map(|also| &also.cases));
    let unknown: Vec<_> = named.filter(|case| !written.contains(*case)).collect();
    if !unknown.is_empty() {
        bail!(
            "{LIST}: {name}: no such cases in {}: {unknown:?}",
            engine.sources
        );
    }
    for case in written {
        let words = case
            .rsplit("::")
            .next()
            .unwrap_or_default()
            .replace('_', " ");
        engine.cases.entry(case).or_insert(words);
    }
    Ok(())
}

/// `module::function` of every case in a folder: tests, and functions that answer a verdict.
fn functions(folder: &Path) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let entries = fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        let module = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            let head = match line {
                "#[test]" => lines.peek().copied().unwrap_or_default(),
                case if is_case(case) => case,
                _ => continue,
            };
            let name = head.trim_start_matches("pub ").trim_start_matches("fn ");
            if let Some((name, _)) = name.split_once('(') {
                found.insert(format!("{module}::{name}"));
            }
        }
    }
    Ok(found)
}

/// Whether a line begins a function that one of the tables of cases has.
fn is_case(line: &str) -> bool {
    line.starts_with("pub fn ")
        && ["(docker: &Docker) -> Verdict {", "(lab: &Lab) {"]
            .iter()
            .any(|end| line.ends_with(end))
}

fn render(engines: &BTreeMap<String, Engine>) -> String {
    let mut text = String::from(
        "# Compatibility with container engines\n\n\
         <!-- Written by `cargo xtask docs` from testing/compatibility.toml. -->\n\n\
         Each line is a test in `testing/harness/tests`. It runs with `runc` first, which proves the test; \"works\" means that\n\
         what it observes is the same with Cofferdam. What is refused is refused before anything has started, with a sentence.\n\n\
         | engine | cases | work | are refused | differ |\n|---|---|---|---|---|\n",
    );
    for engine in engines.values() {
        let (all, refused) = (engine.cases.len(), engine.refused.len());
        let fails: BTreeSet<_> = engine
            .fails
            .keys()
            .chain(engine.fails_by.values().flat_map(BTreeMap::keys))
            .collect();
        let fails = fails.len();
        let _infallible = writeln!(
            text,
            "| {} | {all} | {} | {refused} | {fails} |",
            engine.title,
            all - refused - fails
        );
    }
    for engine in engines.values() {
        let _infallible = write!(text, "\n## {}\n\n{}", engine.title, engine.version);
        for Also { mark, version, .. } in &engine.also {
            let _infallible = write!(text, "; lines with `{mark}`: {version}, too");
        }
        text += "\n\n| feature | result | test |\n|---|---|---|\n";
        for (case, feature) in &engine.cases {
            let result = match (engine.refused.get(case), engine.fails.get(case)) {
                (Some(reason), _) => format!("refused: {reason}"),
                (None, Some(reason)) => format!("differs: {reason}"),
                (None, None) => match &engine.exceptions(case)[..] {
                    [] => "works".to_owned(),
                    exceptions => {
                        let differs = exceptions.iter().map(|(way, reason)| match *way {
                            "command" => format!("by the OCI command it differs: {reason}"),
                            "sandboxer" => {
                                format!("with `sandboxer = \"shim\"` it is {reason}")
                            }
                            way => format!("by the {way} it differs: {reason}"),
                        });
                        format!("works; {}", differs.collect::<Vec<_>>().join("; "))
                    }
                },
            };
            let _infallible = writeln!(
                text,
                "| {feature}{} | {result} | `{case}` |",
                engine.marks(case)
            );
        }
    }
    text
}
