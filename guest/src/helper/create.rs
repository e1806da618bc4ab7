//! Making a container with libcontainer.

use std::error::Error;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::error::LibcontainerError;
use libcontainer::syscall::syscall::SyscallType;
use oci_spec::runtime::Spec;

use super::executor::CommandExecutor;
use super::report::{Report, Reporter};
use super::{CreateRequest, Stdio, capability, userns};

/// Makes the container and reports its first process, which waits for the start.
pub(super) fn run(request: CreateRequest, stdio: Stdio, reporter: &Reporter) -> Result<(), String> {
    let reporter_copy = reporter.duplicate().map_err(|error| {
        format!(
            "cannot duplicate the report's descriptor {}: {error}",
            reporter.raw()
        )
    })?;
    let executor = CommandExecutor::new(reporter_copy, request.seccomp.clone());
    capability::inherit(&request.inheritable)
        .map_err(|error| format!("cannot set inheritable capabilities: {error}"))?;
    // Lives until the container is made.
    let _namespace = user_namespace(&request)
        .map_err(|error| format!("cannot make the user namespace: {error}"))?;
    let pid = build(request, stdio, executor).map_err(|error| chain(&error))?;
    reporter.send(&Report::Pid(pid));
    reporter.send(&Report::Created);
    Ok(())
}

/// Makes the user namespace, if there is to be one, and puts it into the spec on disk.
fn user_namespace(request: &CreateRequest) -> io::Result<Option<OwnedFd>> {
    if !request.user_namespace {
        return Ok(None);
    }
    let path = request.bundle.join("config.json");
    let mut spec: Spec = serde_json::from_slice(&fs::read(&path)?)?;
    let made = userns::make(&mut spec)?;
    if made.is_some() {
        fs::write(&path, serde_json::to_vec(&spec)?)?;
    }
    Ok(made)
}

fn build(
    request: CreateRequest,
    stdio: Stdio,
    executor: CommandExecutor,
) -> Result<i32, LibcontainerError> {
    let terminal = request.console.is_some();
    let mut builder = ContainerBuilder::new(request.id, SyscallType::default())
        .with_executor(executor)
        .with_root_path(request.state)?
        .with_console_socket(request.console);
    if !terminal {
        builder = builder
            .with_stdin(stdio.stdin)
            .with_stdout(stdio.stdout)
            .with_stderr(stdio.stderr);
    }
    let container = builder
        .as_init(request.bundle)
        .with_systemd(false)
        .with_detach(true)
        .as_sibling(true)
        .build()?;
    let pid = container.pid().ok_or_else(|| {
        LibcontainerError::Other("the container ended before it was made".to_owned())
    })?;
    Ok(pid.as_raw())
}

/// An error and its causes in one line, without saying anything twice.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    line.replace('\n', " ")
}
