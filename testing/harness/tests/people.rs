//! The commands that people use, from end to end.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use harness::{Cofferdam, Registry, is_alive, wait_until};

const LIMIT: Duration = Duration::from_secs(180);

#[test]
fn a_command_runs_with_what_the_image_says() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let busybox = cofferdam.busybox();
    let script = "echo out; echo err >&2; uname -r; cat /etc/hostname; pwd; exit 42";
    let done = cofferdam.run([
        "run",
        "--rm",
        "--hostname",
        "box",
        busybox,
        "sh",
        "-c",
        script,
    ]);
    assert_eq!(done.code, 42, "{done:?}");
    assert_eq!(done.stdout.lines().next(), Some("out"), "{done:?}");
    assert!(done.stderr.ends_with("err\n"), "{done:?}");
    assert!(done.stdout.contains("cofferdam\nbox\n/\n"), "{done:?}");
    // The image is in the store now, and has a name.
    let done = cofferdam.run(["run", "--rm", "--pull=never", "busybox", "true"]);
    assert_eq!((done.code, done.stderr.as_str()), (0, ""), "{done:?}");
    cofferdam.assert_nothing_left();
}

#[test]
fn commands_that_cannot_run_give_the_codes_of_shells() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let busybox = cofferdam.busybox();
    for (command, code, named) in [
        ("nosuch", 127, "nosuch"),
        ("/etc/passwd", 126, "/etc/passwd"),
    ] {
        let done = cofferdam.run(["run", busybox, command]);
        assert_eq!(done.code, code, "{done:?}");
        assert!(done.stderr.contains(named), "{done:?}");
    }
    cofferdam.assert_nothing_left();
}

#[test]
fn what_cannot_be_done_is_refused_and_leaves_nothing() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let busybox = cofferdam.busybox();
    let damaged = cofferdam.folder().join("damaged.tar");
    fs::write(&damaged, vec![b'x'; 4096]).unwrap();
    let damaged = damaged.to_str().unwrap();
    for (args, named) in [
        (vec!["--net", "bridge", busybox, "true"], "--net bridge"),
        (vec!["-u", "nosuch", busybox, "id"], "nosuch"),
        (vec!["-w", "relative", busybox, "id"], "relative"),
        (vec!["-v", "named:/x", busybox, "id"], "named"),
        (vec!["-v", "/dev/kvm:/x", busybox, "id"], "/dev/kvm"),
        (vec!["--memory", "lots", busybox, "id"], "lots"),
        (vec!["--cpus", "0", busybox, "id"], "CPUs"),
        (vec!["--name", "../x", busybox, "id"], "../x"),
        (vec!["--rootfs", "/nosuch", "id"], "/nosuch"),
        (vec!["--rm", "-b", "x", busybox], "--bundle"),
        (vec!["--pull=never", "nosuch:latest", "id"], "nosuch"),
        (vec!["./nosuch.tar", "id"], "./nosuch.tar"),
        (vec![damaged, "id"], damaged),
        (vec![], "image"),
    ] {
        let done = cofferdam.run(["run"].into_iter().chain(args.iter().copied()));
        assert_eq!(done.code, 1, "{args:?}: {done:?}");
        assert!(done.stderr.contains(named), "{args:?}: {done:?}");
        cofferdam.assert_nothing_left();
    }
}

#[test]
fn stdin_reaches_it_when_asked_for() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let text: Vec<u8> = (0..200_000_u32)
        .flat_map(|n| format!("{n}\n").into_bytes())
        .collect();
    let busybox = cofferdam.busybox();
    let done = cofferdam.run_with(text.clone(), ["run", "--rm", "-i", busybox, "cat"]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert_eq!(done.stdout.as_bytes(), text);
    let done = cofferdam.run_with(b"unseen".to_vec(), ["run", "--rm", busybox, "cat"]);
    assert_eq!((done.code, done.stdout.as_str()), (0, ""), "{done:?}");
    cofferdam.assert_nothing_left();
}

