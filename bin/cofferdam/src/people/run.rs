//! `run IMAGE`: a container of an image, or of a folder.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use sandbox::client::{Client, NewContainer};
use sandbox::config::{BackendChoice, Config};
use sandbox::spec::Rootfs;
use sandbox::state::{RunRecord, Store};
use sandbox::{ContainerId, SandboxError, backend};
use sandbox_image::{Image, ImageConfig, ImageSource, PullPolicy};

use super::network::{Net, Port};
use super::spec::Wanted;
use super::storage::Names;
use super::tree::Tree;
use super::volume::Volume;
use super::{progress, storage, user};
use crate::cli::{ImageRunArgs, Pull, RunArgs};
use crate::context::{Context, container_id};
use crate::oci::attach::Attached;
use crate::oci::run::in_foreground;
use crate::oci::start::start;
use crate::oci::{create, kill};

/// Longest name: with `.json` behind it, it is a file of the image store.
const LONGEST_NAME: usize = 128;
/// Longest host name that Linux takes.
const LONGEST_HOSTNAME: usize = 64;

/// Where a container's files come from.
enum Source {
    /// As the user named it.
    Image(String, Box<Image>),
    Folder(PathBuf),
}

/// Runs the command.
pub fn run(context: &Context, args: &RunArgs) -> Result<ExitCode> {
    let options = &args.image;
    check(options, args.detach)?;
    let config = Config::load().map_err(SandboxError::from)?;
    let store = context.store()?;
    storage::sweep(&config, &store);
    let id = name(options)?;
    announce_emulation(&config);
    Net::parse(options.net.as_deref(), !options.publish.is_empty())?.announce();

    let (source, words) = source(&config, options, &args.words)?;
    let new = prepare(&config, &store, &id, (&source, words), options)?;
    let folder = new.bundle.clone();
    let ended = if args.detach {
        in_background(context, new, &folder, options).map(|()| {
            println!("{id}");
            ExitCode::SUCCESS
        })
    } else {
        let (interactive, tty) = (options.interactive, options.tty);
        in_foreground(context, new, None, || Attached::to_caller(interactive, tty))
            .map(|exit| ExitCode::from(exit.code))
    };
    if ended.is_err() {
        storage::discard_unless_known(&store, &id, &folder)?;
    } else if options.rm && !args.detach {
        storage::delete(&store, &id, true)?;
    }
    ended
}

fn in_background(
    context: &Context,
    new: NewContainer,
    folder: &Path,
    options: &ImageRunArgs,
) -> Result<()> {
    let (store, id) = (new.store.clone(), new.id.clone());
    create::in_background(context, new, None, options.rm, || {
        Ok(Attached::to_log(folder.join("container.log")))
    })?;
    let started = Client::find(&store, &id)
        .map_err(anyhow::Error::from)
        .and_then(|mut client| start(&mut client));
    if started.is_err() {
        storage::delete(&store, &id, true)?;
    }
    started
}

/// What cannot be done is refused before an image is fetched.
fn check(options: &ImageRunArgs, detach: bool) -> Result<()> {
    let ports = options.publish.iter().map(|text| text.parse::<Port>());
    ports.collect::<Result<Vec<_>>>()?;
    Net::parse(options.net.as_deref(), !options.publish.is_empty())?;
    if detach && options.interactive {
        bail!("--interactive needs somebody to type: it cannot be used with --detach");
    }
    if options.tty && options.interactive && !io::stdin().is_terminal() {
        bail!("the input device is not a terminal: leave out --tty");
    }
    if let Some(hostname) = &options.hostname
        && (hostname.is_empty() || hostname.len() > LONGEST_HOSTNAME)
    {
        bail!("host name {hostname:?} is not between 1 and {LONGEST_HOSTNAME} bytes long");
    }
    Ok(())
}

/// The name that was given, or 64 random digits.
fn name(options: &ImageRunArgs) -> Result<ContainerId> {
    let Some(name) = &options.name else {
        let mut random = [0; 32];
        let count = rustix::rand::getrandom(&mut random[..], rustix::rand::GetRandomFlags::empty())
            .context("cannot make a name")?;
        if count != random.len() {
            bail!("cannot make a name: too little randomness");
        }
        let digits: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        return container_id(&digits);
    };
    let begins_well = name.starts_with(|first: char| first.is_ascii_alphanumeric());
    if !begins_well || name.len() > LONGEST_NAME {
        bail!(
            "invalid name {name:?}: it begins with a letter or digit and has at most {LONGEST_NAME} bytes"
        );
    }
    container_id(name)
}

/// Emulation is slow: a person should not have to wonder.
fn announce_emulation(config: &Config) {
    if !io::stderr().is_terminal() || config.backend != BackendChoice::Auto {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let Ok(runtime) = runtime else { return };
    // What is wrong with the backend is said when it is used.
    if let Ok(choice) = runtime.block_on(backend::choose(config))
        && choice.because.is_some()
    {
        eprintln!(
            "cofferdam: without hardware virtualization, emulating (`cofferdam check` says why)"
        );
    }
}

fn source<'a>(
    config: &Config,
    options: &ImageRunArgs,
    words: &'a [String],
) -> Result<(Source, &'a [String])> {
    if let Some(folder) = &options.rootfs {
        let folder = folder
            .canonicalize()
            .with_context(|| format!("cannot find root file system {}", folder.display()))?;
        if !folder.is_dir() {
            bail!("root file system {} is not a folder", folder.display());
        }
        return Ok((Source::Folder(folder), words));
    }
    let Some((image, words)) = words.split_first() else {
        bail!("no image: write one, or give a folder with --rootfs");
    };
    // Words behind the image are the command's, so that parsing ends at the first that is no option of ours.
    if image.starts_with('-') && !Path::new(image).exists() {
        bail!("unknown option {image}: see `cofferdam run --help`");
    }
    let policy = match options.pull {
        None | Some(Pull::Missing) => PullPolicy::Missing,
        Some(Pull::Always) => PullPolicy::Always,
        Some(Pull::Never) => PullPolicy::Never,
    };
    let source = ImageSource::parse(image)?;
    let progress = progress::Bars::new();
    let resolved = storage::images(config)?.resolve(&source, policy, &progress);
    progress.finish();
    let (name, image) = (image.clone(), Box::new(resolved?));
    Ok((Source::Image(name, image), words))
}

