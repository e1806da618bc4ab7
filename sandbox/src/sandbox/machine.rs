//! The virtual machine of a sandbox and its file server, owned by one task.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use backend_api::{
    Backend, BackendError, LinkIo, MachineCounters, Nic, Phase, Share, Sockets, SpareDevices, Vm,
    VmConfig,
};
use backend_process::Exit;
use cofferdam_protocol::SHARE_TAG;
use sandbox_network::Namespace;
use sandbox_share::{ShareConfig, ShareServer};
use tokio::sync::{Mutex, mpsc, oneshot, watch};

use crate::backend;
use crate::cgroup::Own;
use crate::config::Config;
use crate::control;
use crate::error::SandboxError;
use crate::sandbox::SandboxOptions;
use crate::sandbox::share::SharedEntries;
use crate::spec::Size;
use crate::timeline::{self, Step, Timeline};

/// The least that a file server has to lay out its entries.
const SHARE_DEADLINE: Duration = Duration::from_secs(30);

/// How long a file server may take to say that it failed, when the VMM did.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Why the machine is no longer there; nothing while it is.
pub(crate) type Gone = watch::Receiver<Option<String>>;

/// Something that a running machine is to do.
#[derive(Debug)]
enum Order {
    /// To have another size of its memory.
    Resize { memory: u64, done: Answer<()> },
    /// To tell what it has counted.
    Count { done: Answer<MachineCounters> },
}

type Answer<T> = oneshot::Sender<Result<T, BackendError>>;

/// A running machine. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Machine {
    stop: watch::Sender<bool>,
    gone: Gone,
    processes: Vec<u32>,
    share: SharedEntries,
    timeline: Timeline,
    orders: mpsc::Sender<Order>,
    task: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

impl Machine {
    /// Starts both processes; answers with the link to the guest once the share is laid out and the VMM runs.
    pub(crate) async fn start(
        backend: &Arc<dyn Backend>,
        config: &Config,
        options: &SandboxOptions,
        (groups, nics, sockets): (Arc<Own>, Vec<Nic>, Option<Sockets>),
        network: Option<&Namespace>,
        template: Option<File>,
        spare: Size,
    ) -> Result<(Self, LinkIo), SandboxError> {
        let SandboxOptions {
            name,
            size,
            entries,
            timed,
            ..
        } = options;
        let timeline = Timeline::new(*timed && template.is_none());
        timeline.mark(Step::Begun, None);
        let network = network.map(|namespace| namespace.as_fd().try_clone_to_owned());
        let mut share = ShareServer::spawn(ShareConfig {
            program: config.file_server.clone(),
            entries: entries.clone(),
            deadline: SHARE_DEADLINE,
            groups: groups.entrances()?,
        })?;
        timeline.mark(Step::FileServer, None);
        let socket = share.vmm_socket().map(|socket| Share {
            tag: SHARE_TAG.to_owned(),
            socket,
        });
        let wanted = VmConfig {
            nics,
            sockets,
            spare_memory_bytes: spare.memory,
            spare_vcpus: spare.vcpus,
            groups: groups.entrances()?,
            network: network.transpose().map_err(SandboxError::system(
                "duplicate a network namespace's descriptor",
            ))?,
            ..vm_config(config, name, *size, socket)
        };
        let mut vm = match template.zip(backend.templates()) {
            Some((template, templates)) => templates.copy(wanted, template).await?,
            None => backend.create(wanted).await?,
        };
        timeline.mark(Step::Prepared, None);
        let link = match vm.boot().await {
            Ok(link) => link,
            // A file server that failed takes the VMM along: then its own words say more.
            Err(error) => match tokio::time::timeout(LAST_WORDS, share.ready()).await {
                Ok(Err(cause)) => return Err(cause.into()),
                Ok(Ok(())) | Err(_) => return Err(error.into()),
            },
        };
        timeline.mark(Step::Booted, vm.pid());
        timeline.note(|known| known.vmm = vm.boot_times());
        if let Err(error) = share.ready().await {
            vm.stop().await?;
            return Err(error.into());
        }
        timeline.mark(Step::Share, vm.pid());
        let entries = SharedEntries::new(share.editor(), entries.clone());
        let processes = vm.pid().into_iter().chain(share.pid()).collect();
        let (stop, stopping) = watch::channel(false);
        let (gone_sender, gone) = watch::channel(None);
        let (orders, ordered) = mpsc::channel(1);
        let task = tokio::spawn(watch_over(
            groups,
            vm,
            share,
            ordered,
            stopping,
            gone_sender,
        ));
        Ok((
            Self {
                stop,
                gone,
                processes,
                share: entries,
                timeline,
                orders,
                task: Mutex::new(Some(task)),
            },
            link,
        ))
    }

