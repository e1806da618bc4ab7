//! From a launch message to a created container.

use std::ffi::OsString;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Child;
use std::sync::Arc;

use oci_spec::runtime::Hook;
use sandbox_network::Namespace;

use crate::cgroup;
use crate::control::{
    Adopted, AsyncChannel, ChannelError, HostStdio, Launch, Launched, ProcessEvent, SOCKET,
};
use crate::driver::adopted;
use crate::driver::members::{Driver, Member, helpers};
use crate::driver::oci_state::oci_state;
use crate::error::SandboxError;
use crate::hooks;
use crate::oom_score;
use crate::sandbox::{Container, HostGroups, Sandbox, SandboxOptions};
use crate::spec::{self, GuestSpec, NetworkOf};
use crate::state::{ExitStatus, ProcessIdentity, Record, Status, Store};
use crate::stdio::{Log, Stdio};
use crate::template::Order;
use crate::timeline;

/// The whole life of a driver whose launching command is at the other end of `socket`. `make_template` starts a process
/// that runs [`crate::template::make`] beside it; `victim` are the arguments with which this program runs
/// [`crate::cgroup::want::want`].
///
/// # Errors
/// When that command cannot be understood; everything else is told to it.
pub async fn main(
    socket: UnixStream,
    make_template: impl FnOnce(&Order) -> std::io::Result<Child>,
    victim: Vec<OsString>,
) -> Result<(), SandboxError> {
    let lost = |source| SandboxError::Channel {
        phase: "launching the driver",
        source,
    };
    let mut command =
        AsyncChannel::new(socket).map_err(SandboxError::system("watch the launching command"))?;
    let (launch, mut descriptors) = command.receive::<Launch>().await.map_err(lost)?;
    let proxy = descriptors
        .pop()
        .ok_or_else(|| lost(ChannelError::Malformed("no proxy".to_owned())))?;
    let proxy = AsyncChannel::new(proxy.into()).map_err(SandboxError::system("watch the proxy"))?;

    // A command that is killed meanwhile must not leave a sandbox nobody knows of: dropping the future undoes it.
    let prepared = tokio::select! {
        prepared = prepare(&launch, descriptors) => prepared,
        gone = command.receive::<Adopted>() => {
            tracing::info!(?gone, "the launching command is gone");
            return Ok(());
        }
    };
    let (sandbox, container, listener) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            command
                .send(&Launched::Failed(error.failure()))
                .await
                .map_err(lost)?;
            return Ok(());
        }
    };
    if let Err(error) = adopted(&mut command).await {
        tracing::info!(%error, "the launching command is gone");
        sandbox.kill().await;
        return Ok(());
    }
    drop(command);
    if sandbox.wants_template() {
        let size = spec::size(&launch.spec, &launch.config);
        let order = Order {
            config: launch.config.clone(),
            memory: size.memory,
            vcpus: size.vcpus,
            // As far as this driver is.
            accounted: cgroup::folders(&launch.spec).is_ok_and(|groups| !groups.is_empty()),
        };
        match make_template(&order) {
            // Reaped, if we are still there then.
            Ok(mut maker) => drop(tokio::task::spawn_blocking(move || maker.wait())),
            Err(error) => tracing::warn!(%error, "cannot have a template made"),
        }
    }
    let driver = Arc::new(Driver::new(&launch, sandbox, victim));
    driver.watch_memory();
    let member = Member::new(launch, container);
    // Nothing has ended before the first one has begun.
    if driver.admit(&member) {
        adopted::serve(Arc::clone(&driver), member, listener, proxy).await;
    }
    driver.idle().await;
    Ok(())
}

/// Tells the command that its container is made, and waits until it has written down what it must.
pub(super) async fn adopted(command: &mut AsyncChannel) -> Result<(), ChannelError> {
    command.send(&Launched::Created).await?;
    command.receive::<Adopted>().await.map(drop)
}

async fn prepare(
    launch: &Launch,
    descriptors: Vec<OwnedFd>,
) -> Result<(Sandbox, Container, UnixListener), SandboxError> {
    timeline::mark("the driver has its order", None);
    let store = Store::open(&launch.root)?;
    let record = store.update(&launch.id, |record| {
        record.driver = Some(ProcessIdentity::current());
        record.init = Some(launch.proxy);
    })?;
    account(&record, launch)?;
    // What it starts is in them with it.
    cgroup::join(&record.cgroups, ProcessIdentity::current().pid)?;
    let stdio = stdio(&launch.stdio, descriptors)?;
    let guest_spec = spec::rewrite(&launch.id, &launch.spec, &record.bundle, &launch.rootfs)?;
    let hostname = launch
        .spec
        .hostname()
        .clone()
        .unwrap_or_else(|| launch.id.to_string());
    let size = spec::size(&launch.spec, &launch.config);
    // Before the namespace is looked at, which engines fill with a hook.
    setup_hooks(launch, &record).await?;
    let sandbox = Sandbox::boot(
        &launch.config,
        SandboxOptions {
            name: launch.id.to_string(),
            hostname: hostname.chars().take(64).collect(),
            size,
            entries: guest_spec.entries.clone(),
            network: network(launch)?,
            // The proxy does.
            shows_network: false,
            // There engines look for ports that they forward.
            loopback: spec::is_of_pod(&launch.spec),
            folder: Some(store.folder(&launch.id)),
            // Those that an engine has named are this process's own by now.
            groups: HostGroups::At(record.machine_cgroups.clone()),
            rates: spec::rates(&launch.spec, &launch.config)?,
            timed: false,
        },
    )
    .await?;
    let machine = sandbox.processes().iter().copied();
    oom_score::begin(&launch.spec, machine.chain(proxy(&record, launch)));
    let made = async {
        store.update(&launch.id, |record| record.helpers = helpers(&sandbox))?;
        if spec::memory_limit(&launch.spec).is_some() {
            let groups = [&record.cgroups[..], &record.machine_cgroups].concat();
            sandbox.limit_memory(&groups).await?;
        }
        make(&store, launch, &sandbox, &guest_spec, stdio).await
    };
    match made.await {
        Ok((container, listener)) => Ok((sandbox, container, listener)),
        Err(error) => {
            sandbox.kill().await;
            Err(error)
        }
    }
}

