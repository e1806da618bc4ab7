//! `run`: what reaches a container, and what comes back.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use harness::{Cofferdam, wait_until};

use crate::LIMIT;

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
        (vec!["--net", "host", busybox, "true"], "host"),
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
        (
            vec!["--memroy", "64m", busybox, "id"],
            "unknown option --memroy",
        ),
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
