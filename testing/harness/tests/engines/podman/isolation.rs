//! What a container is given and what is kept from it.

use std::fs;
use std::time::Duration;

use harness::wait_until;

use super::engine::both;

#[test]
fn volumes_are_shared_and_read_only_where_asked() {
    both(|podman| {
        let (writable, readable) = (podman.folder().join("rw"), podman.folder().join("ro"));
        for folder in [&writable, &readable] {
            fs::create_dir_all(folder).expect("a folder");
            fs::write(folder.join("given"), "from the host\n").expect("a file");
        }
        let script = "cat /rw/given /ro/given; echo from inside > /rw/made; echo x > /ro/made; echo x > /ro/given";
        let done = podman.run(&[
            "run",
            "--rm",
            "-v",
            &format!("{}:/rw", writable.display()),
            "-v",
            &format!("{}:/ro:ro", readable.display()),
            "busybox",
            "sh",
            "-c",
            script,
        ]);
        assert_eq!(done.stdout, "from the host\nfrom the host\n", "{done:?}");
        assert_eq!(
            done.stderr.matches("Read-only file system").count(),
            2,
            "{done:?}"
        );
        assert_eq!(
            fs::read_to_string(writable.join("made")).expect("a file"),
            "from inside\n"
        );
        assert!(!readable.join("made").exists());
        done.code
    });
}

#[test]
fn the_user_and_its_groups_are_as_asked() {
    both(|podman| {
        let mut seen = Vec::new();
        for user in ["1000:1000", "user", "4242"] {
            seen.push(podman.ok(&[
                "run",
                "--rm",
                "--user",
                user,
                "busybox",
                "sh",
                "-c",
                "id -u; id -g; id -G; echo $HOME",
            ]));
        }
        seen.push(podman.ok(&["run", "--rm", "--group-add", "77", "busybox", "id", "-G"]));
        seen
    });
}

#[test]
fn a_memory_limit_is_set_and_kills() {
    both(|podman| {
        let limit = "cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes";
        let limit = podman.ok(&[
            "run", "--rm", "--memory", "64m", "busybox", "sh", "-c", limit,
        ]);
        assert_eq!(limit.trim(), "67108864");
        let greedy = [
            "run",
            "--rm",
            "--memory",
            "64m",
            "--memory-swap",
            "64m",
            "busybox",
            "dd",
            "if=/dev/zero",
            "of=/dev/null",
            "bs=200M",
            "count=1",
        ];
        let done = podman.run(&greedy);
        assert_eq!(done.code, 137, "{done:?}");
    });
}

#[test]
fn a_limit_of_processes_holds() {
    both(|podman| {
        let script = "for i in $(seq 60); do sleep 20 & done; echo all started";
        let done = podman.run(&[
            "run",
            "--rm",
            "--pids-limit",
            "20",
            "busybox",
            "sh",
            "-c",
            script,
        ]);
        assert!(
            done.stderr.contains("fork") && !done.stdout.contains("all started"),
            "{done:?}"
        );
        let free = podman.run(&[
            "run",
            "--rm",
            "--pids-limit",
            "200",
            "busybox",
            "sh",
            "-c",
            script,
        ]);
        assert!(free.stdout.contains("all started"), "{free:?}");
    });
}

#[test]
fn a_read_only_root_keeps_its_temporary_folders() {
    both(|podman| {
        let script = "touch /tmp/x && echo tmp; touch /x";
        let done = podman.run(&["run", "--rm", "--read-only", "busybox", "sh", "-c", script]);
        assert!(done.stderr.contains("Read-only file system"), "{done:?}");
        (done.code, done.stdout)
    });
}

