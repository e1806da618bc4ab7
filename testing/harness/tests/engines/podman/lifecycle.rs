//! Containers in the background.

use std::time::Duration;

use harness::wait_until;

use super::engine::both;

/// Ends with 7 at SIGTERM, counts SIGUSR1.
const OBEDIENT: &str =
    "trap 'echo bye; exit 7' TERM; trap 'echo usr1' USR1; echo ready; while :; do sleep 0.1; done";

#[test]
fn stop_sends_term_and_the_exit_code_stays() {
    both(|podman| {
        podman.ok(&["run", "-d", "--name", "c", "busybox", "sh", "-c", OBEDIENT]);
        podman.expect_log("c", "ready");
        assert_eq!(podman.inspect("c", ".State.Status"), "running");
        podman.ok(&["kill", "--signal", "USR1", "c"]);
        podman.expect_log("c", "usr1");
        podman.ok(&["stop", "--time", "100", "c"]);
        let seen = (
            podman.inspect("c", ".State.Status"),
            podman.inspect("c", ".State.ExitCode"),
            podman.ok(&["logs", "c"]),
        );
        podman.ok(&["rm", "c"]);
        seen
    });
}

#[test]
fn kill_ends_it_with_137() {
    both(|podman| {
        podman.ok(&["run", "-d", "--name", "c", "busybox", "sleep", "1000"]);
        podman.ok(&["kill", "c"]);
        let code = podman.ok(&["wait", "c"]);
        assert_eq!(code.trim(), "137");
        let refused = podman.run(&["exec", "c", "true"]).code;
        podman.ok(&["rm", "c"]);
        refused
    });
}

#[test]
fn restart_ends_it_and_begins_it_again() {
    both(|podman| {
        podman.ok(&["run", "-d", "--name", "c", "busybox", "sh", "-c", OBEDIENT]);
        podman.expect_log("c", "ready");
        podman.ok(&["exec", "c", "touch", "/kept"]);
        podman.ok(&["restart", "--time", "100", "c"]);
        let twice = wait_until(Duration::from_secs(60), || {
            podman.ok(&["logs", "c"]).matches("ready").count() == 2
        });
        let seen = (
            twice,
            podman.ok(&["logs", "c"]),
            podman.inspect("c", ".State.Status"),
            podman.ok(&["exec", "c", "ls", "/kept"]),
        );
        podman.ok(&["rm", "--force", "--time", "0", "c"]);
        seen
    });
}

#[test]
fn a_stopped_container_starts_again_with_what_it_wrote() {
    both(|podman| {
        podman.ok(&[
            "run",
            "--name",
            "c",
            "busybox",
            "sh",
            "-c",
            "echo line >> /kept; wc -l < /kept",
        ]);
        let again = podman.ok(&["start", "--attach", "c"]);
        podman.ok(&["rm", "c"]);
        assert_eq!(again.trim(), "2");
    });
}

#[test]
fn pause_freezes_and_unpause_thaws() {
    both(|podman| {
        let script = "while :; do echo tick; sleep 0.1; done";
        podman.ok(&["run", "-d", "--name", "c", "busybox", "sh", "-c", script]);
        podman.expect_log("c", "tick");
        podman.ok(&["pause", "c"]);
        assert_eq!(podman.inspect("c", ".State.Status"), "paused");
        // What it wrote before may still be on its way to the log.
        std::thread::sleep(Duration::from_secs(2));
        let before = podman.ok(&["logs", "c"]).len();
        std::thread::sleep(Duration::from_secs(2));
        assert_eq!(
            podman.ok(&["logs", "c"]).len(),
            before,
            "it runs while paused"
        );
        podman.ok(&["unpause", "c"]);
        let grows = wait_until(Duration::from_secs(60), || {
            podman.ok(&["logs", "c"]).len() > before
        });
        assert!(grows, "it does not run on");
        podman.ok(&["rm", "--force", "--time", "0", "c"]);
    });
}

#[test]
fn files_are_copied_in_and_out() {
    both(|podman| {
        let folder = podman.folder();
        std::fs::create_dir_all(&folder).expect("a folder");
        // A name that only this test uses: on the host's own `/tmp` it would be seen.
        let name = format!("cofferdam-copied-{}", std::process::id());
        let (there, back) = (folder.join("there"), folder.join("back"));
        std::fs::write(&there, "from the host\n").expect("a file");
        podman.ok(&["run", "-d", "--name", "c", "busybox", "sleep", "1000"]);
        podman.ok(&[
            "cp",
            there.to_str().expect("text"),
            &format!("c:/tmp/{name}"),
        ]);
        assert!(
            !std::path::Path::new("/tmp").join(&name).exists(),
            "it was copied to the host"
        );
        let inside = podman.ok(&["exec", "c", "cat", &format!("/tmp/{name}")]);
        podman.ok(&[
            "exec",
            "c",
            "sh",
            "-c",
            &format!("echo from inside > /tmp/{name}"),
        ]);
        podman.ok(&[
            "cp",
            &format!("c:/tmp/{name}"),
            back.to_str().expect("text"),
        ]);
        podman.ok(&["rm", "--force", "--time", "0", "c"]);
        (inside, std::fs::read_to_string(back).expect("a copy"))
    });
}

#[test]
fn top_shows_the_containers_processes_and_not_the_hosts() {
    both(|podman| {
        podman.ok(&["run", "-d", "--name", "c", "busybox", "sleep", "98765"]);
        let own = std::env::args().next().unwrap_or_default();
        let host_side = podman.run(&["top", "c"]);
        assert!(!host_side.stdout.contains(&own), "{host_side:?}");
        // With options of ps(1) podman asks the container's own.
        let inside = podman.ok(&["top", "c", "-o", "pid,args"]);
        assert!(inside.contains("sleep 98765"), "{inside}");
        podman.ok(&["rm", "--force", "--time", "0", "c"]);
    });
}
