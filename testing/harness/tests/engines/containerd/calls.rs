//! The task service itself: codes, states, and what may be asked when.

use containerd_shim_protos::api::{
    CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, DeleteRequest,
    DeleteResponse, Empty, ExecProcessRequest, KillRequest, PidsRequest, PidsResponse,
    ResizePtyRequest, ShutdownRequest, StartRequest, StartResponse, StateRequest, StateResponse,
    StatsRequest, Status, UpdateTaskRequest, WaitRequest, WaitResponse,
};
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::ttrpc::Code;

use super::client::Task;
use super::engine::{Containerd, Runtime, shims};

pub(super) const ID: &str = "c";

pub(super) fn request<M: Message>(fill: impl FnOnce(&mut M)) -> M {
    let mut message = M::new();
    fill(&mut message);
    message
}

pub(super) fn delete(id: &str, exec: &str) -> DeleteRequest {
    request(|message: &mut DeleteRequest| {
        id.clone_into(&mut message.id);
        exec.clone_into(&mut message.exec_id);
    })
}

pub(super) fn kill(exec: &str, signal: u32) -> KillRequest {
    request(|message: &mut KillRequest| {
        ID.clone_into(&mut message.id);
        exec.clone_into(&mut message.exec_id);
        message.signal = signal;
    })
}

pub(super) fn wait(exec: &str) -> WaitRequest {
    request(|message: &mut WaitRequest| {
        ID.clone_into(&mut message.id);
        exec.clone_into(&mut message.exec_id);
    })
}

pub(super) fn start(exec: &str) -> StartRequest {
    request(|message: &mut StartRequest| {
        ID.clone_into(&mut message.id);
        exec.clone_into(&mut message.exec_id);
    })
}

pub(super) fn exec(id: &str, script: &str) -> ExecProcessRequest {
    let process = serde_json::json!({
        "args": ["sh", "-c", script], "cwd": "/", "user": {"uid": 0, "gid": 0}, "env": ["PATH=/bin:/usr/bin"],
    });
    request(|message: &mut ExecProcessRequest| {
        ID.clone_into(&mut message.id);
        id.clone_into(&mut message.exec_id);
        let mut any = Any::new();
        "types.containerd.io/opencontainers/runtime-spec/1/Process".clone_into(&mut any.type_url);
        any.value = process.to_string().into_bytes();
        message.spec = Some(any).into();
    })
}

fn state(task: &Task, exec: &str) -> StateResponse {
    let message = request(|message: &mut StateRequest| {
        ID.clone_into(&mut message.id);
        exec.clone_into(&mut message.exec_id);
    });
    task.call("State", &message).expect("a state")
}

pub(super) fn running(containerd: &Containerd) -> Task {
    containerd.ok(&[
        "run",
        "--detach",
        "--null-io",
        &containerd.busybox,
        ID,
        "sleep",
        "1000",
    ]);
    Task::connect(&containerd.socket(ID))
}

pub(super) fn clear_up(containerd: &Containerd) {
    let _code = containerd.ctr(&["tasks", "delete", "--force", ID]);
    containerd.ok(&["containers", "delete", ID]);
}

#[test]
fn the_life_of_an_exec() {
    shims(|containerd| {
        let task = running(containerd);
        let _: Empty = task.call("Exec", &exec("e", "exit 5")).expect("added");
        assert_eq!(
            task.refused("Exec", &exec("e", "true")),
            Code::ALREADY_EXISTS
        );
        assert_eq!(state(&task, "e").status, Status::CREATED.into());
        let started: StartResponse = task.call("Start", &start("e")).expect("started");
        assert_ne!(started.pid, 0);
        let ended: WaitResponse = task.call("Wait", &wait("e")).expect("an end");
        assert_eq!(ended.exit_status, 5);
        let after = state(&task, "e");
        assert_eq!(after.status, Status::STOPPED.into());
        assert_eq!(
            (after.exit_status, after.exited_at == ended.exited_at),
            (5, true)
        );
        // Waiting for what has ended answers at once, with the same.
        let again: WaitResponse = task.call("Wait", &wait("e")).expect("an end");
        assert_eq!(again, ended);
        assert_eq!(task.refused("Kill", &kill("e", 9)), Code::NOT_FOUND);
        let deleted: DeleteResponse = task.call("Delete", &delete(ID, "e")).expect("deleted");
        assert_eq!(
            (deleted.exit_status, &deleted.exited_at),
            (5, &ended.exited_at)
        );
        for method in ["Delete", "Wait"] {
            let code = match method {
                "Delete" => task.refused(method, &delete(ID, "e")),
                _ => task.refused(method, &wait("e")),
            };
            assert_eq!(code, Code::NOT_FOUND, "{method}");
        }
        // Its name is free again; one that was never started can be deleted.
        let _: Empty = task.call("Exec", &exec("e", "true")).expect("added again");
        let _: DeleteResponse = task.call("Delete", &delete(ID, "e")).expect("deleted");
        clear_up(containerd);
    });
}

