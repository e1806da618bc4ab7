//! Where a process's stdio is on the host: FIFOs that containerd's client made, a log file, or a logging program.

mod fifo;
mod logger;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use sandbox::stdio::Stdio;

/// What containerd names; an empty name is no stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// A FIFO.
    pub stdin: String,
    /// A FIFO, `file://PATH` or `binary://PROGRAM?ARGUMENTS`; the last two take both streams.
    pub stdout: String,
    /// A FIFO; with a terminal there is none.
    pub stderr: String,
    /// Whether the process has a terminal.
    pub terminal: bool,
}

/// Whose stdio it is, for a logging program.
#[derive(Debug, Clone, Copy)]
pub struct Owner<'a> {
    /// containerd's namespace.
    pub namespace: &'a str,
    /// The container.
    pub container: &'a str,
}

impl Names {
    /// Opens what is named. Nothing here waits for a reader or writer.
    pub async fn open(&self, owner: Owner<'_>) -> Result<Stdio> {
        let stdin = fifo::reader(&self.stdin)?;
        let (stdout, stderr) = match Target::of(&self.stdout)? {
            Target::Fifo(_) => {
                let stderr = if self.terminal { "" } else { &self.stderr };
                (fifo::writer(&self.stdout)?, fifo::writer(stderr)?)
            }
            Target::File(path) => {
                let log = append(&path)?;
                let second = log.try_clone().context("cannot copy a descriptor")?;
                (Some(log.into()), Some(second.into()))
            }
            Target::Program { path, args } => {
                let (stdout, stderr) = logger::start(&path, &args, owner).await?;
                (Some(stdout), Some(stderr))
            }
        };
        Ok(Stdio::Own {
            stdin,
            stdout,
            stderr: stderr.filter(|_| !self.terminal),
        })
    }
}

/// What the name of stdout means.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    Fifo(PathBuf),
    File(PathBuf),
    Program { path: PathBuf, args: Vec<String> },
}

impl Target {
    fn of(name: &str) -> Result<Self> {
        let Some((scheme, rest)) = name.split_once("://") else {
            return Ok(Self::Fifo(name.into()));
        };
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = PathBuf::from(decode(path));
        match scheme {
            "fifo" => Ok(Self::Fifo(path)),
            "file" => Ok(Self::File(path)),
            "binary" => {
                let mut args = Vec::new();
                for pair in query.split('&').filter(|pair| !pair.is_empty()) {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    args.push(decode(key));
                    args.push(decode(value));
                }
                Ok(Self::Program { path, args })
            }
            other => bail!("unknown STDIO scheme {other:?} in {name:?}"),
        }
    }
}

/// Undoes the escapes of an URL; what is none stays.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = match (first, tail) {
            (b'%', [high, low, ..]) => std::str::from_utf8(&[*high, *low])
                .ok()
                .and_then(|digits| u8::from_str_radix(digits, 16).ok()),
            _ => None,
        };
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn append(path: &Path) -> Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    File::options()
        .append(true)
        .create(true)
        .open(path)
        .with_context(|| format!("cannot open log {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_understood() {
        let fifo = Target::of("/run/x/fifo").unwrap();
        assert_eq!(fifo, Target::Fifo("/run/x/fifo".into()));
        let file = Target::of("file:///var/log/a%20b").unwrap();
        assert_eq!(file, Target::File("/var/log/a b".into()));
        let program = Target::of("binary:///bin/l?a=1%2f&b").unwrap();
        let args = ["a", "1/", "b", ""].map(str::to_owned).to_vec();
        let path = "/bin/l".into();
        assert_eq!(program, Target::Program { path, args });
        assert_eq!(decode("%%4"), "%%4");
        assert!(Target::of("npipe://x").is_err());
    }
}