#[test]
fn options_reach_the_container() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let busybox = cofferdam.busybox();
    let done = cofferdam.run([
        "run", "--rm", "--read-only", "-u", "daemon", "-w", "/tmp", "-e", "A=b c", "--memory", "64m", "--cpus", "2",
        busybox, "sh", "-c",
        "id -un; pwd; echo $A; cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max; nproc; touch /x; grep Seccomp: \
         /proc/self/status",
    ]);
    assert_eq!(
        done.stdout, "daemon\n/tmp\nb c\n67108864\n200000 100000\n2\nSeccomp:\t2\n",
        "{done:?}"
    );
    assert!(
        done.stderr.contains("/x: Read-only file system"),
        "{done:?}"
    );
    let done = cofferdam.run([
        "run",
        "--rm",
        "-u",
        "12:34",
        "-w",
        "/made/for/it",
        "--entrypoint",
        "sh",
        busybox,
        "-c",
        "id; pwd",
    ]);
    assert_eq!(done.stdout, "uid=12 gid=34\n/made/for/it\n", "{done:?}");
    cofferdam.assert_nothing_left();
}

#[test]
fn volumes_show_folders_and_files_of_the_host() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let folder = cofferdam.folder();
    fs::write(folder.join("file"), "of the host\n").unwrap();
    let done = cofferdam.run([
        "run",
        "--rm",
        "-v",
        "./new/folder:/data",
        "-v",
        "./file:/etc/deep/file:ro",
        cofferdam.busybox(),
        "sh",
        "-c",
        "cat /etc/deep/file; echo written > /data/x; chmod 751 /data/x; echo no > /etc/deep/file",
    ]);
    assert_eq!(done.code, 1, "{done:?}");
    assert_eq!(done.stdout, "of the host\n", "{done:?}");
    let written = folder.join("new/folder/x");
    assert_eq!(fs::read_to_string(&written).unwrap(), "written\n");
    assert_eq!(
        fs::metadata(&written).unwrap().permissions().mode() & 0o777,
        0o751
    );
    assert_eq!(
        fs::read_to_string(folder.join("file")).unwrap(),
        "of the host\n"
    );
    cofferdam.assert_nothing_left();
}

#[test]
fn a_folder_can_be_the_root_file_system() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let root = cofferdam.folder().join("rootfs");
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static");
    let rootfs = root.to_str().unwrap();
    let done = cofferdam.run([
        "run",
        "--rm",
        "--rootfs",
        rootfs,
        "/bin/busybox",
        "sh",
        "-c",
        "echo made > /made; echo $0",
        "a",
        "b",
    ]);
    assert_eq!((done.code, done.stdout.as_str()), (0, "a\n"), "{done:?}");
    assert_eq!(fs::read_to_string(root.join("made")).unwrap(), "made\n");
    let done = cofferdam.run([
        "run",
        "--rm",
        "--read-only",
        "--rootfs",
        rootfs,
        "/bin/busybox",
        "touch",
        "/again",
    ]);
    assert_eq!(done.code, 1, "{done:?}");
    assert!(!root.join("again").exists());
    assert!(
        !root.join("etc/hosts").exists(),
        "nothing of ours is put there"
    );
    cofferdam.assert_nothing_left();
}

