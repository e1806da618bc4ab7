//! The engine itself, and its images.

use cri::v1::{
    ImageFsInfoRequest, ImageSpec, ImageStatusRequest, ListImagesRequest, PullImageRequest,
    RemoveImageRequest, RuntimeConfigRequest, StatusRequest, UpdateRuntimeConfigRequest,
    VersionRequest,
};

use crate::lab::Lab;

pub fn version(lab: &Lab) {
    let request = VersionRequest {
        version: "0.1.0".to_owned(),
    };
    let answer = lab
        .runtime(async |mut calls| calls.version(request).await)
        .expect("a version");
    assert_eq!(answer.runtime_name, "containerd");
    assert_eq!(answer.runtime_api_version, "v1");
    let (major, minor) = lab.engine.version;
    let told = answer.runtime_version.trim_start_matches('v');
    assert!(told.starts_with(&format!("{major}.{minor}.")), "{told}");
}

pub fn status(lab: &Lab) {
    let request = StatusRequest { verbose: true };
    let answer = lab
        .runtime(async |mut calls| calls.status(request).await)
        .expect("a status");
    let conditions = answer.status.expect("a status").conditions;
    for wanted in ["RuntimeReady", "NetworkReady"] {
        let is_met = |kind: &cri::v1::RuntimeCondition| kind.r#type == wanted && kind.status;
        assert!(conditions.iter().any(is_met), "{wanted}: {conditions:?}");
    }
    let config = answer.info.get("config").expect("the configuration");
    assert!(config.contains(lab.handler.name()), "{config}");
}

/// On a name that no other case uses.
pub fn images(lab: &Lab) {
    let name = lab.engine.own_image(&lab.namespace());
    let spec = Some(ImageSpec {
        image: name.clone(),
        ..ImageSpec::default()
    });
    let status = || {
        let request = ImageStatusRequest {
            image: spec.clone(),
            verbose: false,
        };
        let calls = &lab.engine.client;
        calls
            .images(async |mut calls| calls.image_status(request).await)
            .expect("an answer")
            .image
    };
    assert_eq!(status(), None, "before the pull");
    let request = PullImageRequest {
        image: spec.clone(),
        ..PullImageRequest::default()
    };
    let client = &lab.engine.client;
    let pulled = client
        .images(async |mut calls| calls.pull_image(request).await)
        .expect("a pull");
    let image = status().expect("the image");
    assert_eq!(image.id, pulled.image_ref);
    assert!(image.repo_tags.contains(&name), "{image:?}");
    assert!(image.size > 100_000, "{image:?}");
    assert_eq!(image.username, "user");
    let all = client
        .images(async |mut calls| calls.list_images(ListImagesRequest::default()).await)
        .expect("a list")
        .images;
    assert!(all.iter().any(|listed| listed.id == image.id), "{all:?}");
    for _ in 0..2 {
        let request = RemoveImageRequest {
            image: spec.clone(),
        };
        client
            .images(async |mut calls| calls.remove_image(request).await)
            .expect("a removal, which may come twice");
    }
    assert_eq!(status(), None, "after the removal");
    let request = PullImageRequest {
        image: Some(ImageSpec {
            image: lab.engine.image("nothing-of-that-name"),
            ..ImageSpec::default()
        }),
        ..PullImageRequest::default()
    };
    let refused = client
        .images(async |mut calls| calls.pull_image(request).await)
        .expect_err("there is no such image");
    assert!(
        refused.message().contains("nothing-of-that-name"),
        "{refused}"
    );
}

pub fn image_file_system(lab: &Lab) {
    let calls = &lab.engine.client;
    let info = calls
        .images(async |mut calls| calls.image_fs_info(ImageFsInfoRequest::default()).await)
        .expect("an answer");
    let info = info.image_filesystems.first().expect("a file system");
    let place = &info.fs_id.as_ref().expect("a place").mountpoint;
    assert!(place.contains("overlayfs"), "{place}");
}

pub fn configuration(lab: &Lab) {
    let request = UpdateRuntimeConfigRequest::default();
    lab.runtime(async |mut calls| calls.update_runtime_config(request).await)
        .expect("taken");
    if lab.has((2, 0)) {
        let request = RuntimeConfigRequest::default();
        let answer = lab
            .runtime(async |mut calls| calls.runtime_config(request).await)
            .expect("an answer");
        assert!(answer.linux.is_some(), "{answer:?}");
    }
}

pub fn unknown_handler(lab: &Lab) {
    let config = lab.pod_config("pod");
    let request = cri::v1::RunPodSandboxRequest {
        config: Some(config),
        runtime_handler: "no-such-handler".to_owned(),
    };
    let refused = lab
        .runtime(async |mut calls| calls.run_pod_sandbox(request).await)
        .expect_err("no such handler");
    assert!(refused.message().contains("no-such-handler"), "{refused}");
}
