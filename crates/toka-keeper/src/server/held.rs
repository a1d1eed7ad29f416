//! Descriptors that the keeper holds for somebody who may die: under names, in the order in which they came.

use std::io;
use std::os::fd::OwnedFd;

use toka_sandbox::sys;

use crate::packet::MAX_DESCRIPTORS;
use crate::protocol::Body;

/// Named descriptors. Several may share a name.
#[derive(Debug, Default)]
pub(super) struct Held(Vec<(String, OwnedFd)>);

impl Held {
    /// Takes descriptors in the place of those of the same name.
    pub(super) fn replace(&mut self, name: &str, descriptors: Vec<OwnedFd>) {
        self.release(name);
        self.0.extend(descriptors.into_iter().map(|fd| (name.to_owned(), sys::set_aside(fd))));
    }

    /// Closes those of a name.
    pub(super) fn release(&mut self, name: &str) {
        self.0.retain(|(held, _)| held != name);
    }

    /// Those of a name, in their order.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &OwnedFd> {
        self.0.iter().filter(move |(held, _)| held == name).map(|(_, fd)| fd)
    }

    /// Each name once.
    pub(super) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for (name, _) in &self.0 {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        names
    }

    /// Duplicates of `pipes` and of those held, from number `from` on, as many as one message takes, and what to say with
    /// them.
    pub(super) fn page(&self, pipes: Option<&[OwnedFd; 2]>, from: usize) -> io::Result<(Body, Vec<OwnedFd>)> {
        let pipes = pipes.map(<[OwnedFd; 2]>::as_slice).unwrap_or_default();
        let named = self.0.iter().map(|(name, fd)| (Some(name), fd));
        let all = pipes.iter().map(|fd| (None, fd)).chain(named);
        let (mut names, mut descriptors) = (Vec::new(), Vec::new());
        for (name, fd) in all.skip(from).take(MAX_DESCRIPTORS) {
            descriptors.push(fd.try_clone()?);
            names.extend(name.cloned());
        }
        let pipes = descriptors.len() - names.len();
        Ok((Body::HandBack { names, pipes }, descriptors))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn null() -> OwnedFd {
        std::fs::File::open("/dev/null").expect("null").into()
    }

    #[test]
    fn a_name_is_replaced_and_released_as_a_whole() {
        let mut held = Held::default();
        held.replace("door", vec![null(), null()]);
        held.replace("lock", vec![null()]);
        assert_eq!(held.names(), ["door", "lock"]);
        held.replace("door", vec![null()]);
        assert_eq!((held.names(), held.0.len()), (vec!["lock".to_owned(), "door".to_owned()], 2));
        held.release("lock");
        held.release("never held");
        assert_eq!(held.names(), ["door"]);
    }

    #[test]
    fn pages_tell_everything_once() {
        let mut held = Held::default();
        for number in 0..40 {
            held.replace(&number.to_string(), vec![null()]);
        }
        let pipes = [null(), null()];
        let (mut told, mut from) = (Vec::new(), 0);
        loop {
            let (body, descriptors) = held.page(Some(&pipes), from).expect("room");
            let Body::HandBack { names, pipes } = body else { panic!("{body:?}") };
            assert_eq!(pipes + names.len(), descriptors.len());
            assert_eq!(pipes, if from == 0 { 2 } else { 0 });
            told.extend(names);
            from += descriptors.len();
            if descriptors.len() < MAX_DESCRIPTORS {
                break;
            }
        }
        assert_eq!(told, (0..40).map(|number| number.to_string()).collect::<Vec<_>>());
    }
}
