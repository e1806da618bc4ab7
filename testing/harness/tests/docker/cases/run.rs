//! What a container's first process is, and how its end is told.

use harness::wait_until;

use super::{Verdict, observed};
use crate::daemon::LIMIT;
use crate::docker::Docker;

pub fn output_and_exit_code(docker: &Docker) -> Verdict {
    let mut seen = Vec::new();
    for code in ["0", "7", "255"] {
        let done = docker.try_sh(&[], &format!("echo out; echo err >&2; exit {code}"));
        seen.push((done.code, done.stdout, done.stderr));
    }
    assert_eq!(seen[1], (7, "out\n".to_owned(), "err\n".to_owned()));
    observed(seen)
}

pub fn command_that_cannot_run(docker: &Docker) -> Verdict {
    let mut seen = Vec::new();
    for (command, code) in [
        ("/nonexistent", 127),
        ("nonexistent", 127),
        ("/etc/passwd", 126),
    ] {
        let name = docker.name(&command.replace('/', "-"));
        let done = docker.run(&["run", "--name", &name, "busybox", command]);
        assert_eq!(done.code, code, "{done:?}");
        assert!(
            done.stderr.contains(&format!("exec: \"{command}\"")),
            "{done:?}"
        );
        seen.push((
            docker.inspect(&name, ".State.Status"),
            docker.inspect(&name, ".State.ExitCode"),
        ));
    }
    observed(seen)
}

pub fn signal_that_ends_it(docker: &Docker) -> Verdict {
    let done = docker.try_sh(&[], "kill -9 $$");
    let other = docker.try_sh(&["--init"], "kill -TERM $$");
    observed((done.code, other.code))
}

pub fn removed_at_its_end(docker: &Docker) -> Verdict {
    let name = docker.name("gone");
    docker.ok(&["run", "--rm", "--name", &name, "busybox", "true"]);
    assert_eq!(docker.containers(), Vec::<String>::new());
    docker.ok(&[
        "run", "--rm", "--detach", "--name", &name, "busybox", "sleep", "1000",
    ]);
    docker.ok(&["stop", "--time", "0", &name]);
    let gone = wait_until(LIMIT, || docker.containers().is_empty());
    assert!(gone, "it is not removed: {:?}", docker.containers());
    observed(())
}

pub fn init(docker: &Docker) -> Verdict {
    let script =
        "cat /proc/1/comm; for i in 1 2 3; do (true &); done; sleep 1; ps -o stat | grep -c Z";
    observed(docker.try_sh(&["--init"], script).stdout)
}

pub fn user(docker: &Docker) -> Verdict {
    let mut seen = Vec::new();
    for user in ["1000:1000", "user", "4242", "daemon:users"] {
        let options = ["--user", user];
        let done = docker.try_sh(&options, "id -u; id -g; id -G; echo $HOME");
        seen.push((done.code, done.stdout));
    }
    seen.push((0, docker.sh(&["--group-add", "77"], "id -G")));
    observed(seen)
}

pub fn workdir(docker: &Docker) -> Verdict {
    let made = docker.sh(&["--workdir", "/made/by/docker"], "pwd; stat -c %a .");
    observed((made, docker.sh(&["--workdir", "/tmp"], "pwd")))
}

pub fn environment(docker: &Docker) -> Verdict {
    let file = docker.folder().join("env");
    std::fs::write(&file, "FROM_FILE=1 2 3\n").expect("a file");
    let file = file.to_str().expect("text");
    let options = [
        "--hostname",
        "h",
        "--env",
        "A=x=y z",
        "--env",
        "EMPTY=",
        "--env-file",
        file,
    ];
    observed(docker.sh(&options, "env | sort"))
}

pub fn entrypoint(docker: &Docker) -> Verdict {
    observed(docker.ok(&[
        "run",
        "--rm",
        "--entrypoint",
        "/bin/echo",
        "busybox",
        "a b",
        "c",
    ]))
}

pub fn another_distribution(docker: &Docker) -> Verdict {
    docker.daemon().load_debian();
    let script = "cat /etc/debian_version; id -un; ls / | sort | tr '\\n' ' '; perl -e 'print 6*7'";
    observed(docker.ok(&["run", "--rm", "debian", "sh", "-c", script]))
}

pub fn commit_keeps_changes(docker: &Docker) -> Verdict {
    let (name, image) = (docker.name("c"), docker.name("image"));
    let script = "mkdir /made; echo content > /made/file; chown 1000:1000 /made/file; ln -s file /made/link; rm /etc/passwd";
    docker.ok(&["run", "--name", &name, "busybox", "sh", "-c", script]);
    docker.ok(&[
        "commit",
        "--change",
        "CMD [\"cat\", \"/made/link\"]",
        &name,
        &image,
    ]);
    let shown = docker.ok(&["run", "--rm", &image]);
    let details = docker.ok(&[
        "run",
        "--rm",
        &image,
        "sh",
        "-c",
        "stat -c '%u %g %a' /made/file; readlink /made/link; test -e /etc/passwd; echo $?",
    ]);
    docker.ok(&["rmi", &image]);
    observed((shown, details))
}
