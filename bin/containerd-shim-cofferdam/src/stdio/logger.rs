//! A program that takes a container's output (`binary://`): stdout is its descriptor 3, stderr 4, and it closes 5 when
//! it is ready.

use std::io::pipe;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::fs::{Access, access};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::stdio::Owner;

/// How long it may take to be ready.
const DEADLINE: Duration = Duration::from_secs(10);

/// Moves descriptors from where a child gets them to where the program wants them.
const RENUMBER: &str = r#"exec 3<&0 4<&2 5>&1 0</dev/null 1>/dev/null 2>/dev/null; exec "$@""#;

/// Starts it; answers with where stdout and stderr go. It ends by itself when both are closed.
pub async fn start(
    program: &Path,
    args: &[String],
    owner: Owner<'_>,
) -> Result<(OwnedFd, OwnedFd)> {
    // The shell that renumbers could not tell.
    access(program, Access::EXEC_OK)
        .with_context(|| format!("cannot run logging program {}", program.display()))?;
    let name = || format!("cannot start logging program {}", program.display());
    let (out_reader, out) = pipe().with_context(name)?;
    let (err_reader, err) = pipe().with_context(name)?;
    let (ready, ready_writer) = pipe().with_context(name)?;
    let mut child = Command::new("/bin/sh")
        .args(["-c", RENUMBER, "sh"])
        .arg(program)
        .args(args)
        .env("CONTAINER_ID", owner.container)
        .env("CONTAINER_NAMESPACE", owner.namespace)
        .stdin(Stdio::from(out_reader))
        .stdout(Stdio::from(ready_writer))
        .stderr(Stdio::from(err_reader))
        .spawn()
        .with_context(name)?;
    // Reaped whenever it ends.
    tokio::task::spawn_blocking(move || child.wait());
    let told = tokio::time::timeout(DEADLINE, readable(ready.into()));
    match told.await {
        Ok(told) => told.with_context(name)?,
        Err(_) => bail!(
            "logging program {} was not ready after {} s",
            program.display(),
            DEADLINE.as_secs()
        ),
    }
    Ok((out.into(), err.into()))
}

/// Waits until something comes or the other side is closed.
#[expect(
    deprecated,
    reason = "its hole is an `AsRawFd` that lies; `OwnedFd` does not"
)]
async fn readable(pipe: OwnedFd) -> std::io::Result<()> {
    let pipe = AsyncFd::with_interest(pipe, Interest::READABLE)?;
    pipe.readable().await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    #[tokio::test(flavor = "current_thread")]
    async fn gets_both_streams_and_says_when_it_is_ready() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("logger");
        let out = folder.path().join("out");
        let script = "#!/bin/sh\nexec 5>&-\n(cat <&3; cat <&4; echo $CONTAINER_ID $CONTAINER_NAMESPACE $2) > $1.part\nmv $1.part $1\n";
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        let owner = Owner {
            namespace: "n",
            container: "c",
        };
        let args = [out.to_str().unwrap().to_owned(), "x y".to_owned()];
        let (stdout, stderr) = start(&program, &args, owner).await.unwrap();
        std::fs::File::from(stdout).write_all(b"one\n").unwrap();
        std::fs::File::from(stderr).write_all(b"two\n").unwrap();
        let mut text = String::new();
        for _ in 0..1000 {
            if let Ok(found) = std::fs::read_to_string(&out) {
                text = found;
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(text, "one\ntwo\nc n x y\n");
        let missing = start(Path::new("/nonexistent/l"), &[], owner).await;
        assert!(missing.unwrap_err().to_string().contains("/nonexistent/l"));
    }
}
