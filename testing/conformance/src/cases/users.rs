//! The user, groups, umask and environment of the process, and how its command is found.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::case::{Case, Verdict, case, passed};
use crate::environment::Env;

/// The cases of this group.
pub const CASES: &[Case] = &[
    case("process/uid-and-gid", uid_gid),
    case("process/additional-gids", additional_gids),
    case("process/unknown-uid", unknown_uid),
    case("process/umask", umask),
    case("process/home-from-passwd", home),
    case("process/home-is-kept", home_kept),
    case("process/environment-is-exact", exact_environment),
    case("process/working-directory", working_directory),
    case(
        "process/missing-working-directory",
        missing_working_directory,
    ),
    case("process/command-found-through-path", path_lookup),
    case("process/big-environment", big_environment),
    case("process/big-arguments", big_arguments),
    case("process/utf8-and-odd-characters", odd_characters),
    case("process/no-leaked-descriptors", no_leaked_descriptors),
    case("process/own-session", own_session),
];

fn uid_gid(env: &Env) -> Result<Verdict> {
    let mut bundle = env.script("grep -E '^(Uid|Gid):' /proc/self/status; touch /tmp/owned; touch /no 2>/dev/null || echo denied")?;
    bundle
        .set("/process/user", json!({"uid": 1000, "gid": 2000}))
        .capabilities(&[]);
    let text = env.run_text(&bundle)?;
    ensure!(
        text == "Uid:\t1000\t1000\t1000\t1000\nGid:\t2000\t2000\t2000\t2000\ndenied",
        "it printed {text:?}"
    );
    let metadata = fs::metadata(bundle.rootfs("tmp/owned")).context("the file was not made")?;
    let owner = (
        std::os::unix::fs::MetadataExt::uid(&metadata),
        std::os::unix::fs::MetadataExt::gid(&metadata),
    );
    ensure!(
        owner == (1000, 2000),
        "a new file belongs to {owner:?} on the host"
    );
    passed()
}

fn additional_gids(env: &Env) -> Result<Verdict> {
    let mut bundle = env.script("grep ^Groups: /proc/self/status")?;
    bundle.set(
        "/process/user",
        json!({"uid": 1000, "gid": 1000, "additionalGids": [2000, 5, 70000]}),
    );
    let text = env.run_text(&bundle)?;
    let mut groups: Vec<_> = text.split_whitespace().skip(1).collect();
    groups.sort_unstable();
    groups.retain(|group| *group != "1000");
    ensure!(groups == ["2000", "5", "70000"], "the groups are {text:?}");
    let text = env.run_text(&env.script("grep ^Groups: /proc/self/status")?)?;
    let groups: Vec<_> = text
        .split_whitespace()
        .skip(1)
        .filter(|group| *group != "0")
        .collect();
    ensure!(groups.is_empty(), "groups come from outside: {text:?}");
    passed()
}

fn unknown_uid(env: &Env) -> Result<Verdict> {
    let mut bundle = env.script("id -u; echo \"home $HOME\"")?;
    bundle.set("/process/user", json!({"uid": 54321, "gid": 54321}));
    let text = env.run_text(&bundle)?;
    // runc says `/`, crun sets no HOME.
    ensure!(
        ["54321\nhome /", "54321\nhome"].contains(&text.trim_end()),
        "a uid without a passwd entry: {text:?}"
    );
    fs::remove_file(bundle.rootfs("etc/passwd"))?;
    let text = env.run_text(&bundle)?;
    ensure!(
        text.starts_with("54321\n"),
        "a root filesystem without /etc/passwd: {text:?}"
    );
    passed()
}

fn umask(env: &Env) -> Result<Verdict> {
    let text = env.run_text(&env.script("umask")?)?;
    ensure!(text == "0022", "the default umask is {text:?}");
    let mut bundle = env.script("umask")?;
    bundle.set("/process/user/umask", json!(0o077));
    let text = env.run_text(&bundle)?;
    ensure!(text == "0077", "the umask is {text:?}");
    passed()
}

fn home(env: &Env) -> Result<Verdict> {
    let mut bundle = env.script("echo $HOME")?;
    ensure!(
        env.run_text(&bundle)? == "/root",
        "HOME of root is not from /etc/passwd"
    );
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    let text = env.run_text(&bundle)?;
    ensure!(text == "/home/user", "HOME of uid 1000 is {text:?}");
    passed()
}

fn home_kept(env: &Env) -> Result<Verdict> {
    let mut bundle = env.script("echo $HOME")?;
    bundle.push("/process/env", json!("HOME=/elsewhere"));
    let text = env.run_text(&bundle)?;
    ensure!(text == "/elsewhere", "HOME is {text:?}");
    passed()
}

