//! The runtime-spec document of a container that a person asked for.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use oci_spec::runtime::Spec;
use sandbox_image::ImageConfig;
use serde_json::{Value, json};

use super::user::Identity;
use super::volume::Volume;
use super::{quantity, seccomp};
use crate::cli::ImageRunArgs;
use crate::oci::spec::{masked_paths, mounts, readonly_paths};

/// Where programs are looked for when an image does not say.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// docker's default set.
const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// All that goes into the document.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// The options.
    pub options: &'a ImageRunArgs,
    /// Of the image; the defaults with `--rootfs`.
    pub image: &'a ImageConfig,
    /// The words behind the image.
    pub words: &'a [String],
    /// Who it runs as.
    pub user: &'a Identity,
    /// Host name in the container.
    pub hostname: &'a str,
    /// The root file system, relative to the bundle or absolute.
    pub root: &'a Path,
    /// What the user wants to be seen in the container.
    pub volumes: &'a [Volume],
    /// Files of ours that the container sees: on the host, in the container.
    pub files: &'a [(PathBuf, &'static str)],
    /// Folders of the container that are empty and in memory.
    pub scratch: &'a [&'a str],
    /// Rows and columns of its terminal.
    pub terminal: Option<(u16, u16)>,
    /// The network namespace, when it exists already.
    pub network: Option<&'a Path>,
    /// Whether its programs may talk to those of the host by ports.
    pub vsock: bool,
    /// What connects it and disconnects it.
    pub hooks: Option<Value>,
}

impl Wanted<'_> {
    /// Writes the document.
    pub fn spec(&self) -> Result<Spec> {
        let options = self.options;
        let cwd = options
            .workdir
            .as_deref()
            .unwrap_or(match self.image.working_dir.as_str() {
                "" => "/",
                folder => folder,
            });
        if !cwd.starts_with('/') {
            bail!("working directory {cwd:?} is not an absolute path");
        }
        let mut resources = json!({ "devices": [{ "allow": false, "access": "rwm" }] });
        if let Some(memory) = &options.memory {
            resources["memory"] = json!({ "limit": quantity::memory(memory)? });
        }
        if let Some(cpus) = &options.cpus {
            resources["cpu"] =
                json!({ "quota": quantity::cpu_quota(cpus)?, "period": quantity::CPU_PERIOD });
        }
        let mut document = json!({
            "ociVersion": "1.2.0",
            "process": {
                "terminal": options.tty,
                "user": { "uid": self.user.uid, "gid": self.user.gid, "additionalGids": self.user.groups },
                "args": self.command()?,
                "env": self.environment(),
                "cwd": cwd,
                "capabilities": {
                    "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES,
                },
                "noNewPrivileges": false,
            },
            "root": { "path": self.root, "readonly": options.read_only },
            "hostname": self.hostname,
            "mounts": self.mounts(),
            "linux": {
                "resources": resources,
                "namespaces": [
                    { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" },
                    { "type": "mount" }, { "type": "cgroup" },
                ],
                "seccomp": seccomp::profile(self.vsock),
                "maskedPaths": masked_paths(),
                "readonlyPaths": readonly_paths(),
            },
        });
        if let Some(path) = self.network {
            document["linux"]["namespaces"][1]["path"] = json!(path);
        }
        if let Some(hooks) = &self.hooks {
            document["hooks"] = hooks.clone();
        }
        if let Some((rows, columns)) = self.terminal {
            document["process"]["consoleSize"] = json!({ "height": rows, "width": columns });
        }
        serde_json::from_value(document).context("cannot build the container's spec")
    }

    /// Another entrypoint than the image's takes away the image's arguments, too.
    fn command(&self) -> Result<Vec<String>> {
        let (entrypoint, arguments) = match self.options.entrypoint.as_deref() {
            Some("") => (Vec::new(), Vec::new()),
            Some(entrypoint) => (vec![entrypoint.to_owned()], Vec::new()),
            None => (self.image.entrypoint.clone(), self.image.cmd.clone()),
        };
        let arguments = if self.words.is_empty() {
            arguments
        } else {
            self.words.to_vec()
        };
        let command: Vec<_> = entrypoint.into_iter().chain(arguments).collect();
        match command.first() {
            None => {
                bail!("no command: the image has neither entrypoint nor cmd; write one behind it")
            }
            Some(program) if program.is_empty() => bail!("no command: its first word is empty"),
            Some(_) => Ok(command),
        }
    }

    fn environment(&self) -> Vec<String> {
        let mut environment = vec![PATH.to_owned(), format!("HOSTNAME={}", self.hostname)];
        if self.options.tty {
            environment.push("TERM=xterm".to_owned());
        }
        for variable in &self.image.env {
            set(&mut environment, variable.clone());
        }
        for variable in &self.options.env {
            if variable.contains('=') {
                set(&mut environment, variable.clone());
            } else if let Ok(value) = std::env::var(variable) {
                set(&mut environment, format!("{variable}={value}"));
            } else {
                environment.retain(|other| name(other) != variable);
            }
        }
        if !environment.iter().any(|variable| name(variable) == "HOME") {
            let home = self.user.home.as_deref().unwrap_or("/");
            environment.push(format!("HOME={home}"));
        }
        environment
    }

    fn mounts(&self) -> Value {
        let mut all = mounts();
        let bind = |source: &Path, target: &Path, readonly: bool| {
            json!({ "destination": target, "source": source, "type": "bind",
                    "options": ["rbind", "rprivate", if readonly { "ro" } else { "rw" }] })
        };
        if let Some(list) = all.as_array_mut() {
            for (source, target) in self.files {
                list.push(bind(source, Path::new(target), false));
            }
            for target in self.scratch {
                list.push(
                    json!({ "destination": target, "source": "tmpfs", "type": "tmpfs",
                                  "options": ["nosuid", "nodev", "mode=755"] }),
                );
            }
            for volume in self.volumes {
                list.push(bind(&volume.source, &volume.target, volume.readonly));
            }
        }
        all
    }
}

