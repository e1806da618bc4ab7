//! `debug boot-time`: boots machines and says where the time goes.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use oci_spec::runtime::Spec;
use sandbox::config::{Config, TemplateChoice};
use sandbox::spec::Size;
use sandbox::{BootPart, BootTime, Sandbox, SandboxError, SandboxOptions, backend, spec};
use serde::Serialize;
use serde_json::json;

use crate::cli::BootTimeArgs;
use crate::oci::list::table;
use crate::people::quantity;

/// What was booted, and what it took.
#[derive(Debug, Serialize)]
struct Measured {
    backend: &'static str,
    accelerator: String,
    memory_bytes: u64,
    vcpus: u32,
    rounds: Vec<BootTime>,
}

/// Runs the command.
pub fn run(args: &BootTimeArgs) -> Result<ExitCode> {
    let mut config = Config::load().map_err(SandboxError::from)?;
    // A copy of a template boots nothing.
    config.template = TemplateChoice::Never;
    let size = size(args, &config)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let measured = runtime.block_on(measure(&config, size, args.rounds))?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&measured)?);
    } else {
        print!("{}", text(&measured));
    }
    Ok(ExitCode::SUCCESS)
}

/// That of a container's machine with these limits.
fn size(args: &BootTimeArgs, config: &Config) -> Result<Size> {
    let mut resources = json!({});
    if let Some(memory) = &args.memory {
        resources["memory"] = json!({ "limit": quantity::memory(memory)? });
    }
    if let Some(cpus) = &args.cpus {
        resources["cpu"] =
            json!({ "quota": quantity::cpu_quota(cpus)?, "period": quantity::CPU_PERIOD });
    }
    let limited: Spec = serde_json::from_value(json!({
        "ociVersion": "1.2.0",
        "linux": { "resources": resources },
    }))?;
    Ok(spec::size(&limited, config))
}

async fn measure(config: &Config, size: Size, rounds: u32) -> Result<Measured> {
    let backend = backend::choose(config).await?.backend;
    let mut measured = Measured {
        backend: backend.name(),
        accelerator: backend.capabilities().accelerator.to_string(),
        memory_bytes: size.memory,
        vcpus: size.vcpus,
        rounds: Vec::new(),
    };
    for _ in 0..rounds {
        let mut options = SandboxOptions::new("boot-time", "boot-time", size);
        options.timed = true;
        let sandbox = Sandbox::boot(config, options).await?;
        let time = sandbox.boot_time();
        // Nothing of it is to be kept.
        sandbox.kill().await;
        let time = time.context("the boot was not timed from its beginning to its end")?;
        measured.rounds.push(time);
    }
    Ok(measured)
}

fn text(measured: &Measured) -> String {
    let mut rounds: Vec<_> = measured.rounds.iter().collect();
    rounds.sort_by_key(|time| time.total_us);
    let (Some(fastest), Some(slowest)) = (rounds.first(), rounds.last()) else {
        return String::new();
    };
    // One that has happened: its parts add up.
    let middle = rounds[(rounds.len() - 1) / 2];
    let mut text = format!(
        "{} ({}), {} MiB, {} virtual {}, file share, no network\n\n",
        measured.backend,
        measured.accelerator,
        measured.memory_bytes >> 20,
        measured.vcpus,
        if measured.vcpus == 1 { "CPU" } else { "CPUs" },
    );
    let rows = middle.parts.iter().map(|part| {
        [
            part.part.to_string(),
            format!("{:>9}", milliseconds(part.took_us)),
            format!("{:>9}", milliseconds(part.ended_us)),
            part.vmm_cpu_us.map_or_else(
                || format!("{:>13}", "-"),
                |cpu| format!("{:>13}", milliseconds(cpu)),
            ),
        ]
    });
    text.push_str(&table(
        ["PART", "  TOOK ms", "  ENDS ms", "VMM'S CPU ms"],
        rows,
    ));
    let took = |wanted| {
        let mut parts = middle.parts.iter();
        parts
            .find(|part| part.part == wanted)
            .map_or(0, |part| part.took_us)
    };
    text.push_str(&format!(
        "\nkernel: {} ms by the guest's own clock; {} ms before that begins, and while the agent's answer is on its way\n",
        milliseconds(middle.kernel_clock_us),
        milliseconds(took(BootPart::Kernel).saturating_sub(middle.kernel_clock_us)),
    ));
    if let Some(loading) = middle.loading_us {
        text.push_str(&format!(
            "load: {} ms altogether, beside kvm and devices\n",
            milliseconds(loading)
        ));
    }
    if rounds.len() > 1 {
        text.push_str(&format!(
            "{} rounds: {} ms the fastest, {} ms the one shown, {} ms the slowest\n",
            rounds.len(),
            milliseconds(fastest.total_us),
            milliseconds(middle.total_us),
            milliseconds(slowest.total_us),
        ));
    }
    text
}

