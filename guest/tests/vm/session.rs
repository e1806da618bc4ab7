//! Containers and processes, as a test speaks of them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cofferdam_protocol::link::LinkStream;
use cofferdam_protocol::{
    ContainerRequest, CreateContainerRequest, ExecProcessRequest, ProcessRequest, StartFailure,
    Stdio, WaitProcessResponse, no_deadline, ttrpc,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::machine::{Machine, ROOTFS};

static TOKENS: AtomicU64 = AtomicU64::new(1);

const PATIENCE: Duration = Duration::from_secs(60);

/// A spec like that of `runc spec`, with the given command.
pub fn spec(args: &[&str]) -> Value {
    let caps = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": args,
            "env": ["PATH=/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": { "bounding": caps, "effective": caps, "permitted": caps },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true,
        },
        "root": { "path": ROOTFS },
        "hostname": "box",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
              "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
            { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
              "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs",
              "options": ["nosuid", "noexec", "nodev", "ro"] },
            { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
              "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] },
        ],
        "linux": {
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": [
                { "type": "pid" }, { "type": "ipc" }, { "type": "uts" },
                { "type": "mount" }, { "type": "cgroup" },
            ],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"],
        },
    })
}

/// A spec whose command is a shell script.
pub fn script(text: &str) -> Value {
    spec(&["sh", "-c", text])
}

/// What a process did.
#[derive(Debug)]
pub struct Done {
    pub code: u32,
    pub stdout: String,
    pub stderr: String,
    pub end: WaitProcessResponse,
}

/// The host's ends of a process's stdio.
pub struct Streams {
    pub stdin: LinkStream,
    pub stdout: Option<LinkStream>,
    pub stderr: Option<LinkStream>,
}

pub fn container(id: &str) -> ContainerRequest {
    ContainerRequest {
        container_id: id.to_owned(),
        ..ContainerRequest::default()
    }
}

pub fn process(id: &str, exec: &str) -> ProcessRequest {
    ProcessRequest {
        container_id: id.to_owned(),
        exec_id: exec.to_owned(),
        ..ProcessRequest::default()
    }
}

impl Machine {
    async fn stream(&self) -> (u64, LinkStream) {
        let token = TOKENS.fetch_add(1, Ordering::Relaxed);
        let stream = self.link.open_stdio(token).await.expect("a stream");
        (token, stream)
    }

    async fn stdio(&self, terminal: bool) -> (Stdio, Streams) {
        let (stdin_token, stdin) = self.stream().await;
        let mut tokens = Stdio {
            stdin: stdin_token,
            ..Stdio::default()
        };
        if terminal {
            let streams = Streams {
                stdin,
                stdout: None,
                stderr: None,
            };
            return (tokens, streams);
        }
        let (stdout_token, stdout) = self.stream().await;
        let (stderr_token, stderr) = self.stream().await;
        tokens.stdout = stdout_token;
        tokens.stderr = stderr_token;
        let streams = Streams {
            stdin,
            stdout: Some(stdout),
            stderr: Some(stderr),
        };
        (tokens, streams)
    }

    /// Makes a container.
    pub async fn create(&self, id: &str, spec: &Value) -> Result<Streams, StartFailure> {
        self.try_create(id, spec)
            .await
            .expect("the agent makes containers")
    }

    pub async fn try_create(
        &self,
        id: &str,
        spec: &Value,
    ) -> ttrpc::Result<Result<Streams, StartFailure>> {
        let terminal = spec["process"]["terminal"] == true;
        let (tokens, streams) = self.stdio(terminal).await;
        let request = CreateContainerRequest {
            id: id.to_owned(),
            spec: serde_json::to_vec(spec).expect("json"),
            stdio: Some(tokens).into(),
            ..CreateContainerRequest::default()
        };
        let made = self.agent.create_container(no_deadline(), &request).await?;
        Ok(match made.failure.into_option() {
            Some(failure) => Err(failure),
            None => Ok(streams),
        })
    }

    pub async fn start(&self, id: &str) -> Result<(), StartFailure> {
        let started = self
            .agent
            .start_container(no_deadline(), &container(id))
            .await;
        match started.expect("the agent starts").failure.into_option() {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    pub async fn wait(&self, id: &str, exec: &str) -> WaitProcessResponse {
        let request = process(id, exec);
        let end = self.agent.wait_process(no_deadline(), &request);
        timeout(PATIENCE, end)
            .await
            .expect("in time")
            .expect("an end")
    }

    pub async fn delete(&self, id: &str) {
        let deleted = self
            .agent
            .delete_container(no_deadline(), &container(id))
            .await;
        deleted.expect("deleted");
    }

    /// Runs a container to its end and deletes it.
    pub async fn run(&self, id: &str, spec: &Value) -> Result<Done, StartFailure> {
        let streams = self.create(id, spec).await?;
        if let Err(failure) = self.start(id).await {
            self.delete(id).await;
            return Err(failure);
        }
        let done = self.finish(id, "", streams, b"").await;
        self.delete(id).await;
        Ok(done)
    }

    /// Runs a process in a container to its end and forgets it.
    pub async fn exec(
        &self,
        id: &str,
        exec: &str,
        process_spec: &Value,
    ) -> Result<Done, StartFailure> {
        let streams = self.exec_start(id, exec, process_spec).await?;
        let done = self.finish(id, exec, streams, b"").await;
        let forgotten = self
            .agent
            .delete_process(no_deadline(), &process(id, exec))
            .await;
        forgotten.expect("forgotten");
        Ok(done)
    }

    pub async fn exec_start(
        &self,
        id: &str,
        exec: &str,
        process: &Value,
    ) -> Result<Streams, StartFailure> {
        let (tokens, streams) = self.stdio(process["terminal"] == true).await;
        let request = ExecProcessRequest {
            container_id: id.to_owned(),
            exec_id: exec.to_owned(),
            process: serde_json::to_vec(process).expect("json"),
            stdio: Some(tokens).into(),
            ..ExecProcessRequest::default()
        };
        let made = self.agent.exec_process(no_deadline(), &request).await;
        match made
            .expect("the agent runs processes")
            .failure
            .into_option()
        {
            Some(failure) => Err(failure),
            None => Ok(streams),
        }
    }

    /// Sends `input`, takes all output and waits for the end.
    pub async fn finish(&self, id: &str, exec: &str, streams: Streams, input: &[u8]) -> Done {
        let Streams {
            mut stdin,
            stdout,
            stderr,
        } = streams;
        let feed = async {
            // A process may end without reading.
            let _ = stdin.write_all(input).await;
            let _ = stdin.shutdown().await;
        };
        let all = async |stream: Option<LinkStream>| {
            let mut text = Vec::new();
            if let Some(mut stream) = stream {
                stream.read_to_end(&mut text).await.expect("output");
            }
            String::from_utf8_lossy(&text).into_owned()
        };
        let (end, stdout, stderr, ()) = timeout(PATIENCE, async {
            tokio::join!(self.wait(id, exec), all(stdout), all(stderr), feed)
        })
        .await
        .expect("in time");
        assert_eq!(end.stdout_bytes, stdout.len() as u64, "bytes of stdout");
        assert_eq!(end.stderr_bytes, stderr.len() as u64, "bytes of stderr");
        Done {
            code: end.exit_status,
            stdout,
            stderr,
            end,
        }
    }
}
