//! `create`: a container whose process waits for `start`.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use sandbox::SandboxError;
use sandbox::client::{self, NewContainer, Undecided};
use sandbox::config::Config;
use sandbox::spec::{self, Rootfs};
use sandbox::state::ProcessIdentity;

use crate::cli::{BundleArgs, CreateArgs};
use crate::context::{Context, container_id};
use crate::oci::attach::{Attached, no_further_descriptors, write_pid};
use crate::people::storage;
use crate::process::{proxy, spawn};

/// Runs the command.
pub fn run(context: &Context, args: CreateArgs) -> Result<ExitCode> {
    let new = of_bundle(context, &args.id, &args.bundle)?;
    for_engine(context, new, &args.bundle)?;
    Ok(ExitCode::SUCCESS)
}

/// Makes it as engines want it: their stdio or a terminal behind their socket, and a proxy in the background.
pub fn for_engine(context: &Context, new: NewContainer, args: &BundleArgs) -> Result<()> {
    let console_socket = args.console_socket.as_deref();
    let (wants_terminal, size) = terminal(&new);
    if wants_terminal && console_socket.is_none() {
        bail!("cannot allocate tty if runc will detach without setting console socket");
    }
    in_background(context, new, args.pid_file.as_deref(), false, || {
        Attached::new(wants_terminal, console_socket, true, size)
    })
}

/// The container that the options ask for.
pub fn of_bundle(context: &Context, id: &str, args: &BundleArgs) -> Result<NewContainer> {
    let id = container_id(id)?;
    no_further_descriptors(args.preserve_fds)?;
    let folder = args.bundle.as_deref().unwrap_or(Path::new("."));
    let bundle = std::fs::canonicalize(folder)
        .with_context(|| format!("cannot find bundle {}", folder.display()))?;
    Ok(NewContainer {
        store: context.store()?,
        id,
        config: Config::load().map_err(SandboxError::from)?,
        spec: spec::load(&bundle).map_err(SandboxError::from)?,
        bundle,
        rootfs: Rootfs::Bundle,
        run: None,
    })
}

/// Whether its process has a terminal, and of which size (rows, columns).
pub fn terminal(new: &NewContainer) -> (bool, Option<(u16, u16)>) {
    let process = new.spec.process().as_ref();
    let size = process
        .and_then(oci_spec::runtime::Process::console_size)
        .and_then(|size| {
            Some((
                u16::try_from(size.height()).ok()?,
                u16::try_from(size.width()).ok()?,
            ))
        });
    (
        process.is_some_and(|process| process.terminal().unwrap_or(false)),
        size,
    )
}

/// Makes it with a proxy in the background; with `remove` that removes the container when it has ended.
pub fn in_background(
    context: &Context,
    new: NewContainer,
    pid_file: Option<&Path>,
    remove: bool,
    attach: impl FnOnce() -> Result<Attached>,
) -> Result<()> {
    registered(new, |new| {
        let mut attached = attach()?;
        let (theirs, drivers) = proxy::pair()?;
        let remove_from = remove.then(|| new.store.root());
        let rootfs = match (&new.rootfs, new.spec.root()) {
            (Rootfs::Bundle, Some(root)) if !remove => Some(new.bundle.join(root.path())),
            _ => None,
        };
        let console = attached.console.take();
        let mut child = spawn::in_network_of(&new.spec, || {
            spawn::proxy(
                new.id.as_str(),
                theirs,
                console,
                remove_from,
                rootfs.as_deref(),
            )
        })
        .context("cannot start the proxy")?;
        let pid = spawn::pid(&child);
        let made = launch(context, new, attached, pid, drivers)
            .and_then(|undecided| write_pid(pid_file, pid).map(|()| undecided))
            .and_then(|undecided| Ok(undecided.keep()?));
        if made.is_err() {
            // It may have ended when the driver did.
            let _ended = child.kill();
            let _reaped = child.wait();
        }
        made.map(drop)
    })
}

/// Takes the name, and frees it again when the container could not be made.
pub fn registered<T>(new: NewContainer, make: impl FnOnce(NewContainer) -> Result<T>) -> Result<T> {
    // Who stands for the container goes where its network is; what comes after it belongs to the host.
    let home = spawn::Home::remember().context("cannot find our network namespace")?;
    new.register()?;
    let (store, id) = (new.store.clone(), new.id.clone());
    let made = make(new);
    drop(home);
    if made.is_err()
        && let Err(error) = storage::delete(&store, &id, true)
    {
        tracing::warn!(%error, "cannot remove what is left of {id}");
    }
    made
}

/// Has a driver make it; `proxy` is the pid that stands for its process.
pub fn launch(
    context: &Context,
    new: NewContainer,
    mut attached: Attached,
    proxy: i32,
    drivers: UnixStream,
) -> Result<Undecided> {
    let proxy = ProcessIdentity::of(proxy).context("the proxy ended early")?;
    let id = new.id.clone();
    let stdio = attached.stdio.clone();
    let spec = new.spec.clone();
    let undecided = client::launch(
        new,
        stdio,
        &attached.descriptors(),
        (proxy, drivers),
        |socket| {
            let driver = spawn::driver(context, id.as_str(), socket)?;
            if proxy == ProcessIdentity::current() {
                // The driver stays outside: hooks run there.
                spawn::enter_network_of(&spec)?;
            }
            Ok(driver)
        },
    )?;
    attached.release();
    Ok(undecided)
}