    /// Marks a step of its boot.
    pub(crate) fn reached(&self, step: Step) {
        self.timeline.mark(step, self.processes.first().copied());
    }

    /// Marks what comes after it in the boot timeline.
    pub(crate) fn mark(&self, step: &'static str) {
        timeline::mark(step, self.processes.first().copied());
    }

    /// What is known of its boot.
    pub(crate) fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// To wait on the machine's end.
    pub(crate) fn gone(&self) -> Gone {
        self.gone.clone()
    }

    /// Pids of VMM and file server.
    pub(crate) fn processes(&self) -> &[u32] {
        &self.processes
    }

    /// What the guest sees of the host.
    pub(crate) fn share(&self) -> &SharedEntries {
        &self.share
    }

    /// Says how much memory the guest is to have, in bytes. It gets there in its own time.
    pub(crate) async fn resize(&self, memory: u64) -> Result<(), SandboxError> {
        let phase = "changing the size of the virtual machine";
        self.order(phase, |done| Order::Resize { memory, done })
            .await
    }

    /// What it has counted.
    pub(crate) async fn counters(&self) -> Result<control::MachineCounters, SandboxError> {
        let phase = "reading the virtual machine's counters";
        let counters = self.order(phase, |done| Order::Count { done }).await?;
        Ok(counters.into())
    }

    async fn order<T>(
        &self,
        phase: &'static str,
        order: impl FnOnce(Answer<T>) -> Order,
    ) -> Result<T, SandboxError> {
        let (done, answer) = oneshot::channel();
        // It fails when the machine's task has ended, and then there is no answer.
        let _sent = self.orders.send(order(done)).await;
        match answer.await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(SandboxError::Gone {
                phase,
                reason: reason_of(self.gone()).await,
            }),
        }
    }

    /// How it went, with the last words of guest and VMM; waits a moment for them, then says that nothing is known.
    pub(crate) async fn reason(&self, patience: Duration) -> Option<String> {
        tokio::time::timeout(patience, reason_of(self.gone()))
            .await
            .ok()
    }

    /// Has both processes ended, without waiting for it.
    pub(crate) fn end(&self) {
        self.stop.send_replace(true);
    }

    /// Ends both processes and reaps them.
    pub(crate) async fn stop(&self) {
        self.end();
        if let Some(task) = self.task.lock().await.take() {
            // It cannot be cancelled, and a panic in it has dropped (killed) what it held.
            let _ended = task.await;
        }
    }
}

/// What a sandbox wants of its machine.
pub(crate) fn vm_config(config: &Config, name: &str, size: Size, share: Option<Share>) -> VmConfig {
    VmConfig {
        name: name.to_owned(),
        kernel: config.kernel.clone(),
        initrd: config.initrd.clone(),
        cmdline: config.kernel_parameters.clone(),
        memory_bytes: size.memory,
        spare_memory_bytes: 0,
        vcpus: size.vcpus,
        spare_vcpus: 0,
        share,
        huge_pages: config.huge_pages,
        sockets: None,
        nics: Vec::new(),
        disks: Vec::new(),
        images: Vec::new(),
        spare_devices: SpareDevices::default(),
        network: None,
        groups: Vec::new(),
        privileges: backend::privileges(config),
    }
}

