//! From `create` to `rm`.

use std::time::Duration;

use harness::wait_until;

use super::{Verdict, observed};
use crate::daemon::LIMIT;
use crate::docker::Docker;

/// Ends with 3 at TERM, 4 at INT, 5 at USR1; says when it is ready for them.
const OBEDIENT: &str = "trap 'exit 3' TERM; trap 'exit 4' INT; trap 'exit 5' USR1; echo ready; while :; do sleep 0.1; done";

/// Heeds no TERM.
const STUBBORN: &str = "trap '' TERM; echo ready; while :; do sleep 0.1; done";

fn obedient(docker: &Docker, options: &[&str]) -> String {
    let name = docker.background(options, &["sh", "-c", OBEDIENT]);
    docker.expect_log(&name, "ready");
    name
}

pub fn create_and_start(docker: &Docker) -> Verdict {
    let name = docker.name("c");
    docker.ok(&[
        "create",
        "--name",
        &name,
        "busybox",
        "sh",
        "-c",
        "echo ran; exit 6",
    ]);
    let created = docker.inspect(&name, ".State.Status");
    let done = docker.run(&["start", "--attach", &name]);
    let again = docker.run(&["start", "--attach", &name]);
    observed((
        created,
        (done.code, done.stdout),
        (again.code, again.stdout),
        docker.inspect(&name, ".State.ExitCode"),
    ))
}

pub fn stop(docker: &Docker) -> Verdict {
    let name = obedient(docker, &[]);
    docker.ok(&["stop", "--time", "60", &name]);
    let first = docker.inspect(&name, ".State.ExitCode");
    docker.ok(&["start", &name]);
    docker.expect(&name, ".State.Running", "true");
    docker.ok(&["kill", &name]);
    docker.ok(&["wait", &name]);
    observed((first, docker.inspect(&name, ".State.ExitCode")))
}

pub fn stop_kills_after_its_time(docker: &Docker) -> Verdict {
    let name = docker.background(&[], &["sh", "-c", STUBBORN]);
    docker.expect_log(&name, "ready");
    docker.ok(&["stop", "--time", "1", &name]);
    observed((
        docker.inspect(&name, ".State.ExitCode"),
        docker.inspect(&name, ".State.OOMKilled"),
    ))
}

pub fn stop_signal_and_time_of_the_container(docker: &Docker) -> Verdict {
    let name = obedient(docker, &["--stop-signal", "INT", "--stop-timeout", "60"]);
    docker.ok(&["stop", &name]);
    observed(docker.inspect(&name, ".State.ExitCode"))
}

pub fn restart(docker: &Docker) -> Verdict {
    let name = docker.background(
        &[],
        &["sh", "-c", "echo once >> /log; cat /log; sleep 1000"],
    );
    docker.expect_log(&name, "once");
    docker.ok(&["restart", "--time", "0", &name]);
    docker.expect_log(&name, "once\nonce\nonce");
    observed((
        docker.inspect(&name, ".State.Status"),
        docker.inspect(&name, ".RestartCount"),
    ))
}

pub fn kill_with_a_signal(docker: &Docker) -> Verdict {
    let name = obedient(docker, &[]);
    docker.ok(&["kill", "--signal", "USR1", &name]);
    let code = docker.ok(&["wait", &name]);
    let again = docker.run(&["kill", &name]);
    assert!(again.stderr.contains("is not running"), "{again:?}");
    observed((code, again.code))
}

pub fn wait(docker: &Docker) -> Verdict {
    let name = docker.background(
        &[],
        &["sh", "-c", "read line < /fifo 2>/dev/null; sleep 2; exit 9"],
    );
    let waiting = docker.start(&["wait", &name]);
    let done = waiting.finish(LIMIT);
    observed((done.stdout, docker.inspect(&name, ".State.Status")))
}

