//! Requests to models: none makes the reader panic, and one that is read and written with another model's name is read again, with that name.
#![no_main]

use libfuzzer_sys::fuzz_target;
use toka_wire::{Endpoint, Prompt, RequestFacts};

const ENDPOINTS: [Endpoint; 5] = [
    Endpoint::ChatCompletions,
    Endpoint::Responses,
    Endpoint::Messages,
    Endpoint::Embeddings,
    Endpoint::GenerateContent,
];

fuzz_target!(|body: &[u8]| {
    for endpoint in ENDPOINTS {
        let _ = Prompt::read(endpoint, "m", body);
        let path_model = (endpoint == Endpoint::GenerateContent).then_some("m");
        let Ok(facts) = RequestFacts::read(endpoint, path_model, body) else { continue };
        if path_model.is_some() {
            continue;
        }
        let written = facts.rewrite(body, "other/model");
        let again = RequestFacts::read(endpoint, None, &written).expect("what was read is read again");
        assert_eq!(again.model, "other/model");
        assert_eq!(again.stream, facts.stream);
    }
});
