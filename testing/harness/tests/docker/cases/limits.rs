//! Memory, processors and processes.

use super::{Verdict, observed};
use crate::docker::Docker;

/// The limit in force, whichever control groups there are.
const MEMORY: &str =
    "cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes";

/// Takes more memory than there is; not at once: on a busy machine it would be over before an engine with runc looks for
/// the event.
const GREEDY: &str = "sleep 1; dd if=/dev/zero of=/dev/null bs=200M count=1";

pub fn memory(docker: &Docker) -> Verdict {
    let seen = docker.sh(&["--memory", "64m"], MEMORY);
    assert_eq!(seen, "67108864\n");
    observed(seen)
}

pub fn out_of_memory(docker: &Docker) -> Verdict {
    let name = docker.background(
        &["--memory", "64m", "--memory-swap", "64m"],
        &["sh", "-c", GREEDY],
    );
    let code = docker.ok(&["wait", &name]);
    observed((code, docker.inspect(&name, ".State.Status")))
}

pub fn oom_killed_is_told(docker: &Docker) -> Verdict {
    let name = docker.background(
        &["--memory", "64m", "--memory-swap", "64m"],
        &["sh", "-c", GREEDY],
    );
    docker.ok(&["wait", &name]);
    observed(docker.inspect(&name, ".State.OOMKilled"))
}

pub fn child_out_of_memory(docker: &Docker) -> Verdict {
    let greedy = format!("{GREEDY}; echo went on; exit 3");
    let options = ["--memory", "64m", "--memory-swap", "64m"];
    let name = docker.background(&options, &["sh", "-c", &greedy]);
    let code = docker.ok(&["wait", &name]);
    let told = docker.inspect(&name, ".State.OOMKilled");
    assert_eq!((code.as_str(), told.as_str()), ("3\n", "true"));
    observed(docker.ok(&["logs", &name]).contains("went on"))
}

pub fn further_memory_options(docker: &Docker) -> Verdict {
    let options = [
        "--memory",
        "64m",
        "--memory-reservation",
        "32m",
        "--memory-swap",
        "128m",
        "--oom-score-adj",
        "300",
    ];
    observed(docker.sh(&options, &format!("{MEMORY}; cat /proc/self/oom_score_adj")))
}

pub fn processors(docker: &Docker) -> Verdict {
    let quota = "if test -e /sys/fs/cgroup/cpu.max; then cat /sys/fs/cgroup/cpu.max; else cd /sys/fs/cgroup/cpu; echo $(cat cpu.cfs_quota_us cpu.cfs_period_us); fi";
    let seen = docker.sh(&["--cpus", "0.5"], quota);
    assert_eq!(seen, "50000 100000\n");
    observed((seen, docker.sh(&["--cpu-shares", "512"], "echo ran")))
}

pub fn processor_sets(docker: &Docker) -> Verdict {
    observed(docker.sh(
        &["--cpuset-cpus", "0"],
        "grep Cpus_allowed_list /proc/self/status; nproc",
    ))
}

pub fn processes(docker: &Docker) -> Verdict {
    let script = "for i in $(seq 60); do sleep 20 & done; echo all started";
    let limited = docker.try_sh(&["--pids-limit", "20"], script);
    assert!(limited.stderr.contains("fork"), "{limited:?}");
    let free = docker.try_sh(&["--pids-limit", "200"], script);
    observed((limited.stdout, free.stdout))
}

pub fn update(docker: &Docker) -> Verdict {
    let name = docker.background(
        &["--memory", "64m", "--memory-swap", "64m"],
        &["sleep", "1000"],
    );
    docker.ok(&["update", "--memory", "96m", "--memory-swap", "96m", &name]);
    let memory = docker.ok(&["exec", &name, "sh", "-c", MEMORY]);
    assert_eq!(memory, "100663296\n");
    // Beyond what its machine began with, which grows on KVM.
    docker.ok(&["update", "--memory", "600m", "--memory-swap", "600m", &name]);
    let raised = docker.ok(&["exec", &name, "sh", "-c", MEMORY]);
    assert_eq!(raised, "629145600\n");
    if std::env::var_os("COFFERDAM_TEST_ACCELERATOR").is_some_and(|name| name == "kvm") {
        let many = ["dd", "if=/dev/zero", "of=/dev/null", "bs=400M", "count=1"];
        docker.ok(&[&["exec", &name][..], &many].concat());
    }
    docker.ok(&["update", "--cpus", "0.5", &name]);
    docker.ok(&["update", "--pids-limit", "20", &name]);
    // What was set before stays.
    let kept = docker.ok(&["exec", &name, "sh", "-c", MEMORY]);
    let many = docker.run(&[
        "exec",
        &name,
        "sh",
        "-c",
        "for i in $(seq 60); do sleep 5 & done; echo all started",
    ]);
    assert!(many.stderr.contains("fork"), "{many:?}");
    observed((memory, kept, docker.inspect(&name, ".HostConfig.Memory")))
}

pub fn statistics(docker: &Docker) -> Verdict {
    let script = "dd if=/dev/zero of=/dev/shm/x bs=1M count=20 2>/dev/null; for i in 1 2 3; do sleep 1000 & done; echo ready; wait";
    let name = docker.background(&["--memory", "128m"], &["sh", "-c", script]);
    docker.expect_log(&name, "ready");
    let shown = docker.ok(&[
        "stats",
        "--no-stream",
        "--format",
        "{{.PIDs}} {{.MemUsage}}",
        &name,
    ]);
    assert!(shown.contains("/ 128MiB"), "{shown}");
    let pids: u32 = shown
        .split(' ')
        .next()
        .and_then(|text| text.parse().ok())
        .unwrap_or_default();
    assert!(pids >= 1, "{shown}");
    observed(())
}

pub fn out_of_memory_killer_switched_off(docker: &Docker) -> Verdict {
    let asked = docker.name("asked");
    docker.ok(&[
        "create",
        "--name",
        &asked,
        "--memory",
        "64m",
        "--oom-kill-disable",
        "busybox",
    ]);
    let kept = docker.inspect(&asked, ".HostConfig.OomKillDisable");
    docker.ok(&["rm", &asked]);
    if kept != "true" {
        return Verdict::Skipped(
            "with control groups of version 2 the engine leaves the option out",
        );
    }
    super::isolation::refused(
        docker,
        &["--memory", "64m", "--oom-kill-disable"],
        "disableOOMKiller",
    )
}

pub fn throttled_devices(docker: &Docker) -> Verdict {
    let Some(disk) = super::isolation::a_disk() else {
        return Verdict::Skipped("this machine has no disk of its own");
    };
    let option = format!("{disk}:1mb");
    let asked = docker.name("asked");
    docker.ok(&[
        "create",
        "--name",
        &asked,
        "--device-read-bps",
        &option,
        "busybox",
    ]);
    let kept = docker.inspect(&asked, "len .HostConfig.BlkioDeviceReadBps");
    docker.ok(&["rm", &asked]);
    if kept == "0" {
        return Verdict::Skipped("this release of the engine leaves the option out here");
    }
    super::isolation::refused(docker, &["--device-read-bps", &option], "throttle")
}
