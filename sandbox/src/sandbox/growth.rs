//! How large a machine is for what its containers may use.

use std::collections::HashMap;
use std::path::PathBuf;

use backend_api::{Capabilities, MEMORY_STEP};
use cofferdam_protocol::ResizeSandboxRequest;
use rustix::system::sysinfo;
use tokio::sync::Mutex;

use crate::cgroup;
use crate::config::Config;
use crate::error::SandboxError;
use crate::id::ContainerId;
use crate::sandbox::guest::Guest;
use crate::spec::{Demand, Size, size_for};

const MIB: u64 = 1 << 20;

/// Linux has memory in pieces of so many bytes, and takes no part of one that is not there as a whole.
const PIECE: u64 = 128 * MIB;

/// How much larger a machine of this size may become than it is at first.
pub(crate) fn spare(config: &Config, able: Capabilities, size: Size) -> Size {
    if !able.resize {
        return Size {
            memory: 0,
            vcpus: 0,
        };
    }
    let host = sysinfo();
    // More than the host has it could not give.
    let memory = host
        .totalram
        .saturating_mul(u64::from(host.mem_unit))
        .saturating_sub(size.memory)
        .min(config.spare_memory_mib.saturating_mul(MIB));
    let most = config.max_vcpus.min(able.max_vcpus);
    Size {
        memory: memory / PIECE * PIECE,
        vcpus: config.spare_vcpus.min(most.saturating_sub(size.vcpus)),
    }
}

/// The size of a running machine: never below what it booted with, nor above that and what is spare.
#[derive(Debug)]
pub(crate) struct Growth {
    config: Config,
    boot: Size,
    spare: Size,
    /// Bytes that it may take on the host beside its guest's memory.
    overhead: u64,
    /// Locked while the size is changed: one change at a time.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    size: Size,
    demands: HashMap<ContainerId, Demand>,
    /// The host's control groups whose limit follows the size.
    groups: Vec<PathBuf>,
}

impl Growth {
    pub(crate) fn new(config: &Config, boot: Size, spare: Size, overhead: u64) -> Self {
        Self {
            config: config.clone(),
            boot,
            spare,
            overhead,
            state: Mutex::new(State {
                size: boot,
                demands: HashMap::new(),
                groups: Vec::new(),
            }),
        }
    }

    /// The nearest size that the machine can have.
    fn reach(&self, wanted: Size) -> Size {
        let more = wanted.memory.saturating_sub(self.boot.memory);
        Size {
            memory: self.boot.memory + more.min(self.spare.memory).next_multiple_of(MEMORY_STEP),
            vcpus: wanted
                .vcpus
                .clamp(self.boot.vcpus, self.boot.vcpus + self.spare.vcpus),
        }
    }
}

impl Guest {
    /// What a container may use, as it was provided for last.
    pub(crate) async fn demand(&self, id: &ContainerId) -> Demand {
        let state = self.growth().state.lock().await;
        state.demands.get(id).copied().unwrap_or_default()
    }

    /// Makes the machine as large as it has to be for what a container may use from now on, beside the others. Where it
    /// cannot become as large, the limits are above its size: that is logged, and no error.
    ///
    /// # Errors
    /// When the host has not as much memory, and when the guest does not take it. Then nothing has changed.
    pub(crate) async fn provide(
        &self,
        id: &ContainerId,
        demand: Demand,
    ) -> Result<(), SandboxError> {
        let mut state = self.growth().state.lock().await;
        let before = state.demands.insert(id.clone(), demand);
        let resized = self.follow(&mut state).await;
        if resized.is_err() {
            match before {
                Some(before) => state.demands.insert(id.clone(), before),
                None => state.demands.remove(id),
            };
        }
        resized
    }

    /// A container uses nothing any more. What the machine need not have without it, it gives back.
    pub(crate) async fn release(&self, id: &ContainerId) {
        let mut state = self.growth().state.lock().await;
        state.demands.remove(id);
        // With the last one the machine ends.
        if state.demands.is_empty() || self.is_gone() {
            return;
        }
        if let Err(error) = self.follow(&mut state).await {
            tracing::warn!(
                error = crate::error::chain(&error),
                "the machine keeps its size"
            );
        }
    }

