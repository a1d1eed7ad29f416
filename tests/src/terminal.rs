//! A program on a terminal of its own: a pseudoterminal (pty(7)) that the test types into and reads.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, killpg};
use nix::sys::termios::{FlowArg, LocalFlags, Termios, tcflow, tcgetattr};
use nix::unistd::tcgetpgrp;

use crate::{Scene, until};

/// Far above what a program takes to end; only a failure waits so long.
const DEADLINE: Duration = Duration::from_secs(30);

/// A program on a terminal. It is killed when this is dropped, and its terminal hangs up.
pub struct OnTerminal {
    child: Child,
    keyboard: File,
    terminal: OwnedFd,
    before: Termios,
    written: Arc<Mutex<Vec<u8>>>,
    reading: Arc<(Mutex<Reading>, Condvar)>,
}

/// Whether somebody looks at the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// What is written is read.
    Going,
    /// Nobody reads: soon the program cannot write any more.
    Held,
}

impl OnTerminal {
    /// Starts `words` in the scene, in a session of its own, on a terminal of 100 columns and 30 rows.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(scene: &Scene, words: &[std::ffi::OsString], reading: Reading) -> Self {
        let size = Winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).expect("a terminal");
        // A program that held our end too would never see its terminal hang up.
        fcntl(&pty.master, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).expect("our own descriptor");
        fcntl(&pty.slave, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).expect("our own descriptor");
        scene.user().own(&nix::unistd::ttyname(&pty.slave).expect("a terminal has a name"));
        let before = tcgetattr(&pty.slave).expect("a terminal");
        let mut line: Vec<std::ffi::OsString> = ["setsid", "--ctty", "--wait"].map(Into::into).to_vec();
        line.extend(words.iter().cloned());
        let stream = || Stdio::from(pty.slave.try_clone().expect("a descriptor"));
        let mut command: Command = scene.bare_command(&line);
        command.env("TERM", "xterm-256color").stdin(stream()).stdout(stream()).stderr(stream());
        let child = command.spawn().expect("it starts");
        let keyboard = File::from(pty.master);
        let written = Arc::new(Mutex::new(Vec::new()));
        let reading = Arc::new((Mutex::new(reading), Condvar::new()));
        let screen = keyboard.try_clone().expect("a descriptor");
        std::thread::spawn({
            let (written, reading) = (Arc::clone(&written), Arc::clone(&reading));
            move || read(screen, &written, &reading)
        });
        Self { child, keyboard, terminal: pty.slave, before, written, reading }
    }

    /// Everything that was written so far.
    ///
    /// # Panics
    /// When the reader has.
    pub fn written(&self) -> Vec<u8> {
        self.written.lock().expect("the reader does not panic").clone()
    }

    /// Goes on to read.
    ///
    /// # Panics
    /// When the reader has.
    pub fn read_on(&self) {
        *self.reading.0.lock().expect("the reader does not panic") = Reading::Going;
        self.reading.1.notify_all();
    }

    /// Types.
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("a key");
    }

    /// Makes the terminal another size.
    ///
    /// # Panics
    /// When it cannot be.
    pub fn resize(&self, columns: u16, rows: u16) {
        let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&self.keyboard, size).expect("a size");
    }

    /// Nothing more is shown, and whoever writes waits (ctrl-s; tcflow(3)).
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn stand_still(&self) {
        tcflow(&self.terminal, FlowArg::TCOOFF).expect("a terminal");
    }

    /// The program that is in front on the terminal.
    ///
    /// # Panics
    /// When there is none.
    pub fn in_front(&self) -> nix::unistd::Pid {
        tcgetpgrp(&self.keyboard).expect("a terminal")
    }

    /// Whether the program has taken the terminal: each key goes to it as it is typed.
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn is_raw(&self) -> bool {
        !tcgetattr(&self.terminal).expect("a terminal").local_flags.contains(LocalFlags::ICANON)
    }

    /// The session's first process, whose child the program is.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the end, and checks that the terminal is as it was.
    ///
    /// # Panics
    /// When it does not end, or leaves the terminal otherwise.
    pub fn wait(&mut self) -> ExitStatus {
        let status = until(DEADLINE, "its end", || self.child.try_wait().expect("our own child"));
        let after = tcgetattr(&self.terminal).expect("a terminal");
        assert_eq!(after.local_flags, self.before.local_flags, "echo and the like are as they were");
        assert!(after.local_flags.contains(LocalFlags::ECHO | LocalFlags::ICANON));
        assert_eq!(after.output_flags, self.before.output_flags);
        assert_eq!(after.input_flags, self.before.input_flags);
        status
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        // The program is not our own child; what is in front on its terminal is it, and nothing else.
        if let Ok(group) = tcgetpgrp(&self.keyboard)
            && group.as_raw() > 1
        {
            let _ = killpg(group, Signal::SIGKILL);
        }
        self.read_on();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(mut screen: File, written: &Mutex<Vec<u8>>, reading: &(Mutex<Reading>, Condvar)) {
    let held = reading.0.lock().expect("nobody panics with it");
    drop(reading.1.wait_while(held, |reading| *reading == Reading::Held).expect("nobody panics with it"));
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = screen.read(&mut buffer) {
        written.lock().expect("nobody panics with it").extend_from_slice(&buffer[..count]);
    }
}
