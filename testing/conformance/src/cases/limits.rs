//! Cgroup limits, checked by effect and by the files that the container sees.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::case::{Case, Verdict, case, passed};
use crate::container::Container;
use crate::environment::Env;
use crate::reaper::Exit;

/// The cases of this group.
pub const CASES: &[Case] = &[
    case("limits/pids-bound-a-fork-bomb", pids),
    case("limits/memory-kills-with-137", memory_kills),
    case("limits/memory-kills-child-only", memory_child),
    case("limits/memory-is-shown", memory_shown),
    case("limits/memory-with-swap", memory_swap),
    case("limits/cpu-quota", cpu_quota),
    case("limits/cpu-shares", cpu_shares),
    case("limits/cpuset", cpuset),
    case("limits/devices-denied-and-allowed", devices),
    case("limits/exec-is-inside", exec_inside),
    case("update/pids", update_pids),
    case("update/memory", update_memory),
    case("update/cpu", update_cpu),
    case("update/resources-from-stdin", update_stdin),
    case("update/stopped-refused", update_stopped),
    case("update/invalid-refused", update_invalid),
];

/// 48 MiB: enough for a shell, a runtime's helper and page cache; far below what the cases allocate.
const MEMORY: u64 = 48 << 20;

/// 512 shares as cgroup v1 shows them, and the weights that runtimes make of them for v2: with the straight
/// line of old (1 + (512 - 2) * 9999 / 262142), and with the curve of newer ones, which keeps 1024 shares at 100.
const SHARES_512: [&str; 3] = ["512", "20", "59"];

/// A shell fragment that prints the file `v2`, or `v1` below its controller's directory.
pub fn limit_file(v1: &str, v2: &str) -> String {
    format!("cd /sys/fs/cgroup; if [ -e cgroup.controllers ]; then cat {v2}; else cat {v1}; fi")
}

fn shown(container: &Container<'_>, v1: &str, v2: &str) -> Result<String> {
    container.exec_text(&limit_file(v1, v2))
}

fn pids(env: &Env) -> Result<Verdict> {
    let mut bundle =
        env.script("for n in $(seq 200); do sleep 100000 & echo started; done; echo all")?;
    bundle.set("/linux/resources/pids", json!({"limit": 30}));
    let finished = env.run(&bundle)?;
    let text = finished.text();
    let started = text.matches("started").count();
    ensure!(
        !text.contains("all") && (5..=30).contains(&started),
        "{started} processes were started with a limit of 30"
    );
    ensure!(
        finished.stderr.contains("fork"),
        "the shell does not complain: {:?}",
        finished.stderr
    );
    passed()
}

/// Reads into a buffer of 200 MiB, and so touches all of it.
const HOG: [&str; 5] = [
    "/bin/dd",
    "if=/dev/zero",
    "of=/dev/null",
    "bs=200M",
    "count=1",
];

fn memory_kills(env: &Env) -> Result<Verdict> {
    let mut bundle = env.bundle()?;
    bundle
        .args(&HOG)
        .set("/linux/resources/memory", json!({"limit": MEMORY}));
    let container = env.start(&bundle)?;
    let exit = container.wait()?;
    ensure!(
        exit.shell_code() == 137,
        "a process far over its memory limit ended with {exit}"
    );
    container.reach_status("stopped")?;
    container.delete()?;
    passed()
}

fn memory_child(env: &Env) -> Result<Verdict> {
    let mut bundle = env.script(&format!("{} 2>/dev/null; echo code $?", HOG.join(" ")))?;
    bundle.set("/linux/resources/memory", json!({"limit": MEMORY}));
    let text = env.run_text(&bundle)?;
    ensure!(
        text.ends_with("code 137"),
        "a child far over the memory limit: {text:?}"
    );
    passed()
}

