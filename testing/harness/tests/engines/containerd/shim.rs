//! What only shows with `ctr` when the shim is ours.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

use harness::wait_until;

use super::engine::{Containerd, Runtime, shims};

const LIMIT: Duration = Duration::from_secs(180);

pub(super) fn remove(containerd: &Containerd, task: &str) {
    containerd.ok(&["tasks", "kill", "--signal", "KILL", task]);
    containerd.expect_status(task, "STOPPED");
    let _code_of_the_task = containerd.ctr(&["tasks", "delete", task]);
    containerd.ok(&["containers", "delete", task]);
}

#[test]
fn stdin_reaches_its_end() {
    shims(|containerd| {
        let text = "x".repeat(200_000);
        let image = &containerd.busybox;
        let done = containerd.ctr_with(text.as_bytes(), &["run", "--rm", image, "a", "wc", "-c"]);
        assert_eq!(done.stdout.trim(), "200000", "{done:?}");
        done.code
    });
}

#[test]
fn much_output_arrives_whole() {
    shims(|containerd| {
        let script =
            "head -c 3000000 /dev/zero | tr '\\0' x; head -c 100000 /dev/zero | tr '\\0' e >&2";
        // On a busy machine ctr itself may leave before it has read all of stderr, with runc's shim too.
        let mut seen = (-1, 0, 0);
        for name in ["a", "b", "c"] {
            let done =
                containerd.ctr(&["run", "--rm", &containerd.busybox, name, "sh", "-c", script]);
            seen = (done.code, done.stdout.len(), done.stderr.len());
            if seen == (0, 3_000_000, 100_000) {
                break;
            }
        }
        seen
    });
}

#[test]
fn metrics_tell_of_the_container() {
    // In the form of the host's control groups; version 2 counts microseconds.
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let (memory_name, processors_name, least) = match unified {
        true => ("memory.usage", "cpu.usage_usec", 1000),
        false => ("memory.usage_in_bytes", "cpuacct.usage", 1_000_000),
    };
    shims(|containerd| {
        let script = "dd if=/dev/zero of=/dev/null bs=1M count=200 2>/dev/null; sleep 1000 & sleep 1000 & wait";
        containerd.ok(&[
            "run",
            "--detach",
            &containerd.busybox,
            "m",
            "sh",
            "-c",
            script,
        ]);
        let value = |name: &str| {
            let table = containerd.ok(&["tasks", "metrics", "m"]);
            let mut words = table.lines().map(str::split_whitespace);
            let line = words.find_map(|mut line| (line.next() == Some(name)).then_some(line));
            let number = line.and_then(|mut line| line.next()?.parse::<u64>().ok());
            number.unwrap_or_else(|| panic!("no {name} in {table}"))
        };
        let three = wait_until(LIMIT, || value("pids.current") == 3);
        assert!(three, "{} processes", value("pids.current"));
        let memory = value(memory_name);
        assert!((100_000..64 << 20).contains(&memory), "{memory} bytes");
        assert!(value(processors_name) > least);
        remove(containerd, "m");
    });
}