#[test]
fn containers_in_the_background_are_listed_logged_entered_stopped_and_removed() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let busybox = cofferdam.busybox();
    let script = "trap 'echo stopping; exit 7' TERM; echo first; echo second >&2; while :; do sleep 0.1; done";
    let id = cofferdam.ok(["run", "-d", busybox, "sh", "-c", script]);
    let id = id.trim();
    assert_eq!(id.len(), 64, "{id}");
    let short = &id[..6];
    assert_eq!(cofferdam.ok(["ps", "-q"]).trim(), id);
    let listed = cofferdam.ok(["ps"]);
    assert!(
        listed.contains(&id[..12]) && listed.contains("Up "),
        "{listed}"
    );

    let logged = wait_until(LIMIT, || {
        let logs = cofferdam.run(["logs", short]);
        logs.stdout == "first\n" && logs.stderr == "second\n"
    });
    assert!(logged, "{:?}", cofferdam.run(["logs", short]));
    let done = cofferdam.run([
        "exec",
        "-u",
        "daemon",
        "-w",
        "/tmp",
        id,
        "sh",
        "-c",
        "id -un; pwd; exit 5",
    ]);
    assert_eq!(
        (done.code, done.stdout.as_str()),
        (5, "daemon\n/tmp\n"),
        "{done:?}"
    );
    let refused = cofferdam.run(["rm", short]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("running"), "{refused:?}");

    let follow = cofferdam.start(["logs", "-f", "--tail", "1", short]);
    assert_eq!(cofferdam.ok(["stop", "-t", "60", short]).trim(), short);
    let followed = follow.finish(LIMIT);
    assert_eq!(followed.stdout, "stopping\n", "{followed:?}");
    assert_eq!(cofferdam.ok(["ps", "-q"]), "");
    let listed = cofferdam.ok(["ps", "-a"]);
    assert!(listed.contains("Exited (7)"), "{listed}");
    let json = cofferdam.ok(["ps", "-a", "--format", "json"]);
    assert!(json.contains("\"exit_code\":7"), "{json}");
    let stamped = cofferdam.ok(["logs", "-t", id]);
    assert!(
        stamped.starts_with("20") && stamped.contains("Z first\n"),
        "{stamped}"
    );
    let used = cofferdam.run(["rmi", "busybox"]);
    assert_eq!(used.code, 1, "{used:?}");
    assert!(used.stderr.contains(id), "{used:?}");

    assert_eq!(cofferdam.ok(["rm", short]).trim(), short);
    cofferdam.assert_nothing_left();
    cofferdam.ok(["rmi", "busybox"]);
    assert_eq!(cofferdam.ok(["images", "-q"]), "");
}

#[test]
fn one_that_ignores_its_stop_signal_is_killed() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let busybox = cofferdam.busybox();
    let script = "trap '' TERM; echo ready; while :; do sleep 0.1; done";
    cofferdam.ok([
        "run", "-d", "--name", "stubborn", busybox, "sh", "-c", script,
    ]);
    let ready = wait_until(LIMIT, || {
        cofferdam.run(["logs", "stubborn"]).stdout == "ready\n"
    });
    assert!(ready);
    let again = cofferdam.run(["run", "-d", "--name", "stubborn", busybox, "true"]);
    assert_eq!(again.code, 1, "{again:?}");
    assert!(again.stderr.contains("already exists"), "{again:?}");
    cofferdam.ok(["stop", "-t", "1", "stubborn"]);
    let listed = cofferdam.ok(["ps", "-a"]);
    assert!(listed.contains("Exited (137)"), "{listed}");
    cofferdam.ok(["rm", "stubborn"]);
    cofferdam.assert_nothing_left();
}

#[test]
fn a_container_in_the_background_removes_itself() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let name = [
        "run",
        "-d",
        "--rm",
        "--name",
        "short",
        cofferdam.busybox(),
        "sleep",
        "1",
    ];
    assert_eq!(cofferdam.ok(name), "short\n");
    let gone = wait_until(LIMIT, || cofferdam.ok(["ps", "-a", "-q"]).is_empty());
    assert!(gone, "{}", cofferdam.log());
    cofferdam.assert_nothing_left();
}

#[test]
fn signals_to_the_command_are_the_containers() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let script = "trap 'exit 9' TERM; echo ready > /shared/ready; while :; do sleep 0.1; done";
    let running = cofferdam.start([
        "run",
        "--rm",
        "-v",
        "./shared:/shared",
        cofferdam.busybox(),
        "sh",
        "-c",
        script,
    ]);
    let ready = cofferdam.folder().join("shared/ready");
    assert!(wait_until(LIMIT, || ready.exists()), "{}", cofferdam.log());
    running.signal(15);
    let done = running.finish(LIMIT);
    assert_eq!(done.code, 9, "{done:?}");
    cofferdam.assert_nothing_left();
}

#[test]
fn killing_the_command_ends_the_container_and_the_next_one_clears_up() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let busybox = cofferdam.busybox();
    let running = cofferdam.start(["run", "--rm", "--name", "victim", busybox, "sleep", "600"]);
    cofferdam.wait_for_status("victim", "running");
    let actors = cofferdam.actors("victim");
    assert_eq!(actors.proxy, running.pid());
    running.signal(9);
    assert_eq!(running.finish(LIMIT).code, 137);
    let gone = wait_until(LIMIT, || actors.all().iter().all(|&pid| !is_alive(pid)));
    assert!(gone, "{actors:?}");
    assert_eq!(cofferdam.status("victim").as_deref(), Some("stopped"));
    // It was to be removed at its end: whoever comes next does that.
    cofferdam.ok(["run", "--rm", busybox, "true"]);
    cofferdam.assert_nothing_left();
}

