//! The command, as the test host's programs read it: shell scripts.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What to run in a test host.
#[derive(Debug, Clone)]
pub struct Job {
    /// The program, looked for in `PATH`, and its arguments.
    pub command: Vec<OsString>,
    /// The working directory.
    pub directory: PathBuf,
    /// The environment.
    pub environment: Vec<(OsString, OsString)>,
    /// How long it may run.
    pub limit: Option<Duration>,
    /// Its terminal. Without one, it has no standard input.
    pub terminal: Option<Terminal>,
}

/// The size of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terminal {
    /// Rows.
    pub rows: u16,
    /// Columns.
    pub columns: u16,
}

/// What the first program gets to know.
pub(crate) struct Scripts {
    /// What it needs itself.
    pub settings: Vec<u8>,
    /// What becomes the command.
    pub job: Vec<u8>,
}

/// Writes the scripts. The folders are shown also if they lie where the test host has empty folders of its own.
pub(crate) fn scripts(job: &Job, modules: &Path, results: &Path, folders: &[&Path]) -> Scripts {
    let mut settings = Vec::new();
    assign(&mut settings, "modules", modules.as_os_str());
    assign(&mut settings, "results", results.as_os_str());
    let size = job.terminal.map_or_else(String::new, |terminal| {
        format!("rows {} cols {}", terminal.rows, terminal.columns)
    });
    assign(&mut settings, "terminal", OsStr::new(&size));
    settings.extend_from_slice(b"keep_all() {\n:\n");
    for folder in topmost(folders) {
        settings.extend_from_slice(b"keep ");
        quote(&mut settings, folder.as_os_str());
        settings.push(b'\n');
    }
    settings.extend_from_slice(b"}\n");

    let mut script = Vec::new();
    // Nothing of the first program's environment.
    script.extend_from_slice(b"exec env -i -C ");
    quote(&mut script, job.directory.as_os_str());
    for (name, value) in &job.environment {
        script.push(b' ');
        let mut word = name.clone();
        word.push("=");
        word.push(value);
        quote(&mut script, &word);
    }
    for word in &job.command {
        script.push(b' ');
        quote(&mut script, word);
    }
    script.push(b'\n');
    Scripts {
        settings,
        job: script,
    }
}

/// Those that lie in no other, each once.
fn topmost<'a>(folders: &[&'a Path]) -> Vec<&'a Path> {
    let mut folders = folders.to_vec();
    // A folder comes before what is in it.
    folders.sort_unstable();
    let mut topmost: Vec<&Path> = Vec::new();
    for folder in folders {
        if !topmost.iter().any(|above| folder.starts_with(above)) {
            topmost.push(folder);
        }
    }
    topmost
}

fn assign(script: &mut Vec<u8>, name: &str, value: &OsStr) {
    script.extend_from_slice(name.as_bytes());
    script.push(b'=');
    quote(script, value);
    script.push(b'\n');
}

/// One word for the shell, whatever is in it.
fn quote(script: &mut Vec<u8>, word: &OsStr) {
    script.push(b'\'');
    for &byte in word.as_bytes() {
        match byte {
            b'\'' => script.extend_from_slice(b"'\\''"),
            byte => script.push(byte),
        }
    }
    script.push(b'\'');
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_folder_in_another_is_not_kept_twice() {
        let folders = ["/tmp/a/b", "/tmp/ab", "/tmp/a", "/tmp/a"].map(Path::new);
        assert_eq!(topmost(&folders), ["/tmp/a", "/tmp/ab"].map(Path::new));
    }

    #[test]
    fn words_come_through_the_shell_as_they_were() {
        let odd = OsStr::from_bytes(b"a'b \"c\" $HOME `id` \\ \n\xff*");
        let job = Job {
            command: ["printf", "%s|%s|%s", "--"].map(OsString::from).into(),
            directory: "/proc".into(),
            environment: vec![
                ("PATH".into(), "/usr/bin:/bin".into()),
                ("ODD".into(), odd.to_owned()),
            ],
            limit: None,
            terminal: None,
        };
        let mut with_words = job.clone();
        with_words.command.extend([odd.to_owned(), "".into()]);
        let run = |job: &Job| {
            let scripts = scripts(job, Path::new("/m"), Path::new("/r"), &[]);
            Command::new("sh")
                .arg("-c")
                .arg(OsStr::from_bytes(&scripts.job))
                .output()
                .expect("a shell")
                .stdout
        };
        let mut expected = b"--|".to_vec();
        expected.extend_from_slice(odd.as_bytes());
        expected.push(b'|');
        assert_eq!(run(&with_words), expected);
        let mut environment = job;
        environment.command = ["sh", "-c", "pwd; printf %s \"$ODD\""]
            .map(OsString::from)
            .into();
        let mut expected = b"/proc\n".to_vec();
        expected.extend_from_slice(odd.as_bytes());
        assert_eq!(run(&environment), expected);
    }
}
