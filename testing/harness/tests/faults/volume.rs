//! Much of everything: nothing is lost, nothing piles up.
//!
//! `COFFERDAM_TEST_EXECS` (1,000) and `COFFERDAM_TEST_ROUNDS` (20) shorten these for a quick look; a full run takes
//! some minutes under emulation.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use harness::{Cofferdam, wait_until};

use crate::bundle::{LIMIT, SLEEP, bundle, create, text};

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

fn descriptors(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

#[test]
fn a_thousand_execs_in_a_row_lose_nothing() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let bundle = bundle(&cofferdam, "b", &SLEEP);
    create(&cofferdam, &bundle, "c");
    cofferdam.ok(["start", "c"]);
    let driver = cofferdam.actors("c").driver;
    let exec = |number: usize| {
        let code = number % 100;
        let script = format!("echo out {number}; echo err {number} >&2; exit {code}");
        let done = cofferdam.run(["exec", "c", "sh", "-c", &script]);
        let wanted = (
            i32::try_from(code).expect("a code"),
            format!("out {number}\n"),
            format!("err {number}\n"),
        );
        assert_eq!(
            (done.code, done.stdout, done.stderr),
            wanted,
            "exec {number}"
        );
    };
    exec(0);
    let before = descriptors(driver);
    let total = number("COFFERDAM_TEST_EXECS", 1000);
    // Half of them one after the other, half of them four at a time.
    (0..total / 2).for_each(exec);
    let next = AtomicUsize::new(total / 2);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= total {
                        break;
                    }
                    exec(number);
                }
            });
        }
    });
    let settled = wait_until(LIMIT, || descriptors(driver) <= before);
    assert!(
        settled,
        "the driver had {before} descriptors open, now {}",
        descriptors(driver)
    );
    let processes = cofferdam.ok(["ps", "c"]);
    assert_eq!(processes.lines().count(), 2, "{processes}");
    cofferdam.ok(["delete", "--force", "c"]);
    cofferdam.assert_nothing_left();
}

#[test]
fn a_gibibyte_through_cat_arrives_whole_and_apart() {
    const CHUNK: usize = 1 << 20;
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let mebibytes = number("COFFERDAM_TEST_MEBIBYTES", 1024);
    // Every second line of the input to stderr would need a program of its own: the counts on stderr come in between.
    let script = "(i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done) >&2 & cat; wait";
    let bundle = bundle(&cofferdam, "b", &["sh", "-c", script]);
    let mut child = cofferdam
        .command(["run", "--bundle", text(&bundle), "c"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let mut stdout = child.stdout.take().expect("a pipe");
    let mut stderr = child.stderr.take().expect("a pipe");
    let writer = thread::spawn(move || {
        let mut generator = Generator(1);
        let mut chunk = vec![0; CHUNK];
        for _ in 0..mebibytes {
            generator.fill(&mut chunk);
            stdin.write_all(&chunk).expect("stdin takes all");
        }
    });
    let complaints = thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).expect("stderr is text");
        text
    });
    let mut generator = Generator(1);
    let (mut expected, mut chunk) = (vec![0; CHUNK], vec![0; CHUNK]);
    for at in 0..mebibytes {
        stdout
            .read_exact(&mut chunk)
            .unwrap_or_else(|error| panic!("MiB {at}: {error}"));
        generator.fill(&mut expected);
        assert!(chunk == expected, "MiB {at} is not what was sent");
    }
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).expect("an end");
    assert!(rest.is_empty(), "{} bytes too many", rest.len());
    writer.join().expect("all is written");
    let lines: Vec<_> = (0..2000).map(|line| format!("line {line}\n")).collect();
    assert_eq!(complaints.join().expect("stderr"), lines.concat());
    assert_eq!(child.wait().expect("an end").code(), Some(0));
    cofferdam.assert_nothing_left();
}

/// Bytes that do not repeat within what is sent (xorshift64).
struct Generator(u64);

impl Generator {
    fn fill(&mut self, bytes: &mut [u8]) {
        for word in bytes.chunks_exact_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            word.copy_from_slice(&self.0.to_le_bytes());
        }
    }
}

/// What the host has of each kind, as far as it is ours.
fn census(cofferdam: &Cofferdam) -> BTreeMap<&'static str, usize> {
    let own = cofferdam.folder().to_string_lossy().into_owned();
    let lines = |path: &str| {
        fs::read_to_string(path)
            .unwrap_or_default()
            .lines()
            .filter(|line| line.contains(&own))
            .count()
    };
    let mut cgroups = 0;
    let mut folders = vec![std::path::PathBuf::from("/sys/fs/cgroup")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                cgroups += usize::from(entry.file_name().to_string_lossy().contains("round-"));
                folders.push(entry.path());
            }
        }
    }
    let shared = fs::read_dir("/dev/shm").map_or(0, Iterator::count);
    BTreeMap::from([
        ("processes", cofferdam.processes().len()),
        ("mounts", lines("/proc/self/mountinfo")),
        ("sockets", lines("/proc/net/unix")),
        ("cgroups", cgroups),
        ("shared memory", shared),
        (
            "state",
            fs::read_dir(cofferdam.root()).map_or(0, Iterator::count),
        ),
    ])
}

#[test]
fn rounds_of_start_and_stop_leave_the_host_as_it_was() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let bundle = bundle(&cofferdam, "b", &SLEEP);
    let before = census(&cofferdam);
    for round in 0..number("COFFERDAM_TEST_ROUNDS", 20) {
        let id = format!("round-{round}");
        create(&cofferdam, &bundle, &id);
        cofferdam.ok(["start", &id]);
        cofferdam.ok(["kill", &id, "KILL"]);
        cofferdam.wait_for_status(&id, "stopped");
        cofferdam.ok(["delete", &id]);
    }
    let same = wait_until(LIMIT, || census(&cofferdam) == before);
    assert!(same, "before {before:?}, now {:?}", census(&cofferdam));
    cofferdam.assert_nothing_left();
}
