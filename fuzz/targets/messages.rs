//! Messages of agents to the daemon: none makes the reader panic, and each that is refused has an answer or none on purpose.
#![no_main]

use libfuzzer_sys::fuzz_target;
use toka_core::rpc::parse_call;

fuzz_target!(|line: &[u8]| {
    match parse_call(line) {
        Ok(incoming) => drop(format!("{incoming:?}")),
        Err(rejected) => drop(rejected.reply_line()),
    }
});