fn name(variable: &str) -> &str {
    variable.split('=').next().unwrap_or_default()
}

/// Sets a variable, where it stands already or at the end.
fn set(environment: &mut Vec<String>, variable: String) {
    match environment
        .iter_mut()
        .find(|other| name(other) == name(&variable))
    {
        Some(other) => *other = variable,
        None => environment.push(variable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> ImageConfig {
        ImageConfig {
            entrypoint: vec!["/entry".to_owned()],
            cmd: vec!["a".to_owned()],
            env: vec!["PATH=/bin".to_owned(), "A=image".to_owned()],
            working_dir: "/srv".to_owned(),
            ..ImageConfig::default()
        }
    }

    fn build(options: &ImageRunArgs, image: &ImageConfig, words: &[&str]) -> Result<Spec> {
        let words: Vec<_> = words.iter().map(|&word| word.to_owned()).collect();
        Wanted {
            options,
            image,
            words: &words,
            user: &Identity {
                uid: 5,
                gid: 6,
                groups: vec![7],
                home: Some("/home/five".to_owned()),
            },
            hostname: "box",
            root: Path::new("rootfs"),
            volumes: &[Volume {
                source: "/tmp".into(),
                target: "/data".into(),
                readonly: true,
            }],
            files: &[],
            scratch: &["/scratch"],
            terminal: None,
            network: None,
            vsock: false,
            hooks: None,
        }
        .spec()
    }

    #[test]
    fn the_spec_is_one_that_we_take() {
        let bundle = tempfile::tempdir().unwrap();
        std::fs::create_dir(bundle.path().join("rootfs")).unwrap();
        let options = ImageRunArgs {
            memory: Some("512m".to_owned()),
            cpus: Some("2".to_owned()),
            ..ImageRunArgs::default()
        };
        let spec = build(&options, &image(), &[]).unwrap();
        sandbox::spec::check(&spec, bundle.path()).unwrap();
        let process = spec.process().as_ref().unwrap();
        assert_eq!(process.args().as_deref().unwrap(), ["/entry", "a"]);
        assert_eq!(process.cwd(), Path::new("/srv"));
        assert_eq!(process.user().additional_gids().as_deref(), Some(&[7][..]));
        assert_eq!(
            process.env().as_deref().unwrap(),
            ["PATH=/bin", "HOSTNAME=box", "A=image", "HOME=/home/five"]
        );
        let resources = spec.linux().as_ref().unwrap().resources().as_ref().unwrap();
        assert_eq!(
            resources.memory().as_ref().unwrap().limit(),
            Some(512 << 20)
        );
        assert_eq!(resources.cpu().as_ref().unwrap().quota(), Some(200_000));
        let volume = spec.mounts().as_ref().unwrap().last().unwrap().clone();
        assert_eq!(volume.destination(), Path::new("/data"));
        assert!(
            volume
                .options()
                .as_ref()
                .unwrap()
                .contains(&"ro".to_owned())
        );
    }

    #[test]
    fn the_users_words_go_before_the_images() {
        let command = |entrypoint: Option<&str>, image: &ImageConfig, words: &[&str]| {
            let options = ImageRunArgs {
                entrypoint: entrypoint.map(str::to_owned),
                ..ImageRunArgs::default()
            };
            let spec = build(&options, image, words)?;
            Ok::<_, anyhow::Error>(spec.process().as_ref().unwrap().args().clone().unwrap())
        };
        assert_eq!(
            command(None, &image(), &["b", "c"]).unwrap(),
            ["/entry", "b", "c"]
        );
        assert_eq!(command(Some("/x"), &image(), &[]).unwrap(), ["/x"]);
        assert_eq!(command(Some("/x"), &image(), &["y"]).unwrap(), ["/x", "y"]);
        assert_eq!(command(Some(""), &image(), &["y"]).unwrap(), ["y"]);
        assert!(command(Some(""), &image(), &[]).is_err());
        assert!(command(None, &ImageConfig::default(), &[]).is_err());
        assert!(command(None, &ImageConfig::default(), &[""]).is_err());
    }

    #[test]
    fn variables_of_the_user_replace_those_of_the_image() {
        let options = ImageRunArgs {
            env: ["A=user", "B=", "PATH", "COFFERDAM_TEST_UNSET_X", "HOME=/h"]
                .map(str::to_owned)
                .to_vec(),
            tty: true,
            ..ImageRunArgs::default()
        };
        let spec = build(&options, &image(), &[]).unwrap();
        let path = format!("PATH={}", std::env::var("PATH").unwrap());
        assert_eq!(
            spec.process().as_ref().unwrap().env().as_deref().unwrap(),
            [
                path.as_str(),
                "HOSTNAME=box",
                "TERM=xterm",
                "A=user",
                "B=",
                "HOME=/h"
            ]
        );
    }

    #[test]
    fn a_relative_working_directory_is_refused() {
        let options = ImageRunArgs {
            workdir: Some("srv".to_owned()),
            ..ImageRunArgs::default()
        };
        assert!(build(&options, &image(), &[]).is_err());
    }
}