#[test]
fn capabilities_seccomp_and_privileges_are_as_with_runc() {
    both(|podman| {
        let script = "grep -E '^(Cap|Seccomp:|NoNewPrivs)' /proc/self/status; umask; ulimit -n; ulimit -u; cat /proc/self/oom_score_adj";
        let plain = podman.ok(&["run", "--rm", "busybox", "sh", "-c", script]);
        assert!(plain.contains("Seccomp:\t2"), "{plain}");
        let mut seen = vec![plain];
        for options in [
            &["--cap-drop", "all"][..],
            &["--cap-add", "net_admin", "--cap-drop", "chown"],
            &["--security-opt", "no-new-privileges"],
            &["--user", "1000"],
            &["--security-opt", "seccomp=unconfined"],
        ] {
            let args = [&["run", "--rm"], options, &["busybox", "sh", "-c", script]].concat();
            seen.push(podman.ok(&args));
        }
        // A check of the check: without a profile there is none.
        assert!(
            seen.last().is_some_and(|text| text.contains("Seccomp:\t0")),
            "{seen:?}"
        );
        seen
    });
}

#[test]
fn exec_is_confined_as_the_container_is() {
    both(|podman| {
        let script = "grep -E '^(Cap|Seccomp:|NoNewPrivs)' /proc/self/status";
        let mut seen = Vec::new();
        for options in [
            &[][..],
            &["--cap-drop", "all"],
            &["--security-opt", "no-new-privileges"],
        ] {
            let args = [
                &["run", "-d", "--name", "c"],
                options,
                &["busybox", "sleep", "1000"],
            ]
            .concat();
            podman.ok(&args);
            let inside = podman.ok(&["exec", "c", "sh", "-c", script]);
            assert!(inside.contains("Seccomp:\t2"), "{options:?}: {inside}");
            seen.push(inside);
            podman.ok(&["rm", "--force", "--time", "0", "c"]);
        }
        seen
    });
}

#[test]
fn removing_at_the_end_leaves_nothing() {
    both(|podman| {
        podman.ok(&[
            "run", "-d", "--rm", "--name", "c", "busybox", "sleep", "1000",
        ]);
        podman.ok(&["stop", "--time", "0", "c"]);
        // conmon removes it, whoever stopped it.
        let gone = wait_until(Duration::from_secs(120), || {
            podman.ok(&["ps", "-aq"]).is_empty()
        });
        assert!(gone, "{}", podman.ok(&["ps", "-a"]));
    });
}

#[test]
fn the_surroundings_are_as_asked() {
    both(|podman| {
        let script = "hostname; pwd; env | sort; ls /dev; stat -c '%a %u %g' /scratch /tmp /dev/shm; \
             df -k /scratch /dev/shm | awk '{ print $2 }'; cat /proc/sys/kernel/msgmax; id; \
             echo x > /proc/sys/kernel/domainname; ls /sys/firmware | wc -l; wc -c < /proc/kcore; \
             echo x > /proc/sysrq-trigger; cat /etc/hostname; ulimit -c";
        let done = podman.run(&[
            "run",
            "--rm",
            "--hostname",
            "elsewhere",
            "--env",
            "WORD=two words",
            "--workdir",
            "/usr/bin",
            "--tmpfs",
            "/scratch:size=1m,mode=1770",
            "--shm-size",
            "2m",
            "--sysctl",
            "kernel.msgmax=4242",
            "--ulimit",
            "core=0:0",
            "--entrypoint",
            "sh",
            "busybox",
            "-c",
            script,
        ]);
        let seen = done.stdout.clone();
        for part in [
            "elsewhere\n",
            "/usr/bin\n",
            "WORD=two words\n",
            "4242\n",
            "1770 0 0\n",
        ] {
            assert!(seen.contains(part), "{part:?}: {done:?}");
        }
        (done.code, seen, done.stderr)
    });
}

#[test]
fn the_stop_signal_is_the_one_asked_for() {
    both(|podman| {
        let script = "trap 'echo told; exit 11' USR2; echo ready; while :; do sleep 0.1; done";
        podman.ok(&[
            "run",
            "-d",
            "--name",
            "c",
            "--stop-signal",
            "USR2",
            "busybox",
            "sh",
            "-c",
            script,
        ]);
        podman.expect_log("c", "ready");
        podman.ok(&["stop", "--time", "100", "c"]);
        let seen = (
            podman.inspect("c", ".State.ExitCode"),
            podman.ok(&["logs", "c"]),
        );
        podman.ok(&["rm", "c"]);
        seen
    });
}