/// Makes the container's control groups, and puts its proxy into them: not the command that creates it, which may be
/// the proxy and which removes them.
pub(super) fn account(record: &Record, launch: &Launch) -> Result<(), SandboxError> {
    cgroup::make(&record.cgroups)?;
    if let Some(proxy) = proxy(record, launch) {
        cgroup::join(&record.cgroups, proxy.cast_signed())?;
    }
    Ok(())
}

/// The proxy, unless that is the command that creates the container.
pub(super) fn proxy(record: &Record, launch: &Launch) -> Option<u32> {
    (launch.proxy != record.creator).then_some(launch.proxy.pid.cast_unsigned())
}

/// Makes a container in a machine that is there, and its control socket.
pub(super) async fn make(
    store: &Store,
    launch: &Launch,
    sandbox: &Sandbox,
    guest_spec: &GuestSpec,
    stdio: Stdio,
) -> Result<(Container, UnixListener), SandboxError> {
    let container = sandbox.create(&launch.id, guest_spec, stdio).await?;
    let listener = listen(store, launch)?;
    Ok((container, listener))
}

/// The hooks before a container is made.
pub(super) async fn setup_hooks(launch: &Launch, record: &Record) -> Result<(), SandboxError> {
    if let Some(stages) = launch.spec.hooks() {
        let state = serde_json::to_vec(&oci_state(record, Status::Creating)).unwrap_or_default();
        // Deprecated, and still what engines set networks up with.
        let prestart = stages.prestart().clone();
        run_hooks("prestart", prestart, &state).await?;
        run_hooks("createRuntime", stages.create_runtime().clone(), &state).await?;
    }
    Ok(())
}

/// The namespace whose interfaces are to be the guest's.
fn network(launch: &Launch) -> Result<Option<Namespace>, SandboxError> {
    match spec::network(&launch.spec) {
        NetworkOf::Path(path) => Ok(Some(Namespace::open(&path)?)),
        // Whoever started the proxy has put it into a new one.
        NetworkOf::New => {
            let path = format!("/proc/{}/ns/net", launch.proxy.pid);
            let namespace = Namespace::open(Path::new(&path))?;
            let is_hosts = namespace
                .is_hosts()
                .map_err(SandboxError::system(format!("look at {path}")))?;
            Ok((!is_hosts).then(|| namespace.unfinished()))
        }
    }
}

/// Hooks block; the driver's one thread must not.
pub(super) async fn run_hooks(
    stage: &'static str,
    hooks: Option<Vec<Hook>>,
    state: &[u8],
) -> Result<(), SandboxError> {
    let Some(hooks) = hooks.filter(|hooks| !hooks.is_empty()) else {
        return Ok(());
    };
    let state = state.to_vec();
    match tokio::task::spawn_blocking(move || hooks::run(stage, &hooks, &state)).await {
        Ok(result) => Ok(result?),
        Err(error) => Err(SandboxError::system(format!("run {stage} hooks"))(
            error.into(),
        )),
    }
}

/// The control socket; reached through the folder's descriptor, since a socket's path may have 108 bytes only.
fn listen(store: &Store, launch: &Launch) -> Result<UnixListener, SandboxError> {
    let folder = store.folder(&launch.id);
    let handle = fs::File::open(&folder)
        .map_err(SandboxError::system(format!("open {}", folder.display())))?;
    let path = format!(
        "/proc/self/fd/{}/{SOCKET}",
        std::os::fd::AsRawFd::as_raw_fd(&handle)
    );
    UnixListener::bind(path).map_err(SandboxError::system(format!(
        "listen on {}/{SOCKET}",
        folder.display()
    )))
}

/// The descriptors as a process's stdio.
pub(super) fn stdio(kind: &HostStdio, descriptors: Vec<OwnedFd>) -> Result<Stdio, SandboxError> {
    let count = descriptors.len();
    let mut descriptors = descriptors.into_iter();
    let mut next = || descriptors.next();
    match kind {
        HostStdio::Pipes => {
            if let (Some(stdin), Some(stdout), Some(stderr)) = (next(), next(), next()) {
                return Ok(Stdio::Pipes {
                    stdin: Some(stdin),
                    stdout: Some(stdout),
                    stderr: Some(stderr),
                });
            }
        }
        HostStdio::Terminal => {
            if let (Some(input), Some(output)) = (next(), next()) {
                return Ok(Stdio::Terminal { input, output });
            }
        }
        HostStdio::Log(path) => {
            return Ok(Stdio::Log(Log::open(path).map_err(
                SandboxError::system(format!("open log {}", path.display())),
            )?));
        }
    }
    Err(SandboxError::Channel {
        phase: "receiving stdio",
        source: ChannelError::Malformed(format!(
            "{count} descriptors, {} were announced",
            kind.descriptors()
        )),
    })
}

/// Tells a proxy how its process ended.
pub(super) async fn tell_exit(channel: &AsyncChannel, exit: ExitStatus) {
    if let Err(error) = channel.send(&ProcessEvent::Exited(exit)).await {
        tracing::debug!(%error, "nobody hears the exit status");
    }
}
