//! The cases of backends that can start copies of a booted guest; others pass them.
#![expect(clippy::missing_panics_doc, reason = "a failing test panics")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};
use tokio::time::timeout;

use super::cases::echo;
use super::{Fixture, PATIENCE, guest};
use crate::{BackendError, Greeting, Templates, VmConfig};

/// Two copies of one template work, at the same time, and have not booted.
pub async fn copies_go_on_where_their_template_stopped(fixture: &Fixture) {
    let Some(templates) = fixture.backend.templates() else {
        return;
    };
    let template = capture(fixture, templates).await;
    let mut running = Vec::new();
    for _ in 0..2 {
        let file = template.try_clone().expect("a descriptor");
        let mut vm = templates
            .copy(config(fixture), file)
            .await
            .expect("creates");
        let link = vm
            .boot()
            .await
            .unwrap_or_else(|error| panic!("goes on: {error}"));
        running.push((vm, link));
    }
    for (vm, link) in &mut running {
        echo(&**vm, link).await;
        let console = vm.diagnostics().console;
        assert!(!console.contains(guest::CPUS), "it booted: {console}");
    }
    for (mut vm, _link) in running {
        vm.stop().await.expect("stops");
    }
}

/// What the greeting finds wrong is what the error says.
pub async fn a_template_of_a_guest_that_is_not_well_is_none(fixture: &Fixture) {
    let Some(templates) = fixture.backend.templates() else {
        return;
    };
    let greeting: Greeting = Box::new(|_link| Box::pin(async { Err("not today".into()) }));
    let captured = templates.capture(config(fixture), greeting, file());
    let error = timeout(PATIENCE, captured)
        .await
        .expect("in time")
        .expect_err("fails");
    let BackendError::Template { source, .. } = &error else {
        panic!("{error}");
    };
    let source = source.as_ref().map(ToString::to_string);
    assert_eq!(source.as_deref(), Some("not today"));
}

/// A file that is cut off, changed or of another machine is refused before anything starts.
pub async fn a_damaged_template_is_refused(fixture: &Fixture) {
    let Some(templates) = fixture.backend.templates() else {
        return;
    };
    let template = capture(fixture, templates).await;
    let copy = || template.try_clone().expect("a descriptor");
    let mut larger = config(fixture);
    larger.memory_bytes *= 2;
    let refused = async |config: VmConfig, what: &str| match templates.copy(config, copy()).await {
        Err(BackendError::Template { .. }) => {}
        Err(error) => panic!("{what}: {error}"),
        Ok(_) => panic!("{what} is taken"),
    };
    refused(larger, "another size").await;
    let length = template.metadata().expect("metadata").len();
    template.set_len(length / 2).expect("cut off");
    refused(config(fixture), "half of it").await;
    template.write_all_at(b"nonsense", 0).expect("overwritten");
    refused(config(fixture), "nonsense").await;
    template.set_len(0).expect("emptied");
    refused(config(fixture), "nothing").await;
}

fn config(fixture: &Fixture) -> VmConfig {
    fixture.config(&[guest::AGAIN])
}

async fn capture(fixture: &Fixture, templates: &dyn Templates) -> File {
    let greeting: Greeting = Box::new(|mut link| {
        Box::pin(async move {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            link.write_all(b"well?").await?;
            link.read_exact(&mut [0; 5]).await?;
            Ok(())
        })
    });
    let template = file();
    let out = template.try_clone().expect("a descriptor");
    timeout(
        PATIENCE + Duration::from_secs(60),
        templates.capture(config(fixture), greeting, out),
    )
    .await
    .expect("in time")
    .unwrap_or_else(|error| panic!("{error}: {:?}", std::error::Error::source(&error)));
    template
}

fn file() -> File {
    memfd_create("template", MemfdFlags::CLOEXEC)
        .expect("a file in memory")
        .into()
}
