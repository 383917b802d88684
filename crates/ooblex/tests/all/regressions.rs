//! Regression tests of the parsers: inputs that once made a parser fail, and small examples of each
//! format. `fuzz/regressions` has a folder for each target.

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

use ooblex::fuzz::TARGETS;

#[test]
fn what_fuzzing_found_does_no_harm_any_more() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/regressions");
    let mut folders: Vec<_> = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    folders.sort();
    assert_eq!(folders, TARGETS.map(|(name, _)| name), "each target has a folder, and each folder a target");
    let mut failed = Vec::new();
    for (name, target) in TARGETS {
        let mut files: Vec<_> = fs::read_dir(root.join(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(!files.is_empty(), "{name} has no example");
        for file in files {
            let bytes = fs::read(&file).unwrap();
            if catch_unwind(|| target(&bytes)).is_err() {
                failed.push(file);
            }
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn each_target_has_a_program_for_the_fuzzer() {
    let targets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/fuzz_targets");
    for (name, _) in TARGETS {
        assert!(targets.join(name).with_extension("rs").is_file(), "fuzz/fuzz_targets/{name}.rs is missing");
    }
}
