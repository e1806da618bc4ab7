//! AppArmor profiles: engines name one of their own on hosts that have AppArmor.
//!
//! Their defaults guard the host's kernel from its containers. In a guest our own default stands for them: it forbids the
//! same to the same processes, on the guest's kernel. Other profiles are on the host only.

use cofferdam_protocol::APPARMOR_PROFILE;
use oci_spec::runtime::Process;

/// What docker, CRI-O and containerd call their defaults.
const DEFAULTS: [&str; 5] = [
    "docker-default",
    "crio-default",
    "cri-containerd.apparmor.d",
    "nerdctl-default",
    APPARMOR_PROFILE,
];

/// Podman's and buildah's have their version at the end.
const DEFAULT_PREFIX: &str = "containers-default-";

const UNCONFINED: &str = "unconfined";

/// The profile's name if guests do not have it, nor anything that stands for it.
pub(super) fn unknown(process: &Process) -> Option<&str> {
    let profile = process.apparmor_profile().as_deref()?;
    let known = profile.is_empty() || profile == UNCONFINED || is_default(profile);
    (!known).then_some(profile)
}

/// Puts the guest's profile in the place of an engine's.
pub(crate) fn translate(process: &mut Process) {
    let profile = match process.apparmor_profile().as_deref() {
        Some(profile) if is_default(profile) => Some(APPARMOR_PROFILE.to_owned()),
        // What a guest's processes are without a profile. A kernel of the user's own may not know the word.
        _ => None,
    };
    process.set_apparmor_profile(profile);
}

fn is_default(profile: &str) -> bool {
    DEFAULTS.contains(&profile) || profile.starts_with(DEFAULT_PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_of_engines_become_the_guests() {
        for (given, inside) in [
            ("docker-default", Some(APPARMOR_PROFILE)),
            ("containers-default-0.57.4", Some(APPARMOR_PROFILE)),
            ("unconfined", None),
            ("", None),
        ] {
            let mut process = Process::default();
            process.set_apparmor_profile(Some(given.to_owned()));
            assert_eq!(unknown(&process), None, "{given}");
            translate(&mut process);
            assert_eq!(process.apparmor_profile().as_deref(), inside, "{given}");
        }
        let mut process = Process::default();
        process.set_apparmor_profile(Some("my-nginx".to_owned()));
        assert_eq!(unknown(&process), Some("my-nginx"));
    }
}
