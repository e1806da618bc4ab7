//! Layouts and archives, good and bad.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::fixture::{
    Fixture, Packing, Recorder, chain, docker_archive, is_root, layer, leftovers, tar_of,
    write_layout,
};
use proptest::prelude::*;
use sandbox_image::{Image, ImageError, ImageSource, ImageStore, PullPolicy, Silent};
use serde_json::json;

struct Place {
    dir: tempfile::TempDir,
    store: ImageStore,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = ImageStore::open(&dir.path().join("store")).unwrap();
        Self { dir, store }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn layout(&self) -> std::path::PathBuf {
        self.dir.path().join("layout")
    }

    fn resolve(&self, text: &str) -> Result<Image, ImageError> {
        self.store
            .resolve(&ImageSource::parse(text)?, PullPolicy::Never, &Silent)
    }

    fn resolve_layout(&self) -> Result<Image, ImageError> {
        self.resolve(self.layout().to_str().unwrap())
    }

    /// Resolving fails, says all of these words, and leaves nothing.
    fn fails(&self, text: &str, words: &[&str]) -> ImageError {
        let error = self.resolve(text).unwrap_err();
        let shown = chain(&error);
        for word in words {
            assert!(shown.contains(word), "{word:?} is not in {shown:?}");
        }
        assert_eq!(leftovers(&self.dir.path().join("store")), [] as [&Path; 0]);
        error
    }
}

fn read(image: &Image, path: &str) -> String {
    let file = image
        .layers
        .iter()
        .rev()
        .map(|layer| layer.join(path))
        .find(|file| file.exists());
    fs::read_to_string(file.unwrap()).unwrap()
}

fn two_layers() -> Fixture {
    Fixture::new(vec![
        layer(&[("etc/", ""), ("etc/a", "lower"), ("etc/b", "b")]),
        layer(&[("etc/a", "upper"), ("etc/.wh.b", "")]),
    ])
}

#[test]
fn a_layout_is_imported_with_its_configuration() {
    if !is_root() {
        return;
    }
    for packing in [Packing::Plain, Packing::Gzip, Packing::Zstd] {
        let place = Place::new();
        let fixture = two_layers().packed(packing);
        fixture.write_layout(&place.layout(), Some("localhost/app:1"));
        let image = place.resolve_layout().unwrap();
        assert_eq!(image.digest, fixture.id());
        assert_eq!(image.names, ["localhost/app:1"]);
        assert_eq!(image.layers.len(), 2);
        assert_eq!(read(&image, "etc/a"), "upper");
        let config = &image.config;
        assert_eq!(config.command(), ["/bin/entry", "one", "two"]);
        assert_eq!(config.env, ["PATH=/bin", "A=b"]);
        assert_eq!(
            (config.user.as_str(), config.working_dir.as_str()),
            ("12:34", "/work")
        );
        assert_eq!(config.stop_signal.as_deref(), Some("SIGINT"));
        assert_eq!(config.exposed_ports, ["80/tcp"]);
        assert_eq!(config.labels["k"], "v");
        // By name and by id, now that it is in the store.
        for name in [
            "localhost/app:1",
            "app:1",
            &image.digest.to_string(),
            &image.digest.hex()[..12],
        ] {
            assert_eq!(place.resolve(name).unwrap().digest, image.digest, "{name}");
        }
        assert_eq!(
            fs::read_dir(place.dir.path().join("store/tmp"))
                .unwrap()
                .count(),
            0
        );
    }
}

#[test]
fn archives_are_recognised_by_content() {
    if !is_root() {
        return;
    }
    let fixture = two_layers();
    let layout = tempfile::tempdir().unwrap();
    fixture.write_layout(layout.path(), Some("example.org/app:2"));
    let forms = [
        (fixture.docker_archive(&["example.org/app:2"]), false),
        (tar_of(layout.path()), true),
    ];
    for (bytes, has_manifest) in forms {
        for packing in [Packing::Plain, Packing::Gzip, Packing::Zstd] {
            let place = Place::new();
            // The name says nothing about the content.
            let path = place.write("image.bin", &packing.pack(&bytes));
            let image = place.resolve(&path).unwrap();
            assert_eq!(image.digest, fixture.id());
            assert_eq!(image.manifest_digest.is_some(), has_manifest);
            assert_eq!(image.names, ["example.org/app:2"]);
            assert_eq!(read(&image, "etc/a"), "upper");
            assert_eq!(
                place.resolve("example.org/app:2").unwrap().digest,
                fixture.id()
            );
        }
    }
}

