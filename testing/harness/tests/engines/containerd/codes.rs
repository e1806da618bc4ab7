//! Codes of what the task service refuses: those of containerd's shim for runc, where that has one.

use std::cell::RefCell;
use std::time::Instant;

use containerd_shim_protos::api::{
    CloseIORequest, Empty, ExecProcessRequest, PauseRequest, PidsRequest, ResizePtyRequest,
    ResumeRequest, ShutdownRequest, StartResponse, StateRequest, StatsRequest, UpdateTaskRequest,
    WaitResponse,
};
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::ttrpc::Code;
use harness::patient;

use super::calls::{ID, clear_up, delete, exec, kill, request, running, start, wait};
use super::client::Task;
use super::engine::{Runtime, shims};

fn update(resources: &str) -> UpdateTaskRequest {
    request(|message: &mut UpdateTaskRequest| {
        ID.clone_into(&mut message.id);
        let mut any = Any::new();
        "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources"
            .clone_into(&mut any.type_url);
        any.value = resources.as_bytes().to_vec();
        message.resources = Some(any).into();
    })
}

/// An exec whose spec is no process.
fn nonsense() -> ExecProcessRequest {
    let mut message = exec("n", "true");
    message.spec.mut_or_insert_default().value = b"{".to_vec();
    message
}

fn size() -> ResizePtyRequest {
    request(|message: &mut ResizePtyRequest| {
        ID.clone_into(&mut message.id);
        (message.width, message.height) = (80, 24);
    })
}

/// What is asked for at which time, and the code of the answer.
fn codes(task: &Task) -> Vec<(&'static str, Code)> {
    let pause = request(|message: &mut PauseRequest| ID.clone_into(&mut message.id));
    let resume = request(|message: &mut ResumeRequest| ID.clone_into(&mut message.id));
    let state = request(|message: &mut StateRequest| ID.clone_into(&mut message.id));
    let stats = request(|message: &mut StatsRequest| ID.clone_into(&mut message.id));
    let pids = request(|message: &mut PidsRequest| ID.clone_into(&mut message.id));
    let close = request(|message: &mut CloseIORequest| {
        ID.clone_into(&mut message.id);
        message.stdin = true;
    });
    let mut all = vec![
        ("start what runs", task.code("Start", &start(""))),
        ("delete what runs", task.code("Delete", &delete(ID, ""))),
        ("resume what runs", task.code("Resume", &resume)),
        (
            "a signal that there is not",
            task.code("Kill", &kill("", 99)),
        ),
        (
            "a terminal's size without one",
            task.code("ResizePty", &size()),
        ),
        ("no resources", task.code("Update", &update("{"))),
        ("an exec that is no process", task.code("Exec", &nonsense())),
        ("close stdin", task.code("CloseIO", &close)),
        ("an exec", task.code("Exec", &exec("e", "exec sleep 1000"))),
        ("one of its name", task.code("Exec", &exec("e", "true"))),
        ("kill it before it starts", task.code("Kill", &kill("e", 9))),
        ("start it", task.code("Start", &start("e"))),
        ("start it again", task.code("Start", &start("e"))),
        (
            "delete it while it runs",
            task.code("Delete", &delete(ID, "e")),
        ),
        ("pause", task.code("Pause", &pause)),
        ("pause again", task.code("Pause", &pause)),
        ("resume", task.code("Resume", &resume)),
        ("kill", task.code("Kill", &kill("", 9))),
    ];
    let _: WaitResponse = task.call("Wait", &wait("")).expect("an end");
    all.extend([
        ("kill what has ended", task.code("Kill", &kill("", 9))),
        ("start what has ended", task.code("Start", &start(""))),
        ("pause what has ended", task.code("Pause", &pause)),
        ("its state", task.code("State", &state)),
        ("its pids", task.code("Pids", &pids)),
        ("its statistics", task.code("Stats", &stats)),
        ("delete it", task.code("Delete", &delete(ID, ""))),
        ("delete it again", task.code("Delete", &delete(ID, ""))),
        ("its state afterwards", task.code("State", &state)),
    ]);
    // containerd, which has not heard of the end, does not say it.
    let bye = request(|message: &mut ShutdownRequest| ID.clone_into(&mut message.id));
    all.push(("shut down", task.code("Shutdown", &bye)));
    all
}

#[test]
fn codes_are_those_of_the_shim_for_runc() {
    let reference = RefCell::new(Vec::new());
    shims(|containerd| {
        let task = running(containerd);
        let seen = codes(&task);
        clear_up(containerd);
        if containerd.runtime == Runtime::Runc {
            reference.replace(seen);
            return;
        }
        let reference = reference.borrow();
        for (&(what, theirs), &(_, ours)) in reference.iter().zip(&seen) {
            // Where that has none, ours may know better.
            let is_as_good = match theirs {
                Code::UNKNOWN => ours != Code::OK,
                // They were the guest's, which has ended.
                Code::OK if what == "its statistics" => ours == Code::UNAVAILABLE,
                known => ours == known,
            };
            assert!(is_as_good, "{what}: {ours:?}\n{reference:#?}\n{seen:#?}");
        }
        let known = |code| seen.iter().any(|(_, one)| *one == code);
        for code in [
            Code::NOT_FOUND,
            Code::ALREADY_EXISTS,
            Code::FAILED_PRECONDITION,
            Code::INVALID_ARGUMENT,
        ] {
            assert!(known(code), "no {code:?} among {seen:#?}");
        }
    });
}

#[test]
fn a_fifo_that_nobody_opens_holds_no_call_up() {
    shims(|containerd| {
        // The shim for runc waits for a reader in `Start`; what runs first is that the rest of the case is one.
        let task = running(containerd);
        let fifo = containerd.folder().join("nobody-reads");
        let done = std::process::Command::new("mkfifo").arg(&fifo).status();
        assert!(done.is_ok_and(|status| status.success()));
        let mut wanted = exec("e", "echo said; exit 3");
        if containerd.runtime == Runtime::Shim {
            wanted.stdout = fifo.display().to_string();
            wanted.stderr.clone_from(&wanted.stdout);
        }
        let _: Empty = task.call("Exec", &wanted).expect("added");
        let began = Instant::now();
        let _: StartResponse = task.call("Start", &start("e")).expect("started");
        let state = request(|message: &mut StateRequest| ID.clone_into(&mut message.id));
        assert_eq!(task.code("State", &state), Code::OK);
        let ended: WaitResponse = task.call("Wait", &wait("e")).expect("an end");
        assert!(
            began.elapsed() < patient(std::time::Duration::from_secs(20)),
            "{began:?}"
        );
        assert_eq!(task.code("Delete", &delete(ID, "e")), Code::OK);
        clear_up(containerd);
        ended.exit_status
    });
}