fn exact_environment(env: &Env) -> Result<Verdict> {
    let mut bundle = env.bundle()?;
    bundle.args(&["/bin/env"]);
    bundle.set(
        "/process/env",
        json!(["PATH=/bin", "HOME=/", "EMPTY=", "EQUALS=a=b", "SPACE=a b"]),
    );
    let text = env.run_text(&bundle)?;
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    ensure!(
        lines == ["EMPTY=", "EQUALS=a=b", "HOME=/", "PATH=/bin", "SPACE=a b"],
        "the environment is {lines:?}"
    );
    passed()
}

fn working_directory(env: &Env) -> Result<Verdict> {
    let mut bundle = env.script("pwd; /bin/pwd -P; ls")?;
    fs::create_dir(bundle.rootfs("work"))?;
    fs::write(bundle.rootfs("work/file"), "")?;
    bundle.set("/process/cwd", json!("/work"));
    let text = env.run_text(&bundle)?;
    ensure!(text == "/work\n/work\nfile", "it printed {text:?}");
    passed()
}

fn missing_working_directory(env: &Env) -> Result<Verdict> {
    // A WORKDIR that the image does not have is made, as runc and Docker do; crun makes it too.
    let mut bundle = env.script("pwd")?;
    bundle.set("/process/cwd", json!("/not/there/yet"));
    let text = env.run_text(&bundle)?;
    ensure!(text == "/not/there/yet", "it printed {text:?}");
    passed()
}

fn path_lookup(env: &Env) -> Result<Verdict> {
    let mut bundle = env.bundle()?;
    fs::create_dir(bundle.rootfs("opt"))?;
    std::os::unix::fs::symlink("/bin/busybox", bundle.rootfs("opt/echo"))?;
    bundle
        .args(&["echo", "found"])
        .set("/process/env", json!(["PATH=/nowhere:/opt"]));
    ensure!(
        env.run_text(&bundle)? == "found",
        "the command was not found through PATH"
    );
    bundle.set("/process/env", json!(["PATH=/nowhere"]));
    env.refuses(
        &bundle,
        &[
            "executable file not found in $path",
            "no such file or directory",
        ],
    )?;
    passed()
}

fn big_environment(env: &Env) -> Result<Verdict> {
    let mut bundle = env.script("echo ${#BIG} $(env | grep -c ^SMALL)")?;
    // One variable of 100 KiB (the kernel's bound on one is 128 KiB) and many small ones.
    bundle.push(
        "/process/env",
        json!(format!("BIG={}", "x".repeat(100 << 10))),
    );
    for n in 0..1000 {
        bundle.push("/process/env", json!(format!("SMALL{n}={n}")));
    }
    let text = env.run_text(&bundle)?;
    ensure!(text == "102400 1000", "it printed {text:?}");
    passed()
}

fn big_arguments(env: &Env) -> Result<Verdict> {
    let mut bundle = env.bundle()?;
    let long = "y".repeat(100 << 10);
    let mut words = vec!["/bin/sh", "-c", "echo $# ${#1}", "sh", long.as_str()];
    words.resize(2000, "word");
    bundle.args(&words);
    let text = env.run_text(&bundle)?;
    ensure!(text == "1996 102400", "it printed {text:?}");
    passed()
}

fn odd_characters(env: &Env) -> Result<Verdict> {
    let odd = "größe 容器 \"quoted\" $HOME `x` \\ \t tab * ' end";
    let mut bundle = env.bundle()?;
    fs::write(bundle.rootfs("tmp/größe 容器"), "content")?;
    bundle.args(&[
        "/bin/sh",
        "-c",
        "printf '%s|%s|' \"$1\" \"$ODD\"; cat '/tmp/größe 容器'",
        "sh",
        odd,
    ]);
    bundle.push("/process/env", json!(format!("ODD={odd}")));
    let text = env.run_text(&bundle)?;
    ensure!(
        text == format!("{odd}|{odd}|content"),
        "it printed {text:?}"
    );
    passed()
}

fn no_leaked_descriptors(env: &Env) -> Result<Verdict> {
    // The fourth one is the directory that ls reads.
    let text = env.run_text(env.bundle()?.args(&["/bin/ls", "/proc/self/fd"]))?;
    ensure!(
        text == "0\n1\n2\n3",
        "the process holds the descriptors {text:?}"
    );
    let container = env.sleeper()?;
    let text = container
        .call(&["exec"], &["/bin/ls", "/proc/self/fd"])
        .ok()?
        .text();
    ensure!(
        text.trim() == "0\n1\n2\n3",
        "an exec holds the descriptors {text:?}"
    );
    passed()
}

fn own_session(env: &Env) -> Result<Verdict> {
    // Fields 5 and 6 of stat are the process group and the session.
    let text = env.run_text(&env.script("echo $$ $(cut -d' ' -f5,6 /proc/$$/stat)")?)?;
    ensure!(
        text == "1 1 1",
        "pid, process group and session are {text:?}"
    );
    passed()
}
