//! `pull`: fetches an image from its registry.

use std::process::ExitCode;

use anyhow::Result;
use sandbox::SandboxError;
use sandbox::config::Config;
use sandbox_image::{ImageSource, PullPolicy, Reference};

use super::{progress, storage};
use crate::cli::PullArgs;

/// Runs the command.
pub fn run(args: &PullArgs) -> Result<ExitCode> {
    let config = Config::load().map_err(SandboxError::from)?;
    let source = ImageSource::Registry(Reference::parse(&args.name)?);
    let store = storage::images(&config)?;
    let progress = progress::Bars::new();
    let image = store.resolve(&source, PullPolicy::Always, &progress);
    progress.finish();
    println!("{}", image?.digest);
    Ok(ExitCode::SUCCESS)
}
