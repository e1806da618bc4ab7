//! The seeds, played by any compiler.

use std::fs;
use std::path::Path;

#[test]
fn every_seed_is_survived() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    for (name, run) in vmm_fuzz::TARGETS {
        let mut count = 0;
        for seed in fs::read_dir(seeds.join(name)).expect("seeds") {
            let seed = seed.expect("a seed").path();
            println!("{}", seed.display());
            run(&fs::read(seed).expect("a seed"));
            count += 1;
        }
        assert!(count > 0, "{name} has no seeds");
    }
}
