//! The command line, in the form of Go's flag package: `-name value`, `-name=value`, one dash or two.

use anyhow::{Result, bail};

/// What containerd asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// Log more.
    pub debug: bool,
    /// Print the version and nothing else.
    pub version: bool,
    /// Describe the runtime and nothing else.
    pub info: bool,
    /// containerd's namespace that the container belongs to.
    pub namespace: String,
    /// The container's id.
    pub id: String,
    /// The bundle; the working directory when it is not given.
    pub bundle: String,
    /// The socket of containerd's gRPC services.
    pub address: String,
    /// `start`, `delete` or nothing.
    pub action: String,
}

impl Flags {
    /// Takes the command line apart.
    ///
    /// # Errors
    /// Names the flag that is not known or lacks its value.
    pub fn parse(args: impl IntoIterator<Item = String>) -> Result<Self> {
        let mut flags = Self::default();
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let Some(flag) = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) else {
                flags.action = arg;
                break;
            };
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            let switch = match name {
                "debug" => Some(&mut flags.debug),
                "v" | "version" => Some(&mut flags.version),
                "info" => Some(&mut flags.info),
                _ => None,
            };
            if let Some(switch) = switch {
                *switch = match value.as_deref() {
                    None | Some("true" | "1") => true,
                    Some("false" | "0") => false,
                    Some(other) => bail!("-{name}: {other:?} is neither true nor false"),
                };
                continue;
            }
            // Events go over TTRPC, and the socket is inherited: the last two are taken and not needed.
            let mut unused = String::new();
            let text = match name {
                "namespace" => &mut flags.namespace,
                "id" => &mut flags.id,
                "bundle" => &mut flags.bundle,
                "address" => &mut flags.address,
                "publish-binary" | "socket" => &mut unused,
                _ => bail!("unknown flag -{name}"),
            };
            match value.or_else(|| args.next()) {
                Some(value) => *text = value,
                None => bail!("-{name} needs a value"),
            }
        }
        Ok(flags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Flags> {
        Flags::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn takes_what_containerd_passes() {
        let flags = parse(
            "-namespace default -address /run/c.sock -publish-binary /usr/bin/containerd -id a -debug start",
        )
        .unwrap();
        assert_eq!(flags.namespace, "default");
        assert_eq!(flags.address, "/run/c.sock");
        assert_eq!((flags.id.as_str(), flags.debug), ("a", true));
        assert_eq!(flags.action, "start");
        let flags = parse("--id=b -bundle=/b=c delete").unwrap();
        assert_eq!((flags.id.as_str(), flags.bundle.as_str()), ("b", "/b=c"));
        assert!(parse("-v").unwrap().version);
    }

    #[test]
    fn names_what_is_wrong() {
        for (line, named) in [
            ("-x start", "-x"),
            ("-id", "-id"),
            ("-debug=maybe", "-debug"),
        ] {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
