//! How large a virtual machine a spec asks for.

use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources, Spec};

use crate::config::Config;

/// Memory and processors of a virtual machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Guest memory in bytes, whole MiB.
    pub memory: u64,
    /// Virtual CPUs.
    pub vcpus: u32,
}

const MIB: u64 = 1 << 20;

/// The kernel's own, in microseconds.
const PERIOD: u64 = 100_000;

/// What a container may use at most, as far as it is limited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Demand {
    /// Bytes of memory; 0: no limit.
    memory: u64,
    /// Microseconds of processors' time in each period; 0: no limit.
    quota: u64,
    /// Microseconds; 0: as the kernel has it.
    period: u64,
}

impl Demand {
    /// What a spec allows.
    #[must_use]
    pub fn of(spec: &Spec) -> Self {
        resources(spec).map_or_else(Self::default, |resources| {
            Self::default().changed(resources)
        })
    }

    /// What is allowed after an update. As engines fill those, nothing and 0 mean that a limit stays, and what is below 0
    /// takes it away.
    #[must_use]
    pub fn changed(self, resources: &LinuxResources) -> Self {
        let after = |limit: Option<i64>, before| match limit {
            None | Some(0) => before,
            Some(limit) => u64::try_from(limit).unwrap_or(0),
        };
        let memory = resources.memory().as_ref();
        let cpu = resources.cpu().as_ref();
        let period = cpu.and_then(LinuxCpu::period);
        Self {
            memory: after(memory.and_then(LinuxMemory::limit), self.memory),
            quota: after(cpu.and_then(LinuxCpu::quota), self.quota),
            period: period.filter(|&period| period > 0).unwrap_or(self.period),
        }
    }

    /// What is needed for one as well as for the other.
    #[must_use]
    pub fn larger(self, other: Self) -> Self {
        let cpu = if self.thousandths() < other.thousandths() {
            other
        } else {
            self
        };
        Self {
            memory: self.memory.max(other.memory),
            ..cpu
        }
    }

    /// Of a processor.
    fn thousandths(self) -> u64 {
        let period = match self.period {
            0 => PERIOD,
            period => period,
        };
        let all = (u128::from(self.quota) * 1000).div_ceil(u128::from(period));
        u64::try_from(all).unwrap_or(u64::MAX)
    }
}

/// The containers' own limits together, as whole MiB and processors, with room for the guest's kernel; the configuration's
/// defaults where none sets any. The limits themselves are enforced by the guest's cgroups.
#[must_use]
pub fn size_for(demands: &[Demand], config: &Config) -> Size {
    let sum = |of: fn(Demand) -> u64| {
        demands
            .iter()
            .map(|&demand| of(demand))
            .fold(0, u64::saturating_add)
    };
    let memory = match sum(|demand| demand.memory.div_ceil(MIB)) {
        0 => config.default_memory_mib,
        mebibytes => mebibytes
            .saturating_add(config.memory_overhead_mib)
            .max(config.default_memory_mib),
    };
    // A huge page is not divided.
    let memory = match config.huge_pages {
        true => memory.saturating_add(memory % 2),
        false => memory,
    };
    let vcpus = u32::try_from(sum(Demand::thousandths).div_ceil(1000))
        .ok()
        .filter(|&vcpus| vcpus > 0)
        .unwrap_or(config.default_vcpus);
    Size {
        memory: memory.saturating_mul(MIB),
        vcpus: vcpus.clamp(1, config.max_vcpus),
    }
}

/// The size for one container.
#[must_use]
pub fn size(spec: &Spec, config: &Config) -> Size {
    size_for(&[Demand::of(spec)], config)
}

/// The container's memory limit in bytes, if it has one.
#[must_use]
pub fn memory_limit(spec: &Spec) -> Option<u64> {
    resources(spec)
        .and_then(|resources| resources.memory().as_ref())
        .and_then(oci_spec::runtime::LinuxMemory::limit)
        .and_then(|bytes| u64::try_from(bytes).ok())
        .filter(|&bytes| bytes > 0)
}