fn milliseconds(microseconds: u64) -> String {
    format!("{}.{:03}", microseconds / 1000, microseconds % 1000)
}

#[cfg(test)]
mod tests {
    use sandbox::PartTime;

    use super::*;

    fn boot(parts: &[(BootPart, u64, Option<u64>)], loading_us: Option<u64>) -> BootTime {
        let mut total_us = 0;
        let parts = parts.iter().map(|&(part, took_us, vmm_cpu_us)| {
            total_us += took_us;
            PartTime {
                part,
                ended_us: total_us,
                took_us,
                vmm_cpu_us,
            }
        });
        BootTime {
            parts: parts.collect(),
            total_us,
            kernel_clock_us: 40_005,
            loading_us,
        }
    }

    fn measured(rounds: Vec<BootTime>) -> Measured {
        Measured {
            backend: "kvm",
            accelerator: "kvm".to_owned(),
            memory_bytes: 256 << 20,
            vcpus: 1,
            rounds,
        }
    }

    #[test]
    fn a_boot_is_a_table() {
        let parts = [
            (BootPart::Prepare, 1001, None),
            (BootPart::Load, 12_030, Some(9007)),
            (BootPart::Kernel, 50_000, None),
            (BootPart::Agent, 9, Some(1_234_567)),
        ];
        let wanted = "\
kvm (kvm), 256 MiB, 1 virtual CPU, file share, no network

PART        TOOK ms     ENDS ms   VMM'S CPU ms
prepare       1.001       1.001               -
load         12.030      13.031           9.007
kernel       50.000      63.031               -
agent         0.009      63.040        1234.567

kernel: 40.005 ms by the guest's own clock; 9.995 ms before that begins, and while the agent's answer is on its way
load: 8.000 ms altogether, beside kvm and devices
";
        assert_eq!(text(&measured(vec![boot(&parts, Some(8000))])), wanted);
    }

    #[test]
    fn of_several_boots_the_one_in_the_middle_is_shown() {
        let rounds = [9, 2, 5, 4].map(|ms| boot(&[(BootPart::Kernel, ms * 1000, None)], None));
        let text = text(&measured(rounds.to_vec()));
        assert!(text.contains("kernel       4.000"), "{text}");
        assert!(!text.contains("load"), "{text}");
        let said = "4 rounds: 2.000 ms the fastest, 4.000 ms the one shown, 9.000 ms the slowest\n";
        assert!(text.ends_with(said), "{text}");
    }

    #[test]
    fn sizes_are_those_of_run() {
        let config = Config::default();
        let args = |memory: Option<&str>, cpus: Option<&str>| BootTimeArgs {
            memory: memory.map(str::to_owned),
            cpus: cpus.map(str::to_owned),
            rounds: 1,
            json: false,
        };
        let plain = size(&args(None, None), &config).expect("a size");
        assert_eq!(plain.memory, config.default_memory_mib << 20);
        assert_eq!(plain.vcpus, config.default_vcpus);
        let large = size(&args(Some("1g"), Some("1.5")), &config).expect("a size");
        assert_eq!(large.memory, (1024 + config.memory_overhead_mib) << 20);
        assert_eq!(large.vcpus, 2);
        for (memory, cpus) in [(Some("lots"), None), (Some("1k"), None), (None, Some("0"))] {
            assert!(size(&args(memory, cpus), &config).is_err());
        }
    }
}
