//! CNI plugins (CNI specification 1.0, "Execution"): programs that connect a namespace to a network.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::port::Port;

/// Programs that plugins use.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Whether all these plugins are there.
pub fn has(folders: &[PathBuf], names: &[&str]) -> bool {
    names.iter().all(|name| plugin(folders, name).is_ok())
}

fn plugin(folders: &[PathBuf], name: &str) -> Result<PathBuf> {
    if name.contains('/') || name.starts_with('.') || name.is_empty() {
        bail!("CNI plugin {name:?} is not a program's name");
    }
    folders
        .iter()
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .with_context(|| {
            format!("CNI plugin {name} is missing (apt-get install containernetworking-plugins)")
        })
}

/// The description of a network by its name.
pub fn find(folder: &Path, name: &str) -> Result<Value> {
    let entries = fs::read_dir(folder)
        .with_context(|| format!("cannot list the networks in {}", folder.display()))?;
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let is_one = path
            .extension()
            .is_some_and(|end| end == "conflist" || end == "conf" || end == "json");
        let Some(network) = fs::read(&path)
            .ok()
            .filter(|_| is_one)
            .and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok())
        else {
            continue;
        };
        if network["name"] != name {
            continue;
        }
        return Ok(if network["plugins"].is_array() {
            network
        } else {
            // One plugin by itself.
            json!({ "cniVersion": network["cniVersion"], "name": name, "plugins": [network] })
        });
    }
    bail!("there is no CNI network {name} in {}", folder.display())
}

/// One namespace's connection to one network.
#[derive(Debug)]
pub struct Attachment<'a> {
    /// The description.
    pub network: &'a Value,
    /// The container's name.
    pub id: &'a str,
    /// The namespace.
    pub namespace: &'a Path,
    /// What the interface is called there.
    pub interface: &'a str,
    /// Ports that lead to it.
    pub ports: &'a [Port],
    /// Where plugins are.
    pub folders: &'a [PathBuf],
}

impl Attachment<'_> {
    /// Connects; answers with what came of it.
    pub fn add(&self) -> Result<Value> {
        let mut result = Value::Null;
        for plugin in self.plugins()? {
            let said = self.call("ADD", plugin, &result)?;
            result = serde_json::from_slice(&said)
                .with_context(|| format!("CNI plugin {} answers no JSON", plugin["type"]))?;
        }
        Ok(result)
    }

    /// Disconnects what was connected with this result; all plugins are called, the first error is told.
    pub fn delete(&self, result: &Value) -> Result<()> {
        let mut first = Ok(());
        for plugin in self.plugins()?.iter().rev() {
            let done = self.call("DEL", plugin, result).map(drop);
            first = first.and(done);
        }
        first
    }

    fn plugins(&self) -> Result<&Vec<Value>> {
        self.network["plugins"]
            .as_array()
            .with_context(|| format!("CNI network {} names no plugins", self.network["name"]))
    }

    fn call(&self, command: &str, plugin: &Value, previous: &Value) -> Result<Vec<u8>> {
        let name = plugin["type"].as_str().unwrap_or_default();
        let mut config = plugin.clone();
        let fields = config
            .as_object_mut()
            .with_context(|| format!("CNI network {} is malformed", self.network["name"]))?;
        fields.insert("cniVersion".to_owned(), self.network["cniVersion"].clone());
        fields.insert("name".to_owned(), self.network["name"].clone());
        if !previous.is_null() {
            fields.insert("prevResult".to_owned(), previous.clone());
        }
        if plugin["capabilities"]["portMappings"] == true && !self.ports.is_empty() {
            let ports: Vec<_> = self.ports.iter().map(mapping).collect();
            fields.insert("runtimeConfig".to_owned(), json!({ "portMappings": ports }));
        }
        fields.remove("capabilities");
        let folders = std::env::join_paths(self.folders)
            .context("`cni_plugin_directories` has a folder with a colon")?;
        let mut child = Command::new(self::plugin(self.folders, name)?)
            .env_clear()
            .env("PATH", PATH)
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", self.id)
            .env("CNI_NETNS", self.namespace)
            .env("CNI_IFNAME", self.interface)
            .env("CNI_PATH", folders)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run CNI plugin {name}"))?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin
                .write_all(config.to_string().as_bytes())
                .with_context(|| format!("cannot write to CNI plugin {name}"))?;
        }
        let done = child
            .wait_with_output()
            .with_context(|| format!("cannot wait for CNI plugin {name}"))?;
        if !done.status.success() {
            let said: Value = serde_json::from_slice(&done.stdout).unwrap_or_default();
            let complaint = String::from_utf8_lossy(&done.stderr);
            let why = said["msg"].as_str().unwrap_or_else(|| complaint.trim());
            bail!("CNI plugin {name} refuses {command}: {why}");
        }
        Ok(done.stdout)
    }
}

fn mapping(port: &Port) -> Value {
    let mut mapping = json!({
        "hostPort": port.host, "containerPort": port.guest, "protocol": port.protocol,
    });
    if let Some(address) = port.address {
        mapping["hostIP"] = json!(address);
    }
    mapping
}