#[test]
fn a_container_whose_proxy_was_killed_can_be_removed() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    cofferdam.ok([
        "run",
        "-d",
        "--name",
        "victim",
        cofferdam.busybox(),
        "sleep",
        "600",
    ]);
    let actors = cofferdam.actors("victim");
    cofferdam.kill9(actors.proxy);
    cofferdam.wait_for_status("victim", "stopped");
    cofferdam.ok(["rm", "victim"]);
    cofferdam.assert_nothing_left();
}

#[test]
fn a_command_that_is_killed_at_any_moment_leaves_nothing_after_rm() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let busybox = cofferdam.busybox();
    cofferdam.ok(["load", "-i", busybox]);
    for (number, delay) in [1, 30, 80, 150, 250, 400, 700, 1200]
        .into_iter()
        .enumerate()
    {
        let name = format!("victim{number}");
        let running = cofferdam.start(["run", "-d", "--name", &name, "busybox", "sleep", "600"]);
        std::thread::sleep(Duration::from_millis(delay));
        running.signal(9);
        let _ended = running.finish(LIMIT);
        cofferdam.ok(["rm", "-f", &name]);
    }
    cofferdam.assert_nothing_left();
}

#[test]
fn archives_and_registries_give_the_same_image() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let archive = match harness::image("busybox.docker.tar") {
        Ok(archive) => archive,
        Err(reason) => return eprintln!("SKIPPED: {reason}"),
    };
    let show = ["cat", "/etc/passwd"];
    let run = |image: &str| {
        let done = cofferdam.run(["run", "--rm", image].into_iter().chain(show));
        assert_eq!(done.code, 0, "{image}: {done:?}");
        done.stdout
    };
    let wanted = run(cofferdam.busybox());
    assert!(wanted.starts_with("root:"), "{wanted}");
    assert_eq!(run(archive.to_str().unwrap()), wanted);
    let packed = cofferdam.folder().join("busybox.tar.zst");
    let zstd = std::process::Command::new("zstd")
        .args(["-q", "-o"])
        .args([&packed, &archive])
        .status();
    if zstd.is_ok_and(|status| status.success()) {
        assert_eq!(run(packed.to_str().unwrap()), wanted);
    }
    let loaded = cofferdam.ok(["load", "-i", archive.to_str().unwrap()]);
    assert!(loaded.contains("busybox"), "{loaded}");

    let Some(registry) = Registry::start(cofferdam.folder()) else {
        return;
    };
    registry.push(Path::new(cofferdam.busybox()), "test/box");
    let name = format!("{}/test/box", registry.address);
    let done = cofferdam.run(["run", "--rm", &name, "cat", "/etc/passwd"]);
    assert_eq!(
        (done.code, done.stdout.as_str()),
        (0, wanted.as_str()),
        "{done:?}"
    );
    assert!(
        done.stderr.contains(&format!("Pulling {name}")),
        "plain lines: {done:?}"
    );
    let digest = cofferdam.ok(["pull", &name]);
    assert!(digest.starts_with("sha256:"), "{digest}");
    let listed = cofferdam.ok(["images"]);
    assert!(listed.contains(&name), "{listed}");
    let missing = format!("{}/test/nosuch", registry.address);
    let done = cofferdam.run(["pull", &missing]);
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.stderr.contains("nosuch"), "{done:?}");
    drop(registry);
    cofferdam.assert_nothing_left();
}

#[test]
fn check_says_what_is_there_and_what_is_missing() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let done = cofferdam.run(["check", "--json"]);
    assert_eq!(done.code, 0, "{done:?}");
    let found: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(found["usable"], true, "{found}");
    assert!(cofferdam.ok(["check"]).contains("containers can run here"));

    let Some(broken) =
        Cofferdam::with_config("qemu = \"/nosuch/qemu\"\nkernel = \"/nosuch/vmlinux\"")
    else {
        return;
    };
    let done = broken.run(["check"]);
    assert_eq!(done.code, 1, "{done:?}");
    for text in [
        "/nosuch/qemu",
        "apt-get install",
        "/nosuch/vmlinux",
        "make install",
    ] {
        assert!(done.stdout.contains(text), "{text}: {done:?}");
    }
    let done = broken.run(["run", "--rm", broken.busybox(), "true"]);
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.stderr.contains("/nosuch/"), "{done:?}");
    broken.assert_nothing_left();
}

