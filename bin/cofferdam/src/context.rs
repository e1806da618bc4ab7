//! What every operation starts from.

use std::path::PathBuf;

use anyhow::Result;
use sandbox::client::Client;
use sandbox::state::Store;
use sandbox::{ContainerId, SandboxError};

use crate::cli::{Global, LogFormat};

/// The global options, as operations use them.
#[derive(Debug)]
pub struct Context {
    root: PathBuf,
    /// Passed on to the driver.
    pub log: Option<PathBuf>,
    /// Passed on to the driver.
    pub log_format: LogFormat,
    /// Passed on to the driver.
    pub debug: bool,
}

impl Context {
    pub fn new(global: &Global) -> Self {
        Self {
            root: global.root.clone(),
            log: global.log.clone(),
            log_format: global.log_format,
            debug: global.debug,
        }
    }

    /// The state directory, made when it is not there.
    pub fn store(&self) -> Result<Store> {
        Ok(Store::open(&self.root).map_err(SandboxError::from)?)
    }

    /// A container by its name.
    pub fn find(&self, id: &str) -> Result<Client> {
        Ok(Client::find(&self.store()?, &container_id(id)?)?)
    }
}

/// Checks a name.
pub fn container_id(id: &str) -> Result<ContainerId> {
    Ok(ContainerId::new(id).map_err(SandboxError::from)?)
}
