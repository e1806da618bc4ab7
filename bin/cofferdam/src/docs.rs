//! The hidden command that writes what is generated of the command line's definition: the reference, manual pages and
//! completions.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Arg, Command, CommandFactory};
use clap_complete::Shell;

use crate::cli::{Cli, GenerateDocsArgs};

/// Runs the command.
pub fn run(args: &GenerateDocsArgs) -> Result<ExitCode> {
    let mut command = Cli::command().term_width(100);
    command.build();
    let folder = &args.folder;
    write(&folder.join("cli.md"), reference(&command).as_bytes())?;
    let pages = folder.join("man");
    all_pages(&command, "cofferdam", &pages)?;
    let completions = folder.join("completions");
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "cofferdam", &mut text);
        let name = match shell {
            Shell::Fish => "cofferdam.fish",
            Shell::Zsh => "_cofferdam",
            _ => "cofferdam.bash",
        };
        write(&completions.join(name), &text)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(path, bytes))
        .with_context(|| format!("cannot write {}", path.display()))
}

fn shown(command: &Command) -> impl Iterator<Item = &Command> {
    command
        .get_subcommands()
        .filter(|subcommand| !subcommand.is_hide_set() && subcommand.get_name() != "help")
}

/// That of a command and those of its subcommands.
fn all_pages(command: &Command, name: &str, folder: &Path) -> Result<()> {
    page(command, name, folder)?;
    for subcommand in shown(command) {
        let name = format!("{name}-{}", subcommand.get_name());
        all_pages(subcommand, &name, folder)?;
    }
    Ok(())
}

fn page(command: &Command, name: &str, folder: &Path) -> Result<()> {
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone())
        .title(name.to_uppercase())
        // The date of the build would make each page another one.
        .date("")
        .manual("Cofferdam")
        .render(&mut text)
        .with_context(|| format!("cannot render the manual page of {name}"))?;
    write(&folder.join(format!("{name}.1")), &text)
}

/// The reference, in Markdown.
fn reference(command: &Command) -> String {
    let mut text = String::from(
        "# Command line\n\nGenerated from the program's own definition by `cargo xtask docs`; edit that instead.\n\n\
         ## Options of every command\n\n",
    );
    options(command, &mut text);
    subcommands(command, "## cofferdam", &mut text);
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

/// A section for each, under this title.
fn subcommands(command: &Command, title: &str, text: &mut String) {
    for subcommand in shown(command) {
        let title = format!("{title} {}", subcommand.get_name());
        let about = subcommand.get_about().map(ToString::to_string);
        text.push_str(&format!(
            "{title}\n\n{}.\n\n```text\n{}\n```\n\n",
            about.unwrap_or_default().trim_end_matches('.'),
            usage(subcommand)
        ));
        options(subcommand, text);
        if let Some(more) = subcommand.get_after_long_help() {
            text.push_str(&format!("{more}\n\n"));
        }
        subcommands(subcommand, &format!("#{title}"), text);
    }
}

fn usage(command: &Command) -> String {
    let usage = command.clone().render_usage().to_string();
    usage
        .trim_start_matches("Usage: ")
        .lines()
        .map(str::trim)
        .collect::<Vec<_>>()
        .join("\n")
}

fn options(command: &Command, text: &mut String) {
    let all: Vec<_> = command
        .get_arguments()
        .filter(|argument| !argument.is_hide_set() && !is_built_in(argument))
        .collect();
    if all.is_empty() {
        return;
    }
    text.push_str("| option | meaning |\n|---|---|\n");
    for argument in all {
        let help = argument.get_help().map(ToString::to_string);
        let help = help.unwrap_or_default().replace('|', "\\|");
        let mut sentences = vec![help.trim_end_matches('.').to_owned()];
        let choices: Vec<_> = argument
            .get_possible_values()
            .iter()
            .map(|value| format!("`{}`", value.get_name()))
            .collect();
        if argument.get_action().takes_values() && !choices.is_empty() {
            sentences.push(format!("One of {}", choices.join(", ")));
        }
        let default: Vec<_> = argument
            .get_default_values()
            .iter()
            .map(|value| value.to_string_lossy())
            .collect();
        if argument.get_action().takes_values() && !default.is_empty() {
            sentences.push(format!("Default: `{}`", default.join(" ")));
        }
        let help = sentences.join(". ");
        text.push_str(&format!("| {} | {help}. |\n", words(argument)));
    }
    text.push('\n');
}

fn is_built_in(argument: &Arg) -> bool {
    matches!(argument.get_id().as_str(), "help" | "version")
}

/// How an argument is written.
fn words(argument: &Arg) -> String {
    let value = argument
        .get_value_names()
        .filter(|_| argument.get_action().takes_values())
        .map(|names| {
            let names: Vec<_> = names.iter().map(ToString::to_string).collect();
            names.join(" ").replace('|', "\\|")
        });
    if argument.is_positional() {
        return format!("`{}`", value.unwrap_or_default());
    }
    let mut ways = Vec::new();
    if let Some(short) = argument.get_short() {
        ways.push(format!("-{short}"));
    }
    if let Some(long) = argument.get_long() {
        ways.push(format!("--{long}"));
    }
    for alias in argument.get_visible_aliases().unwrap_or_default() {
        ways.push(format!("--{alias}"));
    }
    let ways: Vec<_> = ways
        .into_iter()
        .map(|way| match &value {
            Some(value) => format!("`{way} {value}`"),
            None => format!("`{way}`"),
        })
        .collect();
    ways.join(", ")
}
