//! `rmi`: removes images.

use std::process::ExitCode;

use anyhow::Result;
use sandbox::SandboxError;
use sandbox::config::Config;

use super::{select, storage};
use crate::cli::RmiArgs;

/// Runs the command.
pub fn run(args: &RmiArgs) -> Result<ExitCode> {
    let config = Config::load().map_err(SandboxError::from)?;
    let store = storage::images(&config)?;
    select::each(&args.images, |name| {
        let removed = store.remove(name, args.force)?;
        for name in removed.untagged {
            println!("Untagged: {name}");
        }
        if let Some(digest) = removed.deleted {
            println!("Deleted: {digest}");
        }
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}