/// Waits until the machine has ended, and tells how.
pub(crate) async fn reason_of(mut gone: Gone) -> String {
    match gone.wait_for(Option::is_some).await {
        Ok(reason) => reason.clone().unwrap_or_default(),
        // Its task is gone without a word: it panicked, and has dropped the machine.
        Err(_) => "its task ended early".to_owned(),
    }
}

async fn told_to(stopping: &mut watch::Receiver<bool>) {
    // An error means that the sandbox was dropped, which stops it too.
    let _dropped = stopping.wait_for(|&stop| stop).await;
}

/// Whoever has ordered it may have gone by the time it is done.
async fn carry_out(vm: &mut dyn Vm, order: Order) {
    match order {
        Order::Resize { memory, done } => {
            let resized = match vm.resize() {
                Some(able) => able.resize(memory).await,
                None => Err(unable("of a fixed size")),
            };
            let _told = done.send(resized);
        }
        Order::Count { done } => {
            let counted = match vm.count() {
                Some(able) => able.counters().await,
                None => Err(unable("of a backend that does not count")),
            };
            let _told = done.send(counted);
        }
    }
}

/// It is a machine that cannot.
fn unable(state: &'static str) -> BackendError {
    BackendError::State {
        phase: Phase::Run,
        state,
    }
}

/// How long the VMM may take to end before the end of its file server counts as the cause.
fn ending(server: Exit) -> Duration {
    match server {
        // By itself, when the VMM hangs up: that closes its descriptors first, and takes its time on a busy host.
        Exit::Code(0) => Duration::from_secs(10),
        Exit::Code(_) | Exit::Signal(_) => Duration::from_millis(200),
    }
}

/// Owns the processes until one of them ends or the sandbox is stopped; either takes the other with it. Their control groups
/// go last, also when this is dropped half way.
async fn watch_over(
    groups: Arc<Own>,
    mut vm: Box<dyn Vm>,
    mut share: ShareServer,
    orders: mpsc::Receiver<Order>,
    mut stopping: watch::Receiver<bool>,
    gone: watch::Sender<Option<String>>,
) {
    let reason = obey(&mut vm, &mut share, orders, &mut stopping).await;
    timeline::mark("the machine is to end", vm.pid());
    // Side by side: both have the guest's memory to give back.
    let (vm_ended, share_ended) = tokio::join!(vm.stop(), share.stop());
    if let Err(error) = vm_ended {
        tracing::error!(%error, "cannot end the VMM");
    }
    if let Err(error) = share_ended {
        tracing::error!(%error, "cannot end the file server");
    }
    timeline::mark("the machine has ended", None);
    gone.send_replace(Some(format!("{reason}{}", vm.diagnostics())));
    drop((vm, share));
    // The kernel may take a moment to let go of what has ended.
    let _removed = tokio::task::spawn_blocking(move || drop(groups)).await;
}

/// Carries out what is ordered until the machine is to end; why it is.
async fn obey(
    vm: &mut Box<dyn Vm>,
    share: &mut ShareServer,
    mut orders: mpsc::Receiver<Order>,
    stopping: &mut watch::Receiver<bool>,
) -> String {
    loop {
        tokio::select! {
            exit = vm.wait() => return format!("the VMM {exit}"),
            exit = share.wait() => return match exit {
                Ok(exit) => match tokio::time::timeout(ending(exit), vm.wait()).await {
                    Ok(exit) => format!("the VMM {exit}"),
                    Err(_) => format!("the file server {exit}{}", share.stderr()),
                },
                Err(error) => crate::error::chain(&error),
            },
            () = told_to(stopping) => return "it was stopped".to_owned(),
            Some(order) = orders.recv() => carry_out(&mut **vm, order).await,
        }
    }
}
