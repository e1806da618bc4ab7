//! How large a virtual machine a spec asks for.

use oci_spec::runtime::{LinuxResources, Spec};

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

/// The container's own limits, as whole MiB and processors, with room for the guest's kernel; the configuration's
/// defaults where it sets none. The limits themselves are enforced by the guest's cgroups.
#[must_use]
pub fn size(spec: &Spec, config: &Config) -> Size {
    let memory = match memory_limit(spec) {
        Some(bytes) => bytes
            .div_ceil(MIB)
            .saturating_add(config.memory_overhead_mib)
            .max(config.default_memory_mib),
        None => config.default_memory_mib,
    };
    let cpu = resources(spec).and_then(|resources| resources.cpu().as_ref());
    let vcpus = cpu
        .and_then(|cpu| {
            let quota = u64::try_from(cpu.quota()?)
                .ok()
                .filter(|&quota| quota > 0)?;
            let period = cpu.period().filter(|&period| period > 0).unwrap_or(100_000);
            u32::try_from(quota.div_ceil(period)).ok()
        })
        .unwrap_or(config.default_vcpus);
    Size {
        memory: memory.saturating_mul(MIB),
        vcpus: vcpus.clamp(1, config.max_vcpus),
    }
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
}