#[test]
fn an_archive_with_several_images_needs_a_choice() {
    if !is_root() {
        return;
    }
    let (one, other) = (two_layers(), Fixture::new(vec![layer(&[("x", "y")])]));
    let place = Place::new();
    let path = place.write(
        "both.tar",
        &docker_archive(&[(&one, &["one:1"]), (&other, &["other:1"])]),
    );
    place.fails(&path, &["several images", "one:1", "other:1"]);
    place.fails(&format!("{path}:third"), &["no image called", "one:1"]);
    assert_eq!(
        place.resolve(&format!("{path}:other:1")).unwrap().digest,
        other.id()
    );
    let loaded = place
        .store
        .load(&ImageSource::parse(&path).unwrap(), &Silent)
        .unwrap();
    assert_eq!(loaded.len(), 2);
    assert_eq!(place.store.list().unwrap().len(), 2);
}

#[test]
fn an_index_gives_the_image_for_this_machine() {
    if !is_root() {
        return;
    }
    let (mine, other) = (two_layers(), Fixture::new(vec![layer(&[("x", "other")])]));
    let place = Place::new();
    let layout = place.layout();
    let inner = json!({"schemaVersion": 2, "manifests": [
        other.descriptor(Some(("linux", "s390x")), None),
        other.descriptor(Some(("windows", "amd64")), None),
        mine.descriptor(Some(("linux", "amd64")), None),
        {"digest": "sha512:00", "size": 1, "platform": {"os": "unknown", "architecture": "unknown"},
         "annotations": {"vnd.docker.reference.type": "attestation-manifest"}}
    ]})
    .to_string();
    let digest = sandbox_image::Digest::of(inner.as_bytes());
    let entry = json!({"mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest.to_string(), "size": inner.len()});
    write_layout(&layout, &[&mine, &other], vec![entry]);
    fs::write(layout.join("blobs/sha256").join(digest.hex()), inner).unwrap();
    assert_eq!(place.resolve_layout().unwrap().digest, mine.id());

    let place = Place::new();
    write_layout(
        &place.layout(),
        &[&other],
        vec![other.descriptor(Some(("linux", "s390x")), None)],
    );
    place.fails(
        place.layout().to_str().unwrap(),
        &["linux/amd64", "linux/s390x"],
    );
    let mut foreign = other;
    foreign.config["architecture"] = json!("riscv64");
    let path = place.write("foreign.tar", &foreign.docker_archive(&["foreign:1"]));
    place.fails(&path, &["linux/riscv64"]);
}

#[test]
fn a_changed_blob_is_named_with_both_digests() {
    if !is_root() {
        return;
    }
    for packing in [Packing::Plain, Packing::Gzip, Packing::Zstd] {
        let fixture = two_layers().packed(packing);
        for (index, blob) in fixture.blobs().iter().enumerate() {
            for at in [20, blob.len() / 2, blob.len() - 1] {
                let place = Place::new();
                fixture.write_layout(&place.layout(), None);
                let mut changed = blob.clone();
                changed[at] ^= 0x20;
                let expected = sandbox_image::Digest::of(blob);
                fs::write(
                    place.layout().join("blobs/sha256").join(expected.hex()),
                    &changed,
                )
                .unwrap();
                let actual = sandbox_image::Digest::of(&changed);
                let error = place.fails(
                    place.layout().to_str().unwrap(),
                    &[
                        &format!("layer {} of", index + 1),
                        &expected.to_string(),
                        &actual.to_string(),
                    ],
                );
                assert!(matches!(error, ImageError::DigestMismatch { .. }));
            }
        }
        let place = Place::new();
        fixture.write_layout(&place.layout(), None);
        let config = place.layout().join("blobs/sha256").join(fixture.id().hex());
        fs::write(config, "{}").unwrap();
        place.fails(
            place.layout().to_str().unwrap(),
            &["configuration of", &fixture.id().to_string()],
        );
    }
}

#[test]
fn a_wrong_diff_id_is_found() {
    if !is_root() {
        return;
    }
    let mut fixture = two_layers();
    let right = fixture.config["rootfs"]["diff_ids"][1]
        .as_str()
        .unwrap()
        .to_owned();
    let wrong = sandbox_image::Digest::of(b"something else").to_string();
    fixture.config["rootfs"]["diff_ids"][1] = json!(wrong);
    let place = Place::new();
    fixture.write_layout(&place.layout(), None);
    // The first layer was good, and goes all the same.
    let text = place.layout().to_str().unwrap().to_owned();
    let error = place.resolve(&text).unwrap_err();
    assert!(
        chain(&error).contains(&right) && chain(&error).contains(&wrong),
        "{error}"
    );
    assert!(place.store.list().unwrap().is_empty());
    let archive = place.write("wrong.tar", &fixture.docker_archive(&["wrong:1"]));
    assert!(matches!(
        place.resolve(&archive),
        Err(ImageError::DigestMismatch { .. })
    ));
}

#[test]
fn hostile_layers_leave_nothing() {
    if !is_root() {
        return;
    }
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..13].copy_from_slice(b"../../../evil");
    header.set_size(4);
    header.set_cksum();
    builder.append(&header, &b"evil"[..]).unwrap();
    let fixture = Fixture::new(vec![builder.into_inner().unwrap()]);
    let place = Place::new();
    let path = place.write("evil.tar", &fixture.docker_archive(&["evil:1"]));
    place.fails(
        &path,
        &[
            "layer 1 of docker.io/library/evil:1",
            "../../../evil",
            "`..`",
        ],
    );
}

#[test]
fn damaged_archives_are_refused() {
    let place = Place::new();
    let fixture = two_layers();
    let whole = fixture.docker_archive(&["app:1"]);
    let in_second_layer = whole
        .windows(5)
        .position(|window| window == b"upper")
        .unwrap();
    let mut layers_short = fixture.clone();
    layers_short.layers.pop();
    for (name, bytes, words) in [
        ("empty", vec![], vec!["holds no image", "manifest.json"]),
        (
            "text",
            b"this is not an archive".repeat(100).to_vec(),
            vec!["no readable tar"],
        ),
        (
            "cut",
            whole[..in_second_layer].to_vec(),
            vec!["in the middle"],
        ),
        (
            "cut.gz",
            Packing::Gzip.pack(&whole)[..400].to_vec(),
            vec!["cut.gz"],
        ),
        (
            "cut.zst",
            Packing::Zstd.pack(&whole)[..200].to_vec(),
            vec!["cut.zst"],
        ),
        (
            "x.bz2",
            b"BZh91AY&SY".to_vec(),
            vec!["bzip2", "not supported"],
        ),
        (
            "other",
            layer(&[("file", "x")]),
            vec!["neither manifest.json"],
        ),
        (
            "list",
            layer(&[("manifest.json", "{}")]),
            vec!["manifest.json cannot be used"],
        ),
        ("none", layer(&[("manifest.json", "[]")]), vec!["has none"]),
        (
            "missing",
            layer(&[(
                "manifest.json",
                r#"[{"Config": "../../etc/passwd", "Layers": []}]"#,
            )]),
            vec!["lacks", "etc/passwd"],
        ),
        (
            "short",
            layers_short.docker_archive(&[]),
            vec!["lists 1 layers", "has 2"],
        ),
    ] {
        let path = place.write(name, &bytes);
        place.fails(&path, &words);
    }
    place.fails("/dev/null", &["holds no image"]);
    place.fails("./does-not-exist", &["no such file"]);
    place.fails("not-in-the-store", &["not in the store"]);
}

#[test]
fn documents_for_something_else_are_refused_by_name() {
    let fixture = two_layers();
    let broken = |change: &dyn Fn(&mut serde_json::Value), words: &[&str]| {
        let place = Place::new();
        let mut manifest = fixture.manifest();
        change(&mut manifest);
        let bytes = manifest.to_string();
        let digest = sandbox_image::Digest::of(bytes.as_bytes());
        let entry = json!({"digest": digest.to_string(), "size": bytes.len()});
        write_layout(&place.layout(), &[&fixture], vec![entry]);
        fs::write(
            place.layout().join("blobs/sha256").join(digest.hex()),
            bytes,
        )
        .unwrap();
        place.fails(place.layout().to_str().unwrap(), words);
    };
    broken(
        &|manifest| manifest["schemaVersion"] = json!(1),
        &["schema version 1"],
    );
    broken(
        &|manifest| {
            manifest["config"]["mediaType"] = json!("application/vnd.cncf.helm.config.v1+json")
        },
        &["helm"],
    );
    broken(
        &|manifest| {
            manifest["layers"][0]["mediaType"] =
                json!("application/vnd.oci.image.layer.v1.tar+gzip+encrypted")
        },
        &["encrypted"],
    );
    broken(
        &|manifest| manifest["manifests"] = json!([]),
        &["neither an image manifest nor an index"],
    );
    broken(
        &|manifest| manifest["layers"] = json!([]),
        &["lists 0 layers"],
    );
    broken(
        &|manifest| manifest["layers"][0]["digest"] = json!("sha256:xyz"),
        &["not a sha256 digest"],
    );
    broken(&|manifest| *manifest = json!([1]), &["cannot be used"]);
}

#[test]
fn a_known_archive_is_not_read_again() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let fixture = two_layers();
    let path = place.write(
        "app.tar.gz",
        &Packing::Gzip.pack(&fixture.docker_archive(&["app:1"])),
    );
    std::thread::sleep(std::time::Duration::from_millis(2100));
    let resolve = || {
        let recorder = Recorder::default();
        let source = ImageSource::parse(&path).unwrap();
        let image = place
            .store
            .resolve(&source, PullPolicy::Missing, &recorder)
            .unwrap();
        (image.digest, recorder.count("LayerReady"))
    };
    assert_eq!(resolve(), (fixture.id(), 2));
    assert_eq!(resolve(), (fixture.id(), 0));
    // The image went, so the archive counts again.
    place.store.remove("app:1", false).unwrap();
    assert_eq!(resolve(), (fixture.id(), 2));
    // Another archive in the same place.
    let other = Fixture::new(vec![layer(&[("x", "y")])]);
    place.write(
        "app.tar.gz",
        &Packing::Gzip.pack(&other.docker_archive(&["app:1"])),
    );
    assert_eq!(resolve(), (other.id(), 1));
}

