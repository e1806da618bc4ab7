//! Finding the command of a process, inside the container's root, as its user.

use std::ffi::CString;
use std::fmt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Process;
use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::io::Errno;

/// Why a command cannot be executed. The text is that of runc, which engines read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("exec: {command:?}: {problem}")]
pub struct CommandError {
    /// The command as it was given.
    pub command: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// A name without a slash is in no folder of PATH.
    NotInPath,
    /// A path leads nowhere.
    Missing(PathBuf),
    /// There is something, but it may not be executed.
    Denied,
    /// A folder.
    Directory,
    /// The kernel refused to execute it.
    Refused(String),
}

impl Problem {
    /// Whether there is no such command at all, as against one that cannot be executed.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::NotInPath | Self::Missing(_))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInPath => f.write_str("executable file not found in $PATH"),
            Self::Missing(path) => write!(f, "stat {}: no such file or directory", path.display()),
            Self::Denied => f.write_str("permission denied"),
            Self::Directory => f.write_str("is a directory"),
            Self::Refused(why) => f.write_str(why),
        }
    }
}

/// Finds the file that `process` executes.
pub(super) fn find(process: &Process) -> Result<PathBuf, CommandError> {
    let empty = Vec::new();
    let args = process.args().as_ref().unwrap_or(&empty);
    let command = args.first().map(String::as_str).unwrap_or_default();
    let found = if command.contains('/') {
        let path = PathBuf::from(command);
        check(&path).map(|()| path)
    } else {
        in_path(command, path_of(process))
    };
    found.map_err(|problem| CommandError {
        command: command.to_owned(),
        problem,
    })
}

fn path_of(process: &Process) -> &str {
    process
        .env()
        .iter()
        .flatten()
        .rev()
        .find_map(|entry| entry.strip_prefix("PATH="))
        .unwrap_or_default()
}

fn in_path(command: &str, path: &str) -> Result<PathBuf, Problem> {
    let mut result = Problem::NotInPath;
    if command.is_empty() {
        return Err(result);
    }
    for folder in path.split(':') {
        let folder = if folder.is_empty() { "." } else { folder };
        let candidate = Path::new(folder).join(command);
        match check(&candidate) {
            Ok(()) => return Ok(candidate),
            // Remembered: a file that may not be executed is a better answer than none.
            Err(Problem::Denied) => result = Problem::Denied,
            Err(_) => {}
        }
    }
    Err(result)
}

fn check(path: &Path) -> Result<(), Problem> {
    let metadata = match path.metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return Err(Problem::Denied);
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Problem::Missing(path.to_owned()));
        }
        Err(error) => {
            return Err(Problem::Refused(reason(
                error.raw_os_error().unwrap_or_default(),
            )));
        }
    };
    if metadata.is_dir() {
        return Err(Problem::Directory);
    }
    let kind = metadata.file_type();
    if kind.is_fifo() || kind.is_socket() || kind.is_block_device() || kind.is_char_device() {
        return Err(Problem::Denied);
    }
    // With the effective user: that is who executes.
    match accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS) {
        Ok(()) => Ok(()),
        Err(Errno::ACCESS) => Err(Problem::Denied),
        // A filter of system calls may forbid asking; then the kernel answers at execution.
        Err(_) => Ok(()),
    }
}

/// Executes `path` as `process` says; returns only if that is impossible.
pub(super) fn execute(path: &Path, process: &Process, env: &[String]) -> CommandError {
    let empty = Vec::new();
    let args = process.args().as_ref().unwrap_or(&empty);
    let refused = |why: String| CommandError {
        command: args.first().cloned().unwrap_or_default(),
        problem: Problem::Refused(why),
    };
    let strings = |list: &[String]| -> Result<Vec<CString>, _> {
        list.iter()
            .map(|text| CString::new(text.as_str()))
            .collect()
    };
    let (Ok(path), Ok(args), Ok(env)) = (
        CString::new(path.as_os_str().as_encoded_bytes()),
        strings(args),
        strings(env),
    ) else {
        return refused("an argument or a variable contains a null character".to_owned());
    };
    match nix::unistd::execve(&path, &args, &env) {
        Ok(never) => match never {},
        Err(nix::errno::Errno::EACCES) => CommandError {
            problem: Problem::Denied,
            ..refused(String::new())
        },
        // ENOENT too: the file was found, so it is its interpreter that is missing.
        Err(errno) => refused(reason(errno as i32)),
    }
}

/// What an error number means, in the lower case of runc's messages.
pub(super) fn reason(errno: i32) -> String {
    match nix::errno::Errno::from_raw(errno) {
        nix::errno::Errno::ENOEXEC => "exec format error".to_owned(),
        errno => errno.desc().to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use oci_spec::runtime::ProcessBuilder;

    use super::*;

    fn look(command: &str, path: &str) -> Result<PathBuf, String> {
        let process = ProcessBuilder::default()
            .args([command.to_owned()])
            .env([format!("PATH={path}")])
            .build()
            .expect("a process");
        find(&process).map_err(|error| error.to_string())
    }

    #[test]
    fn says_what_runc_says() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().to_str().expect("a plain name");
        let file = folder.path().join("tool");
        std::fs::write(&file, "").expect("a file");
        let mode = |mode| {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).expect("chmod");
        };

        mode(0o644);
        let full = format!("{path}/tool");
        assert_eq!(
            look(&full, ""),
            Err(format!("exec: \"{full}\": permission denied"))
        );
        assert_eq!(
            look("tool", path),
            Err("exec: \"tool\": permission denied".to_owned())
        );
        mode(0o755);
        assert_eq!(look("tool", &format!("/none:{path}")), Ok(file.clone()));
        assert_eq!(look(&full, ""), Ok(file.clone()));
        assert_eq!(
            look("foo", path),
            Err("exec: \"foo\": executable file not found in $PATH".to_owned())
        );
        assert_eq!(
            look("/x/y", path),
            Err("exec: \"/x/y\": stat /x/y: no such file or directory".to_owned())
        );
        assert_eq!(
            look(path, ""),
            Err(format!("exec: \"{path}\": is a directory"))
        );
        assert_eq!(
            look("", path),
            Err("exec: \"\": executable file not found in $PATH".to_owned())
        );
    }
}
