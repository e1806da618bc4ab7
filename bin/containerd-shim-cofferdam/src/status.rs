//! Errors as containerd wants them: a code of gRPC and a text.

use containerd_shim_protos::ttrpc::{self, Code, get_status};
use sandbox::control::FailureKind;
use sandbox::spec::SpecError;
use sandbox::state::StateError;
use sandbox::{SandboxError, chain};

/// An error with this code.
pub fn refuse(code: Code, text: impl ToString) -> ttrpc::Error {
    ttrpc::Error::RpcStatus(get_status(code, text))
}

/// There is no such thing, or no longer.
pub fn not_found(text: impl ToString) -> ttrpc::Error {
    refuse(Code::NOT_FOUND, text)
}

/// It is there, and in the wrong state.
pub fn wrong_state(text: impl ToString) -> ttrpc::Error {
    refuse(Code::FAILED_PRECONDITION, text)
}

/// What the library said.
pub fn of(error: &SandboxError) -> ttrpc::Error {
    refuse(code(error), chain(error))
}

/// As [`of`], with the words that engines look for before it.
pub fn failed(action: &str, error: &SandboxError) -> ttrpc::Error {
    refuse(
        code(error),
        format!("OCI runtime {action} failed: {}", chain(error)),
    )
}

fn code(error: &SandboxError) -> Code {
    match error {
        SandboxError::Wrong(_) => Code::FAILED_PRECONDITION,
        SandboxError::State(StateError::Missing(_)) => Code::NOT_FOUND,
        SandboxError::Taken(_) | SandboxError::State(StateError::Exists(_)) => Code::ALREADY_EXISTS,
        SandboxError::Spec(SpecError::Unsupported { .. }) => Code::UNIMPLEMENTED,
        SandboxError::Id(_)
        | SandboxError::Config(_)
        | SandboxError::Load(_)
        | SandboxError::Spec(_) => Code::INVALID_ARGUMENT,
        SandboxError::Backend(_)
        | SandboxError::NoBackend(_)
        | SandboxError::Boot { .. }
        | SandboxError::Gone { .. } => Code::UNAVAILABLE,
        SandboxError::Process(failure) if failure.kind == FailureKind::State => {
            Code::FAILED_PRECONDITION
        }
        // A command that cannot be run is unknown to the runc shim, too: engines read the text.
        _ => Code::UNKNOWN,
    }
}