#[test]
fn what_podman_saves_can_be_read() {
    if !is_root() {
        return;
    }
    if Command::new("podman").arg("--version").output().is_err() {
        eprintln!("skipped: podman is not installed");
        return;
    }
    let place = Place::new();
    let rootfs = place.write(
        "rootfs.tar",
        &layer(&[("etc/", ""), ("etc/motd", "from podman")]),
    );
    let dir = place.dir.path();
    let podman = |arguments: &[&str]| {
        let output = Command::new("podman")
            .args(["--storage-driver", "vfs", "--root"])
            .arg(dir.join("podman"))
            .arg("--runroot")
            .arg(dir.join("podman-run"))
            .args(arguments)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    podman(&[
        "import",
        "--change",
        "CMD [\"/bin/sh\"]",
        &rootfs,
        "localhost/saved:3",
    ]);
    for format in ["docker-archive", "oci-archive", "oci-dir"] {
        let place = Place::new();
        let target = place.dir.path().join(format);
        podman(&[
            "save",
            "--format",
            format,
            "-o",
            target.to_str().unwrap(),
            "localhost/saved:3",
        ]);
        let image = place.resolve(target.to_str().unwrap()).unwrap();
        assert_eq!(read(&image, "etc/motd"), "from podman", "{format}");
        assert_eq!(image.config.command(), ["/bin/sh"], "{format}");
        if format != "oci-dir" {
            assert_eq!(
                place.resolve("saved:3").unwrap().digest,
                image.digest,
                "{format}"
            );
        }
    }
}

#[test]
fn repeated_layers_of_an_archive_may_be_links() {
    if !is_root() {
        return;
    }
    let layer = layer(&[("f", "linked")]);
    let fixture = Fixture::new(vec![layer.clone(), layer.clone()]);
    let config = fixture.config_bytes();
    let list = json!([{"Config": "config.json", "RepoTags": null, "Layers": ["a/layer.tar", "b/layer.tar"]}]);
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in [
        ("a/layer.tar", layer.as_slice()),
        ("config.json", &config),
        ("manifest.json", list.to_string().as_bytes()),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, name, bytes).unwrap();
    }
    let mut header = tar::Header::new_gnu();
    header.set_size(0);
    header.set_entry_type(tar::EntryType::Symlink);
    builder
        .append_link(&mut header, "b/layer.tar", "../a/layer.tar")
        .unwrap();
    let bytes = builder.into_inner().unwrap();
    let place = Place::new();
    let image = place.resolve(&place.write("links.tar", &bytes)).unwrap();
    assert_eq!(read(&image, "f"), "linked");
    assert_eq!(image.names, [] as [&str; 0]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Whatever is changed in an archive, it gives the very image or an error, and an error
    /// leaves nothing.
    #[test]
    fn damaged_archives_give_the_image_or_nothing(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in proptest::option::of(any::<prop::sample::Index>()),
        packing in prop::sample::select(vec![Packing::Plain, Packing::Gzip, Packing::Zstd]),
        oci: bool,
    ) {
        if is_root() {
            let fixture = two_layers();
            let plain = if oci {
                let layout = tempfile::tempdir().unwrap();
                fixture.write_layout(layout.path(), Some("app:1"));
                tar_of(layout.path())
            } else {
                fixture.docker_archive(&["app:1"])
            };
            let mut bytes = packing.pack(&plain);
            for (index, byte) in &changes {
                let at = index.index(bytes.len());
                bytes[at] = *byte;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            let place = Place::new();
            match place.resolve(&place.write("damaged", &bytes)) {
                Ok(image) => {
                    prop_assert_eq!(read(&image, "etc/a"), "upper");
                    prop_assert_eq!(image.layers.len(), 2);
                }
                Err(_) => prop_assert_eq!(leftovers(&place.dir.path().join("store")), [] as [&Path; 0]),
            }
        }
    }
}
