//! The containers of a driver's sandbox.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::cgroup;
use crate::control::Launch;
use crate::id::ContainerId;
use crate::sandbox::{Container, Sandbox};
use crate::spec::{self, Neighbours, Owner, Pinned, network_path};
use crate::state::{ExitStatus, ProcessIdentity, Store};

/// A guest that runs out of memory all the time is not heard more often.
const OOM_PAUSE: Duration = Duration::from_millis(100);

/// What a driver owns.
#[derive(Debug)]
pub(super) struct Driver {
    /// The state directory.
    pub(super) root: PathBuf,
    pub(super) sandbox: Sandbox,
    /// Whose control groups the machine is in.
    first: ContainerId,
    /// What makes this program one that the kernel kills for want of memory.
    victim: Vec<OsString>,
    /// The network namespace that was made for the sandbox's first container.
    network: Option<PathBuf>,
    table: Mutex<Table>,
    /// How many containers are not entirely cleared up.
    busy: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Table {
    members: HashMap<ContainerId, Arc<Member>>,
    /// The last container has ended, and the machine is on its way down.
    is_ending: bool,
}

/// A container, from its adoption until it is cleared up.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) launch: Launch,
    pub(super) container: Container,
    /// Namespaces of its engine's that stand for its own.
    pinned: Vec<Pinned>,
    /// A process of it was killed for want of memory.
    ran_out: AtomicBool,
    discarded: watch::Sender<bool>,
    cleared: watch::Sender<bool>,
}

impl Driver {
    /// The driver of a sandbox whose first container is asked for by this.
    pub(super) fn new(first: &Launch, sandbox: Sandbox, victim: Vec<OsString>) -> Self {
        Self {
            root: first.root.clone(),
            first: first.id.clone(),
            victim,
            sandbox,
            network: network_path(&first.spec),
            table: Mutex::default(),
            busy: watch::channel(0).0,
        }
    }

    /// Notes which containers run out of memory, as long as the machine lives.
    pub(super) fn watch_memory(self: &Arc<Self>) {
        let driver = Arc::clone(self);
        tokio::spawn(async move {
            while let Ok(id) = driver.sandbox.out_of_memory().await {
                // The guest says the name: it has to be one.
                let id = ContainerId::new(&id).ok();
                if let Some(member) = id.and_then(|id| driver.table().members.get(&id).cloned()) {
                    member.ran_out.store(true, Ordering::Relaxed);
                }
                tokio::time::sleep(OOM_PAUSE).await;
            }
        });
    }

    /// Tells engines that a container has run out of memory, if it has, before they hear of its end. `is_over`: the
    /// machine has ended with it.
    pub(super) async fn announce_want(&self, member: &Member, exit: ExitStatus, is_over: bool) {
        let ran_out = exit.oom_killed || member.ran_out.load(Ordering::Relaxed);
        // A machine that runs on must not be in want beside the victim.
        let is_machines = member.launch.id == self.first && !is_over;
        if !ran_out || is_machines {
            return;
        }
        let groups = Store::open(&self.root)
            .and_then(|store| store.load(&member.launch.id))
            .map(|record| record.cgroups);
        // Deleted by force meanwhile: nobody listens.
        let Ok(groups) = groups else { return };
        match cgroup::want::announce(&groups, &self.victim).await {
            Ok(told) => {
                tracing::info!(told, container = %member.launch.id, "it had run out of memory");
            }
            Err(error) => {
                tracing::warn!(
                    error = crate::error::chain(&error),
                    "engines do not hear that a container ran out of memory"
                );
            }
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a container up; not any more when the sandbox is ending.
    pub(super) fn admit(&self, member: &Arc<Member>) -> bool {
        let mut table = self.table();
        if table.is_ending {
            return false;
        }
        let id = member.launch.id.clone();
        table.members.insert(id, Arc::clone(member));
        self.busy.send_modify(|count| *count += 1);
        true
    }

    /// A container has ended. Answers whether it was the last one: then no other is taken up any more.
    pub(super) fn leave(&self, member: &Member) -> bool {
        let mut table = self.table();
        table.members.remove(&member.launch.id);
        table.is_ending |= table.members.is_empty();
        table.is_ending
    }

    /// All that there was to do for a container is done.
    pub(super) fn cleared(&self, member: &Member) {
        member.cleared.send_replace(true);
        self.busy.send_modify(|count| *count -= 1);
    }

    /// Waits until everything is done for all containers.
    pub(super) async fn idle(&self) {
        let mut busy = self.busy.subscribe();
        // Its sender is ours.
        let _open = busy.wait_for(|&count| count == 0).await;
    }

    /// Whose namespaces a container may share that joins now.
    pub(super) fn neighbours(&self) -> Neighbours {
        let mut neighbours = Neighbours::new(self.network.clone());
        for (id, member) in &self.table().members {
            if member.container.lifecycle().is_alive() && member.launch.proxy.is_alive() {
                let owner = Owner::Container(id.clone());
                neighbours.add_pinned(&member.pinned, &owner);
                neighbours.add(member.launch.proxy.pid, owner);
            }
        }
        neighbours
    }

    /// VMM and file server.
    pub(super) fn helpers(&self) -> Vec<ProcessIdentity> {
        helpers(&self.sandbox)
    }
}

/// VMM and file server of a sandbox.
pub(super) fn helpers(sandbox: &Sandbox) -> Vec<ProcessIdentity> {
    let pids = sandbox.processes().iter();
    pids.filter_map(|pid| ProcessIdentity::of(pid.cast_signed()))
        .collect()
}

impl Member {
    pub(super) fn new(launch: Launch, container: Container) -> Arc<Self> {
        Arc::new(Self {
            pinned: spec::pinned(&launch.spec),
            launch,
            container,
            ran_out: AtomicBool::new(false),
            discarded: watch::channel(false).0,
            cleared: watch::channel(false).0,
        })
    }

    /// Nobody wants what is left of its output.
    pub(super) fn discard(&self) {
        self.discarded.send_replace(true);
    }

    /// Waits until somebody [discards](Self::discard) it.
    pub(super) async fn is_discarded(&self) {
        wait(&self.discarded).await;
    }

    /// Waits until all is done for it.
    pub(super) async fn is_cleared(&self) {
        wait(&self.cleared).await;
    }
}

async fn wait(flag: &watch::Sender<bool>) {
    // Whoever waits holds the sender.
    let mut flag = flag.subscribe();
    let _open = flag.wait_for(|&is_set| is_set).await;
}
