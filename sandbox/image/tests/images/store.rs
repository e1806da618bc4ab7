//! The store over time: sharing, leases, removal, other processes, crashes.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::mount::{MountFlags, UnmountFlags};

use crate::fixture::{Fixture, is_root, layer, leftovers};
use sandbox_image::{Image, ImageError, ImageSource, ImageStore, PullPolicy, Settings, Silent};

fn import(store: &ImageStore, fixture: &Fixture, name: &str) -> Image {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image.tar");
    fs::write(&path, fixture.docker_archive(&[name])).unwrap();
    let source = ImageSource::parse(path.to_str().unwrap()).unwrap();
    store
        .resolve(&source, PullPolicy::Missing, &Silent)
        .unwrap()
}

/// A mount that ends with the test.
struct Mount {
    target: PathBuf,
}

impl Mount {
    fn new(kind: &str, target: &Path, options: &str) -> Self {
        let options = CString::new(options).unwrap();
        fs::create_dir_all(target).unwrap();
        rustix::mount::mount(kind, target, kind, MountFlags::empty(), options.as_c_str()).unwrap();
        Self {
            target: target.to_owned(),
        }
    }

    /// The image's layers under a writable directory. The long paths of many layers would not
    /// fit the one page that mount options have.
    fn overlay(image: &Image, dir: &Path) -> Self {
        let opened: Vec<File> = image
            .layers
            .iter()
            .rev()
            .map(|layer| File::open(layer).unwrap())
            .collect();
        let lower: Vec<String> = opened
            .iter()
            .map(|file| format!("/proc/self/fd/{}", file.as_raw_fd()))
            .collect();
        let [upper, work] = ["upper", "work"].map(|name| {
            let path = dir.join(name);
            fs::create_dir(&path).unwrap();
            path
        });
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.join(":"),
            upper.display(),
            work.display()
        );
        Self::new("overlay", &dir.join("target"), &options)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.target, UnmountFlags::DETACH).unwrap();
    }
}

fn base() -> Vec<u8> {
    layer(&[("base", "shared by both")])
}

#[test]
fn images_share_layers_until_the_last_one_goes() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path()).unwrap();
    let one = import(
        &store,
        &Fixture::new(vec![base(), layer(&[("x", "1")])]),
        "one:1",
    );
    let two = import(
        &store,
        &Fixture::new(vec![base(), layer(&[("x", "22")])]),
        "two:1",
    );
    assert_eq!(one.layers[0], two.layers[0]);
    let list = store.list().unwrap();
    assert_eq!(list.len(), 2);
    let sizes: Vec<u64> = list.iter().map(|image| image.size).collect();
    assert_eq!(sizes.iter().sum::<u64>(), 14 + 1 + 14 + 2);

    store.lease(&one, "container-1").unwrap();
    assert_eq!(store.leases().unwrap(), ["container-1"]);
    match store.remove("one:1", false) {
        Err(ImageError::InUse { containers, .. }) => assert_eq!(containers, "container-1"),
        other => panic!("{other:?}"),
    }
    let removed = store.remove("two:1", false).unwrap();
    assert_eq!(removed.deleted.as_ref(), Some(&two.digest));
    assert_eq!(removed.untagged, ["docker.io/library/two:1"]);
    assert_eq!(removed.layers.len(), 1);
    assert!(one.layers.iter().all(|layer| layer.is_dir()));
    assert!(!two.layers[1].exists());

    // By force, the container keeps its files until it is gone.
    let removed = store.remove(&one.digest.hex()[..10], true).unwrap();
    assert_eq!(removed.layers, []);
    assert!(one.layers.iter().all(|layer| layer.is_dir()));
    assert!(matches!(
        store.remove("one:1", false),
        Err(ImageError::NotFound { .. })
    ));
    store.release("container-1").unwrap();
    store.release("container-1").unwrap();
    assert_eq!(leftovers(dir.path()), [] as [&Path; 0]);
    assert!(matches!(
        store.lease(&one, "late"),
        Err(ImageError::NotFound { .. })
    ));
    for bad in ["", "../x", "a/b", ".hidden", &"x".repeat(300)] {
        assert!(matches!(
            store.lease(&one, bad),
            Err(ImageError::BadContainerId { .. })
        ));
    }
}

