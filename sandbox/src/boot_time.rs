//! Where the time of a boot goes.
//!
//! ```text
//!   machine   VMM's     it reads    machine  devices  processors   PID 1    agent
//!   begun     start     a request   made     there    let go       entered  answered
//!     │ prepare │ process  │  kvm     │ devices │ load   │  kernel    │ agent  │
//!                                                                     ◀────────┘ by the guest's clock
//!     │ prepare │ vmm (one that does not tell more)      │  kernel    │ agent  │
//! ```
//!
//! Host and VMM read the same clock; the guest has another, of which only the difference between two instants is used. Each
//! instant is put between its neighbours that the host has seen itself: whatever VMM and guest say, the steps follow each
//! other and add up.

use std::fmt;

use serde::Serialize;

use crate::timeline::{Known, Step};

/// A part of a boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BootPart {
    /// The file server is started and what the VMM needs is opened.
    Prepare,
    /// The VMM's process starts and is confined, until it reads its first request.
    Process,
    /// KVM makes the machine.
    Kvm,
    /// The machine gets its devices; the file server answers.
    Devices,
    /// What is left to do of loading kernel and image, which goes on beside [`Kvm`](Self::Kvm) and
    /// [`Devices`](Self::Devices), until the processors run.
    Load,
    /// [`Process`](Self::Process) to [`Load`](Self::Load) in one, of a VMM that does not tell them apart.
    Vmm,
    /// The processors run, until PID 1 is entered.
    Kernel,
    /// From there until the agent has answered its first call.
    Agent,
}

impl fmt::Display for BootPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // By the name that serde has for it.
        self.serialize(f)
    }
}

/// What a part took, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PartTime {
    /// Which one.
    pub part: BootPart,
    /// Its end, from the beginning on.
    pub ended_us: u64,
    /// From the end of the part before it.
    pub took_us: u64,
    /// The processor time that the VMM had used at the end, where it was looked at.
    pub vmm_cpu_us: Option<u64>,
}

/// What a boot took, in microseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BootTime {
    /// All parts, in order and without gaps.
    pub parts: Vec<PartTime>,
    /// All together.
    pub total_us: u64,
    /// How much of [`BootPart::Kernel`] was over on the guest's own clock when PID 1 was entered. That clock begins a little
    /// after the kernel does, and does not see how long the agent's answer was on its way.
    pub kernel_clock_us: u64,
    /// For how long kernel and image were loaded altogether, of a VMM that tells.
    pub loading_us: Option<u64>,
}

impl BootTime {
    /// Nothing unless the boot has reached its end.
    pub(crate) fn of(known: &Known) -> Option<Self> {
        let begun = known.reached(Step::Begun)?.at;
        let prepared = known.reached(Step::Prepared)?.at;
        let booted = known.reached(Step::Booted)?;
        let answered = known.reached(Step::Answered)?;
        let guest = known.guest?;
        let mut parts = Parts {
            begun,
            last: begun,
            end: answered.at,
            all: Vec::new(),
        };
        parts.add(BootPart::Prepare, prepared, None);
        let mut loading = None;
        match known.vmm {
            Some(vmm) => {
                // It was not told to begin before `prepared`, and had answered at `booted`.
                parts.end = booted.at;
                let process = parts.add(BootPart::Process, vmm.ready, None);
                parts.add(BootPart::Kvm, vmm.machine, None);
                parts.add(BootPart::Devices, vmm.devices, None);
                let load = parts.add(BootPart::Load, vmm.processors, booted.vmm_cpu);
                loading = Some(vmm.loading.min(load.saturating_sub(process)) / 1000);
                parts.end = answered.at;
            }
            None => {
                parts.add(BootPart::Vmm, booted.at, booted.vmm_cpu);
            }
        }
        let running = parts.last;
        let agent = guest.answered.saturating_sub(guest.entered);
        let entered = answered.at.saturating_sub(agent);
        let entered = parts.add(BootPart::Kernel, entered, None);
        parts.add(BootPart::Agent, answered.at, answered.vmm_cpu);
        Some(Self {
            total_us: parts.all.last().map_or(0, |part| part.ended_us),
            kernel_clock_us: guest.entered.min(entered - running) / 1000,
            loading_us: loading,
            parts: parts.all,
        })
    }
}

/// Parts as they are put together, in nanoseconds.
struct Parts {
    begun: u64,
    /// Where the next begins.
    last: u64,
    /// What none reaches beyond.
    end: u64,
    all: Vec<PartTime>,
}

