//! The threads of virtual CPUs.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use kvm_ioctls::{VcpuExit, VcpuFd};
use vmm_sys_util::signal::{Killable, register_signal_handler};

use crate::Error;
use crate::bus::Bus;

/// The port that a keyboard controller would have. A kernel that finds it floating does not wait for one.
const FLOATING: u8 = 0xff;

/// How long a virtual CPU may take to see a signal before it gets another: one may come between its look at what is
/// wanted and its entry into the guest, where it would be lost.
const AGAIN: Duration = Duration::from_millis(2);

/// How a machine ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The guest has reset itself, which is how it ends.
    Reset,
    /// It was told to stop.
    Stopped,
    /// KVM cannot go on with the guest.
    Failed(&'static str),
}

/// How often virtual CPUs have left the guest for this process, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exits {
    /// Registers of devices that were read.
    pub mmio_reads: u64,
    /// Registers of devices that were written.
    pub mmio_writes: u64,
    /// Ports that were read.
    pub port_reads: u64,
    /// Ports that were written.
    pub port_writes: u64,
    /// Signals and everything else.
    pub others: u64,
}

#[derive(Debug, Default)]
struct Counters {
    mmio_reads: AtomicU64,
    mmio_writes: AtomicU64,
    port_reads: AtomicU64,
    port_writes: AtomicU64,
    others: AtomicU64,
}

/// What the threads are to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Run,
    Pause,
    Stop,
}

#[derive(Debug)]
struct State {
    wanted: Wanted,
    paused: usize,
    outcome: Option<Outcome>,
}

/// All virtual CPUs of a machine.
pub(crate) struct Vcpus {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    bus: Bus,
    counters: Counters,
    ended: Box<dyn Fn(Outcome) + Send + Sync>,
}