#[test]
fn a_terminal_has_the_callers_size_and_follows_it() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let inside = "stty size; trap 'stty size; exit 4' WINCH; touch /shared/ready; while :; do sleep 0.1; done";
    let command = cofferdam.command([
        "run",
        "--rm",
        "-it",
        "-v",
        "./shared:/shared",
        cofferdam.busybox(),
        "sh",
        "-c",
        inside,
    ]);
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| format!("'{}'", word.to_string_lossy().replace('\'', "'\\''")))
        .collect();
    let script = format!(
        "stty rows 33 cols 101; (while ! test -e shared/ready; do sleep 0.1; done; stty rows 22 cols 77 </dev/tty) & {}",
        words.join(" ")
    );
    // script(1) gives the command a terminal of its own.
    let mut shell = std::process::Command::new("script");
    shell
        .args(["-qfec", &script, "/dev/null"])
        .env("SHELL", "/bin/sh")
        .env("COFFERDAM_CONFIG", cofferdam.config())
        .current_dir(cofferdam.folder());
    let done = harness::finish(&mut shell, LIMIT);
    assert_eq!(done.code, 4, "{done:?}");
    assert!(
        done.stdout.contains("33 101\r\n") && done.stdout.contains("22 77\r\n"),
        "{done:?}"
    );
    cofferdam.assert_nothing_left();
}

#[test]
fn what_a_boot_of_the_host_leaves_is_swept() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let busybox = cofferdam.busybox();
    cofferdam.ok(["run", "-d", "--name", "before", busybox, "true"]);
    cofferdam.wait_for_status("before", "stopped");
    let actors = cofferdam.actors("before");
    let gone = wait_until(LIMIT, || actors.all().iter().all(|&pid| !is_alive(pid)));
    assert!(gone, "{actors:?}");
    // The state directory is on a tmpfs, the data directory on a disk.
    fs::remove_dir_all(cofferdam.root()).unwrap();
    assert!(
        cofferdam
            .data()
            .join("containers/before/config.json")
            .exists()
    );
    let done = cofferdam.run(["run", "--rm", "--name", "before", busybox, "true"]);
    assert_eq!(done.code, 0, "{done:?}");
    cofferdam.assert_nothing_left();
}

#[test]
fn names_may_be_cut_short_as_far_as_they_are_clear() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let busybox = cofferdam.busybox();
    for name in ["web", "web-one", "other"] {
        cofferdam.ok(["run", "-d", "--name", name, busybox, "true"]);
    }
    let unclear = cofferdam.run(["rm", "-f", "w"]);
    assert!(unclear.stderr.contains("more of it"), "{unclear:?}");
    cofferdam.ok(["rm", "-f", "web"]);
    cofferdam.ok(["rm", "-f", "w", "o"]);
    let nobody = cofferdam.run(["stop", "nobody"]);
    assert_eq!(nobody.code, 1, "{nobody:?}");
    assert!(nobody.stderr.contains("nobody"), "{nobody:?}");
    cofferdam.assert_nothing_left();
}

#[test]
fn a_removal_that_is_killed_is_finished_by_the_next() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let busybox = cofferdam.busybox();
    for (number, delay) in [2, 8, 15, 25, 40, 60].into_iter().enumerate() {
        let name = format!("victim{number}");
        let script = "mkdir -p /a/b/c; for n in $(seq 300); do echo $n > /a/b/c/$n; done";
        cofferdam.ok(["run", "-d", "--name", &name, busybox, "sh", "-c", script]);
        cofferdam.wait_for_status(&name, "stopped");
        let removing = cofferdam.start(["rm", "-f", &name]);
        std::thread::sleep(Duration::from_millis(delay));
        removing.signal(9);
        let _ended = removing.finish(LIMIT);
        cofferdam.ok(["rm", "-f", &name]);
    }
    cofferdam.assert_nothing_left();
}
