//! `debug boot-time`: where the time of a boot goes.

use harness::Cofferdam;
use serde_json::Value;

/// What our own VMM tells, and what QEMU does.
const OURS: [&str; 7] = [
    "prepare", "process", "kvm", "devices", "load", "kernel", "agent",
];
const QEMU: [&str; 4] = ["prepare", "vmm", "kernel", "agent"];

fn number(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn a_boot_is_split_into_parts_that_add_up() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let words = ["debug", "boot-time", "--json", "--rounds", "2"];
    let limits = ["--memory", "300m", "--cpus", "1.5"];
    let printed = cofferdam.ok(words.into_iter().chain(limits));
    let measured: Value = serde_json::from_str(&printed).expect("JSON");
    assert_eq!(measured["vcpus"], 2, "{measured}");
    assert!(number(&measured["memory_bytes"]) > 300 << 20, "{measured}");
    let wanted: &[&str] = match measured["backend"].as_str() {
        Some("kvm") => &OURS,
        _ => &QEMU,
    };
    let rounds = measured["rounds"].as_array().expect("rounds");
    assert_eq!(rounds.len(), 2, "{measured}");
    for round in rounds {
        let parts = round["parts"].as_array().expect("parts");
        let names: Vec<_> = parts
            .iter()
            .map(|part| part["part"].as_str().unwrap_or_default())
            .collect();
        assert_eq!(names, wanted, "{round}");
        let mut sum = 0;
        for part in parts {
            sum += number(&part["took_us"]);
            assert_eq!(number(&part["ended_us"]), sum, "{round}");
        }
        assert_eq!(number(&round["total_us"]), sum, "{round}");
        // Each of these is work that cannot be done in no time.
        for name in ["prepare", "kernel", "agent"] {
            let part = parts.iter().find(|part| part["part"] == name);
            assert!(number(&part.expect("a part")["took_us"]) > 0, "{round}");
        }
        let kernel = &parts[parts.len() - 2];
        let clock = number(&round["kernel_clock_us"]);
        assert!(0 < clock && clock <= number(&kernel["took_us"]), "{round}");
        let used = |part: &Value| number(&part["vmm_cpu_us"]);
        let (begun, ended) = (&parts[parts.len() - 3], &parts[parts.len() - 1]);
        assert!(0 < used(begun) && used(begun) <= used(ended), "{round}");
        assert_eq!(round["loading_us"].is_u64(), wanted == OURS, "{round}");
    }
    assert!(cofferdam.processes().is_empty(), "both machines have ended");
    cofferdam.assert_nothing_left();
}

#[test]
fn a_boot_is_shown_as_a_table() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let table = cofferdam.ok(["debug", "boot-time"]);
    let milliseconds = |name: &str| {
        let line = table.lines().find(|line| line.starts_with(name));
        let line = line.unwrap_or_else(|| panic!("{name}: {table}"));
        let mut cells = line.split_whitespace().skip(1).map(str::parse::<f64>);
        let mut next = || cells.next().expect("a cell").expect("a number");
        (next(), next())
    };
    let (kernel_took, kernel_ended) = milliseconds("kernel ");
    let (agent_took, agent_ended) = milliseconds("agent ");
    assert!(kernel_took > 0.0 && kernel_took < kernel_ended, "{table}");
    let sum = kernel_ended + agent_took;
    assert!((sum - agent_ended).abs() < 0.0005, "{table}");
    assert!(table.contains("by the guest's own clock"), "{table}");
    cofferdam.assert_nothing_left();
}

#[test]
fn what_cannot_be_timed_is_refused() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    for (words, code, named) in [
        (vec![], 2, "boot-time"),
        (vec!["boot-time", "--rounds", "0"], 2, "--rounds"),
        (vec!["boot-time", "--rounds", "many"], 2, "--rounds"),
        (vec!["boot-time", "--cpus", "0"], 1, "CPUs"),
        (vec!["boot-time", "--memory", "lots"], 1, "lots"),
        (vec!["boot-time", "image"], 2, "image"),
    ] {
        let done = cofferdam.run(["debug"].into_iter().chain(words.iter().copied()));
        assert_eq!(done.code, code, "{words:?}: {done:?}");
        assert!(done.stderr.contains(named), "{words:?}: {done:?}");
        assert_eq!(done.stdout, "", "{words:?}");
    }
    let help = cofferdam.ok(["debug", "boot-time", "--help"]);
    for word in ["--memory", "--cpus", "--rounds", "--json", "`kernel`"] {
        assert!(help.contains(word), "{word}: {help}");
    }
    // A machine that does not come up is an error of its own, and is gone.
    let kernel = cofferdam.folder().join("nothing");
    let config = std::fs::read_to_string(cofferdam.config()).expect("reads");
    let config = format!("kernel = {kernel:?}\n{config}");
    std::fs::write(cofferdam.config(), config).expect("writes");
    let done = cofferdam.run(["debug", "boot-time"]);
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.stderr.contains("nothing"), "{done:?}");
    cofferdam.assert_nothing_left();
}
