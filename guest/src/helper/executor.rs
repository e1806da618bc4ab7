//! How the first process of a container executes its command.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use libcontainer::oci_spec::runtime::{LinuxSeccomp, Spec};
use libcontainer::seccomp;
use libcontainer::workload::{
    Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError,
};
use std::sync::Arc;

use super::command;
use super::create::chain;
use super::processors;
use super::report::{Report, Reporter};

/// Called by libcontainer in the container's process: `validate` when everything but the start
/// is done, `exec` after the start.
#[derive(Clone)]
pub(super) struct CommandExecutor {
    inner: Arc<Inner>,
}

struct Inner {
    reporter: Reporter,
    seccomp: Option<LinuxSeccomp>,
    found: Mutex<Option<PathBuf>>,
}

impl CommandExecutor {
    pub(super) fn new(reporter: Reporter, seccomp: Option<LinuxSeccomp>) -> Self {
        Self {
            inner: Arc::new(Inner {
                reporter,
                seccomp,
                found: Mutex::default(),
            }),
        }
    }
}

impl Executor for CommandExecutor {
    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        let process = spec.process().as_ref().ok_or_else(|| {
            ExecutorValidationError::ArgValidationError("the spec has no process".to_owned())
        })?;
        processors::as_the_cgroup().map_err(|errno| {
            let text = format!("cannot be given the container's processors: {errno}");
            self.inner.reporter.send(&Report::Error(text.clone()));
            ExecutorValidationError::ArgValidationError(text)
        })?;
        let found = command::find(process).map_err(|error| {
            self.inner.reporter.send(&error.clone().into());
            ExecutorValidationError::ArgValidationError(error.to_string())
        })?;
        let mut place = self
            .inner
            .found
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *place = Some(found);
        Ok(())
    }

    fn setup_envs(&self, _: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        // The map has lost the order and the doubles; the spec, which `exec` is given, has them.
        Ok(())
    }

    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let process = spec.process().as_ref().ok_or(ExecutorError::InvalidArg)?;
        let empty = Vec::new();
        let env = process.env().as_ref().unwrap_or(&empty);
        let found = self
            .inner
            .found
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let path = found.as_deref().ok_or(ExecutorError::InvalidArg)?;
        self.inner.reporter.send(&Report::Executing);
        if let Some(profile) = &self.inner.seccomp
            && let Err(error) = seccomp::initialize_seccomp(profile)
        {
            let text = format!("cannot load the seccomp filter: {}", chain(&error));
            // Without it the start would be taken for done.
            self.inner.reporter.send(&Report::Error(text.clone()));
            return Err(ExecutorError::Other(text));
        }
        let error = command::execute(path, process, env);
        self.inner.reporter.send(&error.clone().into());
        Err(ExecutorError::Other(error.to_string()))
    }
}
