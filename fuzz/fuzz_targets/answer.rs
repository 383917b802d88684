#![no_main]

use std::panic::set_hook;
use std::sync::Once;

static QUIET: Once = Once::new();

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    // The gateway catches panics of the WebRTC library and refuses such an answer. libFuzzer's hook
    // would end the process at the panic; without it only a panic that nobody catches does.
    QUIET.call_once(|| set_hook(Box::new(|_| {})));
    ooblex::fuzz::answer(data);
});
