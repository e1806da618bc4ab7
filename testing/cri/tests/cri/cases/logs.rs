//! Log files, which kubelet reads and rotates.

use std::fs;

use cri::v1::ReopenContainerLogRequest;
use tonic::Code;

use crate::lab::Lab;
use crate::pod::script;

pub fn format(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.run(script(
        "main",
        "echo one; echo two >&2; echo; echo '  spaces  '",
    ));
    container.wait();
    assert_eq!(container.stdout(), "one\n\n  spaces  \n");
    assert_eq!(container.written("stderr"), "two\n");
    let lines = cri::parse(&container.text()).expect("a log");
    assert!(lines.iter().all(|line| !line.partial), "{lines:?}");
    let mut times: Vec<_> = lines
        .iter()
        .filter(|line| line.stream == "stdout")
        .map(|line| line.time.clone())
        .collect();
    let written = times.clone();
    times.sort();
    assert_eq!(times, written);
}

/// They are cut at 16 KiB.
pub fn long_lines(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.run(script(
        "main",
        "head -c 40000 /dev/zero | tr '\\0' x; echo; echo end",
    ));
    container.wait();
    let lines = cri::parse(&container.text()).expect("a log");
    let partial: Vec<_> = lines.iter().map(|line| line.partial).collect();
    assert_eq!(partial, [true, true, false, false]);
    assert_eq!(lines[0].text.len(), 16_384);
    let stdout = container.stdout();
    assert_eq!(stdout.len(), 40_000 + "\nend\n".len());
}

pub fn last_line_without_an_end(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.run(script("main", "echo whole; printf half"));
    container.wait();
    assert_eq!(container.stdout().trim_end(), "whole\nhalf");
}

pub fn reopened(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.run(script(
        "main",
        "echo first; while ! test -e /go; do sleep 0.1; done; echo second",
    ));
    container.wait_for("first");
    let rotated = container.log.with_extension("rotated");
    fs::rename(&container.log, &rotated).expect("a rename");
    let reopen = || {
        let request = ReopenContainerLogRequest {
            container_id: container.id.clone(),
        };
        lab.runtime(async |mut calls| calls.reopen_container_log(request).await)
    };
    reopen().expect("a new file");
    assert_eq!(container.text(), "");
    // Not its exit code: the container may end first, and takes it along.
    let _killed_or_not = container.exec("touch /go");
    container.wait();
    assert_eq!(container.stdout(), "second\n");
    let old = fs::read_to_string(&rotated).expect("the old file");
    assert!(old.ends_with(" F first\n"), "{old}");
    let refused = reopen().expect_err("it has ended");
    assert_ne!(refused.code(), Code::Ok);
}
