//! Disks that are full or may not be written. They are mounted where only the command under test sees them.

use std::fs;
use std::process::Command;

use harness::{Cofferdam, Outcome, finish};

use crate::bundle::{LIMIT, SLEEP, bundle, text};

/// Runs a shell script with mounts of its own; `$COFFERDAM` is the command, the other words are as named.
fn privately(cofferdam: &Cofferdam, script: &str, words: &[(&str, &str)]) -> Outcome {
    let mut command = Command::new("unshare");
    command
        .args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            &format!("set -e; {script}"),
        ])
        .current_dir(cofferdam.folder())
        .env("COFFERDAM", cofferdam.program())
        .env("COFFERDAM_CONFIG", cofferdam.config())
        .env("STATE", cofferdam.root())
        .envs(words.iter().copied());
    finish(&mut command, LIMIT)
}

#[test]
fn a_full_state_directory_is_named() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let bundle = bundle(&cofferdam, "b", &SLEEP);
    fs::create_dir(cofferdam.root()).expect("a state directory");
    let script = "mount -t tmpfs -o size=64k none $STATE; dd if=/dev/zero of=$STATE/filler bs=1k count=200 2>/dev/null || true
        code=0; $COFFERDAM --root $STATE run --bundle $BUNDLE c || code=$?
        rm $STATE/filler; ls -A $STATE; exit $code";
    let done = privately(&cofferdam, script, &[("BUNDLE", text(&bundle))]);
    assert!(done.code != 0 && done.stdout.is_empty(), "{done:?}");
    assert!(
        done.stderr.contains("No space left on device")
            && done.stderr.contains(text(&cofferdam.root())),
        "{done:?}"
    );
    cofferdam.assert_nothing_left();
}

#[test]
fn a_state_directory_that_fills_up_later_does_not_keep_a_container() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let bundle = bundle(&cofferdam, "b", &["sh", "-c", "exit 5"]);
    fs::create_dir(cofferdam.root()).expect("a state directory");
    let script = "mount -t tmpfs -o size=64k none $STATE
        $COFFERDAM --root $STATE create --bundle $BUNDLE c < /dev/null > /dev/null 2> /dev/null
        dd if=/dev/zero of=$STATE/filler bs=1k count=200 2>/dev/null || true
        $COFFERDAM --root $STATE start c
        for i in $(seq 600); do $COFFERDAM --root $STATE state c | grep -q stopped && break; sleep 0.2; done
        $COFFERDAM --root $STATE state c | grep stopped
        $COFFERDAM --root $STATE delete c
        rm $STATE/filler; ls -A $STATE";
    let done = privately(&cofferdam, script, &[("BUNDLE", text(&bundle))]);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(
        done.stdout.trim().ends_with("\"stopped\","),
        "something is left: {done:?}"
    );
    cofferdam.assert_nothing_left();
}

#[test]
fn a_state_directory_that_cannot_be_written_is_named() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let bundle = bundle(&cofferdam, "b", &SLEEP);
    fs::create_dir(cofferdam.root()).expect("a state directory");
    let script =
        "mount -t tmpfs -o ro none $STATE; $COFFERDAM --root $STATE run --bundle $BUNDLE c";
    let done = privately(&cofferdam, script, &[("BUNDLE", text(&bundle))]);
    assert!(done.code != 0, "{done:?}");
    assert!(
        done.stderr.contains("Read-only file system")
            && done.stderr.contains(text(&cofferdam.root())),
        "{done:?}"
    );
    let script =
        "mount -t tmpfs -o ro none $STATE; $COFFERDAM --root $STATE/deeper run --bundle $BUNDLE c";
    let done = privately(&cofferdam, script, &[("BUNDLE", text(&bundle))]);
    assert!(done.code != 0 && done.stderr.contains("deeper"), "{done:?}");
    cofferdam.assert_nothing_left();
}

#[test]
fn a_full_root_file_system_is_the_containers_to_see() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let script = "dd if=/dev/zero of=/filler bs=64k count=1000; echo dd $?; rm /filler; echo fits > /small && cat /small";
    let bundle = bundle(&cofferdam, "b", &["sh", "-c", script]);
    let outer = "mkdir small; mount -t tmpfs -o size=8m none small; cp -a $BUNDLE/. small/
        $COFFERDAM --root $STATE run --bundle small c";
    let done = privately(&cofferdam, outer, &[("BUNDLE", text(&bundle))]);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(
        done.stderr.contains("No space left on device")
            && done.stdout.contains("dd 1")
            && done.stdout.ends_with("fits\n"),
        "{done:?}"
    );
    cofferdam.assert_nothing_left();
}
