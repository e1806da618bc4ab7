//! The traits.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{BackendError, Count, Device, Diagnostics, Templates, VmConfig};

/// A maker of virtual machines.
#[async_trait]
pub trait Backend: Send + Sync {
    /// Its name in configuration, logs and `state`.
    fn name(&self) -> &'static str;

    /// What its machines can do.
    fn capabilities(&self) -> Capabilities;

    /// Checks the configuration and gathers what the machine needs; no guest code runs yet.
    ///
    /// # Errors
    /// A [`BackendError`] of phase [`Phase::Create`](crate::Phase::Create): a file that is missing or of the wrong
    /// kind, a setting that the backend can't do, no memory, no VMM, no accelerator.
    async fn create(&self, config: VmConfig) -> Result<Box<dyn Vm>, BackendError>;

    /// The ability to start machines as copies of a booted guest.
    fn templates(&self) -> Option<&dyn Templates> {
        None
    }
}

/// One virtual machine. Dropping it kills and reaps its process: none outlives this value, and none outlives the
/// thread that called [`boot`](Vm::boot) (the kernel ties a child to its parent's thread, so boot from one that lives
/// as long as the sandbox).
#[async_trait]
pub trait Vm: Send {
    /// Starts the machine and returns, once its virtual CPUs run, the raw byte channel to the guest's end of the
    /// link. The guest may not have opened the port yet: what is written before that waits, and reads stay pending.
    ///
    /// # Errors
    /// [`BackendError::State`] unless the machine is newly created; otherwise what kept the VMM from starting. A VMM
    /// that dies later shows as end-of-file on the channel and in [`wait`](Vm::wait).
    async fn boot(&mut self) -> Result<LinkIo, BackendError>;

    /// The VMM's process id while it runs.
    fn pid(&self) -> Option<u32>;

    /// The end of what the guest wrote on its console and of what the VMM complained about. Works in every state,
    /// best after [`wait`](Vm::wait) or [`stop`](Vm::stop).
    fn diagnostics(&self) -> Diagnostics;

    /// Waits until the VMM is gone. Cancel-safe; may be called again and then answers at once. Stays pending as long
    /// as the machine was neither booted nor stopped.
    async fn wait(&mut self) -> VmExit;

    /// Ends the machine at once, without asking the guest, and reaps its process. Does nothing when it has ended.
    ///
    /// # Errors
    /// When the operating system refuses to end the process.
    async fn stop(&mut self) -> Result<(), BackendError>;

    /// When the VMM reached the steps of its boot, once [`boot`](Vm::boot) is done, of one that tells.
    fn boot_times(&self) -> Option<BootTimes> {
        None
    }

    /// The ability to freeze and continue the virtual CPUs.
    fn pause(&self) -> Option<&dyn Pause> {
        None
    }

    /// The ability to change the size of the guest's memory.
    fn resize(&self) -> Option<&dyn Resize> {
        None
    }

    /// The ability to plug devices in and out.
    fn plug(&self) -> Option<&dyn Plug> {
        None
    }

    /// The ability to tell what processors and devices have done.
    fn count(&self) -> Option<&dyn Count> {
        None
    }
}

/// The ability to freeze all virtual CPUs of a machine.
#[async_trait]
pub trait Pause: Send + Sync {
    /// Freezes the virtual CPUs. Does nothing when they are frozen.
    ///
    /// # Errors
    /// When the machine does not run or the VMM does not answer.
    async fn pause(&self) -> Result<(), BackendError>;

    /// Lets the virtual CPUs continue. Does nothing when they run.
    ///
    /// # Errors
    /// As for [`pause`](Pause::pause).
    async fn resume(&self) -> Result<(), BackendError>;
}

/// When a VMM reached the steps of its boot, as it says: nanoseconds of the host's `CLOCK_MONOTONIC`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootTimes {
    /// The process is confined, and ready to be told something.
    pub ready: u64,
    /// There is a machine with memory and processors.
    pub machine: u64,
    /// It has its devices.
    pub devices: u64,
    /// Kernel and image are in memory, and the virtual CPUs are let go.
    pub processors: u64,
    /// For how long kernel and image were loaded, from the time on when there was memory: a duration.
    pub loading: u64,
}

/// Machines grow and shrink by multiples of this, in bytes.
pub const MEMORY_STEP: u64 = 2 << 20;

