//! Pulling from Debian's `docker-registry` and from a registry that lies.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use oci_client::client::{ClientConfig, ClientProtocol, Config, ImageLayer};
use oci_client::secrets::RegistryAuth;
use sandbox_image::{Digest, Image, ImageError, ImageSource, ImageStore, PullPolicy, Settings};
use serde_json::json;

use crate::fixture::{Fixture, Packing, Recorder, chain, is_root, layer, leftovers};

const PROGRAM: &str = "docker-registry";

/// User `tester`, password `secret`.
const LOGIN: &str = "tester:$2b$04$L./lK9t3cI6BaSJd6aSFzeb0RfY.JZtAt7efzb.gvNpGUV4ipHP8O\n";

/// A registry on loopback with storage of its own.
struct Registry {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Registry {
    /// `None`, and a reason on stderr, when the program is not installed.
    fn start(with_login: bool) -> Option<Self> {
        Self::start_with(with_login, None)
    }

    /// With TLS when there is a certificate and a key.
    fn start_with(with_login: bool, tls: Option<(&Path, &Path)>) -> Option<Self> {
        if Command::new(PROGRAM).arg("--version").output().is_err() {
            eprintln!("skipped: {PROGRAM} is not installed");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let auth = if with_login {
            format!(
                "auth:\n  htpasswd:\n    realm: test\n    path: {}\n",
                dir.path().join("htpasswd").display()
            )
        } else {
            String::new()
        };
        let tls = tls.map_or(String::new(), |(certificate, key)| {
            format!(
                "  tls: {{certificate: {}, key: {}}}\n",
                certificate.display(),
                key.display()
            )
        });
        if with_login {
            fs::write(dir.path().join("htpasswd"), LOGIN).unwrap();
        }
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\nhttp:\n  addr: 127.0.0.1:{port}\n{tls}{auth}",
            dir.path().join("storage").display()
        );
        fs::write(dir.path().join("config.yml"), config).unwrap();
        let child = Command::new(PROGRAM)
            .arg("serve")
            .arg(dir.path().join("config.yml"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let registry = Self { child, port, dir };
        let begin = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(
                begin.elapsed() < Duration::from_secs(20),
                "the registry does not answer"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(registry)
    }

    fn name(&self, rest: &str) -> String {
        format!("127.0.0.1:{}/{rest}", self.port)
    }

    fn push(&self, fixture: &Fixture, name: &str, auth: &RegistryAuth) {
        let reference: oci_client::Reference = self.name(name).parse().unwrap();
        let layers: Vec<_> = fixture
            .blobs()
            .into_iter()
            .map(|blob| {
                ImageLayer::new(
                    blob,
                    "application/vnd.oci.image.layer.v1.tar+gzip".to_owned(),
                    None,
                )
            })
            .collect();
        let config = Config::new(
            fixture.config_bytes(),
            "application/vnd.oci.image.config.v1+json".to_owned(),
            None,
        );
        block_on(async {
            client()
                .push(
                    &reference,
                    &layers,
                    config,
                    auth,
                    Some(serde_json::from_value(fixture.manifest()).unwrap()),
                )
                .await
                .unwrap();
        });
    }

    /// Pushes an index that points at manifests which are there.
    fn push_index(&self, name: &str, entries: &[serde_json::Value]) -> Digest {
        let bytes = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": entries
        })
        .to_string();
        let digest = Digest::of(bytes.as_bytes());
        let reference: oci_client::Reference = self.name(name).parse().unwrap();
        block_on(async {
            let client = client();
            let anonymous = RegistryAuth::Anonymous;
            client
                .store_auth_if_needed(reference.resolve_registry(), &anonymous)
                .await;
            client
                .push_manifest_raw(
                    &reference,
                    bytes,
                    "application/vnd.oci.image.index.v1+json".parse().unwrap(),
                )
                .await
                .unwrap();
        });
        digest
    }

    /// Where the registry keeps a blob.
    fn blob(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.dir
            .path()
            .join("storage/docker/registry/v2/blobs/sha256")
            .join(&hex[..2])
            .join(hex)
            .join("data")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn client() -> oci_client::Client {
    // The provider that the library installs, which may not have run yet.
    let _ = rustls::crypto::ring::default_provider().install_default();
    oci_client::Client::new(ClientConfig {
        protocol: ClientProtocol::Http,
        ..ClientConfig::default()
    })
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

struct Place {
    dir: tempfile::TempDir,
    store: ImageStore,
}

impl Place {
    fn new() -> Self {
        Self::with(|_, _| ())
    }

    fn with(change: impl FnOnce(&mut Settings, &Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = Settings {
            docker_config: Some(dir.path().join("config.json")),
            connect_timeout: Duration::from_secs(2),
            read_timeout: Duration::from_secs(2),
            ..Settings::default()
        };
        change(&mut settings, dir.path());
        let store = ImageStore::open_with(&dir.path().join("store"), settings).unwrap();
        Self { dir, store }
    }

    fn pull(&self, name: &str, policy: PullPolicy) -> (Result<Image, ImageError>, Recorder) {
        let recorder = Recorder::default();
        let source = ImageSource::parse(name).unwrap();
        (self.store.resolve(&source, policy, &recorder), recorder)
    }

    fn fails(&self, name: &str, words: &[&str]) -> (ImageError, Recorder) {
        let (result, recorder) = self.pull(name, PullPolicy::Missing);
        let error = result.unwrap_err();
        for word in words {
            assert!(
                chain(&error).contains(word),
                "{word:?} is not in {:?}",
                chain(&error)
            );
        }
        assert_eq!(leftovers(&self.dir.path().join("store")), [] as [&Path; 0]);
        (error, recorder)
    }
}

fn fixture() -> Fixture {
    Fixture::new(vec![
        layer(&[("base", &"base ".repeat(100_000))]),
        layer(&[("top", "top")]),
    ])
}

#[test]
fn an_image_is_pulled_once() {
    if !is_root() {
        return;
    }
    let Some(registry) = Registry::start(false) else {
        return;
    };
    let fixture = fixture();
    registry.push(&fixture, "me/app:1", &RegistryAuth::Anonymous);
    let place = Place::new();
    let name = registry.name("me/app:1");
    let (image, seen) = place.pull(&name, PullPolicy::Missing);
    let image = image.unwrap();
    assert_eq!(image.digest, fixture.id());
    assert_eq!(image.names, std::slice::from_ref(&name));
    assert_eq!(
        fs::read_to_string(image.layers[1].join("top")).unwrap(),
        "top"
    );
    assert!(seen.count("Downloading") >= 2);
    assert_eq!(seen.count("reused: false"), 2);
    let manifest = image.manifest_digest.unwrap();

    let (again, seen) = place.pull(&name, PullPolicy::Missing);
    again.unwrap();
    assert_eq!(seen.count(""), 0);
    let (again, _) = place.pull(
        &format!("{}@{manifest}", registry.name("me/app")),
        PullPolicy::Never,
    );
    assert_eq!(again.unwrap().digest, fixture.id());
    // A moved tag is seen with `always`, and shared layers are not fetched again.
    let mut newer = fixture.clone();
    newer.layers.push(layer(&[("newer", "yes")]));
    let newer = Fixture::new(newer.layers);
    registry.push(&newer, "me/app:1", &RegistryAuth::Anonymous);
    assert_eq!(
        place.pull(&name, PullPolicy::Missing).0.unwrap().digest,
        fixture.id()
    );
    let (image, seen) = place.pull(&name, PullPolicy::Always);
    assert_eq!(image.unwrap().digest, newer.id());
    assert_eq!(seen.count("reused: true"), 2);

    let place = Place::new();
    let (image, _) = place.pull(
        &format!("{}@{manifest}", registry.name("me/app")),
        PullPolicy::Missing,
    );
    assert_eq!(image.unwrap().digest, fixture.id());
    assert!(matches!(
        place.pull("nothing/here", PullPolicy::Never).0,
        Err(ImageError::NotFound { .. })
    ));
}

#[test]
fn an_index_leads_to_this_machine() {
    if !is_root() {
        return;
    }
    let Some(registry) = Registry::start(false) else {
        return;
    };
    let (mine, other) = (fixture(), Fixture::new(vec![layer(&[("other", "")])]));
    registry.push(&mine, "multi:amd64", &RegistryAuth::Anonymous);
    registry.push(&other, "multi:s390x", &RegistryAuth::Anonymous);
    let entries = [
        other.descriptor(Some(("linux", "s390x")), None),
        mine.descriptor(Some(("linux", "amd64")), None),
    ];
    let index = registry.push_index("multi:latest", &entries);
    for name in ["multi".to_owned(), format!("multi@{index}")] {
        let (image, _) = Place::new().pull(&registry.name(&name), PullPolicy::Missing);
        assert_eq!(image.unwrap().digest, mine.id());
    }
    registry.push_index("foreign:1", &[]);
    Place::new().fails(&registry.name("foreign:1"), &["linux/amd64", "none at all"]);
}

#[test]
fn blobs_that_changed_at_the_registry_are_refused() {
    if !is_root() {
        return;
    }
    let Some(registry) = Registry::start(false) else {
        return;
    };
    let fixture = fixture();
    registry.push(&fixture, "app:1", &RegistryAuth::Anonymous);
    let blob = &fixture.blobs()[1];
    let expected = Digest::of(blob);
    let mut changed = blob.clone();
    changed[30] ^= 1;
    fs::write(registry.blob(&expected), &changed).unwrap();
    let (error, seen) = Place::new().fails(
        &registry.name("app:1"),
        &[
            "layer 2 of",
            &expected.to_string(),
            &Digest::of(&changed).to_string(),
        ],
    );
    assert!(matches!(error, ImageError::DigestMismatch { .. }));
    assert_eq!(seen.count("Retrying"), 0);
    fs::remove_file(registry.blob(&expected)).unwrap();
    Place::new().fails(&registry.name("app:1"), &["404"]);
    Place::new().fails(
        &registry.name("absent:1"),
        &["does not exist at its registry", "absent:1"],
    );
}

#[test]
fn logins_come_from_dockers_configuration() {
    if !is_root() {
        return;
    }
    let Some(registry) = Registry::start(true) else {
        return;
    };
    let fixture = fixture();
    registry.push(
        &fixture,
        "app:1",
        &RegistryAuth::Basic("tester".into(), "secret".into()),
    );
    let name = registry.name("app:1");
    let host = registry.name("");
    let host = host.trim_end_matches('/');
    let place = Place::new();
    place.fails(&name, &["refuses access", "docker login"]);
    let config = place.dir.path().join("config.json");
    // "tester:wrong", then "tester:secret".
    fs::write(
        &config,
        json!({"auths": {host: {"auth": "dGVzdGVyOndyb25n"}}}).to_string(),
    )
    .unwrap();
    place.fails(&name, &["refuses access", "not accepted"]);
    fs::write(
        &config,
        json!({"auths": {host: {"auth": "dGVzdGVyOnNlY3JldA=="}}}).to_string(),
    )
    .unwrap();
    let (image, _) = place.pull(&name, PullPolicy::Missing);
    assert_eq!(image.unwrap().digest, fixture.id());
}

/// Answers each request on loopback by a function of its path.
fn liar(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> u16 {
    serve(move |path, _| answer(path))
}

/// Answers each request on loopback by a function of its path and its `Authorization`.
fn serve(answer: impl Fn(&str, &str) -> Vec<u8> + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = std::sync::Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let answer = answer.clone();
            std::thread::spawn(move || {
                let mut stream = stream.unwrap();
                let mut first = [0];
                // A client that tries TLS first; what follows is not HTTP.
                if stream.peek(&mut first).is_err() || first == [0x16] {
                    return;
                }
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let Some(Ok(first)) = lines.next() else {
                    return;
                };
                let mut login = String::new();
                for line in lines
                    .map_while(Result::ok)
                    .take_while(|line| !line.is_empty())
                {
                    if let Some(value) = line.to_ascii_lowercase().strip_prefix("authorization: ") {
                        login = line[line.len() - value.len()..].to_owned();
                    }
                }
                let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
                // The client may hang up when it has seen enough.
                let _ = stream.write_all(&answer(&path, &login));
                if path.contains("hang") {
                    let _ = stream.read(&mut [0]);
                }
            });
        }
    });
    port
}

fn response(status: &str, length: usize, body: &[u8]) -> Vec<u8> {
    let mut bytes =
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")
            .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

#[test]
fn hostile_registries_are_bounded() {
    let fixture = Fixture::new(vec![layer(&[("base", &"base ".repeat(1000))])]);
    let blob = fixture.blobs()[0].clone();
    let answers = {
        let fixture = fixture.clone();
        move |path: &str| {
            let ok = |body: &[u8]| response("200 OK", body.len(), body);
            if path.ends_with("manifests/huge") {
                return ok(&vec![b' '; 5 << 20]);
            }
            if path.ends_with("manifests/hang") {
                return response("200 OK", 100, b"{");
            }
            if path.ends_with("manifests/broken") {
                return response("503 Service Unavailable", 4, b"busy");
            }
            if path.ends_with("manifests/text") {
                return ok(b"<html>not a registry</html>");
            }
            if path.contains("/manifests/") {
                return ok(&fixture.manifest_bytes());
            }
            if path.ends_with(fixture.id().hex()) {
                return ok(&fixture.config_bytes());
            }
            if path.contains("/long/") {
                // More than the descriptor says.
                return ok(&[blob.clone(), vec![0; 1 << 20]].concat());
            }
            // Always the same half of the layer.
            response("200 OK", blob.len(), &blob[..blob.len() / 2])
        }
    };
    let port = liar(answers);
    let name = |rest: &str| format!("127.0.0.1:{port}/{rest}");
    let begin = Instant::now();
    let (error, _) = Place::new().fails(&name("app:huge"), &["manifest of", "limit"]);
    assert!(matches!(error, ImageError::TooLarge { .. }));
    Place::new().fails(&name("app:text"), &["manifest", "cannot be used"]);
    let (_, seen) = Place::new().fails(&name("app:broken"), &["503", "busy", "tried 3 times"]);
    assert_eq!(seen.count("Retrying"), 2);
    if is_root() {
        let (_, seen) = Place::new().fails(&name("app:half"), &["layer", "tried 3 times"]);
        assert!(seen.count("Retrying") >= 2);
        let (error, _) = Place::new().fails(&name("long/app:1"), &["layer"]);
        assert!(
            matches!(error, ImageError::SizeMismatch { .. }),
            "{error:?}"
        );
    }
    let place = Place::with(|settings, _| settings.attempts = 1);
    place.fails(&name("app:hang"), &["manifest of"]);
    assert!(begin.elapsed() < Duration::from_secs(60));
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    Place::new().fails(&format!("127.0.0.1:{free}/app:1"), &["onnection refused"]);
}

#[test]
fn tokens_are_fetched_where_the_registry_says() {
    if !is_root() {
        return;
    }
    let fixture = Fixture::new(vec![layer(&[("f", "x")])]);
    let served = fixture.clone();
    let token_server = serve(|path, login| {
        assert!(
            path.contains("repository%3Ame%2Fapp%3Apull") && path.contains("service=here"),
            "{path}"
        );
        if login.starts_with("Basic ") && !login.ends_with("dGVzdGVyOnNlY3JldA==") {
            return response("401 Unauthorized", 2, b"no");
        }
        let token = if login.is_empty() {
            "anonymous"
        } else {
            "personal"
        };
        let body = json!({"token": token}).to_string();
        response("200 OK", body.len(), body.as_bytes())
    });
    let port = serve(move |path, login| {
        let needed = if path.contains("/manifests/private") {
            "Bearer personal"
        } else {
            "Bearer "
        };
        if !login.starts_with(needed) {
            return format!(
                "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer realm=\"http://127.0.0.1:{token_server}/token\",service=\"here\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
            .into_bytes();
        }
        let body = match path.rsplit('/').next().unwrap_or_default() {
            "public" | "private" => served.manifest_bytes(),
            digest if digest == served.id().to_string() => served.config_bytes(),
            _ => served.blobs()[0].clone(),
        };
        response("200 OK", body.len(), &body)
    });
    let host = format!("127.0.0.1:{port}");
    let (image, _) = Place::new().pull(&format!("{host}/me/app:public"), PullPolicy::Missing);
    assert_eq!(image.unwrap().digest, fixture.id());
    let place = Place::new();
    place.fails(&format!("{host}/me/app:private"), &["refuses access"]);
    let config = place.dir.path().join("config.json");
    fs::write(
        &config,
        json!({"auths": {&host: {"auth": "dGVzdGVyOndyb25n"}}}).to_string(),
    )
    .unwrap();
    place.fails(&format!("{host}/me/app:private"), &["refuses access"]);
    fs::write(
        &config,
        json!({"auths": {&host: {"auth": "dGVzdGVyOnNlY3JldA=="}}}).to_string(),
    )
    .unwrap();
    let (image, _) = place.pull(&format!("{host}/me/app:private"), PullPolicy::Missing);
    assert_eq!(image.unwrap().digest, fixture.id());
}

#[test]
fn pulling_works_inside_a_runtime() {
    let place = Place::with(|settings, _| settings.attempts = 1);
    block_on(async {
        let (result, _) = place.pull("127.0.0.1:1/app:1", PullPolicy::Missing);
        assert!(matches!(result, Err(ImageError::Registry { .. })));
    });
}

#[test]
fn other_hosts_are_never_asked_in_plain_text() {
    // The name resolves nowhere; what counts is the scheme that is tried.
    let place = Place::with(|settings, _| settings.attempts = 1);
    place.fails(
        "registry.invalid:5000/app:1",
        &["https://registry.invalid:5000"],
    );
    let place = Place::with(|settings, _| {
        settings.attempts = 1;
        settings
            .insecure_registries
            .push("registry.invalid:5000".to_owned());
    });
    place.fails(
        "registry.invalid:5000/app:1",
        &["http://registry.invalid:5000"],
    );
}

#[test]
#[ignore = "run by another test in a process of its own"]
fn pull_in_another_process() {
    let name = std::env::var("IMAGE").unwrap();
    let (result, _) =
        Place::with(|settings, _| settings.attempts = 1).pull(&name, PullPolicy::Missing);
    match result {
        Ok(image) => println!("pulled {}", image.digest),
        Err(error) => println!("failed {}", chain(&error)),
    }
}

#[test]
fn certificates_are_checked() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let [certificate, key] = ["certificate.pem", "key.pem"].map(|name| dir.path().join(name));
    let made = Command::new("openssl")
        .args([
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test",
        ])
        .args([
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ])
        .args([
            "-keyout".as_ref(),
            key.as_os_str(),
            "-out".as_ref(),
            certificate.as_os_str(),
        ])
        .output();
    if !made.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: openssl is not installed");
        return;
    }
    let Some(plain) = Registry::start(false) else {
        return;
    };
    let fixture = fixture();
    plain.push(&fixture, "app:1", &RegistryAuth::Anonymous);
    let registry = Registry::start_with(false, Some((&certificate, &key))).unwrap();
    // What was pushed to the plain one, because the client that pushes trusts nothing.
    let copied = Command::new("cp")
        .arg("-a")
        .arg(plain.dir.path().join("storage"))
        .arg(registry.dir.path())
        .status()
        .unwrap();
    assert!(copied.success());
    let pull = |trusted: &Path| {
        let output = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "registry::pull_in_another_process",
                "--ignored",
                "--nocapture",
            ])
            .env("IMAGE", registry.name("app:1"))
            .env("SSL_CERT_FILE", trusted)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let shown = pull(&certificate);
    assert!(
        shown.contains(&format!("pulled {}", fixture.id())),
        "{shown}"
    );
    let shown = pull(Path::new("/etc/ssl/certs/ca-certificates.crt"));
    assert!(
        shown.contains("failed") && shown.contains("over TLS") && shown.contains("certificate"),
        "{shown}"
    );
}

#[test]
fn zstd_layers_come_through_a_registry_too() {
    if !is_root() {
        return;
    }
    let Some(registry) = Registry::start(false) else {
        return;
    };
    let fixture = fixture().packed(Packing::Zstd);
    registry.push(&fixture, "app:1", &RegistryAuth::Anonymous);
    let (image, _) = Place::new().pull(&registry.name("app:1"), PullPolicy::Missing);
    assert_eq!(image.unwrap().digest, fixture.id());
}