pub fn pause_and_unpause(docker: &Docker) -> Verdict {
    let script = "while :; do echo tick; sleep 0.1; done";
    let name = docker.background(&[], &["sh", "-c", script]);
    docker.expect_log(&name, "tick");
    docker.ok(&["pause", &name]);
    let paused = docker.inspect(&name, ".State.Status");
    let refused = docker.run(&["exec", &name, "true"]).code;
    // What it wrote before may still be on its way to the log.
    std::thread::sleep(Duration::from_secs(1));
    let before = docker.ok(&["logs", &name]).len();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(
        docker.ok(&["logs", &name]).len(),
        before,
        "it runs while paused"
    );
    docker.ok(&["unpause", &name]);
    let grows = wait_until(LIMIT, || docker.ok(&["logs", &name]).len() > before);
    assert!(grows, "it does not run on");
    observed((paused, refused, docker.inspect(&name, ".State.Status")))
}

pub fn removal_of_a_running_one(docker: &Docker) -> Verdict {
    let name = docker.background(&[], &["sleep", "1000"]);
    let refused = docker.run(&["rm", &name]);
    docker.ok(&["rm", "--force", &name]);
    assert_eq!(docker.containers(), Vec::<String>::new());
    observed(refused.code)
}

pub fn rename_port_and_inspect(docker: &Docker) -> Verdict {
    let name = docker.background(&["--hostname", "before"], &["sleep", "1000"]);
    let other = docker.name("renamed");
    docker.ok(&["rename", &name, &other]);
    let ports = docker.ok(&["port", &other]);
    let pid: i32 = docker.inspect(&other, ".State.Pid").parse().expect("a pid");
    assert!(harness::is_alive(pid), "{pid} is no process of the host");
    observed((
        ports,
        docker.ok(&["exec", &other, "hostname"]),
        docker.inspect(&other, ".Config.Hostname"),
        docker.inspect(&other, ".Path"),
    ))
}

pub fn restart_policy(docker: &Docker) -> Verdict {
    let name = docker.background(
        &["--restart", "on-failure:2"],
        &["sh", "-c", "echo again; exit 3"],
    );
    docker.expect(&name, ".RestartCount", "2");
    docker.expect(&name, ".State.Status", "exited");
    observed((
        docker.ok(&["logs", &name]),
        docker.inspect(&name, ".State.ExitCode"),
    ))
}

pub fn health_check(docker: &Docker) -> Verdict {
    let options = [
        "--health-cmd",
        "cat /healthy",
        "--health-interval",
        "1s",
        "--health-retries",
        "1",
    ];
    let name = docker.background(&options, &["sleep", "1000"]);
    docker.expect(&name, ".State.Health.Status", "unhealthy");
    docker.ok(&["exec", &name, "touch", "/healthy"]);
    docker.expect(&name, ".State.Health.Status", "healthy");
    observed(())
}

pub fn events(docker: &Docker) -> Verdict {
    let since = docker.ok(&["info", "--format", "{{.SystemTime}}"]);
    let name = docker.name("c");
    docker.run(&[
        "run", "--rm", "--name", &name, "busybox", "sh", "-c", "exit 5",
    ]);
    let until = docker.ok(&["info", "--format", "{{.SystemTime}}"]);
    let filter = format!("container={name}");
    let format = "{{.Action}} {{.Actor.Attributes.exitCode}}";
    observed(docker.ok(&[
        "events",
        "--since",
        since.trim(),
        "--until",
        until.trim(),
        "--filter",
        &filter,
        "--format",
        format,
    ]))
}

pub fn top(docker: &Docker) -> Verdict {
    let name = docker.background(&[], &["sleep", "98765"]);
    let own = std::env::args().next().unwrap_or_default();
    let shown = docker.ok(&["top", &name]);
    assert!(!shown.contains(&own), "{shown}");
    // Its first process, whatever stands for it on the host.
    let pid = docker.inspect(&name, ".State.Pid");
    let pids = docker.ok(&["top", &name, "-o", "pid"]);
    assert_eq!(
        pids.split_whitespace().collect::<Vec<_>>(),
        ["PID", &pid],
        "{pids}"
    );
    observed(shown.lines().count())
}
