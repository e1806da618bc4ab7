//! Commands that cannot be run: refused by name, nothing left.

use std::fs;

use anyhow::{Result, ensure};

use crate::case::{Case, Verdict, case, passed};
use crate::environment::Env;
use crate::reaper::Exit;

/// The cases of this group.
pub const CASES: &[Case] = &[
    case("malformed/command-missing", command_missing),
    case("malformed/command-missing-in-path", command_missing_in_path),
    case("malformed/command-not-executable", command_not_executable),
    case("malformed/command-is-a-directory", command_is_directory),
    case("malformed/command-has-bad-interpreter", bad_interpreter),
];

/// The failure comes with `create` or with `start`; either names `things` and leaves nothing after `delete`.
fn command_refused(env: &Env, command: &str, things: &[&str]) -> Result<()> {
    let mut bundle = env.bundle()?;
    fs::write(bundle.rootfs("bin/script"), "#!/no/such/interpreter\n")?;
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(
        bundle.rootfs("bin/script"),
        fs::Permissions::from_mode(0o755),
    )?;
    bundle.args(&[command]);
    bundle.write()?;
    let path = bundle.path.to_string_lossy().into_owned();
    let id = env.id();
    let created = env.runtime.call(["create", "--bundle", &path, &id]).run()?;
    if created.exit == Exit::Code(0) {
        env.runtime.call(["start", &id]).run()?.refused(things)?;
        env.runtime.call(["delete", "--force", &id]).ok()?;
    } else {
        created.refused(things)?;
    }
    env.nothing_left()?;
    // And the foreground way, whose code a shell sees.
    let finished = env.run(&bundle)?;
    ensure!(
        matches!(finished.exit, Exit::Code(code) if code != 0),
        "`run` ended with {}",
        finished.exit
    );
    ensure!(
        finished.stderr.contains(command) || env.is_reference("crun")?,
        "`run` does not name {command}: {}",
        finished.stderr
    );
    finished.refused(things)?;
    env.nothing_left()
}

fn command_missing(env: &Env) -> Result<Verdict> {
    command_refused(
        env,
        "/bin/no-such-command",
        &[
            "executable file not found in $path",
            "no such file or directory",
        ],
    )?;
    passed()
}

fn command_missing_in_path(env: &Env) -> Result<Verdict> {
    command_refused(
        env,
        "no-such-command",
        &[
            "executable file not found in $path",
            "no such file or directory",
        ],
    )?;
    passed()
}

fn command_not_executable(env: &Env) -> Result<Verdict> {
    command_refused(env, "/etc/passwd", &["permission denied", "not permitted"])?;
    passed()
}

fn command_is_directory(env: &Env) -> Result<Verdict> {
    command_refused(
        env,
        "/etc",
        &["permission denied", "is a directory", "not permitted"],
    )?;
    passed()
}

fn bad_interpreter(env: &Env) -> Result<Verdict> {
    // Only execve finds this out. runc reports it at `start`; the process then ends with a code of its own.
    let mut bundle = env.bundle()?;
    fs::write(bundle.rootfs("bin/script"), "#!/no/such/interpreter\n")?;
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(
        bundle.rootfs("bin/script"),
        fs::Permissions::from_mode(0o755),
    )?;
    bundle.args(&["/bin/script"]);
    let finished = env.run(&bundle)?;
    ensure!(
        finished.exit != Exit::Code(0),
        "a script without interpreter ended with {}",
        finished.exit
    );
    finished.refused(&["no such file or directory", "/bin/script"])?;
    env.nothing_left()?;
    passed()
}