fn resources(spec: &Spec) -> Option<&LinuxResources> {
    spec.linux()
        .as_ref()
        .and_then(|linux| linux.resources().as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(resources: &str) -> Spec {
        serde_json::from_str(&format!(
            "{{\"ociVersion\":\"1.0.2\",\"linux\":{{\"resources\":{resources}}}}}"
        ))
        .unwrap()
    }

    #[test]
    fn limits_become_whole_mib_and_processors() {
        let config = Config::default();
        let default = Size {
            memory: config.default_memory_mib * MIB,
            vcpus: config.default_vcpus,
        };
        assert_eq!(size(&spec("{}"), &config), default);
        assert_eq!(
            size(
                &spec(r#"{"memory":{"limit":-1},"cpu":{"quota":-1}}"#),
                &config
            ),
            default
        );
        let asked = size(
            &spec(r#"{"memory":{"limit":536870913},"cpu":{"quota":150000,"period":100000}}"#),
            &config,
        );
        assert_eq!(
            asked,
            Size {
                memory: (513 + config.memory_overhead_mib) * MIB,
                vcpus: 2
            }
        );
        let huge = size(
            &spec(r#"{"cpu":{"quota":9223372036854775807,"period":1}}"#),
            &config,
        );
        assert_eq!(
            huge.vcpus, config.default_vcpus,
            "no number of processors at all"
        );
    }

    #[test]
    fn huge_pages_are_whole() {
        let config = Config {
            huge_pages: true,
            ..Config::default()
        };
        for (limit, memory) in [(513, 514), (514, 514)] {
            let asked = size(
                &spec(&format!("{{\"memory\":{{\"limit\":{}}}}}", limit * MIB)),
                &config,
            );
            assert_eq!(asked.memory, (memory + config.memory_overhead_mib) * MIB);
        }
    }

    #[test]
    fn containers_of_a_pod_add_up() {
        let config = Config::default();
        let demand = |text: &str| Demand::of(&spec(text));
        let unlimited = demand("{}");
        let half = demand(r#"{"memory":{"limit":209715200},"cpu":{"quota":50000}}"#);
        let one =
            demand(r#"{"memory":{"limit":314572800},"cpu":{"quota":100000,"period":100000}}"#);
        let all = size_for(&[unlimited, half, one], &config);
        assert_eq!(all.memory, (500 + config.memory_overhead_mib) * MIB);
        assert_eq!(all.vcpus, 2);
        assert_eq!(size_for(&[half, half], &config).vcpus, 1);
        let none = Size {
            memory: config.default_memory_mib * MIB,
            vcpus: config.default_vcpus,
        };
        assert_eq!(size_for(&[], &config), none);
        assert_eq!(size_for(&[unlimited, unlimited], &config), none);
    }

    #[test]
    fn an_update_changes_what_it_names() {
        let resources = |text: &str| serde_json::from_str::<LinuxResources>(text).unwrap();
        let before = Demand::of(&spec(
            r#"{"memory":{"limit":209715200},"cpu":{"quota":50000,"period":50000}}"#,
        ));
        for (update, memory, quota, period) in [
            ("{}", 209_715_200, 50_000, 50_000),
            (
                r#"{"memory":{"limit":0},"cpu":{"quota":0,"period":0}}"#,
                209_715_200,
                50_000,
                50_000,
            ),
            (
                r#"{"memory":{"limit":-1},"cpu":{"quota":-1}}"#,
                0,
                0,
                50_000,
            ),
            (
                r#"{"memory":{"limit":1},"cpu":{"quota":7,"period":9}}"#,
                1,
                7,
                9,
            ),
        ] {
            let expected = Demand {
                memory,
                quota,
                period,
            };
            assert_eq!(before.changed(&resources(update)), expected, "{update}");
        }
        let other = before.changed(&resources(
            r#"{"memory":{"limit":1},"cpu":{"quota":100001}}"#,
        ));
        let both = before.larger(other);
        assert_eq!(both, other.larger(before));
        assert_eq!((both.memory, both.thousandths()), (209_715_200, 2001));
    }
}