impl Vcpus {
    /// Starts a thread for each; they wait for [`resume`](Self::resume). `begin` runs first in each thread; `ended` is told once how the machine has ended, from
    /// the thread that saw it.
    pub fn start(
        vcpus: Vec<VcpuFd>,
        bus: Bus,
        begin: Arc<dyn Fn() -> io::Result<()> + Send + Sync>,
        ended: Box<dyn Fn(Outcome) + Send + Sync>,
    ) -> Result<Self, Error> {
        extern "C" fn nothing(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
        // That it arrives is all that it does: it takes a virtual CPU out of its guest.
        register_signal_handler(signal(), nothing).map_err(|error| Error::System {
            action: "take a signal",
            source: error.into(),
        })?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                wanted: Wanted::Pause,
                paused: 0,
                outcome: None,
            }),
            changed: Condvar::new(),
            bus,
            counters: Counters::default(),
            ended,
        });
        let mut all = Self {
            shared,
            threads: Vec::new(),
        };
        for (number, vcpu) in vcpus.into_iter().enumerate() {
            let shared = Arc::clone(&all.shared);
            let begin = Arc::clone(&begin);
            let thread = thread::Builder::new()
                .name(format!("vcpu{number}"))
                .spawn(move || {
                    let outcome = match begin() {
                        Ok(()) => shared.run(vcpu),
                        Err(error) => {
                            tracing::error!(%error, "cannot confine a virtual CPU");
                            Some(Outcome::Failed("a virtual CPU could not be confined"))
                        }
                    };
                    if let Some(outcome) = outcome {
                        shared.end(outcome);
                    }
                })
                .map_err(Error::system("start a virtual CPU"))?;
            all.threads.push(thread);
        }
        Ok(all)
    }

    /// Freezes all of them; done when this returns.
    pub fn pause(&self) {
        let mut state = self.shared.lock();
        if state.wanted != Wanted::Run {
            return;
        }
        state.wanted = Wanted::Pause;
        while state.wanted == Wanted::Pause && state.paused < self.threads.len() {
            self.signal();
            state = self
                .shared
                .changed
                .wait_timeout(state, AGAIN)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Lets them go on.
    pub fn resume(&self) {
        let mut state = self.shared.lock();
        if state.wanted == Wanted::Pause {
            state.wanted = Wanted::Run;
            self.shared.changed.notify_all();
        }
    }

    pub fn exits(&self) -> Exits {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.shared.counters;
        Exits {
            mmio_reads: read(&counters.mmio_reads),
            mmio_writes: read(&counters.mmio_writes),
            port_reads: read(&counters.port_reads),
            port_writes: read(&counters.port_writes),
            others: read(&counters.others),
        }
    }

    fn signal(&self) {
        for thread in &self.threads {
            // One that has ended needs none.
            let _ = thread.kill(signal());
        }
    }
}

impl Drop for Vcpus {
    fn drop(&mut self) {
        self.shared.end(Outcome::Stopped);
        for thread in self.threads.drain(..) {
            while !thread.is_finished() {
                let _ = thread.kill(signal());
                thread::sleep(AGAIN);
            }
            // A panic is logged by the thread itself.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first outcome counts, and ends all threads.
    fn end(&self, outcome: Outcome) {
        let mut state = self.lock();
        state.wanted = Wanted::Stop;
        let first = state.outcome.is_none();
        state.outcome.get_or_insert(outcome);
        self.changed.notify_all();
        drop(state);
        if first {
            (self.ended)(outcome);
        }
    }

    /// Waits while the machine is paused. False when it is to stop.
    fn may_run(&self) -> bool {
        let mut state = self.lock();
        if state.wanted == Wanted::Pause {
            state.paused += 1;
            self.changed.notify_all();
            while state.wanted == Wanted::Pause {
                state = self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            state.paused -= 1;
        }
        state.wanted != Wanted::Stop
    }

    /// Runs one virtual CPU. Nothing when it was told to stop.
    fn run(&self, mut vcpu: VcpuFd) -> Option<Outcome> {
        let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        let counters = &self.counters;
        while self.may_run() {
            // Until something wants attention.
            loop {
                match vcpu.run() {
                    Ok(VcpuExit::MmioRead(address, data)) => {
                        count(&counters.mmio_reads);
                        self.bus.read(address, data);
                    }
                    Ok(VcpuExit::MmioWrite(address, data)) => {
                        count(&counters.mmio_writes);
                        if let Err(error) = self.bus.write(address, data) {
                            tracing::error!(%error, "KVM does not take an interrupt's route");
                            return Some(Outcome::Failed("interrupts cannot be routed"));
                        }
                    }
                    Ok(VcpuExit::IoIn(_, data)) => {
                        count(&counters.port_reads);
                        data.fill(FLOATING);
                    }
                    Ok(VcpuExit::IoOut(..)) => {
                        count(&counters.port_writes);
                    }
                    Ok(VcpuExit::Shutdown) => return Some(Outcome::Reset),
                    Ok(VcpuExit::SystemEvent(..)) => return Some(Outcome::Reset),
                    Ok(VcpuExit::Hlt) => {
                        return Some(Outcome::Failed("a virtual CPU has halted for good"));
                    }
                    Ok(VcpuExit::FailEntry(reason, _)) => {
                        tracing::error!(reason, "the processor refuses a virtual CPU's state");
                        return Some(Outcome::Failed("the processor refuses the guest's state"));
                    }
                    Ok(VcpuExit::InternalError) => {
                        return Some(Outcome::Failed(
                            "KVM cannot emulate what the guest has executed",
                        ));
                    }
                    Ok(VcpuExit::MemoryFault { .. }) => {
                        return Some(Outcome::Failed("memory of the guest cannot be had"));
                    }
                    Ok(VcpuExit::Intr) => {
                        count(&counters.others);
                        break;
                    }
                    Ok(_) => {
                        count(&counters.others);
                        return Some(Outcome::Failed("KVM has ended the guest in an unknown way"));
                    }
                    Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {
                        count(&counters.others);
                        break;
                    }
                    // Memory of the host that is not there: a file that was cut, or no page left.
                    Err(error) if error.errno() == libc::EFAULT => {
                        return Some(Outcome::Failed("memory of the guest cannot be had"));
                    }
                    Err(error) => {
                        tracing::error!(%error, "KVM cannot run a virtual CPU");
                        return Some(Outcome::Failed("KVM cannot run a virtual CPU"));
                    }
                }
            }
        }
        None
    }
}

fn signal() -> libc::c_int {
    vmm_sys_util::signal::SIGRTMIN()
}
