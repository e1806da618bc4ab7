//! `exec`: one more process in a container.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use oci_spec::runtime::{Capability, Process};
use sandbox::client::Client;
use sandbox::control::FailureKind;
use sandbox::spec;
use sandbox::{SandboxError, state::Status};

use crate::cli::ExecArgs;
use crate::context::Context;
use crate::oci::attach::{Attached, no_further_descriptors, write_pid};
use crate::people::resolve_user;
use crate::process::{proxy, spawn};
use crate::report::WithCode;

/// What runc answers when the process could not be run for other reasons than its command.
const FAILED: u8 = 255;

/// Runs the command.
pub fn run(context: &Context, args: ExecArgs) -> Result<ExitCode> {
    exec(context, args).map_err(|error| match error.downcast_ref::<SandboxError>() {
        Some(SandboxError::Process(failure))
            if matches!(
                failure.kind,
                FailureKind::CommandNotFound | FailureKind::CommandNotExecutable
            ) =>
        {
            error
        }
        _ => WithCode {
            code: FAILED,
            error,
        }
        .into(),
    })
}

fn exec(context: &Context, args: ExecArgs) -> Result<ExitCode> {
    no_further_descriptors(args.preserve_fds)?;
    if !args.cgroup.is_empty() {
        bail!("unsupported: --cgroup: processes run in the container's own cgroup");
    }
    let mut client = context.find(&args.id)?;
    match client.status()? {
        Status::Created | Status::Running => {}
        Status::Paused => bail!("cannot exec in a paused container (resume it first)"),
        Status::Stopped => bail!("cannot exec in a stopped container"),
        Status::Creating => bail!("cannot exec in a container that is being created"),
    }
    let process = process(&client, &args)?;
    spec::check_process(&process).map_err(SandboxError::from)?;
    let terminal = process.terminal().unwrap_or(false);
    let size = process.console_size().and_then(|size| {
        Some((
            u16::try_from(size.height()).ok()?,
            u16::try_from(size.width()).ok()?,
        ))
    });
    let mut attached = Attached::new(terminal, args.console_socket.as_deref(), args.detach, size)?;
    // Signals that come while it starts are the process's, too.
    let signals = if args.detach {
        None
    } else {
        Some(proxy::Signals::catch()?)
    };
    let channel = client.exec(&process, &attached.stdio, &attached.descriptors())?;
    attached.release();
    let Some(signals) = signals else {
        let terminal = attached.console.take();
        let child = spawn::proxy(&args.id, channel.into_socket(), terminal, None, None)
            .context("cannot start the proxy")?;
        write_pid(args.pid_file.as_deref(), spawn::pid(&child))?;
        return Ok(ExitCode::SUCCESS);
    };
    write_pid(args.pid_file.as_deref(), std::process::id().cast_signed())?;
    let stdin = io::stdin();
    let terminal = match (&attached.raw, &attached.console) {
        (Some(_), _) => Some(stdin.as_fd()),
        (None, Some(console)) => Some(console.as_fd()),
        (None, None) => None,
    };
    let exit = proxy::stand_for(channel, &signals, terminal);
    Ok(ExitCode::from(exit.code))
}

/// The process object of a file, or the container's own with what the options change.
fn process(client: &Client, args: &ExecArgs) -> Result<Process> {
    if let Some(path) = &args.process {
        let mut process = read(path)?;
        if args.tty {
            process.set_terminal(Some(true));
        }
        return Ok(process);
    }
    if args.command.is_empty() {
        bail!("exec needs a command, or a process object with --process");
    }
    let bundle = &client.record().bundle;
    let container = spec::load(bundle).map_err(SandboxError::from)?;
    let mut process = container.process().clone().unwrap_or_default();
    process
        .set_args(Some(args.command.clone()))
        .set_terminal(Some(args.tty))
        .set_console_size(None);
    if let Some(cwd) = &args.cwd {
        process.set_cwd(cwd.clone());
    }
    let mut env = process.env().clone().unwrap_or_default();
    env.extend(args.env.iter().cloned());
    process.set_env(Some(env));
    if args.no_new_privs {
        process.set_no_new_privileges(Some(true));
    }
    if let Some(label) = &args.process_label {
        process.set_selinux_label(Some(label.clone()));
    }
    if let Some(profile) = &args.apparmor {
        process.set_apparmor_profile(Some(profile.clone()));
    }
    set_user(client, &mut process, args)?;
    add_capabilities(&mut process, &args.cap)?;
    Ok(process)
}

fn read(path: &Path) -> Result<Process> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&bytes)
        .with_context(|| format!("{} is not a process object", path.display()))
}

fn set_user(client: &Client, process: &mut Process, args: &ExecArgs) -> Result<()> {
    let mut user = process.user().clone();
    if let Some(text) = &args.user {
        let record = client.record();
        // Numbers mean to engines what they mean to runc: just these, whatever the root file system says.
        let is_numbers = text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b':');
        let is_engines = record.run.is_none() && is_numbers;
        let layers = match &record.run {
            Some(run) => run.layers.clone(),
            None if is_engines => Vec::new(),
            None => vec![record.rootfs.clone()],
        };
        let identity = resolve_user(text, &layers)?;
        user.set_uid(identity.uid);
        if !is_engines || text.contains(':') {
            user.set_gid(identity.gid);
        }
        if !is_engines {
            user.set_additional_gids(Some(identity.groups));
        }
    }
    if !args.additional_gids.is_empty() {
        let mut groups = user.additional_gids().clone().unwrap_or_default();
        groups.extend(&args.additional_gids);
        user.set_additional_gids(Some(groups));
    }
    process.set_user(user);
    Ok(())
}

/// As runc: into the bounding, effective and permitted sets.
fn add_capabilities(process: &mut Process, names: &[String]) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let mut sets = process.capabilities().clone().unwrap_or_default();
    for name in names {
        let upper = name.to_ascii_uppercase();
        let capability: Capability = serde_json::from_value(upper.clone().into())
            .with_context(|| format!("unknown capability {name:?}"))?;
        let with = |set: &Option<std::collections::HashSet<Capability>>| {
            let mut set = set.clone().unwrap_or_default();
            set.insert(capability);
            Some(set)
        };
        let (bounding, effective, permitted) = (
            with(sets.bounding()),
            with(sets.effective()),
            with(sets.permitted()),
        );
        sets.set_bounding(bounding)
            .set_effective(effective)
            .set_permitted(permitted);
    }
    process.set_capabilities(Some(sets));
    Ok(())
}
