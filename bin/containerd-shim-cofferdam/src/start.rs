//! `start`: finds the shim of the container's group, or starts one in the background.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, anyhow};
use sandbox::oom_score;
use sandbox::spec::{self, LoadError};
use sandbox::state::ProcessIdentity;

use crate::address;
use crate::bootstrap::{Request, TTRPC_ADDRESS};
use crate::flags::Flags;
use crate::options;
use crate::record::Record;

/// Runs the command; the working directory is the bundle.
pub fn run(flags: &Flags) -> Result<()> {
    let request = Request::read(flags)?;
    let bundle = bundle(flags)?;
    let spec = match spec::load(&bundle) {
        // A sandbox that is made by itself: its description comes with `CreateSandbox`.
        Err(LoadError::Read { source, .. }) if source.kind() == ErrorKind::NotFound => None,
        loaded => Some(loaded?),
    };
    let annotations = spec.as_ref().and_then(|spec| spec.annotations().as_ref());
    let group = address::group(&flags.id, annotations);
    let folder = request.socket_folder.as_deref();
    let socket = address::socket(&request.containerd, &flags.namespace, group, folder);
    // The options come again with each task, and errors in them are told then.
    let configuration = match spec {
        Some(_) => None,
        None => configuration(&request)?,
    };
    let joined = match listen(&socket)? {
        None => Record::default(),
        Some(listener) => {
            let started = server(flags, &request, &bundle, listener);
            if started.is_err() {
                // Nobody listens there.
                let _gone = fs::remove_file(&socket);
            }
            Record {
                shim: Some(started?),
                configuration,
                ..Record::default()
            }
        }
    };
    let written = joined
        .write(&bundle)
        .and_then(|()| address::write(&bundle, &socket));
    if let Err(error) = written {
        if let Some(shim) = joined.shim {
            let _gone = shim.kill_and_wait(std::time::Duration::from_secs(5));
            let _unused = fs::remove_file(&socket);
        }
        return Err(error).with_context(|| format!("cannot write into {}", bundle.display()));
    }
    request.answer(&address::url(&socket))
}

/// The configuration that the runtime's options name.
fn configuration(request: &Request) -> Result<Option<PathBuf>> {
    let path = options::path(request.options.as_ref()).map_err(|error| anyhow!("{error}"))?;
    Ok(path.map(PathBuf::from))
}

/// The bundle's absolute path.
pub fn bundle(flags: &Flags) -> Result<PathBuf> {
    let folder = Path::new(if flags.bundle.is_empty() {
        "."
    } else {
        &flags.bundle
    });
    fs::canonicalize(folder).with_context(|| format!("cannot find bundle {}", folder.display()))
}

/// A socket to listen on; nothing when the group's shim listens there already.
fn listen(socket: &Path) -> Result<Option<UnixListener>> {
    if let Some(folder) = socket.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    for _ in 0..2 {
        match UnixListener::bind(socket) {
            Ok(listener) => return Ok(Some(listener)),
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                if address::answers(socket) {
                    return Ok(None);
                }
                // Of a shim that was killed.
                fs::remove_file(socket)
                    .with_context(|| format!("cannot remove {}", socket.display()))?;
            }
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("cannot listen on {}", socket.display()));
            }
        }
    }
    anyhow::bail!(
        "cannot listen on {}: others keep taking it",
        socket.display()
    )
}

/// Starts the shim itself, which gets the socket as its stdin. Calls wait in the socket until it is up.
fn server(
    flags: &Flags,
    request: &Request,
    bundle: &Path,
    listener: UnixListener,
) -> Result<ProcessIdentity> {
    let program = std::env::current_exe().context("cannot find our own program")?;
    let mut command = Command::new(program);
    command
        .args(["-namespace", &flags.namespace, "-id", &flags.id])
        .args(["-address", &request.containerd])
        .arg("-bundle")
        .arg(bundle)
        .env(TTRPC_ADDRESS, &request.events)
        .stdin(OwnedFd::from(listener))
        // containerd reads both to their end.
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if request.debug {
        command.arg("-debug");
    }
    let mut child = command.spawn().context("cannot start the shim")?;
    let pid = child.id().cast_signed();
    let identity = ProcessIdentity::of(pid);
    if identity.is_none() {
        let _reaped = child.wait();
    }
    let identity = identity.context("the shim ended early")?;
    // As containerd's own shim has it: rather one pod than the engine of all.
    let engine = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().cast_unsigned());
    if let Some(engine) = engine
        && let Err(error) = oom_score::put_before(child.id(), engine)
    {
        let _ended = child.kill();
        let _reaped = child.wait();
        return Err(error).context("cannot set the shim's oom_score_adj");
    }
    Ok(identity)
}
