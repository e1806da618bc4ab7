//! Making a container: its record, its driver, and the handing over of both.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::SystemTime;

use oci_spec::runtime::Spec;
use sandbox_network::Namespace;

use crate::cgroup;
use crate::client::join::Joined;
use crate::config::Config;
use crate::control::{Adopted, Channel, ChannelError, HostStdio, Launch, Launched, Request};
use crate::error::SandboxError;
use crate::id::ContainerId;
use crate::spec::{self, NetworkOf, Rootfs, SpecError};
use crate::state::{ProcessIdentity, Record, RunRecord, Store};

/// A container that is asked for.
#[derive(Debug)]
pub struct NewContainer {
    /// The state directory.
    pub store: Store,
    /// Its name.
    pub id: ContainerId,
    /// How sandboxes are made here.
    pub config: Config,
    /// Absolute path.
    pub bundle: PathBuf,
    /// As read from the bundle.
    pub spec: Spec,
    /// Where its root file system comes from.
    pub rootfs: Rootfs,
    /// Only of containers that `cofferdam run IMAGE` makes.
    pub run: Option<RunRecord>,
}

/// A container that is made and will be undone unless it is kept.
#[derive(Debug)]
pub struct Undecided {
    command: Channel,
    /// The driver, our child until the calling process ends; nothing when it was there before.
    pub driver: Option<Child>,
}

impl NewContainer {
    /// Refuses what cannot be done and takes the name. Undo with [`Store::remove`].
    ///
    /// # Errors
    /// What is wrong with the spec; that the name is taken.
    pub fn register(&self) -> Result<(), SandboxError> {
        let cgroups = cgroup::folders(&self.spec)?;
        let (network, machine_cgroups) = match Joined::find(&self.store, &self.spec)? {
            Some(sandbox) => {
                spec::check_with(&self.spec, &self.bundle, &sandbox.neighbours)?;
                // The sandbox's, which goes with it.
                (NetworkOf::New, sandbox.machine_cgroups)
            }
            None => {
                spec::check(&self.spec, &self.bundle)?;
                refuse_used_network(&self.store, &self.spec)?;
                let of_machine = match cgroups[..] {
                    [] => cgroup::own_folders(&self.id.to_string())?,
                    _ => Vec::new(),
                };
                (spec::network(&self.spec), of_machine)
            }
        };
        spec::rates(&self.spec, &self.config)?;
        let root = self.spec.root().clone().unwrap_or_default();
        self.store.create(&Record {
            id: self.id.clone(),
            bundle: self.bundle.clone(),
            rootfs: self.bundle.join(root.path()),
            created: humantime::format_rfc3339_nanos(SystemTime::now()).to_string(),
            annotations: self.spec.annotations().clone().unwrap_or_default(),
            creator: ProcessIdentity::current(),
            driver: None,
            init: None,
            helpers: Vec::new(),
            cgroups,
            machine_cgroups,
            poststop: self
                .spec
                .hooks()
                .as_ref()
                .and_then(|hooks| hooks.poststop().clone())
                .unwrap_or_default(),
            network: match network {
                NetworkOf::New => None,
                NetworkOf::Path(path) => Some(path),
            },
            exit: None,
            finished: None,
            run: self.run.clone(),
        })?;
        Ok(())
    }
}

/// Two virtual machines cannot have the same interfaces, and a process on the host would lose those that it has.
fn refuse_used_network(store: &Store, spec: &Spec) -> Result<(), SandboxError> {
    let NetworkOf::Path(path) = spec::network(spec) else {
        return Ok(());
    };
    let wanted = Namespace::open(&path)?
        .identity()
        .map_err(SandboxError::system(format!("look at {}", path.display())))?;
    let unsupported = |what: String, why: &str| {
        SandboxError::from(SpecError::Unsupported {
            what,
            why: why.to_owned(),
        })
    };
    for record in store.list()? {
        let proxy = record.init.filter(|init| init.is_alive());
        let used = proxy.and_then(|proxy| {
            let path = format!("/proc/{}/ns/net", proxy.pid);
            Namespace::open(Path::new(&path)).ok()?.identity().ok()
        });
        if used == Some(wanted) {
            return Err(unsupported(
                format!("the network of container {}", record.id),
                "it belongs to another virtual machine, whose containers alone share it; connect both to one network, or put both into one pod",
            ));
        }
    }
    let of_process = path
        .strip_prefix("/proc")
        .ok()
        .and_then(|rest| rest.components().next())
        .and_then(|first| first.as_os_str().to_str()?.parse::<u32>().ok());
    match of_process {
        Some(pid) => Err(unsupported(
            format!("the network of process {pid} ({})", path.display()),
            "a virtual machine would take the network's interfaces away from it; connect both to one network instead",
        )),
        None => Ok(()),
    }
}

/// Has a driver make the registered container: that of the sandbox which the container joins, or a new one.
/// `start_driver` starts the driver program with this socket to run [`crate::driver::main`] on; `proxy` is the driver's
/// end of the socket to the proxy.
///
/// # Errors
/// What the driver could not do.
pub fn launch(
    new: NewContainer,
    stdio: HostStdio,
    descriptors: &[BorrowedFd<'_>],
    proxy: (ProcessIdentity, UnixStream),
    start_driver: impl FnOnce(UnixStream) -> std::io::Result<Child>,
) -> Result<Undecided, SandboxError> {
    const PHASE: &str = "creating the container";
    let lost = |source| SandboxError::Channel {
        phase: PHASE,
        source,
    };
    let joined = Joined::find(&new.store, &new.spec)?;
    let (socket, driver) = match &joined {
        Some(sandbox) => (sandbox.connect(&new.store)?, None),
        None => {
            let (ours, theirs) =
                UnixStream::pair().map_err(SandboxError::system("make a socket"))?;
            let driver = start_driver(theirs).map_err(SandboxError::system("start the driver"))?;
            (ours, Some(driver))
        }
    };
    let mut command = Channel::new(socket);
    let launch = Launch {
        root: new.store.root().to_owned(),
        id: new.id,
        config: new.config,
        spec: Box::new(new.spec),
        rootfs: new.rootfs,
        stdio,
        proxy: proxy.0,
    };
    let mut all = descriptors.to_vec();
    all.push(proxy.1.as_fd());
    match joined {
        Some(_) => command.send(&Request::Join(Box::new(launch)), &all),
        None => command.send(&launch, &all),
    }
    .map_err(lost)?;
    drop(proxy.1);
    match command.receive::<Launched>() {
        Ok((Launched::Created, _)) => Ok(Undecided { command, driver }),
        Ok((Launched::Failed(failure), _)) => Err(SandboxError::Process(failure)),
        Err(ChannelError::Closed) => Err(SandboxError::Gone {
            phase: PHASE,
            reason: "its driver was ended".to_owned(),
        }),
        Err(source) => Err(lost(source)),
    }
}

impl Undecided {
    /// The driver is on its own from now on.
    ///
    /// # Errors
    /// When it is gone.
    pub fn keep(self) -> Result<Option<Child>, SandboxError> {
        self.command
            .send(&Adopted, &[])
            .map_err(|source| SandboxError::Channel {
                phase: "handing the container over",
                source,
            })?;
        Ok(self.driver)
    }
}
