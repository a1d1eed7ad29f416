//! Workstream files: none makes the reader panic, and whatever is wrong with one can be shown.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use toka_workstream::{LoadOptions, Style, load_texts};

fuzz_target!(|text: &str| {
    let loaded = load_texts([(Path::new("a.yaml"), text)], &LoadOptions::default());
    let _ = loaded.sources.render(&loaded.diagnostics, Style::Plain);
    let _ = toka_workstream::load_value("a.yaml", text);
});
