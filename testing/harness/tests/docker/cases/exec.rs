//! Further processes in a running container.

use super::{Verdict, observed};
use crate::docker::Docker;

fn sleeper(docker: &Docker, options: &[&str]) -> String {
    docker.background(options, &["sleep", "1000"])
}

pub fn output_and_exit_code(docker: &Docker) -> Verdict {
    let name = sleeper(docker, &[]);
    let mut seen = Vec::new();
    for code in ["0", "5", "200"] {
        let done = docker.run(&[
            "exec",
            &name,
            "sh",
            "-c",
            &format!("echo out; echo err >&2; exit {code}"),
        ]);
        seen.push((done.code, done.stdout, done.stderr));
    }
    let killed = docker.run(&["exec", &name, "sh", "-c", "kill -9 $$"]);
    observed((seen, killed.code))
}

pub fn command_that_cannot_run(docker: &Docker) -> Verdict {
    let name = sleeper(docker, &[]);
    let mut seen = Vec::new();
    for command in ["/nonexistent", "nonexistent", "/etc/passwd"] {
        let done = docker.run(&["exec", &name, command]);
        let shown = done.stderr + &done.stdout;
        assert!(shown.contains(command), "{shown}");
        seen.push(done.code);
    }
    // The container goes on.
    observed((seen, docker.ok(&["exec", &name, "echo", "in"])))
}

pub fn user_folder_and_environment(docker: &Docker) -> Verdict {
    let name = sleeper(docker, &["--env", "GIVEN=1"]);
    let script = "id -u; id -g; pwd; echo $GIVEN $OWN";
    observed((
        docker.ok(&["exec", &name, "sh", "-c", script]),
        docker.ok(&[
            "exec",
            "--user",
            "1000:100",
            "--workdir",
            "/tmp",
            "--env",
            "OWN=2",
            &name,
            "sh",
            "-c",
            script,
        ]),
    ))
}

pub fn stdin(docker: &Docker) -> Verdict {
    let name = sleeper(docker, &[]);
    let text: String = (0..50_000).map(|number| format!("{number}\n")).collect();
    let done = docker.run_with(text.as_bytes(), &["exec", "--interactive", &name, "md5sum"]);
    let ignored = docker.run_with(b"typed", &["exec", &name, "cat"]);
    observed((done.code, done.stdout, ignored.code, ignored.stdout))
}

pub fn in_the_background(docker: &Docker) -> Verdict {
    let name = sleeper(docker, &[]);
    docker.ok(&["exec", "--detach", &name, "sh", "-c", "echo made > /made"]);
    let made = harness::wait_until(crate::daemon::LIMIT, || {
        docker.run(&["exec", &name, "cat", "/made"]).stdout == "made\n"
    });
    assert!(made, "nothing was made");
    observed(())
}

pub fn many_times(docker: &Docker) -> Verdict {
    let name = sleeper(docker, &[]);
    let mut seen = String::new();
    for number in 0..20 {
        seen += &docker.ok(&["exec", &name, "echo", &number.to_string()]);
    }
    let running: Vec<_> = (0..6)
        .map(|number| {
            docker.start(&[
                "exec",
                &name,
                "sh",
                "-c",
                &format!("sleep 1; echo {number}; exit {number}"),
            ])
        })
        .collect();
    let ended: Vec<_> = running
        .into_iter()
        .map(|one| one.finish(crate::daemon::LIMIT))
        .map(|done| (done.code, done.stdout))
        .collect();
    // Nothing of them is left in it.
    let left = "ps -o args | grep -v -e ps -e grep";
    observed((seen, ended, docker.ok(&["exec", &name, "sh", "-c", left])))
}

pub fn confined_as_the_container_is(docker: &Docker) -> Verdict {
    let script = "grep -E '^(Cap|Seccomp:|NoNewPrivs)' /proc/self/status";
    let mut seen = Vec::new();
    for (number, options) in [
        &[][..],
        &["--cap-drop", "all"],
        &["--security-opt", "no-new-privileges"],
    ]
    .iter()
    .enumerate()
    {
        let name = docker.name(&number.to_string());
        docker.ok(&[
            &["run", "-d", "--name", &name],
            *options,
            &["busybox", "sleep", "1000"],
        ]
        .concat());
        let inside = docker.ok(&["exec", &name, "sh", "-c", script]);
        assert!(inside.contains("Seccomp:\t2"), "{options:?}: {inside}");
        seen.push(inside);
        docker.ok(&["rm", "--force", &name]);
    }
    observed(seen)
}

pub fn ends_with_the_container(docker: &Docker) -> Verdict {
    let name = sleeper(docker, &[]);
    let script = "touch /tmp/begun; sleep 1000";
    let running = docker.start(&["exec", &name, "sh", "-c", script]);
    // The engine knows of it before it runs.
    let there = harness::wait_until(crate::daemon::LIMIT, || {
        docker
            .run(&["exec", &name, "test", "-e", "/tmp/begun"])
            .code
            == 0
    });
    assert!(there, "it does not start");
    docker.ok(&["kill", &name]);
    observed(running.finish(crate::daemon::LIMIT).code)
}