fn memory_shown(env: &Env) -> Result<Verdict> {
    let mut bundle = env.script(&limit_file("memory/memory.limit_in_bytes", "memory.max"))?;
    bundle.set(
        "/linux/resources/memory",
        json!({"limit": MEMORY, "reservation": MEMORY / 2}),
    );
    let text = env.run_text(&bundle)?;
    ensure!(text == MEMORY.to_string(), "the limit is shown as {text:?}");
    passed()
}

fn memory_swap(env: &Env) -> Result<Verdict> {
    // What `docker run -m` sends: memory and swap together may take twice the memory.
    let mut bundle = env.script("echo fine")?;
    bundle.set(
        "/linux/resources/memory",
        json!({"limit": MEMORY, "swap": MEMORY * 2}),
    );
    ensure!(
        env.run_text(&bundle)? == "fine",
        "the container does not run"
    );
    passed()
}

fn cpu_quota(env: &Env) -> Result<Verdict> {
    let script = format!(
        "({}); timeout -s KILL 3 sh -c 'while :; do :; done' 2>/dev/null; times",
        limit_file("cpu/cpu.cfs_quota_us", "cpu.max")
    );
    let mut bundle = env.script(&script)?;
    bundle.set(
        "/linux/resources/cpu",
        json!({"quota": 20_000, "period": 100_000}),
    );
    let text = env.run_text(&bundle)?;
    let first = text.lines().next().unwrap_or_default();
    ensure!(
        ["20000", "20000 100000"].contains(&first),
        "the quota is shown as {first:?}"
    );
    // `times` ends with the children's line, `0m0.61s 0m0.00s`.
    let used = text
        .lines()
        .last()
        .and_then(|line| line.split(['m', 's', ' ']).nth(1))
        .context("no times")?;
    let used: f64 = used
        .parse()
        .with_context(|| format!("times printed {text:?}"))?;
    ensure!(
        used < 1.5,
        "with a fifth of a processor, a loop of 3 s took {used} s of it"
    );
    passed()
}

fn cpu_shares(env: &Env) -> Result<Verdict> {
    let mut bundle = env.script(&limit_file("cpu/cpu.shares", "cpu.weight"))?;
    bundle.set("/linux/resources/cpu", json!({"shares": 512}));
    let text = env.run_text(&bundle)?;
    ensure!(
        SHARES_512.contains(&text.as_str()),
        "512 shares are shown as {text:?}"
    );
    passed()
}

fn cpuset(env: &Env) -> Result<Verdict> {
    let mut bundle = env.script("grep ^Cpus_allowed_list /proc/self/status")?;
    bundle.set("/linux/resources/cpu", json!({"cpus": "0"}));
    let text = env.run_text(&bundle)?;
    ensure!(text == "Cpus_allowed_list:\t0", "it printed {text:?}");
    passed()
}

fn devices(env: &Env) -> Result<Verdict> {
    // Making the node of /dev/fuse is allowed, opening it is not.
    let script = "mknod /dev/fuse c 10 229 && (exec 3<>/dev/fuse) 2>&1 && echo opened; exit 0";
    let mut bundle = env.script(script)?;
    let text = env.run_text(&bundle)?;
    ensure!(
        text.contains("Operation not permitted"),
        "a device that was not allowed: {text:?}"
    );
    let allow = json!({"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rwm"});
    bundle.push("/linux/resources/devices", allow);
    let text = env.run_text(&bundle)?;
    ensure!(text == "opened", "an allowed device: {text:?}");
    passed()
}

fn exec_inside(env: &Env) -> Result<Verdict> {
    let mut bundle = env.bundle()?;
    bundle
        .args(&["/bin/sleep", "100000"])
        .set("/linux/resources/memory", json!({"limit": MEMORY}));
    bundle.set("/linux/resources/pids", json!({"limit": 30}));
    let container = env.start(&bundle)?;
    container
        .call(&["exec"], &HOG)
        .run()?
        .code(137)
        .context("an exec far over the container's memory limit")?;
    let finished = container
        .exec("for n in $(seq 200); do sleep 100 </dev/null >/dev/null 2>&1 & done; echo all")
        .run()?;
    ensure!(
        !finished.text().contains("all"),
        "an exec is not bound by the container's pids limit"
    );
    passed()
}