/// Makes the container's folder and all that is asked of the driver.
fn prepare(
    config: &Config,
    store: &Store,
    id: &ContainerId,
    (source, words): (&Source, &[String]),
    options: &ImageRunArgs,
) -> Result<NewContainer> {
    let folder = storage::folder(config, id);
    let plain = ImageConfig::default();
    let (image_config, layers) = match source {
        Source::Image(_, image) => (&image.config, top_first(image)),
        Source::Folder(root) => (&plain, vec![root.clone()]),
    };
    if let Some(signal) = &image_config.stop_signal {
        kill::parse(signal).context("the image's stop signal")?;
    }
    let tree = Tree::open(&layers)?;
    let user = options.user.as_deref().unwrap_or(&image_config.user);
    let user = user::resolve(user, &tree)?;
    let scratch = if options.read_only {
        scratch(&image_config.volumes, options, &tree)?
    } else {
        Vec::new()
    };
    let here = std::env::current_dir().context("cannot find the current folder")?;
    let volumes = options
        .volume
        .iter()
        .map(|text| Volume::parse(text, &here))
        .collect::<Result<Vec<_>>>()?;
    let hostname = match &options.hostname {
        Some(hostname) => hostname.clone(),
        None if options.name.is_some() => id.as_str().chars().take(LONGEST_HOSTNAME - 1).collect(),
        None => id.as_str().chars().take(12).collect(),
    };
    let mut files = Vec::new();
    for (name, target) in [("hosts", "/etc/hosts"), ("hostname", "/etc/hostname")] {
        // Nothing is put into a folder of the user's.
        if matches!(source, Source::Image(..)) || tree.has_file(target)? {
            files.push((folder.join(name), target));
        }
    }
    let net = Net::parse(options.net.as_deref(), !options.publish.is_empty())?;
    let resolv_conf = net.resolv_conf()?;
    if resolv_conf.is_some()
        && (matches!(source, Source::Image(..)) || tree.has_file("/etc/resolv.conf")?)
    {
        files.push((folder.join("resolv.conf"), "/etc/resolv.conf"));
    }
    let root = match source {
        Source::Image(..) => Path::new("rootfs"),
        Source::Folder(root) => root.as_path(),
    };
    let spec = Wanted {
        options,
        image: image_config,
        vsock: config.vsock,
        words,
        user: &user,
        hostname: &hostname,
        root,
        volumes: &volumes,
        files: &files,
        scratch: &scratch,
        terminal: terminal_size(options),
        network: net.path(),
        hooks: net.hooks(options, store.root())?,
    }
    .spec()?;
    for volume in &volumes {
        volume.prepare()?;
    }
    let (image_name, image) = match source {
        Source::Image(name, image) => (Some(name.clone()), Some(image.as_ref())),
        Source::Folder(_) => (None, None),
    };
    let names = Names {
        hostname: &hostname,
        resolv_conf: resolv_conf.as_deref(),
    };
    let folder = storage::create(config, store, id, &spec, names, image)?;
    let rootfs = match image {
        Some(image) => Rootfs::Layers {
            layers: image.layers.clone(),
            upper: folder.join("upper"),
            work: folder.join("work"),
        },
        None => Rootfs::Bundle,
    };
    let mut all_layers = layers;
    if image.is_some() {
        all_layers.insert(0, folder.join("upper"));
    }
    let command = spec.process().as_ref().and_then(|one| one.args().clone());
    Ok(NewContainer {
        store: store.clone(),
        id: id.clone(),
        config: config.clone(),
        bundle: folder.clone(),
        spec,
        rootfs,
        run: Some(RunRecord {
            image: image_name,
            command: command.unwrap_or_default(),
            stop_signal: image_config.stop_signal.clone(),
            storage: folder,
            layers: all_layers,
            remove: options.rm,
        }),
    })
}

fn top_first(image: &Image) -> Vec<PathBuf> {
    image.layers.iter().rev().cloned().collect()
}

/// A volume of the image is writable as everything is; with `--read-only` it becomes a file system in memory, unless it
/// has content, which would have to be copied somewhere.
fn scratch<'a>(volumes: &'a [String], options: &ImageRunArgs, tree: &Tree) -> Result<Vec<&'a str>> {
    let mut scratch = Vec::new();
    for volume in volumes {
        let is_given = options
            .volume
            .iter()
            .any(|text| text.split(':').nth(1) == Some(volume.as_str()));
        if is_given {
            continue;
        }
        if !volume.starts_with('/') || !tree.is_empty(volume)? {
            bail!(
                "unsupported: --read-only with the image's volume {volume}, which has content: give a folder for it with -v"
            );
        }
        scratch.push(volume.as_str());
    }
    Ok(scratch)
}

/// Rows and columns of the caller's terminal, so that the container's begins with them.
fn terminal_size(options: &ImageRunArgs) -> Option<(u16, u16)> {
    if !options.tty {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(io::stdin())
        .or_else(|_| rustix::termios::tcgetwinsize(io::stdout()))
        .ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}
