//! `make install` and `make uninstall`, through the script that both call.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::{Cofferdam, Outcome, finish};

use crate::LIMIT;

fn script(action: &str, prepared: &Path, prefix: &Path) -> Outcome {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/install.sh");
    finish(
        Command::new(script).arg(action).arg(prepared).arg(prefix),
        LIMIT,
    )
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn what_is_installed_runs_and_is_removed_again() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let prepared = cofferdam.prefix();
    let prefix = cofferdam.folder().join("usr/local");
    fs::create_dir_all(prefix.join("bin")).unwrap();
    fs::write(prefix.join("bin/other"), "somebody else's").unwrap();

    let done = script("install", prepared, &prefix);
    assert_eq!(done.code, 0, "{done:?}");
    for file in [
        "share/man/man1/cofferdam-run.1",
        "share/bash-completion/completions/cofferdam",
        "share/zsh/site-functions/_cofferdam",
        "etc/cofferdam/config.toml",
    ] {
        assert!(prefix.join(file).is_file(), "{file}: {done:?}");
    }
    let mut command = Command::new(prefix.join("bin/cofferdam"));
    command
        .env("COFFERDAM_CONFIG", cofferdam.config())
        .arg("--root")
        .arg(cofferdam.root())
        .args(["run", "--rm", cofferdam.busybox(), "echo", "installed"]);
    let done = finish(&mut command, LIMIT);
    assert_eq!(
        (done.code, done.stdout.as_str()),
        (0, "installed\n"),
        "{done:?}"
    );

    let config = prefix.join("etc/cofferdam/config.toml");
    let mine = "default_memory_mib = 512\n";
    fs::write(&config, mine).unwrap();
    let again = script("install", prepared, &prefix);
    assert!(again.stdout.contains("kept"), "{again:?}");
    assert_eq!(
        fs::read_to_string(&config).unwrap(),
        mine,
        "an owner's file"
    );
    let gone = script("uninstall", prepared, &prefix);
    assert_eq!(gone.code, 0, "{gone:?}");
    let mut left = files(&prefix);
    left.sort();
    assert_eq!(left, [prefix.join("bin/other"), config], "{gone:?}");

    let missing = script("install", &cofferdam.folder().join("nothing"), &prefix);
    assert_eq!(missing.code, 1, "{missing:?}");
    assert!(missing.stderr.contains("make build"), "{missing:?}");
    cofferdam.assert_nothing_left();
}
