//! The suite that every backend passes.
//!
//! A backend's integration test calls [`conformance_tests!`](crate::conformance_tests) with a function that makes a
//! [`Fixture`] or tells why there can't be one. Each case is a test of its own. The guest is [`guest::image`]: a shell
//! script that answers on the link port and does on the console what kernel parameters ask for.

mod cases;
mod devices;
mod erofs;
pub mod guest;
mod sockets;
mod templates;

pub use cases::*;
pub use devices::*;
pub use sockets::*;
pub use templates::*;

use std::path::PathBuf;
use std::time::Duration;

use crate::{Backend, BackendError, LinkIo, Privileges, SpareDevices, Vm, VmConfig};

/// How long a guest may take for anything: these tests share a busy machine, and its virtualization may be emulated.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// What a case works with.
pub struct Fixture {
    /// The backend under test.
    pub backend: Box<dyn Backend>,
    /// A guest kernel.
    pub kernel: PathBuf,
    /// An image made by [`guest::image`].
    pub initrd: PathBuf,
    /// Who VMMs run as.
    pub privileges: Privileges,
}

impl Fixture {
    /// A small machine whose guest gets these kernel parameters.
    #[must_use]
    pub fn config(&self, parameters: &[&str]) -> VmConfig {
        VmConfig {
            name: "conformance".to_owned(),
            kernel: self.kernel.clone(),
            initrd: self.initrd.clone(),
            cmdline: parameters.iter().map(|&word| word.to_owned()).collect(),
            memory_bytes: 128 << 20,
            spare_memory_bytes: 0,
            vcpus: 1,
            spare_vcpus: 0,
            share: None,
            huge_pages: false,
            sockets: None,
            nics: Vec::new(),
            disks: Vec::new(),
            images: Vec::new(),
            spare_devices: SpareDevices::default(),
            network: None,
            groups: Vec::new(),
            privileges: self.privileges,
        }
    }

    /// Creates and boots a machine.
    ///
    /// # Panics
    /// When that fails.
    pub async fn boot(&self, config: VmConfig) -> (Box<dyn Vm>, LinkIo) {
        let mut vm = self.create(config).await.expect("creates");
        let link = vm
            .boot()
            .await
            .unwrap_or_else(|error| panic!("boots: {error}"));
        (vm, link)
    }

    /// Creates a machine.
    ///
    /// # Errors
    /// The backend's.
    pub async fn create(&self, config: VmConfig) -> Result<Box<dyn Vm>, BackendError> {
        self.backend.create(config).await
    }
}

/// Makes one test of each case. `$fixture` is a function that returns `Result<Fixture, String>`; the text of an error
/// says why the tests are skipped, and is printed.
#[macro_export]
macro_rules! conformance_tests {
    ($fixture:path) => {
        $crate::conformance_tests!($fixture:
            the_link_echoes
            several_cpus_are_there
            stopping_twice_is_fine
            dropping_leaves_no_process
            a_killed_vmm_is_noticed
            waiting_can_be_given_up
            a_missing_kernel_is_named
            a_file_that_is_no_kernel_is_refused
            too_much_memory_is_refused
            impossible_settings_are_refused
            booting_is_allowed_once
            a_panic_shows_the_end_of_the_console
            a_guest_that_floods_its_console_does_no_harm
            a_paused_guest_stands_still
            a_guest_grows_and_shrinks
            a_machine_without_spares_keeps_its_size
            disks_and_images_are_there_at_the_boot
            devices_come_and_go
            a_guest_that_keeps_a_device_loses_it
            what_cannot_be_plugged_is_refused
            what_a_machine_does_is_counted
            programs_of_guest_and_host_find_each_other
            copies_go_on_where_their_template_stopped
            a_template_of_a_guest_that_is_not_well_is_none
            a_damaged_template_is_refused
        );
    };
    ($fixture:path: $($case:ident)*) => {
        $(
            #[tokio::test(flavor = "current_thread")]
            async fn $case() {
                match $fixture() {
                    Ok(fixture) => $crate::conformance::$case(&fixture).await,
                    Err(reason) => eprintln!("skipped: {reason}"),
                }
            }
        )*
    };
}
