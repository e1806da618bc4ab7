//! Unpacking, one behaviour a test. They run as root, because layers set owners and attributes.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use ::tar::{Builder, EntryType, Header};
use proptest::prelude::*;

use super::*;

/// Builds layers entry by entry, also such as no honest program writes.
struct Layer {
    builder: Builder<Vec<u8>>,
}

impl Layer {
    fn new() -> Self {
        Self {
            builder: Builder::new(Vec::new()),
        }
    }

    fn header(kind: EntryType, path: &str, size: u64) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(if kind.is_dir() { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(size);
        // The crate's own setters refuse what these tests are about.
        let name = &mut header.as_old_mut().name;
        name[..path.len()].copy_from_slice(path.as_bytes());
        header
    }

    fn add(mut self, mut header: Header, body: &[u8]) -> Self {
        header.set_cksum();
        self.builder.append(&header, body).unwrap();
        self
    }

    fn file(self, path: &str, body: &str) -> Self {
        self.add(
            Self::header(EntryType::Regular, path, body.len() as u64),
            body.as_bytes(),
        )
    }

    fn dir(self, path: &str) -> Self {
        self.add(Self::header(EntryType::Directory, path, 0), b"")
    }

    fn link(self, kind: EntryType, path: &str, target: &str) -> Self {
        let mut header = Self::header(kind, path, 0);
        header.set_link_name_literal(target).unwrap();
        self.add(header, b"")
    }

    fn device(self, kind: EntryType, path: &str, major: u32, minor: u32) -> Self {
        let mut header = Self::header(kind, path, 0);
        header.set_device_major(major).unwrap();
        header.set_device_minor(minor).unwrap();
        self.add(header, b"")
    }

    fn pax(mut self, records: &[(&str, &[u8])]) -> Self {
        self.builder
            .append_pax_extensions(records.iter().copied())
            .unwrap();
        self
    }

    fn bytes(self) -> Vec<u8> {
        self.builder.into_inner().unwrap()
    }
}

/// A parent directory whose other contents must never change.
struct Target {
    outer: tempfile::TempDir,
}

impl Target {
    fn new() -> Self {
        let outer = tempfile::tempdir().unwrap();
        std::fs::create_dir(outer.path().join("layer")).unwrap();
        std::fs::write(outer.path().join("secret"), "untouched").unwrap();
        Self { outer }
    }

    fn path(&self) -> PathBuf {
        self.outer.path().join("layer")
    }

    fn unpack(&self, bytes: &[u8]) -> Result<Unpacked, ImageError> {
        self.unpack_within(bytes, &Limits::default())
    }

    fn unpack_within(&self, bytes: &[u8], limits: &Limits) -> Result<Unpacked, ImageError> {
        let result = unpack_layer(bytes, &self.path(), "test", limits);
        let outside: Vec<_> = std::fs::read_dir(self.outer.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(
            outside.len(),
            2,
            "something was written outside: {outside:?}"
        );
        assert_eq!(
            std::fs::read_to_string(self.outer.path().join("secret")).unwrap(),
            "untouched"
        );
        result
    }

    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.path().join(path)).unwrap()
    }

    fn stat(&self, path: &str) -> std::fs::Metadata {
        self.path().join(path).symlink_metadata().unwrap()
    }

    fn xattr(&self, path: &str, name: &str) -> Option<Vec<u8>> {
        let mut buffer = [0; 256];
        let length = rustix::fs::lgetxattr(self.path().join(path), name, &mut buffer[..]).ok()?;
        Some(buffer[..length].to_vec())
    }
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: only root can set the owners that layers have");
    }
    root
}

fn entry_error(result: Result<Unpacked, ImageError>) -> BadEntry {
    match result {
        Err(ImageError::BadEntry { source, .. }) => source,
        other => panic!("expected a refused entry, got {other:?}"),
    }
}

