//! Building images: their `RUN` is run by the engine's default runtime.

use std::fs;

use crate::daemon::{Daemon, Options};
use crate::docker::Docker;
use crate::runtime::{Release, Runtime};

const DOCKERFILE: &str = "FROM busybox
ARG WORD
COPY given /given
RUN cat /given > /built && echo $WORD >> /built
RUN chown 1000 /built && uname -r > /kernel
USER 1000
CMD [\"cat\", \"/built\"]
";

pub fn images_are_built(release: &Release) {
    let mut built = Vec::new();
    for runtime in release.runtimes() {
        let options = Options {
            default_runtime: Some(runtime.name()),
            ..Options::default()
        };
        let daemon = match Daemon::start(release, &options) {
            Ok(daemon) => daemon,
            Err(reason) => return eprintln!("SKIPPED: {reason}"),
        };
        let docker = Docker::new(&daemon, runtime, "build");
        let folder = docker.folder();
        fs::write(folder.join("Dockerfile"), DOCKERFILE).expect("a file");
        fs::write(folder.join("given"), "given\n").expect("a file");
        let image = docker.name("image");
        docker.ok(&[
            "build",
            "--network",
            "none",
            "--force-rm",
            "--build-arg",
            "WORD=word",
            "--tag",
            &image,
            folder.to_str().expect("text"),
        ]);
        built.push((
            docker.ok(&["run", "--rm", &image]),
            docker.ok(&["run", "--rm", &image, "stat", "-c", "%u %a", "/built"]),
        ));
        // The kernel that it was built on.
        let kernel = docker.ok(&["run", "--rm", &image, "cat", "/kernel"]);
        let host = fs::read_to_string("/proc/sys/kernel/osrelease").expect("a release");
        assert_eq!(kernel == host, runtime == Runtime::Runc, "{kernel}");
        docker.leaves_nothing();
        daemon.leaves_nothing().expect("nothing left");
    }
    assert_eq!(built[0].0, "given\nword\n");
    assert_eq!(built[0], built[1], "runc and ours differ");
}
