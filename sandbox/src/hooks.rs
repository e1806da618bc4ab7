//! Lifecycle hooks that run on the host: prestart, createRuntime, poststart and poststop (runtime-spec 1.2, "POSIX-platform Hooks").
//! createContainer is refused before anything starts and startContainer runs in the guest.

use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use oci_spec::runtime::Hook;

use crate::state::ProcessIdentity;

/// How much of a hook's stderr an error shows, in bytes.
const STDERR_LIMIT: u64 = 4096;
/// A hook without a timeout of its own may take this long: nobody's engine waits longer.
const LONGEST: Duration = Duration::from_secs(600);

/// Why a hook failed.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// Its program did not start or could not be watched.
    #[error("error running {stage} hook #{number}: cannot run {path}")]
    Run {
        /// Name of the list it stands in.
        stage: &'static str,
        /// Its place there, from 0.
        number: usize,
        /// The program.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It said no.
    #[error("error running {stage} hook #{number}: {path}: {status}, stderr: {stderr}")]
    Failed {
        /// Name of the list it stands in.
        stage: &'static str,
        /// Its place there, from 0.
        number: usize,
        /// The program.
        path: String,
        /// `exit status 3` or `signal 9`.
        status: String,
        /// The beginning of what it complained.
        stderr: String,
    },
    /// It ran longer than its timeout, and was killed.
    #[error(
        "error running {stage} hook #{number}: {path}: killed after its timeout of {seconds} s"
    )]
    TimedOut {
        /// Name of the list it stands in.
        stage: &'static str,
        /// Its place there, from 0.
        number: usize,
        /// The program.
        path: String,
        /// Its timeout.
        seconds: u64,
    },
}

/// Runs the hooks of one stage in their order with the container's state on stdin; stops at the first that fails.
///
/// # Errors
/// [`HookError`] of that hook.
pub fn run(stage: &'static str, hooks: &[Hook], state: &[u8]) -> Result<(), HookError> {
    hooks
        .iter()
        .enumerate()
        .try_for_each(|(number, hook)| run_one(stage, number, hook, state))
}

fn run_one(stage: &'static str, number: usize, hook: &Hook, state: &[u8]) -> Result<(), HookError> {
    let path = hook.path().display().to_string();
    let failed = |source| HookError::Run {
        stage,
        number,
        path: path.clone(),
        source,
    };
    let mut command = Command::new(hook.path());
    if let Some((name, rest)) = hook.args().as_deref().and_then(<[String]>::split_first) {
        command.arg0(name).args(rest);
    }
    command
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    for variable in hook.env().iter().flatten() {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        command.env(name, value);
    }
    let mut child = command.spawn().map_err(failed)?;
    let limit = match hook.timeout() {
        Some(seconds) => Duration::from_secs(u64::try_from(seconds).unwrap_or(0)),
        None => LONGEST,
    };
    let stdin = child.stdin.take();
    let stderr = child.stderr.take();
    let state = state.to_vec();
    // Threads of their own, not joined on a timeout: a grandchild of the hook may hold the pipes for good.
    std::thread::spawn(move || stdin.map(|mut stdin| stdin.write_all(&state)));
    let (sender, complaint) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let Some(mut stderr) = stderr else { return };
        let mut text = Vec::new();
        let _partial = stderr.by_ref().take(STDERR_LIMIT).read_to_end(&mut text);
        // Nobody listens any more when the hook succeeded.
        let _unheard = sender.send(String::from_utf8_lossy(&text).trim().to_owned());
        let _drained = std::io::copy(&mut stderr, &mut std::io::sink());
    });
    match wait(&mut child, limit).map_err(failed)? {
        None => Err(HookError::TimedOut {
            stage,
            number,
            path,
            seconds: limit.as_secs(),
        }),
        Some(status) if status.success() => Ok(()),
        Some(status) => {
            let stderr = complaint
                .recv_timeout(Duration::from_secs(1))
                .unwrap_or_default();
            Err(HookError::Failed {
                stage,
                number,
                path,
                status: describe(status),
                stderr,
            })
        }
    }
}

/// Waits for the end; kills it at the limit and then answers nothing.
fn wait(child: &mut std::process::Child, limit: Duration) -> std::io::Result<Option<ExitStatus>> {
    if let Some(identity) = ProcessIdentity::of(child.id().cast_signed())
        && !identity.wait(limit)
    {
        child.kill()?;
        child.wait()?;
        return Ok(None);
    }
    child.wait().map(Some)
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Hook {
        serde_json::from_value(serde_json::json!({
            "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PLACE=here", "PATH=/bin:/usr/bin"], "timeout": 5,
        }))
        .unwrap()
    }

    #[test]
    fn hooks_get_state_and_environment_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let script = |tag: &str| {
            shell(&format!(
                "echo {tag} $PLACE >> {0}; cat >> {0}",
                out.display()
            ))
        };
        run("poststart", &[script("one"), script("two")], b"{}").unwrap();
        assert_eq!(
            std::fs::read_to_string(out).unwrap(),
            "one here\n{}two here\n{}"
        );
    }

    #[test]
    fn the_first_failure_stops_and_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let hooks = [
            shell("echo no >&2; exit 3"),
            shell(&format!("touch {}", out.display())),
        ];
        let error = run("createRuntime", &hooks, &vec![b' '; 1 << 20])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("createRuntime hook #0")
                && error.contains("exit status 3")
                && error.contains("no"),
            "{error}"
        );
        assert!(!out.exists());
    }

    #[test]
    fn a_missing_program_and_a_slow_one_fail() {
        let missing: Hook = serde_json::from_str(r#"{"path":"/nonexistent/hook"}"#).unwrap();
        assert!(
            run("prestart", &[missing], b"{}")
                .unwrap_err()
                .to_string()
                .contains("/nonexistent/hook")
        );
        let mut slow = shell("sleep 600");
        slow.set_timeout(Some(1));
        assert!(matches!(
            run("prestart", &[slow], b"{}"),
            Err(HookError::TimedOut { .. })
        ));
    }
}
