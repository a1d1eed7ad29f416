//! A wall clock that a test may set: that of the machine belongs to everybody on it, and no namespace has one of its own
//! (time_namespaces(7)). A library that is preloaded gives the programs of a scene another.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::process::Command;

use crate::Scene;

/// The wall clock of a scene's programs; what they start for agents has the machine's.
#[derive(Debug)]
pub struct WallClock(File);

impl WallClock {
    /// Gives the programs of a scene a clock of their own, which shows what the machine's does until it is set.
    ///
    /// # Panics
    /// When there is no C compiler: whoever builds this has one, since it links.
    pub fn of(scene: Scene) -> (Self, Scene) {
        let [source, library, ahead] = ["clock.c", "clock.so", "clock"].map(|name| scene.folder().join(name));
        fs::write(&source, include_str!("preload.c")).expect("a file of the scene");
        fs::write(&ahead, 0_i64.to_ne_bytes()).expect("a file of the scene");
        let words = ["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-pthread", "-o"];
        let compiled = Command::new("cc").args(words).args([&library, &source]).output();
        let compiled = compiled.expect("the compiler that links Rust");
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        let file = File::options().write(true).open(&ahead).expect("it was just written");
        (Self(file), scene.env("LD_PRELOAD", library).env("TOKA_TEST_CLOCK", ahead))
    }

    /// Sets it this many seconds ahead of the machine's, or behind it.
    ///
    /// # Panics
    /// When its file cannot be written.
    pub fn set(&self, seconds: i64) {
        self.0.write_all_at(&seconds.to_ne_bytes(), 0).expect("a file of the scene");
    }
}