#[test]
fn a_signalled_exec_has_its_status() {
    shims(|containerd| {
        let task = running(containerd);
        let _: Empty = task
            .call("Exec", &exec("e", "exec sleep 1000"))
            .expect("added");
        let _: StartResponse = task.call("Start", &start("e")).expect("started");
        let pids = request(|message: &mut PidsRequest| ID.clone_into(&mut message.id));
        let pids: PidsResponse = task.call("Pids", &pids).expect("pids");
        assert!(pids.processes.len() >= 2, "{pids}");
        let named = pids
            .processes
            .iter()
            .filter(|process| process.info.is_some());
        assert_eq!(named.count(), 1);
        let _: Empty = task.call("Kill", &kill("e", 9)).expect("killed");
        let ended: WaitResponse = task.call("Wait", &wait("e")).expect("an end");
        assert_eq!(ended.exit_status, 137);
        let _: DeleteResponse = task.call("Delete", &delete(ID, "e")).expect("deleted");
        assert_eq!(state(&task, "").status, Status::RUNNING.into());
        clear_up(containerd);
    });
}

#[test]
fn what_is_not_there_is_not_found() {
    shims(|containerd| {
        let task = running(containerd);
        let nobody = "nobody".to_owned();
        let mut codes = vec![
            task.refused(
                "State",
                &StateRequest {
                    id: nobody.clone(),
                    ..Default::default()
                },
            ),
            task.refused(
                "Start",
                &StartRequest {
                    id: nobody.clone(),
                    ..Default::default()
                },
            ),
            task.refused("Delete", &delete("nobody", "")),
            task.refused(
                "Kill",
                &KillRequest {
                    id: nobody.clone(),
                    signal: 9,
                    ..Default::default()
                },
            ),
            task.refused(
                "Wait",
                &WaitRequest {
                    id: nobody.clone(),
                    ..Default::default()
                },
            ),
            task.refused(
                "Pids",
                &PidsRequest {
                    id: nobody.clone(),
                    ..Default::default()
                },
            ),
            task.refused(
                "Stats",
                &StatsRequest {
                    id: nobody.clone(),
                    ..Default::default()
                },
            ),
            task.refused(
                "CloseIO",
                &CloseIORequest {
                    id: nobody.clone(),
                    stdin: true,
                    ..Default::default()
                },
            ),
            task.refused(
                "ResizePty",
                &ResizePtyRequest {
                    id: nobody.clone(),
                    ..Default::default()
                },
            ),
            task.refused("Start", &start("nobody")),
            task.refused("Kill", &kill("nobody", 9)),
        ];
        codes.dedup();
        assert_eq!(codes, [Code::NOT_FOUND]);
        let known: ConnectResponse = task
            .call(
                "Connect",
                &ConnectRequest {
                    id: ID.to_owned(),
                    ..Default::default()
                },
            )
            .expect("connected");
        assert!(known.shim_pid != 0 && known.task_pid != 0);
        clear_up(containerd);
    });
}

#[test]
fn limits_are_changed_and_wrong_ones_refused() {
    shims(|containerd| {
        let task = running(containerd);
        let update = |resources: &str| {
            request(|message: &mut UpdateTaskRequest| {
                ID.clone_into(&mut message.id);
                let mut any = Any::new();
                "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources"
                    .clone_into(&mut any.type_url);
                any.value = resources.as_bytes().to_vec();
                message.resources = Some(any).into();
            })
        };
        let _: Empty = task
            .call("Update", &update(r#"{"pids":{"limit":77}}"#))
            .expect("updated");
        let metrics = containerd.ok(&["tasks", "metrics", ID]);
        let limit = metrics.lines().find(|line| line.starts_with("pids.limit"));
        assert!(limit.is_some_and(|line| line.contains("77")), "{metrics}");
        task.call::<Empty>("Update", &update("{"))
            .expect_err("no JSON");
        clear_up(containerd);
    });
}

#[test]
fn the_end_of_a_task() {
    shims(|containerd| {
        let task = running(containerd);
        task.call::<DeleteResponse>("Delete", &delete(ID, ""))
            .expect_err("it runs");
        // A shim with tasks does not go.
        let _: Empty = task
            .call(
                "Shutdown",
                &ShutdownRequest {
                    id: ID.to_owned(),
                    ..Default::default()
                },
            )
            .expect("heard");
        assert_eq!(state(&task, "").status, Status::RUNNING.into());
        if containerd.runtime == Runtime::Shim {
            let checkpoint = CheckpointTaskRequest {
                id: ID.to_owned(),
                ..Default::default()
            };
            assert_eq!(task.refused("Checkpoint", &checkpoint), Code::UNIMPLEMENTED);
        }
        let _: Empty = task.call("Kill", &kill("", 9)).expect("killed");
        let ended: WaitResponse = task.call("Wait", &wait("")).expect("an end");
        assert_eq!(ended.exit_status, 137);
        assert_eq!(task.refused("Kill", &kill("", 9)), Code::NOT_FOUND);
        let after = state(&task, "");
        assert_eq!(
            (after.status, after.exit_status),
            (Status::STOPPED.into(), 137)
        );
        task.call::<Empty>("Exec", &exec("late", "true"))
            .map(|_| task.call::<StartResponse>("Start", &start("late")))
            .and_then(|started| started)
            .expect_err("it has ended");
        clear_up(containerd);
    });
}
