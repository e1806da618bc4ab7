//! `ExecSync`, as probes use it.

use std::thread;
use std::time::{Duration, Instant};

use cri::v1::Int64Value;
use tonic::Code;

use crate::lab::Lab;
use crate::pod::{command, script, security};

pub fn output_and_exit_code(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.run(command("main", &["sleep", "1000"]));
    let done = container
        .try_exec(&["sh", "-c", "echo out; echo err >&2; exit 5"], 120)
        .expect("an exec");
    assert_eq!(done.stdout, b"out\n");
    assert_eq!(done.stderr, b"err\n");
    assert_eq!(done.exit_code, 5);
    assert_eq!(container.exec("true"), (0, String::new()));
}

pub fn time_limit(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.run(command("main", &["sleep", "1000"]));
    let before = Instant::now();
    let late = container
        .try_exec(&["sleep", "2222"], 2)
        .expect_err("it takes too long");
    assert_eq!(late.code(), Code::DeadlineExceeded, "{late}");
    assert!(before.elapsed() < harness::patient(Duration::from_secs(100)));
    // It was killed.
    let gone = harness::wait_until(Duration::from_secs(60), || {
        container.exec("ps -o args | grep -c '[s]leep 2222'").1 == "0\n"
    });
    assert!(gone, "what took too long goes on");
}

pub fn command_that_is_missing(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.run(command("main", &["sleep", "1000"]));
    let refused = container
        .try_exec(&["/nonexistent"], 120)
        .expect_err("no such command");
    assert!(refused.message().contains("/nonexistent"), "{refused}");
    assert_eq!(container.exec("echo fine"), (0, "fine\n".to_owned()));
}

pub fn much_output(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.run(command("main", &["sleep", "1000"]));
    let done = container
        .try_exec(&["head", "-c", "3000000", "/dev/zero"], 120)
        .expect("an exec");
    assert_eq!(done.exit_code, 0);
    assert_eq!(done.stdout.len(), 3_000_000);
}

pub fn as_the_user_of_the_container(lab: &Lab) {
    let pod = lab.pod();
    let mut config = command("main", &["sleep", "1000"]);
    config.working_dir = "/var".to_owned();
    config.envs = vec![cri::v1::KeyValue {
        key: "WORD".to_owned(),
        value: "value".to_owned(),
    }];
    security(&mut config).run_as_user = Some(Int64Value { value: 1000 });
    let container = pod.run(config);
    let (code, seen) = container.exec("id -u; pwd; echo $WORD");
    assert_eq!((code, seen.as_str()), (0, "1000\n/var\nvalue\n"));
}

pub fn in_a_stopped_container(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.run(script("main", "exit 0"));
    container.wait();
    let refused = container
        .try_exec(&["true"], 120)
        .expect_err("it has ended");
    assert!(!refused.message().is_empty(), "{refused}");
}

pub fn at_once(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.run(command("main", &["sleep", "1000"]));
    thread::scope(|scope| {
        for number in 0..8 {
            let container = &container;
            scope.spawn(move || {
                let done = container.exec(&format!("echo {number}; exit {number}"));
                assert_eq!(done, (number, format!("{number}\n")));
            });
        }
    });
}