/// Topics of tasks that are published while `happens` is at work, as far as the one that ends the list.
fn topics(containerd: &Containerd, last: &str, happens: impl FnOnce()) -> Vec<String> {
    let mut events = containerd
        .command(&["events"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("ctr starts");
    let (sender, lines) = mpsc::channel();
    let stream = BufReader::new(events.stdout.take().expect("a pipe"));
    std::thread::spawn(move || {
        for line in stream.lines().map_while(Result::ok) {
            let _nobody_asks = sender.send(line);
        }
    });
    // It says nothing when it listens: containers that are made until one is heard of tell.
    let listening = wait_until(LIMIT, || {
        containerd.ok(&["containers", "create", &containerd.busybox, "probe"]);
        containerd.ok(&["containers", "delete", "probe"]);
        lines.recv_timeout(Duration::from_millis(500)).is_ok()
    });
    assert!(listening, "no events at all");
    happens();
    let mut topics: Vec<String> = Vec::new();
    while topics.last().is_none_or(|topic| topic != last) {
        let line = lines
            .recv_timeout(LIMIT)
            .unwrap_or_else(|_| panic!("no {last} after {topics:?}"));
        let topic = line
            .split_whitespace()
            .find_map(|word| word.strip_prefix("/tasks/"));
        topics.extend(topic.map(str::to_owned));
    }
    let _ended = events.kill();
    let _reaped = events.wait();
    topics
}

#[test]
fn events_come_in_their_order() {
    shims(|containerd| {
        let topics = topics(containerd, "delete", || {
            let image = &containerd.busybox;
            containerd.ok(&["run", "--detach", image, "e", "sleep", "1000"]);
            let exec = ["tasks", "exec", "--exec-id", "x", "e", "sh", "-c", "exit 4"];
            let _code = containerd.ctr(&exec);
            containerd.ok(&["tasks", "pause", "e"]);
            containerd.ok(&["tasks", "resume", "e"]);
            remove(containerd, "e");
        });
        let expected = [
            "create",
            "start",
            "exec-added",
            "exec-started",
            "exit",
            "paused",
            "resumed",
            "exit",
            "delete",
        ];
        assert_eq!(topics, expected);
    });
}

#[test]
fn want_of_memory_is_told() {
    shims(|containerd| {
        let topics = topics(containerd, "exit", || {
            let limit = (32 << 20).to_string();
            // Not at once: on a busy machine it would be over before runc's shim looks for the event.
            let script = "sleep 1; tail -c 100000000 /dev/zero";
            let image = &containerd.busybox;
            containerd.ok(&[
                "run",
                "--detach",
                "--memory-limit",
                &limit,
                image,
                "o",
                "sh",
                "-c",
                script,
            ]);
        });
        assert_eq!(topics, ["create", "start", "oom", "exit"]);
        containerd.expect_status("o", "STOPPED");
        let removed = containerd.ctr(&["tasks", "delete", "o"]);
        containerd.ok(&["containers", "delete", "o"]);
        assert!(removed.stderr.contains("exit code 137"), "{removed:?}");
    });
}

#[test]
fn logs_go_to_files_and_programs() {
    shims(|containerd| {
        let script = "echo out; echo err >&2";
        let file = containerd.folder().join("logs/task.log");
        let uri = format!("file://{}", file.display());
        let image = &containerd.busybox;
        containerd.ok(&[
            "run",
            "--detach",
            "--log-uri",
            &uri,
            image,
            "f",
            "sh",
            "-c",
            script,
        ]);
        containerd.expect_status("f", "STOPPED");
        containerd.ok(&["tasks", "delete", "f"]);
        containerd.ok(&["containers", "delete", "f"]);
        let mut lines: Vec<_> = fs::read_to_string(&file)
            .expect("a log")
            .lines()
            .map(str::to_owned)
            .collect();
        lines.sort();
        assert_eq!(lines, ["err", "out"], "with {:?}", containerd.runtime);

        // containerd's shim for runc asks the program to end before it has read all.
        let program = containerd.folder().join("logger");
        let out = containerd.folder().join("logged");
        let text = "#!/bin/sh\ntrap '' TERM\nexec 5>&-\n(cat <&3; cat <&4; echo $CONTAINER_ID) > $2.part\nmv $2.part $2\n";
        fs::write(&program, text).expect("a program");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a program");
        let uri = format!("binary://{}?out={}", program.display(), out.display());
        containerd.ok(&[
            "run",
            "--detach",
            "--log-uri",
            &uri,
            image,
            "p",
            "sh",
            "-c",
            script,
        ]);
        containerd.expect_status("p", "STOPPED");
        containerd.ok(&["tasks", "delete", "p"]);
        containerd.ok(&["containers", "delete", "p"]);
        assert!(wait_until(LIMIT, || out.exists()), "nothing logged");
        assert_eq!(fs::read_to_string(&out).expect("a log"), "out\nerr\np\n");
    });
}

#[test]
fn attaching_again_shows_what_comes() {
    shims(|containerd| {
        let script = "while :; do echo tick; sleep 0.2; done";
        containerd.ok(&[
            "run",
            "--detach",
            &containerd.busybox,
            "t",
            "sh",
            "-c",
            script,
        ]);
        for _ in 0..2 {
            let mut attached = containerd
                .command(&["tasks", "attach", "t"])
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .expect("ctr starts");
            let mut line = String::new();
            BufReader::new(attached.stdout.take().expect("a pipe"))
                .read_line(&mut line)
                .expect("a line");
            assert_eq!(line, "tick\n");
            let _ended = attached.kill();
            let _reaped = attached.wait();
            assert_eq!(containerd.status("t").as_deref(), Some("RUNNING"));
        }
        remove(containerd, "t");
    });
}

#[test]
fn a_missed_template_is_made_for_the_next_machine() {
    shims(|containerd| {
        let templates = containerd.folder().join("templates");
        let config = format!(
            "backend = \"qemutcg\"\ndata_directory = {:?}\ntemplate_directory = {templates:?}\n",
            containerd.folder().join("data"),
        );
        fs::write(containerd.folder().join("config.toml"), config).expect("a configuration");
        let run = |name| {
            let done = containerd.ctr(&["run", "--rm", &containerd.busybox, name, "true"]);
            (done.code, done.stdout)
        };
        let copied = || {
            containerd
                .log()
                .contains("starting a guest from a template")
        };
        let mut seen = vec![];
        // One that cannot be made is told of.
        let draft = templates.join("draft");
        fs::create_dir_all(&draft).expect("a folder");
        fs::set_permissions(&templates, fs::Permissions::from_mode(0o700)).expect("its mode");
        let image = &containerd.busybox;
        containerd.ok(&["run", "--detach", "--null-io", image, "l", "sleep", "1000"]);
        if containerd.runtime == Runtime::Shim {
            let told = wait_until(LIMIT, || {
                let log = containerd.log();
                let mut lines = log.lines();
                lines.any(|line| line.contains("no template was made") && line.contains("id=l "))
            });
            assert!(told, "{}", containerd.log());
        }
        remove(containerd, "l");
        fs::remove_dir(&draft).expect("it is empty");
        seen.push(run("a"));
        if containerd.runtime == Runtime::Shim {
            assert!(!copied(), "{}", containerd.log());
            let made = wait_until(LIMIT, || {
                let mut names = fs::read_dir(&templates).into_iter().flatten().flatten();
                names.any(|entry| !matches!(entry.file_name().to_str(), Some("lock" | "draft")))
            });
            assert!(made, "{}", containerd.log());
        }
        seen.push(run("b"));
        if containerd.runtime == Runtime::Shim {
            assert!(copied(), "{}", containerd.log());
        }
        seen
    });
}
