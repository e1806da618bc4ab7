//! Debian's `docker-registry` on loopback, with images of OCI layouts pushed to it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::processes::wait_until;

/// A registry that ends when this is dropped.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    /// `127.0.0.1:PORT`.
    pub address: String,
}

impl Registry {
    /// Starts one that keeps its content in `folder`; nothing, and a printed reason, when the program is not installed.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn start(folder: &Path) -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let address = format!("127.0.0.1:{port}");
        let config = folder.join("registry.yml");
        let text = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n",
            folder.join("registry").display()
        );
        fs::write(&config, text).expect("a registry's configuration");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = match child {
            Ok(child) => child,
            Err(error) => {
                eprintln!("SKIPPED: docker-registry does not start: {error}");
                return None;
            }
        };
        let registry = Self { child, address };
        let up = wait_until(Duration::from_secs(30), || {
            TcpStream::connect(&registry.address).is_ok()
        });
        assert!(up, "docker-registry does not listen");
        Some(registry)
    }

    /// Pushes the image of a layout as `name:latest`.
    ///
    /// # Panics
    /// When the layout or the registry is not what it should be.
    pub fn push(&self, layout: &Path, name: &str) {
        let read = |digest: &str| {
            let hex = digest.strip_prefix("sha256:").expect("a sha256 digest");
            fs::read(layout.join("blobs/sha256").join(hex)).expect("a blob")
        };
        let index: Value =
            serde_json::from_slice(&fs::read(layout.join("index.json")).expect("an index"))
                .expect("an index");
        let descriptor = &index["manifests"][0];
        let bytes = read(descriptor["digest"].as_str().expect("a digest"));
        let manifest: Value = serde_json::from_slice(&bytes).expect("a manifest");
        let mut blobs = vec![&manifest["config"]];
        blobs.extend(manifest["layers"].as_array().expect("layers"));
        for blob in blobs {
            let digest = blob["digest"].as_str().expect("a digest");
            let path = format!("/v2/{name}/blobs/uploads/");
            let (status, location) = self.request("POST", &path, "", &[]);
            assert_eq!(status, 202, "starting an upload");
            let location = location.expect("an upload's location");
            let path = location
                .split_once(&self.address)
                .map_or(location.as_str(), |(_, path)| path);
            let separator = if path.contains('?') { '&' } else { '?' };
            let path = format!("{path}{separator}digest={digest}");
            let (status, _) = self.request("PUT", &path, "application/octet-stream", &read(digest));
            assert_eq!(status, 201, "uploading {digest}");
        }
        let media = descriptor["mediaType"].as_str().expect("a media type");
        let (status, _) = self.request(
            "PUT",
            &format!("/v2/{name}/manifests/latest"),
            media,
            &bytes,
        );
        assert_eq!(status, 201, "uploading the manifest");
    }

    /// Status code and `Location`.
    fn request(&self, method: &str, path: &str, media: &str, body: &[u8]) -> (u16, Option<String>) {
        let mut stream = TcpStream::connect(&self.address).expect("the registry");
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .expect("a time limit");
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: {media}\r\nContent-Length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("a request");
        stream.write_all(body).expect("a request");
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).expect("an answer");
        let status = line
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .unwrap_or_else(|| panic!("no status: {line:?}"));
        let mut rest = String::new();
        reader.read_to_string(&mut rest).expect("an answer");
        let location = rest
            .lines()
            .take_while(|line| !line.is_empty())
            .find_map(|line| line.strip_prefix("Location: "))
            .map(str::to_owned);
        (status, location)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}
