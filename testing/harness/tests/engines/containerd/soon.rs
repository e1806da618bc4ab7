//! What has to be over soon, whatever is wrong.

use std::time::{Duration, Instant};

use harness::patient;

use super::engine::shims;
use super::shim::remove;

/// Wants something done within two seconds. The machine may be busy: then some other time.
fn soon(mut work: impl FnMut() -> Duration) {
    let limit = patient(Duration::from_secs(2));
    let mut times = Vec::new();
    while times.last().is_none_or(|time| *time >= limit) {
        assert!(times.len() < 10, "never within {limit:?}: {times:?}");
        times.push(work());
    }
}

#[test]
fn what_cannot_run_is_refused_and_leaves_nothing() {
    shims(|containerd| {
        let image = &containerd.busybox;
        let broken = "type=bind,src=/nonexistent/volume,dst=/v,options=rbind:ro";
        for (args, named) in [
            (
                &["run", "--rm", image, "w", "/nonexistent/command"][..],
                "/nonexistent/command",
            ),
            (
                &["run", "--rm", image, "w", "nosuchcommand"],
                "nosuchcommand",
            ),
            (
                &[
                    "run",
                    "--rm",
                    "--rootfs",
                    "/nonexistent/rootfs",
                    "w",
                    "true",
                ],
                "/nonexistent/rootfs",
            ),
            (
                &["run", "--rm", "--mount", broken, image, "w", "true"],
                "/nonexistent/volume",
            ),
        ] {
            soon(|| {
                let done = containerd.ctr(args);
                assert_ne!(done.code, 0, "{args:?}: {done:?}");
                assert!(done.stderr.contains(named), "{args:?}: {done:?}");
                let _already = containerd.ctr(&["containers", "delete", "w"]);
                done.elapsed
            });
        }
    });
}

#[test]
fn a_reader_that_does_not_read_holds_nothing_up() {
    shims(|containerd| {
        let script = "while :; do echo much; done";
        containerd.ok(&[
            "run",
            "--detach",
            &containerd.busybox,
            "w",
            "sh",
            "-c",
            script,
        ]);
        for _ in 0..3 {
            let done = containerd.ctr(&["tasks", "exec", "--exec-id", "x", "w", "echo", "hello"]);
            assert_eq!(
                (done.code, done.stdout.as_str()),
                (0, "hello\n"),
                "{done:?}"
            );
        }
        assert!(
            containerd
                .ok(&["tasks", "metrics", "w"])
                .contains("pids.current")
        );
        remove(containerd, "w");
        soon(|| {
            let image = &containerd.busybox;
            containerd.ok(&["run", "--detach", image, "w", "sh", "-c", script]);
            let began = Instant::now();
            remove(containerd, "w");
            began.elapsed()
        });
    });
}