#[test]
fn names_move_and_go_one_by_one() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path()).unwrap();
    let fixture = Fixture::new(vec![base()]);
    let old = import(&store, &fixture, "app:latest");
    import(&store, &fixture, "app:old");
    let new = import(
        &store,
        &Fixture::new(vec![layer(&[("new", "")])]),
        "app:latest",
    );
    let names = |digest| {
        let list = store.list().unwrap();
        list.into_iter()
            .find(|image| image.digest == digest)
            .map(|image| image.names)
    };
    assert_eq!(
        names(old.digest.clone()).unwrap(),
        ["docker.io/library/app:old"]
    );
    assert_eq!(names(new.digest).unwrap(), ["docker.io/library/app:latest"]);
    import(&store, &fixture, "app:again");
    let removed = store.remove("app:old", false).unwrap();
    assert_eq!((removed.untagged.len(), removed.deleted), (1, None));
    assert_eq!(names(old.digest).unwrap(), ["docker.io/library/app:again"]);
}

/// Everything that a container would see.
fn tree(root: &Path) -> BTreeMap<PathBuf, String> {
    fn walk(root: &Path, dir: &Path, found: &mut BTreeMap<PathBuf, String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let shown = if path.is_dir() {
                walk(root, &path, found);
                "/".to_owned()
            } else {
                fs::read_to_string(&path).unwrap()
            };
            found.insert(path.strip_prefix(root).unwrap().to_owned(), shown);
        }
    }
    let mut found = BTreeMap::new();
    walk(root, root, &mut found);
    found
}

#[test]
fn mounted_layers_look_as_the_image_says() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(&dir.path().join("store")).unwrap();
    let first = layer(&[
        ("keep", "1"),
        ("gone", "1"),
        ("d/", ""),
        ("d/hidden", "1"),
        ("merged/", ""),
        ("merged/a", "1"),
        ("merged/b", "1"),
        ("replaced/", ""),
        ("replaced/old", "1"),
    ]);
    let second = layer(&[
        (".wh.gone", ""),
        ("d/.wh..wh..opq", ""),
        ("d/new", "2"),
        ("merged/.wh.a", ""),
        ("merged/c", "2"),
        (".wh.replaced", ""),
        ("replaced/", ""),
        ("replaced/new", "2"),
    ]);
    let third = layer(&[("gone", "back"), ("keep", "3")]);
    // The same layer twice: overlayfs would refuse the directory.
    let image = import(
        &store,
        &Fixture::new(vec![third.clone(), first, second, third]),
        "stack:1",
    );
    assert_eq!(image.layers.len(), 3);
    let overlay = Mount::overlay(&image, dir.path());
    let target = dir.path().join("target");
    let expected: BTreeMap<PathBuf, String> = [
        ("d", "/"),
        ("d/new", "2"),
        ("gone", "back"),
        ("keep", "3"),
        ("merged", "/"),
        ("merged/b", "1"),
        ("merged/c", "2"),
        ("replaced", "/"),
        ("replaced/new", "2"),
    ]
    .into_iter()
    .map(|(path, text)| (path.into(), text.to_owned()))
    .collect();
    assert_eq!(tree(&target), expected);
    fs::write(target.join("written"), "x").unwrap();
    drop(overlay);
    assert_eq!(tree(&target), BTreeMap::new());
    assert!(
        image
            .layers
            .iter()
            .all(|layer| !layer.join("written").exists())
    );
}

#[test]
fn as_many_layers_as_the_limit_can_be_mounted() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(&dir.path().join("store")).unwrap();
    let layers = (0..200)
        .map(|n| layer(&[(&format!("f{n}"), "x")]))
        .collect();
    let image = import(&store, &Fixture::new(layers), "many:1");
    let overlay = Mount::overlay(&image, dir.path());
    let target = dir.path().join("target");
    assert_eq!(fs::read_dir(&target).unwrap().count(), 200);
    drop(overlay);
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("large.tar");
    large_archive(&archive);
    let small = dir.path().join("small");
    let _mount = Mount::new("tmpfs", &small, "size=8m");
    for keep_free_bytes in [0, 1 << 20] {
        let mut settings = Settings::default();
        settings.limits.keep_free_bytes = keep_free_bytes;
        let store = ImageStore::open_with(&small, settings).unwrap();
        let source = ImageSource::parse(archive.to_str().unwrap()).unwrap();
        let error = store
            .resolve(&source, PullPolicy::Missing, &Silent)
            .unwrap_err();
        assert!(matches!(error, ImageError::NoSpace { .. }), "{error:?}");
        assert_eq!(leftovers(&small), [] as [&Path; 0]);
        let space = rustix::fs::statvfs(&small).unwrap();
        assert!(
            space.f_bavail * space.f_frsize > 7 << 20,
            "the space stays taken"
        );
    }
}