/// The ability to change the size of a guest's memory while it runs. Processors need none: those that are there are the
/// guest's to bring online and offline.
#[async_trait]
pub trait Resize: Send + Sync {
    /// Says how much memory the guest is to have: what it booted with, and a multiple of 2 MiB up to
    /// [`VmConfig::spare_memory_bytes`](crate::VmConfig::spare_memory_bytes). The guest gets there in its own time; it may
    /// keep what it is to give back.
    ///
    /// # Errors
    /// [`BackendError::NoMemory`] when the host has not as much; otherwise when the machine cannot have that size, does not
    /// run, or the VMM does not answer.
    async fn resize(&self, memory_bytes: u64) -> Result<(), BackendError>;
}

/// Where a device is that was plugged in: the guest's kernel finds it as `virtio-mmio.NUMBER`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place(pub u8);

/// The ability to plug devices in and out while the guest runs, into
/// [`VmConfig::spare_devices`](crate::VmConfig::spare_devices).
#[async_trait]
pub trait Plug: Send + Sync {
    /// Plugs a device in. The guest does not notice by itself: it has to be told the place (the agent's `PlugDevice`).
    ///
    /// # Errors
    /// [`BackendError::Monitor`] when no place is left, when the machine was not prepared for such a device, and for what is
    /// wrong with it; otherwise when the machine does not run, or the VMM does not answer.
    async fn plug(&self, device: Device) -> Result<Place, BackendError>;

    /// Takes a device away that was plugged in. The guest should have let go of it before (the agent's `UnplugDevice`), but is
    /// not asked: what it still had under way fails or is never answered. When this returns, the VMM has nothing left of what
    /// was behind the device, and the place is free.
    ///
    /// # Errors
    /// When nothing was plugged in there, when the machine does not run, or the VMM does not answer.
    async fn unplug(&self, place: Place) -> Result<(), BackendError>;
}

/// A byte channel to the guest.
pub trait Link: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Link for T {}

/// An owned byte channel to the guest.
pub type LinkIo = Box<dyn Link>;

/// How guest code is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Accelerator {
    /// By the processor, through KVM.
    Kvm,
    /// Translated in software: slower, and the boundary is the VMM process instead of the hardware.
    Emulation,
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "kvm",
            Self::Emulation => "emulation",
        })
    }
}

/// What a backend's machines can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// How guest code is executed.
    pub accelerator: Accelerator,
    /// Whether [`VmConfig::share`] may be set.
    pub share: bool,
    /// Whether [`Vm::pause`] is there.
    pub pause: bool,
    /// Whether [`Vm::resize`] is there, and machines may have more processors than their guest boots with.
    pub resize: bool,
    /// Whether [`Vm::plug`] is there, and [`VmConfig::spare_devices`] may be set.
    pub plug: bool,
    /// The most disks and images a machine may have, with devices that may come: none where it has no such devices.
    pub devices: usize,
    /// Whether [`Vm::count`] is there.
    pub count: bool,
    /// Whether [`VmConfig::huge_pages`] may be set.
    pub huge_pages: bool,
    /// Whether [`VmConfig::sockets`] may be set.
    pub sockets: bool,
    /// The most network cards a machine may have.
    pub nics: usize,
    /// The most queues a network card may have.
    pub nic_queues: u32,
    /// The most virtual CPUs a machine may have.
    pub max_vcpus: u32,
    /// A bound on the time from boot to the guest agent's first byte on a healthy but loaded host; callers wait this
    /// long before they call the guest dead.
    pub boot_deadline: Duration,
}

/// How a VMM process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VmExit {
    /// It exited with this code. 0 means that the guest rebooted, powered off or crashed: which one, its console tells.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// It was stopped before it was booted.
    NeverStarted,
    /// It is gone, but something else in this process has taken its exit status.
    Unknown,
}

impl fmt::Display for VmExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(0) => {
                f.write_str("exited with code 0: its guest rebooted, powered off or crashed")
            }
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(signal) => {
                write!(f, "was ended by signal {signal}")?;
                match signal_meaning(*signal) {
                    Some(meaning) => write!(f, ": {meaning}"),
                    None => Ok(()),
                }
            }
            Self::NeverStarted => f.write_str("was never started"),
            Self::Unknown => f.write_str("ended in an unknown way"),
        }
    }
}

/// What a user can do something about, by the number that a signal has on Linux.
fn signal_meaning(signal: i32) -> Option<&'static str> {
    match signal {
        7 => Some("memory was taken from it, or the host had none left"),
        9 => Some("it was killed, or the host or its control group had no memory left"),
        31 => Some("it made a system call that it may not make"),
        _ => None,
    }
}
