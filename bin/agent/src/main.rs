//! The one program of the guest: PID 1, agent and container helper.
//!
//! The kernel starts it as `/init`. PID 1 forks the agent, the agent forks the helper, both
//! before they have a second thread, so no process of the guest ever executes this file again.

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::process::id() != 1 {
        eprintln!("cofferdam-agent: this program is the init of a guest, it must be PID 1");
        return ExitCode::FAILURE;
    }
    guest::init::main()
}
