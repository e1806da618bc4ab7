//! The cases can fail: each runtime here is runc behind a script that breaks one thing.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// What the script does before it hands over to runc, and a case that must notice.
const FAULTS: &[(&str, &str, &str)] = &[
    (
        "loses stderr",
        r#"exec runc "$@" 2>/dev/null"#,
        "lifecycle/run-foreground",
    ),
    (
        "loses the exit code",
        r#"runc "$@"; [ $? = 42 ] && exit 0; exit $?"#,
        "state/foreground-exit-codes",
    ),
    (
        "allows what seccomp denies",
        r#"sed -i 's/SCMP_ACT_ERRNO/SCMP_ACT_ALLOW/' "$bundle/config.json" 2>/dev/null; exec runc "$@""#,
        "security/seccomp-errno",
    ),
    (
        "mounts read-only binds writable",
        r#"sed -i 's/"ro"/"rw"/' "$bundle/config.json" 2>/dev/null; exec runc "$@""#,
        "mounts/bind-read-only",
    ),
    (
        "drops hooks",
        r#"sed -i 's/"hooks"/"dropped"/' "$bundle/config.json" 2>/dev/null; exec runc "$@""#,
        "hooks/order",
    ),
    (
        "drops the pids limit",
        r#"sed -i 's/"pids"/"dropped"/' "$bundle/config.json" 2>/dev/null; exec runc "$@""#,
        "limits/pids-bound-a-fork-bomb",
    ),
    (
        "swallows signals",
        r#"case "$*" in *" kill "*" HUP") exit 0;; esac; exec runc "$@""#,
        "signals/names-and-numbers",
    ),
    (
        "says running for created",
        r#"case "$*" in *" state "*) runc "$@" | sed s/created/running/;; *) exec runc "$@";; esac"#,
        "lifecycle/create-start-exit-delete",
    ),
    (
        "leaves a process behind",
        r#"case "$*" in *" create "*) sleep 30 </dev/null >/dev/null 2>&1 & ;; esac; exec runc "$@""#,
        "lifecycle/delete-force-of-running",
    ),
    (
        "does not pause",
        r#"case "$*" in *" pause "*) exit 0;; esac; exec runc "$@""#,
        "pause/stops-and-continues",
    ),
    (
        "reads all of stdin first",
        r#"case "$*" in *" exec "*) cat >/dev/null;; esac; exec runc "$@""#,
        "exec/stdin-binary",
    ),
    (
        "keeps the pid to itself",
        r#"runc "$@"; code=$?; for f in "$bundle"/*.pid; do echo 1 >"$f"; done 2>/dev/null; exit $code"#,
        "state/pid-lives-until-the-end",
    ),
];

#[test]
fn each_fault_is_noticed() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: containers need root");
        return;
    }
    if !Path::new("/usr/sbin/runc").exists() && !Path::new("/usr/bin/runc").exists() {
        eprintln!("skipped: runc is not installed (Debian: runc)");
        return;
    }
    let dir = tempfile::tempdir().expect("make a temporary directory");
    for (number, (fault, script, case)) in FAULTS.iter().enumerate() {
        let wrapper = dir.path().join(format!("runtime-{number}"));
        let find_bundle = r#"bundle=; last=; for word; do [ "$last" = --bundle ] && bundle=$word; last=$word; done"#;
        fs::write(&wrapper, format!("#!/bin/sh\n{find_bundle}\n{script}\n"))
            .expect("write the wrapper");
        fs::set_permissions(&wrapper, Permissions::from_mode(0o755))
            .expect("make the wrapper executable");
        let output = Command::new(env!("CARGO_BIN_EXE_conformance"))
            .args(["--case-timeout", "10", "--filter", case, "--runtime"])
            .arg(&wrapper)
            .output()
            .expect("run the conformance program");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            text.contains(&format!("FAILED  {case}")),
            "a runtime that {fault} passes {case}:\n{text}"
        );
        assert_eq!(
            output.status.code(),
            Some(1),
            "failures must show in the exit code:\n{text}"
        );
        assert!(
            text.lines()
                .last()
                .is_some_and(|line| line.contains(" failed, ")),
            "no closing line:\n{text}"
        );
    }
}
