//! `load`: takes the images of an archive or a layout.

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use sandbox::SandboxError;
use sandbox::config::Config;
use sandbox_image::ImageSource;

use super::{progress, storage};
use crate::cli::LoadArgs;

/// Runs the command.
pub fn run(args: &LoadArgs) -> Result<ExitCode> {
    let config = Config::load().map_err(SandboxError::from)?;
    let path = std::path::absolute(&args.input)
        .with_context(|| format!("cannot find {}", args.input.display()))?;
    let path = path
        .to_str()
        .with_context(|| format!("{} is not text", path.display()))?;
    let source = ImageSource::parse(path)?;
    if matches!(source, ImageSource::Registry(_)) {
        bail!("{path} is neither an archive nor a folder in OCI layout");
    }
    let store = storage::images(&config)?;
    let progress = progress::Bars::new();
    let images = store.load(&source, &progress);
    progress.finish();
    for image in images? {
        if image.names.is_empty() {
            println!("Loaded image: {}", image.digest);
        }
        for name in &image.names {
            println!("Loaded image: {name}");
        }
    }
    Ok(ExitCode::SUCCESS)
}
