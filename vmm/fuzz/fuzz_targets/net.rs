#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(init: vmm_fuzz::begin(), |data: &[u8]| vmm_fuzz::net::run(data));
