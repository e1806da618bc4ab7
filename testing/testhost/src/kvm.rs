//! Whether a test host is needed at all.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use backend_api::{Accelerator, Privileges};
use backend_probe::{DEADLINE, Probe, ProbeOutcome};
use backend_qemu::{QemuBackend, QemuConfig};
use clap::Args;

/// What is booted to find out.
#[derive(Args)]
pub struct Options {
    /// Our guest's kernel.
    #[arg(long, value_name = "FILE")]
    kernel: PathBuf,
    /// Our guest's image.
    #[arg(long, value_name = "FILE")]
    initrd: PathBuf,
    /// How long it may take.
    #[arg(long, value_name = "SECONDS", default_value_t = DEADLINE.as_secs())]
    deadline: u64,
}

/// Boots a guest with this machine's KVM.
pub fn probe(options: &Options) -> Result<u8> {
    let backend = QemuBackend::new(QemuConfig {
        binary: None,
        accelerator: Accelerator::Kvm,
    });
    let probe = Probe {
        program: backend.program()?,
        backend: Arc::new(backend),
        kernel: options.kernel.clone(),
        initrd: options.initrd.clone(),
        privileges: Privileges::Inherit,
        deadline: Duration::from_secs(options.deadline),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    match runtime.block_on(probe.run())? {
        ProbeOutcome::Works { elapsed } => {
            println!("a guest ran to its end in {:.1} s", elapsed.as_secs_f32());
            Ok(0)
        }
        ProbeOutcome::Unusable { reason } => {
            println!("{reason}");
            Ok(1)
        }
    }
}
