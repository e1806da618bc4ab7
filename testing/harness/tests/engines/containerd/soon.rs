//! What has to be over soon, whatever is wrong.

use std::time::Duration;

use harness::assert_soon;

use super::engine::{Containerd, shims};
use super::shim::remove;

/// Wants something to be over soon: as a container that works is.
fn soon(containerd: &Containerd, wrong: impl FnMut() -> Duration) {
    assert_soon(wrong, || {
        let done = containerd.ctr(&["run", "--rm", &containerd.busybox, "r", "true"]);
        assert_eq!(done.code, 0, "{done:?}");
        done.elapsed
    });
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
            soon(containerd, || {
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
            let done = containerd.heard(&["tasks", "exec", "--exec-id", "x", "w", "echo", "hello"]);
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
    });
}