#[test]
fn nobody_else_can_read_the_store() {
    let dir = tempfile::tempdir().unwrap();
    ImageStore::open(&dir.path().join("store")).unwrap();
    let mode = dir.path().join("store/layers").metadata().unwrap().mode();
    assert_eq!(mode & 0o077, 0);
}

#[test]
fn another_format_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    ImageStore::open(dir.path()).unwrap();
    fs::write(dir.path().join("format"), "99\n").unwrap();
    let error = ImageStore::open(dir.path()).unwrap_err();
    assert!(error.to_string().contains("format \"99\""), "{error}");
}

/// Re-runs one test of this program as another process.
fn other_process(test: &str, store: &Path, archive: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env("STORE", store)
        .env("ARCHIVE", archive)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

#[test]
#[ignore = "run by other tests in a process of its own"]
fn import_in_another_process() {
    let variable = |name| PathBuf::from(std::env::var_os(name).unwrap());
    let store = ImageStore::open(&variable("STORE")).unwrap();
    let archive = variable("ARCHIVE");
    let source = ImageSource::parse(archive.to_str().unwrap()).unwrap();
    let image = store
        .resolve(&source, PullPolicy::Missing, &Silent)
        .unwrap();
    assert!(image.layers.iter().all(|layer| layer.is_dir()));
}

fn large_archive(path: &Path) -> Fixture {
    let body = "many words ".repeat(4_000);
    let files: Vec<(String, &str)> = (0..400).map(|n| (format!("f{n}"), body.as_str())).collect();
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(name, body)| (name.as_str(), *body))
        .collect();
    let fixture = Fixture::new(vec![base(), layer(&files)]);
    fs::write(path, fixture.docker_archive(&["large:1"])).unwrap();
    fixture
}

#[test]
fn processes_import_the_same_image_at_once() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (store, archive) = (dir.path().join("store"), dir.path().join("large.tar"));
    let fixture = large_archive(&archive);
    let children: Vec<_> = (0..4)
        .map(|_| {
            other_process("store::import_in_another_process", &store, &archive)
                .spawn()
                .unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let list = ImageStore::open(&store).unwrap().list().unwrap();
    assert_eq!(list.len(), 1);
    assert_eq!(list[0].digest, fixture.id());
    assert_eq!(fs::read_dir(store.join("layers")).unwrap().count(), 2);
    assert_eq!(fs::read_dir(store.join("tmp")).unwrap().count(), 0);
}

#[test]
fn a_killed_import_leaves_nothing_after_the_next_open() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (store, archive) = (dir.path().join("store"), dir.path().join("large.tar"));
    let fixture = large_archive(&archive);
    let entries = |name: &str| fs::read_dir(store.join(name)).map_or(0, |entries| entries.count());
    let mut killed_half_way = 0;
    for delay in [0, 3, 10, 20, 40, 80, 160] {
        let mut child = other_process("store::import_in_another_process", &store, &archive)
            .spawn()
            .unwrap();
        while entries("tmp") == 0 && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(delay));
        child.kill().unwrap();
        child.wait().unwrap();
        let unfinished = entries("tmp");
        killed_half_way += usize::from(unfinished > 0);
        let opened = ImageStore::open(&store).unwrap();
        assert_eq!(fs::read_dir(store.join("tmp")).unwrap().count(), 0);
        match opened.list().unwrap().as_slice() {
            [] if unfinished > 0 => assert_eq!(leftovers(&store), [] as [&Path; 0]),
            [] => {}
            [image] => {
                assert_eq!(image.digest, fixture.id());
                opened.remove("large:1", false).unwrap();
            }
            more => panic!("{more:?}"),
        }
    }
    assert!(killed_half_way > 0, "no kill came at the right time");
}

#[test]
fn a_living_import_is_not_disturbed_by_removals() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (path, archive) = (dir.path().join("store"), dir.path().join("large.tar"));
    large_archive(&archive);
    let store = ImageStore::open(&path).unwrap();
    let mut child = other_process("store::import_in_another_process", &path, &archive)
        .spawn()
        .unwrap();
    // Collects garbage as often as it can while the other process works.
    let small = Fixture::new(vec![base()]);
    while child.try_wait().unwrap().is_none() {
        import(&store, &small, "small:1");
        store.remove("small:1", false).unwrap();
        ImageStore::open(&path).unwrap();
    }
    assert!(child.wait().unwrap().success());
    let image = store
        .resolve(
            &ImageSource::parse("large:1").unwrap(),
            PullPolicy::Never,
            &Silent,
        )
        .unwrap();
    assert_eq!(fs::read_dir(&image.layers[1]).unwrap().count(), 400);
    assert!(image.layers[0].join("base").exists());
}
