//! kill -9 of the processes behind a container, and containers that cannot start.

use harness::{Actors, VMM, assert_soon};

use crate::daemon::{Daemon, LIMIT, Options};
use crate::docker::Docker;
use crate::runtime::{Release, Runtime};

fn daemon(release: &Release) -> Option<Daemon> {
    Daemon::start(release, &Options::default())
        .inspect_err(|reason| eprintln!("SKIPPED: {reason}"))
        .ok()
}

fn kill9(pid: i32) {
    let done = std::process::Command::new("kill")
        .args(["-9", &pid.to_string()])
        .status();
    assert!(
        done.is_ok_and(|status| status.success()),
        "{pid} cannot be killed"
    );
}

/// Whichever of them dies: Docker sees the container's end soon, and removing it leaves nothing.
pub fn processes_of_a_machine_die(release: &Release) {
    let Some(daemon) = daemon(release) else {
        return;
    };
    let docker = Docker::new(&daemon, Runtime::Command, "dies");
    type Victim = fn(&Actors) -> i32;
    let victims: [(&str, Victim); 4] = [
        ("driver", |actors| actors.driver),
        ("proxy", |actors| actors.proxy),
        ("machine", |actors| actors.helper(VMM).expect("a machine")),
        ("file server", |actors| {
            actors.helper("cofferdam-fs").expect("a file server")
        }),
    ];
    for (what, victim) in victims {
        let name = docker.name(&what.replace(' ', "-"));
        docker.ok(&[
            "run", "--detach", "--name", &name, "busybox", "sleep", "1000",
        ]);
        let id = docker.inspect(&name, ".Id");
        let actors = Actors::read(&daemon.states(), &id).expect("a state");
        kill9(victim(&actors));
        docker.expect(&name, ".State.Running", "false");
        assert_eq!(
            docker.inspect(&name, ".State.ExitCode"),
            "137",
            "after the end of the {what}"
        );
        let gone = harness::wait_until(LIMIT, || {
            actors.all().iter().all(|&pid| !harness::is_alive(pid))
        });
        assert!(
            gone,
            "after the end of the {what} some of {actors:?} are left"
        );
        // It starts again, with a machine of its own.
        docker.ok(&["start", &name]);
        assert_eq!(docker.ok(&["exec", &name, "echo", "in"]), "in\n");
        docker.ok(&["rm", "--force", &name]);
    }
    docker.leaves_nothing();
    daemon.leaves_nothing().expect("nothing left");
}

/// An error within two seconds, and nothing half made.
pub fn what_cannot_start_is_told_soon(release: &Release) {
    let Some(daemon) = daemon(release) else {
        return;
    };
    let gone = daemon.folder().join("gone");
    for runtime in release.runtimes() {
        let docker = Docker::new(&daemon, runtime, "cannot-start");
        let bind = format!("type=bind,source={},target=/x", gone.display());
        for (options, command, words) in [
            (&[][..], "/nonexistent", "/nonexistent"),
            (&["--workdir", "/etc/passwd"], "true", "passwd"),
            (
                &["--mount", &bind],
                "true",
                "bind source path does not exist",
            ),
            (&["--tmpfs", "/etc/passwd"], "true", "passwd"),
            (&["--sysctl", "net.nothing=1"], "true", "nothing"),
            (
                &["--user", "nobody-of-that-name"],
                "true",
                "nobody-of-that-name",
            ),
        ] {
            let wrong = || {
                let done = docker.run(&[&["run", "--rm"], options, &["busybox", command]].concat());
                assert!((125..=127).contains(&done.code), "{done:?}");
                assert!(done.stderr.contains(words), "{words}: {done:?}");
                assert_eq!(docker.containers(), Vec::<String>::new());
                done.elapsed
            };
            assert_soon(wrong, || {
                let done = docker.run(&["run", "--rm", "busybox", "true"]);
                assert_eq!(done.code, 0, "{done:?}");
                done.elapsed
            });
        }
        docker.leaves_nothing();
    }
    daemon.leaves_nothing().expect("nothing left");
}