    /// From now on these control groups of the host limit the machine to what it needs for its size.
    pub(crate) async fn limit_memory(&self, groups: &[PathBuf]) -> Result<(), SandboxError> {
        let growth = self.growth();
        let mut state = growth.state.lock().await;
        let all = state.size.memory.saturating_add(growth.overhead);
        cgroup::limit_memory(groups, all)?;
        state.groups = groups.to_vec();
        Ok(())
    }

    async fn follow(&self, state: &mut State) -> Result<(), SandboxError> {
        let growth = self.growth();
        let demands: Vec<_> = state.demands.values().copied().collect();
        let wanted = size_for(&demands, &growth.config);
        let size = growth.reach(wanted);
        if wanted.memory > size.memory || wanted.vcpus > size.vcpus {
            tracing::warn!(
                ?wanted,
                ?size,
                "limits are above what the machine can become"
            );
        }
        if size == state.size {
            return Ok(());
        }
        if size.memory > state.size.memory {
            // It stays when the machine shrinks: a guest gives memory back in its own time.
            let all = size.memory.saturating_add(growth.overhead);
            cgroup::limit_memory(&state.groups, all)?;
        }
        let changed = self.change(state.size, size).await;
        match &changed {
            Ok(()) => {
                tracing::info!(before = ?state.size, now = ?size, "the machine has another size");
                state.size = size;
            }
            Err(_) => {
                if let Err(error) = self.change(size, state.size).await {
                    tracing::debug!(%error, "the machine keeps what it has got");
                }
            }
        }
        changed
    }

    async fn change(&self, from: Size, to: Size) -> Result<(), SandboxError> {
        if from.memory != to.memory {
            self.machine().resize(to.memory).await?;
        }
        let mut request = ResizeSandboxRequest::new();
        request.vcpus = to.vcpus;
        request.added_memory = to.memory - self.growth().boot.memory;
        self.call("changing the size of the guest", async |agent, context| {
            agent.resize_sandbox(context, &request).await
        })
        .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backend_api::Accelerator;
    use std::time::Duration;

    const ABLE: Capabilities = Capabilities {
        accelerator: Accelerator::Kvm,
        share: true,
        pause: true,
        resize: true,
        plug: false,
        devices: 0,
        count: true,
        sockets: true,
        huge_pages: true,
        nics: 1,
        nic_queues: 1,
        max_vcpus: 8,
        boot_deadline: Duration::ZERO,
    };

    const BOOT: Size = Size {
        memory: 65 * MIB,
        vcpus: 2,
    };

    #[test]
    fn spares_are_bounded_by_all_that_there_is() {
        let config = Config {
            spare_memory_mib: 300,
            spare_vcpus: 3,
            ..Config::default()
        };
        let usual = Size {
            memory: 256 * MIB,
            vcpus: 3,
        };
        assert_eq!(spare(&config, ABLE, BOOT), usual);
        let large = Size {
            memory: 1 << 60,
            vcpus: 7,
        };
        let little = Size {
            memory: 0,
            vcpus: 1,
        };
        assert_eq!(spare(&config, ABLE, large), little);
        let unable = Capabilities {
            resize: false,
            count: false,
            sockets: false,
            huge_pages: false,
            ..ABLE
        };
        let nothing = Size {
            memory: 0,
            vcpus: 0,
        };
        assert_eq!(spare(&config, unable, BOOT), nothing);
    }

    #[test]
    fn a_machine_stays_between_its_bounds() {
        let spare = Size {
            memory: 100 * MIB,
            vcpus: 3,
        };
        let growth = Growth::new(&Config::default(), BOOT, spare, 0);
        for (wanted, reached) in [
            ((1, 1), (65, 2)),
            ((66, 3), (67, 3)),
            ((164, 5), (165, 5)),
            ((165, 6), (165, 5)),
            ((1 << 40, 64), (165, 5)),
        ] {
            let size = |(memory, vcpus)| Size {
                memory: memory * MIB,
                vcpus,
            };
            assert_eq!(growth.reach(size(wanted)), size(reached), "{wanted:?}");
        }
    }
}
