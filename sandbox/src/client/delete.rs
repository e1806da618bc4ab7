//! Removing a container and all that is left of it, whatever was killed before.

use std::io;
use std::time::Duration;

use sandbox_network::Namespace;

use crate::cgroup;
use crate::client::{Client, listener, unexpected};
use crate::control::{ChannelError, Reply, Request};
use crate::driver::oci_state;
use crate::error::{SandboxError, chain};
use crate::hooks;
use crate::id::ContainerId;
use crate::sandbox::WrongState;
use crate::state::{ProcessIdentity, Record, StateError, Status, Store};

/// How long a killed process may take to be gone.
const DEATH_DEADLINE: Duration = Duration::from_secs(20);
/// How long a driver whose exit status is written may take to be gone by itself; longer only when it has output left
/// that nobody reads.
const CLEARING_DEADLINE: Duration = Duration::from_secs(1);

/// Removes a stopped container; with `force` whatever state it is in.
///
/// # Errors
/// [`SandboxError::Wrong`] when it has not stopped and force is not used; when something does not go away.
pub fn delete(store: &Store, id: &ContainerId, force: bool) -> Result<(), SandboxError> {
    delete_with(store, id, force, |_| Ok(()))
}

/// As [`delete`]; what belongs to the container elsewhere is removed by `and_what_it_owns` when all its processes are
/// gone and its name is still taken, so that whoever is killed meanwhile, the next delete finds it again.
///
/// # Errors
/// As [`delete`], and those of `and_what_it_owns`.
pub fn delete_with(
    store: &Store,
    id: &ContainerId,
    force: bool,
    and_what_it_owns: impl FnOnce(&Record) -> Result<(), SandboxError>,
) -> Result<(), SandboxError> {
    let mut client = match Client::find(store, id) {
        Err(SandboxError::State(StateError::Malformed { path, source })) if force => {
            tracing::warn!(error = chain(&source), "{} is damaged", path.display());
            return delete_damaged(store, id);
        }
        Err(missing @ SandboxError::State(StateError::Missing(_))) => {
            // A create that was killed before it had the name may have left something under another.
            store.sweep();
            return Err(missing);
        }
        found => found?,
    };
    if !force {
        match client.status()? {
            Status::Stopped => {}
            status => {
                return Err(WrongState {
                    action: "delete",
                    status,
                }
                .into());
            }
        }
    }
    // A creator that is at work would bring up a driver behind our back: it goes first.
    if client.record.driver.is_none()
        && client.record.exit.is_none()
        && client.record.creator != ProcessIdentity::current()
    {
        end(client.record.creator, "the creating command")?;
        client = Client::find(store, id)?;
    }
    let others_stay = leave_sandbox(store, &mut client)?;
    if !others_stay {
        end_sandbox(&client.record)?;
    }
    if let Some(init) = client
        .record
        .init
        .filter(|init| *init != ProcessIdentity::current())
    {
        // It tells its parent the exit status, which it may be about to do.
        let patience = if client.record.exit.is_some() {
            Duration::from_secs(5)
        } else {
            Duration::ZERO
        };
        if !init.wait(patience) {
            end(init, "the proxy")?;
        }
    }
    cgroup::remove(&client.record.cgroups)?;
    let state = serde_json::to_vec(&oci_state(&client.record, Status::Stopped)).unwrap_or_default();
    if !others_stay {
        cgroup::remove(&client.record.machine_cgroups)?;
        clear_network(&client.record)?;
    }
    and_what_it_owns(&client.record)?;
    store.remove(id)?;
    // runtime-spec 1.2: a poststop hook that fails is warned of, and the rest goes on.
    for hook in &client.record.poststop {
        if let Err(error) = hooks::run("poststop", std::slice::from_ref(hook), &state) {
            tracing::warn!(error = chain(&error), "poststop hook failed");
        }
    }
    Ok(())
}

/// Has the driver remove the container when it has others too; false when it has none, and nobody else would miss it.
fn leave_sandbox(store: &Store, client: &mut Client) -> Result<bool, SandboxError> {
    const PHASE: &str = "removing the container from its sandbox";
    let Some(driver) = client.record.driver.filter(ProcessIdentity::is_alive) else {
        return Ok(false);
    };
    let mut others = store.list()?;
    others.retain(|other| other.driver == Some(driver) && other.id != client.record.id);
    if others.is_empty() {
        return Ok(false);
    }
    let source = match client.ask(&Request::Delete, &[]) {
        Ok(Reply::Done) => return Ok(true),
        Ok(Reply::Failed(failure)) => return Err(SandboxError::Process(failure)),
        Ok(other) => return Err(unexpected(PHASE, &other)),
        Err(source) => source,
    };
    client.record = store.load(&client.record.id)?;
    if is_unserved(&source) && driver.is_alive() {
        // It has let go of the container, or is making it; without the command that creates it, it undoes that.
        let creator = client.record.creator;
        if client.record.exit.is_none() && creator != ProcessIdentity::current() {
            end(creator, "the creating command")?;
        }
        return Ok(true);
    }
    // The last one has taken it along; and one that does not answer is missed by no container that has ended.
    if !driver.is_alive() || others.iter().all(|other| other.exit.is_some()) {
        return Ok(false);
    }
    Err(SandboxError::Channel {
        phase: PHASE,
        source,
    })
}

/// Whether nobody is at a control socket.
fn is_unserved(error: &ChannelError) -> bool {
    match error {
        ChannelError::Closed => true,
        ChannelError::Io { source, .. } => matches!(
            source.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
        ),
        ChannelError::Malformed(_) => false,
    }
}

/// Ends the driver, and with it all that it has.
fn end_sandbox(record: &Record) -> Result<(), SandboxError> {
    if let Some(driver) = record.driver {
        if record.exit.is_some() {
            let _killed_next = driver.wait(CLEARING_DEADLINE);
        }
        end(driver, "the driver")?;
    }
    // They were ended by the kernel with the driver: this waits until they are gone.
    for helper in &record.helpers {
        end(*helper, "the VMM or file server")?;
    }
    Ok(())
}

/// Removes a container whose record cannot be read: its socket tells who the driver is, and that takes the others along.
/// What it owns elsewhere is found by the next sweep.
fn delete_damaged(store: &Store, id: &ContainerId) -> Result<(), SandboxError> {
    if let Some(driver) = listener(&store.folder(id)) {
        end(driver, "the driver")?;
    }
    Ok(store.remove(id)?)
}

/// A driver that was killed has left filters on the engine's interfaces: nothing would arrive there any more.
fn clear_network(record: &Record) -> Result<(), SandboxError> {
    let (Some(path), Some(driver), None) = (&record.network, record.driver, record.exit) else {
        return Ok(());
    };
    match Namespace::open(path) {
        Ok(namespace) => Ok(sandbox_network::sweep(
            &namespace,
            driver.pid.cast_unsigned(),
        )?),
        // Gone, and with it all that was in it.
        Err(error) => {
            tracing::debug!(
                error = chain(&error),
                "nothing to clear up in the network namespace"
            );
            Ok(())
        }
    }
}

fn end(process: ProcessIdentity, what: &str) -> Result<(), SandboxError> {
    if process.kill_and_wait(DEATH_DEADLINE) {
        return Ok(());
    }
    Err(SandboxError::System {
        action: format!("end {what} (pid {})", process.pid),
        source: std::io::ErrorKind::TimedOut.into(),
    })
}