fn update_pids(env: &Env) -> Result<Verdict> {
    let container = env.sleeper()?;
    container
        .call(&["update", "--pids-limit", "23"], &[])
        .ok()?;
    let text = shown(&container, "pids/pids.max", "pids.max")?;
    ensure!(text == "23", "the limit is {text:?}");
    let finished = container
        .exec("for n in $(seq 100); do sleep 100 </dev/null >/dev/null 2>&1 & done; echo all")
        .run()?;
    ensure!(
        !finished.text().contains("all"),
        "the new limit is not enforced"
    );
    passed()
}

fn update_memory(env: &Env) -> Result<Verdict> {
    let container = env.sleeper()?;
    container
        .call(&["update", "--memory", &MEMORY.to_string()], &[])
        .ok()?;
    let text = shown(&container, "memory/memory.limit_in_bytes", "memory.max")?;
    ensure!(text == MEMORY.to_string(), "the limit is {text:?}");
    container
        .call(&["exec"], &HOG)
        .run()?
        .code(137)
        .context("the new limit is not enforced")?;
    passed()
}

fn update_cpu(env: &Env) -> Result<Verdict> {
    let container = env.sleeper()?;
    container
        .call(
            &["update", "--cpu-quota", "30000", "--cpu-period", "100000"],
            &[],
        )
        .ok()?;
    let text = shown(&container, "cpu/cpu.cfs_quota_us", "cpu.max")?;
    ensure!(
        ["30000", "30000 100000"].contains(&text.as_str()),
        "the quota is {text:?}"
    );
    container
        .call(&["update", "--cpu-share", "512"], &[])
        .ok()?;
    let text = shown(&container, "cpu/cpu.shares", "cpu.weight")?;
    ensure!(
        SHARES_512.contains(&text.as_str()),
        "the shares are {text:?}"
    );
    passed()
}

fn update_stdin(env: &Env) -> Result<Verdict> {
    let container = env.sleeper()?;
    let file = env.dir.join("resources.json");
    std::fs::write(&file, json!({"pids": {"limit": 31}}).to_string())?;
    container
        .call(&["update", "--resources", &file.to_string_lossy()], &[])
        .ok()?;
    ensure!(
        shown(&container, "pids/pids.max", "pids.max")? == "31",
        "the file was not applied"
    );
    std::fs::write(&file, json!({"memory": {"limit": MEMORY}}).to_string())?;
    let input = std::fs::File::open(&file)?;
    container
        .call(&["update", "--resources", "-"], &[])
        .stdin(input.into())
        .ok()?;
    let text = shown(&container, "memory/memory.limit_in_bytes", "memory.max")?;
    ensure!(
        text == MEMORY.to_string(),
        "standard input was not applied: {text:?}"
    );
    ensure!(
        shown(&container, "pids/pids.max", "pids.max")? == "31",
        "what was not named was changed"
    );
    passed()
}

fn update_stopped(env: &Env) -> Result<Verdict> {
    let container = env.start(&env.bundle()?)?;
    container.expect_exit(Exit::Code(0))?;
    container.reach_status("stopped")?;
    let finished = container
        .call(&["update", "--pids-limit", "10"], &[])
        .run()?;
    if finished.exit == Exit::Code(0) && (env.is_reference("runc")? || env.is_reference("crun")?) {
        return crate::case::skipped("this runtime writes to the cgroup of a stopped container");
    }
    finished.refused(&["stopped", "not running", "no such file", &container.id])?;
    passed()
}

fn update_invalid(env: &Env) -> Result<Verdict> {
    let container = env.sleeper()?;
    for flags in [["--memory", "nonsense"], ["--resources", "/no/such/file"]] {
        let finished = container.call(&["update", flags[0], flags[1]], &[]).run()?;
        ensure!(
            finished.exit != Exit::Code(0),
            "`update {flags:?}` was accepted"
        );
    }
    container.expect_status("running")?;
    passed()
}