#[test]
fn metadata_arrives() {
    if !is_root() {
        return;
    }
    let target = Target::new();
    let mut suid = Layer::header(EntryType::Regular, "bin/su", 4);
    suid.set_mode(0o4755);
    suid.set_uid(12);
    suid.set_gid(70_000);
    let capability = [
        1, 0, 0, 2, 0, b'\n', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let bytes = Layer::new()
        .dir("./")
        .dir("bin/")
        .pax(&[
            ("SCHILY.xattr.user.note", b"line\nline"),
            ("SCHILY.xattr.security.capability", &capability),
            ("mtime", b"1234567890.5"),
        ])
        .add(suid, b"root")
        .link(EntryType::Symlink, "bin/sh", "/bin/su")
        .link(EntryType::Link, "bin/hard", "/bin/su")
        .device(EntryType::Fifo, "fifo", 0, 0)
        .device(EntryType::Char, "dev/null", 1, 3)
        .bytes();
    let unpacked = target.unpack(&bytes).unwrap();
    assert_eq!(unpacked.diff_id, Digest::of(&bytes));
    assert_eq!(unpacked.content_bytes, 4);
    let su = target.stat("bin/su");
    assert_eq!(
        (su.mode() & 0o7777, su.uid(), su.gid()),
        (0o4755, 12, 70_000)
    );
    assert_eq!((su.mtime(), su.mtime_nsec()), (1_234_567_890, 500_000_000));
    assert_eq!(su.nlink(), 2);
    assert_eq!(target.xattr("bin/su", "user.note").unwrap(), b"line\nline");
    assert_eq!(
        target.xattr("bin/su", "security.capability").unwrap(),
        capability
    );
    assert_eq!(
        std::fs::read_link(target.path().join("bin/sh")).unwrap(),
        Path::new("/bin/su")
    );
    assert_eq!(target.stat("bin").mtime(), 1_000_000_000);
    assert_eq!(target.stat("").mtime(), 1_000_000_000);
    assert!(target.stat("fifo").file_type().is_fifo());
    assert_eq!(target.stat("dev/null").rdev(), rustix::fs::makedev(1, 3));
}

#[test]
fn long_names_of_both_formats_arrive() {
    if !is_root() {
        return;
    }
    let target = Target::new();
    let long = format!("{}/{}", "d".repeat(150), "f".repeat(200));
    let mut gnu = Builder::new(Vec::new());
    let mut header = Layer::header(EntryType::Regular, "", 3);
    gnu.append_data(&mut header, &long, &b"gnu"[..]).unwrap();
    target.unpack(&gnu.into_inner().unwrap()).unwrap();
    assert_eq!(target.read(&long), "gnu");
    let bytes = Layer::new()
        .pax(&[("path", format!("{long}{}", "x".repeat(100)).as_bytes())])
        .file("short", "pax")
        .bytes();
    let other = Target::new();
    other.unpack(&bytes).unwrap_err();
    let bytes = Layer::new()
        .pax(&[("path", long.as_bytes())])
        .file("short", "pax")
        .bytes();
    other.unpack(&bytes).unwrap();
    assert_eq!(other.read(&long), "pax");
    assert!(!other.path().join("short").exists());
}

#[test]
fn paths_that_go_up_are_refused() {
    for path in ["../secret", "a/../../secret", "..", "a/..", "/../secret"] {
        let target = Target::new();
        let error = entry_error(target.unpack(&Layer::new().file(path, "evil").bytes()));
        assert!(matches!(error, BadEntry::Escapes), "{path}: {error:?}");
    }
}

#[test]
fn absolute_paths_stay_inside() {
    if !is_root() {
        return;
    }
    let target = Target::new();
    target
        .unpack(&Layer::new().file("/etc/cofferdam-test", "inside").bytes())
        .unwrap();
    assert_eq!(target.read("etc/cofferdam-test"), "inside");
    assert!(!Path::new("/etc/cofferdam-test").exists());
}

#[test]
fn links_never_lead_outside() {
    if !is_root() {
        return;
    }
    for link in ["/", "/tmp", "..", "../..", "../../../../..", "."] {
        let target = Target::new();
        let _ = target.unpack(
            &Layer::new()
                .dir("tmp")
                .link(EntryType::Symlink, "a", link)
                .file("a/secret", "evil")
                .file("a/cofferdam-escaped", "evil")
                .bytes(),
        );
        assert!(!Path::new("/tmp/cofferdam-escaped").exists(), "{link}");
        assert!(!Path::new("/cofferdam-escaped").exists(), "{link}");
    }
    // The file written over is the link itself, never its target.
    let target = Target::new();
    let outside = target.outer.path().join("secret");
    target
        .unpack(
            &Layer::new()
                .link(EntryType::Symlink, "a", outside.to_str().unwrap())
                .file("a", "plain")
                .bytes(),
        )
        .unwrap();
    assert_eq!(target.read("a"), "plain");
    assert!(target.stat("a").is_file());
}

#[test]
fn links_inside_are_followed_as_from_the_root() {
    if !is_root() {
        return;
    }
    let target = Target::new();
    target
        .unpack(
            &Layer::new()
                .dir("usr/lib")
                .link(EntryType::Symlink, "lib", "/usr/lib")
                .file("lib/x.so", "library")
                .bytes(),
        )
        .unwrap();
    assert_eq!(target.read("usr/lib/x.so"), "library");
    assert!(target.stat("lib").is_symlink());
}

#[test]
fn hard_links_reach_only_what_the_layer_has() {
    if !is_root() {
        return;
    }
    for link in ["../secret", "/etc/passwd", "a/../../secret", "missing", ""] {
        let target = Target::new();
        let error =
            entry_error(target.unpack(&Layer::new().link(EntryType::Link, "x", link).bytes()));
        assert!(
            matches!(error, BadEntry::BadHardLink { .. } | BadEntry::Escapes),
            "{link}: {error:?}"
        );
    }
    let target = Target::new();
    let outside = target.outer.path().join("secret");
    let _ = target.unpack(
        &Layer::new()
            .link(
                EntryType::Symlink,
                "out",
                target.outer.path().to_str().unwrap(),
            )
            .link(EntryType::Link, "x", "out/secret")
            .bytes(),
    );
    assert_eq!(outside.metadata().unwrap().nlink(), 1);
}

#[test]
fn device_nodes_are_refused_by_name() {
    let target = Target::new();
    let error = target
        .unpack(
            &Layer::new()
                .device(EntryType::Block, "dev/sda", 8, 0)
                .bytes(),
        )
        .unwrap_err();
    assert!(error.to_string().contains("dev/sda"), "{error}");
    assert!(matches!(
        entry_error(Err(error)),
        BadEntry::Device {
            kind: "block",
            major: 8,
            minor: 0
        }
    ));
    for (major, minor) in [(1, 1), (10, 200), (5, 3)] {
        let bytes = Layer::new()
            .device(EntryType::Char, "x", major, minor)
            .bytes();
        assert!(matches!(
            entry_error(Target::new().unpack(&bytes)),
            BadEntry::Device { .. }
        ));
    }
}

#[test]
fn attributes_that_steer_overlayfs_are_refused() {
    if !is_root() {
        return;
    }
    for name in [
        "trusted.overlay.redirect",
        "trusted.x",
        "user.overlay.opaque",
    ] {
        let key = format!("SCHILY.xattr.{name}");
        let bytes = Layer::new().pax(&[(&key, b"/etc")]).dir("d").bytes();
        assert!(
            matches!(
                entry_error(Target::new().unpack(&bytes)),
                BadEntry::Xattr(_)
            ),
            "{name}"
        );
    }
    let target = Target::new();
    let label = Layer::new()
        .pax(&[("SCHILY.xattr.security.selinux", b"label\0")])
        .file("f", "x");
    target.unpack(&label.bytes()).unwrap();
    assert_eq!(target.read("f"), "x");
}

#[test]
fn whiteouts_take_overlay_form() {
    if !is_root() {
        return;
    }
    let target = Target::new();
    target
        .unpack(
            &Layer::new()
                .file("d/.wh.gone", "")
                .file("opaque/.wh..wh..opq", "")
                .file("opaque/new", "n")
                // Replaced as a whole, in both orders.
                .file(".wh.first", "")
                .dir("first")
                .file("first/f", "1")
                .dir("second")
                .file("second/f", "2")
                .file(".wh.second", "")
                // Hidden and filled again without an entry of its own.
                .file(".wh.third", "")
                .file("third/f", "3")
                .file(".wh.file", "")
                .file("file", "stays")
                .file(".wh..wh.plnk/1.2", "aufs")
                .bytes(),
        )
        .unwrap();
    let gone = target.stat("d/gone");
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    assert!(!target.path().join("d/.wh.gone").exists());
    for dir in ["opaque", "first", "second", "third"] {
        assert_eq!(
            target.xattr(dir, "trusted.overlay.opaque").unwrap(),
            b"y",
            "{dir}"
        );
    }
    assert_eq!(target.xattr("d", "trusted.overlay.opaque"), None);
    assert_eq!(
        target.read("first/f") + &target.read("second/f") + &target.read("third/f"),
        "123"
    );
    assert_eq!(target.read("file"), "stays");
    assert!(!target.path().join(".wh..wh.plnk").exists());
    for bad in [".wh.", ".wh..", ".wh...", ".wh.a/b"] {
        let result = Target::new().unpack(&Layer::new().file(bad, "").bytes());
        assert!(
            matches!(entry_error(result), BadEntry::BadWhiteout),
            "{bad}"
        );
    }
}

#[test]
fn the_last_of_several_entries_counts() {
    if !is_root() {
        return;
    }
    let target = Target::new();
    target
        .unpack(
            &Layer::new()
                .file("x", "one")
                .file("x", "two")
                .dir("d")
                .file("d/kept", "k")
                .dir("d")
                .dir("gone")
                .file("gone/f", "f")
                .file("gone", "now a file")
                .file("becomes", "f")
                .dir("becomes")
                .link(EntryType::Link, "x2", "x")
                .file("x2", "apart")
                .bytes(),
        )
        .unwrap();
    assert_eq!(target.read("x"), "two");
    assert_eq!(target.read("d/kept"), "k");
    assert_eq!(target.read("gone"), "now a file");
    assert!(target.stat("becomes").is_dir());
    assert_eq!(target.read("x2"), "apart");
    let below_a_file = Layer::new().file("f", "").file("f/g", "").bytes();
    assert!(matches!(
        entry_error(Target::new().unpack(&below_a_file)),
        BadEntry::ParentNotDirectory(_)
    ));
}

#[test]
fn compressed_layers_have_the_same_content() {
    if !is_root() {
        return;
    }
    let plain = Layer::new().file("f", &"text ".repeat(10_000)).bytes();
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
    let (head, tail) = plain.split_at(700);
    for bytes in [
        plain.clone(),
        gzip(&plain),
        [gzip(head), gzip(tail)].concat(),
        zstd(&plain),
        [zstd(head), zstd(tail)].concat(),
    ] {
        let target = Target::new();
        assert_eq!(target.unpack(&bytes).unwrap().diff_id, Digest::of(&plain));
        assert_eq!(target.stat("f").len(), 50_000);
        for cut in [bytes.len() / 3, bytes.len() / 2] {
            let result = Target::new().unpack(&bytes[..cut]);
            // A cut between two entries leaves a valid tar: the digest tells then.
            match result {
                Err(ImageError::BadLayer { .. }) => {}
                Ok(unpacked) => assert_ne!(unpacked.diff_id, Digest::of(&plain)),
                other => panic!("{other:?}"),
            }
        }
    }
    for (head, method) in [(&b"BZh91AY"[..], "bzip2"), (b"\xfd7zXZ\0\0", "xz")] {
        match Target::new().unpack(head) {
            Err(ImageError::Compression { method: found, .. }) => assert_eq!(found, method),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn sparse_files_of_gnu_tar_arrive() {
    if !is_root() {
        return;
    }
    for format in ["--format=gnu", "--format=posix"] {
        for version in ["1.0", "0.1"] {
            let dir = tempfile::tempdir().unwrap();
            let file = std::fs::File::create(dir.path().join("holes")).unwrap();
            file.set_len(20 << 20).unwrap();
            for piece in 0..12_u64 {
                let at = piece * (1 << 20) + 4096;
                std::os::unix::fs::FileExt::write_all_at(&file, b"data", at).unwrap();
            }
            let tar = std::process::Command::new("tar")
                .args(["-C", dir.path().to_str().unwrap(), format, "--sparse"])
                .arg(format!("--sparse-version={version}"))
                .args(["-cf", "-", "holes"])
                .output()
                .unwrap();
            assert!(tar.status.success());
            assert!(tar.stdout.len() < 1 << 20, "tar wrote the holes");
            let target = Target::new();
            target.unpack(&tar.stdout).unwrap();
            assert!(
                target.stat("holes").blocks() * 512 < 2 << 20,
                "holes were filled"
            );
            assert_eq!(
                std::fs::read(target.path().join("holes")).unwrap(),
                std::fs::read(dir.path().join("holes")).unwrap(),
                "{format} {version}"
            );
        }
    }
}

#[test]
fn limits_end_in_errors() {
    let many = (0..50)
        .fold(Layer::new(), |layer, n| layer.dir(&format!("d{n}")))
        .bytes();
    let limits = Limits {
        layer_entries: 49,
        layer_bytes: 1 << 20,
        header_bytes: 4096,
        ..Limits::default()
    };
    if is_root() {
        assert!(matches!(
            Target::new().unpack_within(&many, &limits),
            Err(ImageError::TooLarge {
                unit: "entries",
                ..
            })
        ));
    }
    let bomb = zstd::encode_all(std::io::repeat(0).take(64 << 20), 1).unwrap();
    assert!(matches!(
        Target::new().unpack_within(&bomb, &limits),
        Err(ImageError::TooLarge { unit: "bytes", .. })
    ));
    let name = vec![b'x'; 5000];
    let header = Layer::new().pax(&[("comment", &name)]).dir("d").bytes();
    match Target::new().unpack_within(&header, &limits) {
        Err(ImageError::BadLayer { source, .. }) => {
            assert!(source.to_string().contains("extended header"), "{source}");
        }
        other => panic!("{other:?}"),
    }
    let full = Limits {
        keep_free_bytes: u64::MAX / 2,
        ..Limits::default()
    };
    let small = Layer::new().file("f", "x").bytes();
    assert!(matches!(
        Target::new().unpack_within(&small, &full),
        Err(ImageError::NoSpace { .. })
    ));
    // Announces far more than there is: no memory and no space is taken for it.
    let liar = Layer::header(EntryType::Regular, "f", 1 << 59);
    let mut liar_bytes = {
        let mut header = liar;
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    liar_bytes.extend([0; 2048]);
    assert!(Target::new().unpack(&liar_bytes).is_err());
}

/// Everything in a directory by path: kind, content or target.
fn tree(root: &Path) -> BTreeMap<PathBuf, String> {
    fn walk(root: &Path, dir: &Path, found: &mut BTreeMap<PathBuf, String>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            let shown = if metadata.is_symlink() {
                format!("link {}", path.read_link().unwrap().display())
            } else if metadata.is_dir() {
                walk(root, &path, found);
                "dir".to_owned()
            } else {
                "other".to_owned()
            };
            found.insert(path.strip_prefix(root).unwrap().to_owned(), shown);
        }
    }
    let mut found = BTreeMap::new();
    walk(root, root, &mut found);
    found
}

fn hostile_entry() -> impl Strategy<Value = (u8, String, String)> {
    let path = prop_oneof![
        "(a|b|c|\\.wh\\.a|\\.wh\\.\\.wh\\.\\.opq)(/(a|b|c|\\.wh\\.b)){0,3}",
        "(\\.\\./|/|\\./){0,3}(a|b)(/\\.\\.){0,2}(/a)?",
    ];
    let link = prop_oneof![
        "(\\.\\./|/){0,4}(a|b|c|secret|tmp)(/a){0,2}",
        Just("..".to_owned()),
        Just("/".to_owned())
    ];
    (0_u8..6, path, link)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_of_entries_escapes(entries in proptest::collection::vec(hostile_entry(), 1..14)) {
        if is_root() {
            let target = Target::new();
            let mut layer = Layer::new();
            for (kind, path, link) in &entries {
                layer = match kind {
                    0 | 1 => layer.file(path, "evil"),
                    2 => layer.dir(path),
                    3 => layer.link(EntryType::Symlink, path, link),
                    4 => layer.link(EntryType::Link, path, link),
                    _ => layer.device(EntryType::Fifo, path, 0, 0),
                };
            }
            // `unpack` itself looks at everything around the layer.
            let _ = target.unpack(&layer.bytes());
            for path in tree(&target.path()).into_keys() {
                prop_assert!(path.components().all(|part| {
                    !part.as_os_str().as_encoded_bytes().starts_with(b".wh.")
                }), "a whiteout marker stayed: {path:?}");
            }
        }
    }

    #[test]
    fn damaged_archives_end_in_errors(at in 0_usize..3000, byte: u8, compress: bool) {
        if is_root() {
            let plain = Layer::new()
                .dir("d")
                .pax(&[("path", b"d/long"), ("SCHILY.xattr.user.a", b"v")])
                .file("short", "content")
                .link(EntryType::Symlink, "s", "d/long")
                .bytes();
            let digest = Digest::of(&plain);
            let mut bytes = if compress { zstd::encode_all(&plain[..], 1).unwrap() } else { plain };
            let at = at % bytes.len();
            let changed = bytes[at] != byte;
            bytes[at] = byte;
            if let Ok(unpacked) = Target::new().unpack(&bytes) {
                prop_assert!(compress || (unpacked.diff_id != digest) == changed);
            }
        }
    }

    #[test]
    fn any_bytes_unpack_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        let _ = Target::new().unpack(&bytes);
    }
}
