//! Whether `run` means an image or a bundle.

use anyhow::{Result, bail};

use crate::cli::{ImageRunArgs, RunArgs};

/// What `run` means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// As docker's `run`.
    Image,
    /// As runc's.
    Bundle,
}

/// Decides as the help text says. `config_is_here`: there is a `config.json` in the current folder.
pub fn decide(args: &RunArgs, config_is_here: bool) -> Result<Mode> {
    match (of_bundles(args), of_images(&args.image)) {
        (Some(one), Some(other)) => {
            bail!("{one} is for bundles and {other} for images: they cannot be used together")
        }
        (Some(_), None) => Ok(Mode::Bundle),
        (None, None) if args.words.len() == 1 && config_is_here => Ok(Mode::Bundle),
        (None, _) => Ok(Mode::Image),
    }
}

/// An option that only runc has.
fn of_bundles(args: &RunArgs) -> Option<&'static str> {
    let bundle = &args.bundle;
    first(&[
        ("--bundle", bundle.bundle.is_some()),
        ("--pid-file", bundle.pid_file.is_some()),
        ("--console-socket", bundle.console_socket.is_some()),
        ("--no-pivot", bundle.no_pivot),
        ("--no-new-keyring", bundle.no_new_keyring),
        ("--preserve-fds", bundle.preserve_fds > 0),
        ("--keep", args.keep),
        ("--no-subreaper", args.no_subreaper),
    ])
}

/// An option that only images have.
fn of_images(image: &ImageRunArgs) -> Option<&'static str> {
    first(&[
        ("--interactive", image.interactive),
        ("--tty", image.tty),
        ("--rm", image.rm),
        ("--name", image.name.is_some()),
        ("--env", !image.env.is_empty()),
        ("--volume", !image.volume.is_empty()),
        ("--workdir", image.workdir.is_some()),
        ("--user", image.user.is_some()),
        ("--memory", image.memory.is_some()),
        ("--cpus", image.cpus.is_some()),
        ("--hostname", image.hostname.is_some()),
        ("--read-only", image.read_only),
        ("--net", image.net.is_some()),
        ("--publish", !image.publish.is_empty()),
        ("--pull", image.pull.is_some()),
        ("--entrypoint", image.entrypoint.is_some()),
        ("--rootfs", image.rootfs.is_some()),
    ])
}

fn first(options: &[(&'static str, bool)]) -> Option<&'static str> {
    options
        .iter()
        .find_map(|&(name, is_given)| is_given.then_some(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn parse(line: &str) -> Box<RunArgs> {
        let words = line.split_ascii_whitespace();
        match Cli::try_parse_from(words).unwrap().command {
            Command::Run(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn images_and_bundles_are_told_apart() {
        for (line, config_is_here, mode) in [
            ("cofferdam run busybox", false, Mode::Image),
            ("cofferdam run busybox", true, Mode::Bundle),
            ("cofferdam run -d busybox", true, Mode::Bundle),
            ("cofferdam run --rm busybox", true, Mode::Image),
            ("cofferdam run busybox true", true, Mode::Image),
            ("cofferdam run -b /x id", false, Mode::Bundle),
            ("cofferdam run --bundle=/x -d id", false, Mode::Bundle),
            ("cofferdam run --keep id", false, Mode::Bundle),
            ("cofferdam run --preserve-fds 0 id", false, Mode::Image),
            ("cofferdam run --preserve-fds 1 id", false, Mode::Bundle),
            ("cofferdam run --rootfs / sh", true, Mode::Image),
        ] {
            assert_eq!(
                decide(&parse(line), config_is_here).unwrap(),
                mode,
                "{line}"
            );
        }
        let mixed = decide(&parse("cofferdam run --pid-file p --rm x"), true).unwrap_err();
        assert!(mixed.to_string().contains("--pid-file"), "{mixed}");
    }

    #[test]
    fn what_follows_the_image_is_its_command() {
        let args = parse("cofferdam run -it -e A=1 busybox sh -c -e --rm -- x");
        assert!(args.image.interactive && args.image.tty && !args.image.rm);
        assert_eq!(args.words, ["busybox", "sh", "-c", "-e", "--rm", "--", "x"]);
        assert_eq!(args.image.env, ["A=1"]);
    }
}
