//! Streams of models: the events are the same however the bytes come in pieces, no byte is lost or made, and no frame makes the meter panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use toka_wire::{Meter, Wire, answer, said, sse::Event, sse::Splitter};

/// The frames, and what is left behind the last; a LF that comes after a CR may be with either of two frames.
fn frames(pieces: &[&[u8]]) -> (Vec<Vec<u8>>, Vec<u8>) {
    let (mut splitter, mut frames) = (Splitter::default(), Vec::new());
    for piece in pieces {
        let _ = splitter.feed(piece, |frame| frames.push(frame.to_vec()));
    }
    (frames, splitter.rest().to_vec())
}

fuzz_target!(|input: (u16, Vec<u8>)| {
    let (at, bytes) = input;
    let at = usize::from(at) % (bytes.len() + 1);
    let (whole, cut) = (frames(&[&bytes]), frames(&[&bytes[..at], &bytes[at..]]));
    for (frames, rest) in [&whole, &cut] {
        assert_eq!([frames.concat(), rest.clone()].concat(), bytes);
    }
    let events = |frames: &[Vec<u8>]| frames.iter().map(|frame| Event::read(frame)).collect::<Vec<_>>();
    assert_eq!(events(&whole.0), events(&cut.0));
    for wire in Wire::ALL {
        let mut meter = Meter::new(wire, true);
        whole.0.iter().for_each(|frame| drop(meter.observe(frame)));
        let _ = meter.progress().estimate(bytes.len() as u64);
        let _ = answer::read(wire, &bytes);
        let _ = said::read(wire, true, &bytes);
    }
});
