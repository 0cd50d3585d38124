//! libFuzzer's program, for the target that CPE_FUZZ names. `fuzz/run` builds it with coverage and starts it.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<cpe_fuzz::Target> = LazyLock::new(|| {
    let name = std::env::var("CPE_FUZZ").unwrap_or_default();
    cpe_fuzz::target(&name).unwrap_or_else(|| panic!("CPE_FUZZ is {name:?}, which is no target"))
});

fuzz_target!(|data: &[u8]| (TARGET.holds)(data));
