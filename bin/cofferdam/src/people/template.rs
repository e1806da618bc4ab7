//! `template`: makes, lists and removes templates.

use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use sandbox::SandboxError;
use sandbox::config::Config;
use sandbox::template::{Made, Order, Shelf, make};
use serde_json::json;

use super::age;
use super::images::size;
use crate::cli::{ListFormat, TemplateArgs, TemplateCommand};
use crate::oci::list::table;

/// Runs the command.
pub fn run(args: &TemplateArgs) -> Result<ExitCode> {
    let config = Config::load().map_err(SandboxError::from)?;
    match &args.command {
        TemplateCommand::Make(size) => {
            let order = Order {
                memory: size.memory.unwrap_or(config.default_memory_mib) << 20,
                vcpus: size.vcpus.unwrap_or(config.default_vcpus),
                config,
                accounted: false,
            };
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .context("cannot start the runtime")?;
            let made = runtime.block_on(make(&order, true))?;
            println!(
                "{}",
                match made {
                    Made::New => "made",
                    Made::Present | Made::Busy => "there already",
                }
            );
        }
        TemplateCommand::Ls(list) => print(&config, list.format)?,
        TemplateCommand::Rm => {
            let removed = Shelf::open(&config.template_directory)
                .and_then(|shelf| shelf.clear())
                .map_err(SandboxError::from)?;
            println!("{removed} removed");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print(config: &Config, format: ListFormat) -> Result<()> {
    let kept = Shelf::open(&config.template_directory)
        .and_then(|shelf| shelf.list())
        .map_err(SandboxError::from)?;
    let time = |time: SystemTime| humantime::format_rfc3339_seconds(time).to_string();
    match format {
        ListFormat::Json => {
            let kept: Vec<_> = kept
                .iter()
                .map(|it| json!({ "key": it.key, "size": it.size, "used": time(it.used) }))
                .collect();
            println!("{}", serde_json::to_string(&kept)?);
        }
        ListFormat::Table => {
            let rows = kept.iter().map(|it| {
                [
                    it.key.clone(),
                    size(it.size),
                    age::ago(Some(&time(it.used))),
                ]
            });
            print!("{}", table(["TEMPLATE", "SIZE", "USED"], rows));
        }
    }
    Ok(())
}