impl Parts {
    /// Adds one that ended then, as it is said; when it did as it is taken.
    fn add(&mut self, part: BootPart, ended: u64, vmm_cpu: Option<u64>) -> u64 {
        let from = (self.last - self.begun) / 1000;
        // Not `clamp`, which does not take an end before the beginning.
        self.last = ended.min(self.end).max(self.last);
        let ended_us = (self.last - self.begun) / 1000;
        self.all.push(PartTime {
            part,
            ended_us,
            took_us: ended_us - from,
            vmm_cpu_us: vmm_cpu.map(|time| time / 1000),
        });
        self.last
    }
}

#[cfg(test)]
mod tests {
    use backend_api::BootTimes;
    use proptest::prelude::*;

    use super::*;
    use crate::timeline::{GuestTimes, Reached};

    const MS: u64 = 1_000_000;

    fn known(host: [u64; 4], vmm: Option<[u64; 5]>, guest: [u64; 2]) -> Known {
        let mut known = Known::default();
        let steps = [Step::Begun, Step::Prepared, Step::Booted, Step::Answered];
        for (step, at) in steps.into_iter().zip(host) {
            let vmm_cpu = (step == Step::Booted).then_some(7 * MS);
            known.add(step, Reached { at, vmm_cpu });
        }
        known.vmm = vmm.map(|[ready, machine, devices, processors, loading]| BootTimes {
            ready,
            machine,
            devices,
            processors,
            loading,
        });
        let [entered, answered] = guest;
        known.guest = Some(GuestTimes { entered, answered });
        known
    }

    fn took(time: &BootTime) -> Vec<(BootPart, u64)> {
        let parts = time.parts.iter();
        parts.map(|part| (part.part, part.took_us)).collect()
    }

    #[test]
    fn a_boot_is_split() {
        let at = |ms: u64| 1_000_000 * MS + ms * MS;
        let host = [at(0), at(1), at(20), at(100)];
        let vmm = [at(3), at(8), at(10), at(19), 15 * MS];
        let time = BootTime::of(&known(host, Some(vmm), [50 * MS, 75 * MS])).expect("all of it");
        let parts = [
            (BootPart::Prepare, 1000),
            (BootPart::Process, 2000),
            (BootPart::Kvm, 5000),
            (BootPart::Devices, 2000),
            (BootPart::Load, 9000),
            (BootPart::Kernel, 56_000),
            (BootPart::Agent, 25_000),
        ];
        assert_eq!(took(&time), parts);
        assert_eq!(time.parts[4].vmm_cpu_us, Some(7000));
        assert_eq!(
            (time.total_us, time.kernel_clock_us, time.loading_us),
            (100_000, 50_000, Some(15_000))
        );

        let time = BootTime::of(&known(host, None, [50 * MS, 75 * MS])).expect("all of it");
        let parts = [
            (BootPart::Prepare, 1000),
            (BootPart::Vmm, 19_000),
            (BootPart::Kernel, 55_000),
            (BootPart::Agent, 25_000),
        ];
        assert_eq!(took(&time), parts);
        assert_eq!(time.loading_us, None);
    }

    #[test]
    fn a_boot_that_has_not_ended_is_none() {
        assert_eq!(BootTime::of(&Known::default()), None);
    }

    #[test]
    fn what_a_guest_claims_stays_within_what_the_host_has_seen() {
        let host = [0, MS, 20 * MS, 100 * MS];
        for (guest, kernel, agent) in [
            // Ahead of itself: it answered before it was there.
            ([u64::MAX, 0], 80_000, 0),
            // There for longer than the machine.
            ([0, u64::MAX], 0, 80_000),
            ([0, 0], 80_000, 0),
        ] {
            let time = BootTime::of(&known(host, None, guest)).expect("all of it");
            assert_eq!(
                took(&time)[2..],
                [(BootPart::Kernel, kernel), (BootPart::Agent, agent)]
            );
            assert!(time.kernel_clock_us <= kernel);
        }
    }

    proptest! {
        #[test]
        fn whatever_anybody_says_the_parts_add_up(
            mut host: [u64; 4],
            vmm: Option<[u64; 5]>,
            guest: [u64; 2],
        ) {
            host.sort_unstable();
            let time = BootTime::of(&known(host, vmm, guest)).expect("all of it");
            let mut sum = 0;
            for part in &time.parts {
                sum += part.took_us;
                prop_assert_eq!(part.ended_us, sum);
            }
            prop_assert_eq!(time.total_us, sum);
            prop_assert_eq!(sum, (host[3] - host[0]) / 1000);
            prop_assert!(time.kernel_clock_us <= sum);
            prop_assert!(time.loading_us.is_none_or(|loading| loading <= sum));
        }
    }
}
