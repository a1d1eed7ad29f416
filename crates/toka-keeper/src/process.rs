//! What the kernel says of a process by its number (proc_pid_stat(5)). The kernel gives the number of a process that is gone to
//! another one: a caller that must know the same process again compares [`start_time`], too.

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

/// What there is of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It runs, waits or is stopped.
    Alive,
    /// It has ended, and its parent has not collected the status.
    Uncollected,
    /// There is none of that number.
    Gone,
}

/// What there is of the process `pid`.
pub fn presence(pid: i32) -> Presence {
    match stat_field(pid, 3).as_deref() {
        Some("Z" | "X") => Presence::Uncollected,
        Some(_) => Presence::Alive,
        // Where /proc hides those of other users (hidepid, proc(5)), the number is still taken.
        None if kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH) => Presence::Gone,
        None => Presence::Alive,
    }
}

/// When a process began, in clock ticks after boot (field 22); `None` when it is gone.
pub fn start_time(pid: i32) -> Option<u64> {
    stat_field(pid, 22)?.parse().ok()
}

/// What /proc says of a process in the file `name`. A process calls itself as it likes, also by what is no text: that is
/// replaced, so that nothing that stands beside a name gets lost with it.
pub fn text(pid: i32, name: &str) -> Option<String> {
    let bytes = std::fs::read(format!("/proc/{pid}/{name}")).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The parent of a process (field 4).
pub(crate) fn parent_of(pid: i32) -> Option<i32> {
    stat_field(pid, 4)?.parse().ok()
}

/// The session of a process (field 6).
pub(crate) fn session_of(pid: i32) -> Option<i32> {
    stat_field(pid, 6)?.parse().ok()
}

/// A field by its number in proc_pid_stat(5), from 3 on: those behind the name, which may itself have parentheses.
pub(crate) fn stat_field(pid: i32, number: usize) -> Option<String> {
    text(pid, "stat")?
        .rsplit_once(") ")?
        .1
        .split(' ')
        .nth(number.checked_sub(3)?)
        .map(|field| field.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_is_told_from_another_by_its_beginning() {
        let own = Pid::this().as_raw();
        assert!(start_time(own).is_some());
        assert_eq!(start_time(own), start_time(own));
        assert_eq!(start_time(i32::MAX), None);
    }

    #[test]
    fn a_name_that_is_no_text_hides_nothing() {
        let script = "import ctypes, sys\nctypes.CDLL(None).prctl(15, b'\\xff) Z 1')\nprint(flush=True)\nsys.stdin.read()";
        let mut python = Command::new("python3");
        let mut child =
            python.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python");
        std::io::Read::read_exact(child.stdout.as_mut().expect("a pipe"), &mut [0]).expect("it is called so");
        let pid = i32::try_from(child.id()).expect("a pid");
        assert!(std::fs::read_to_string(format!("/proc/{pid}/stat")).is_err(), "no text");
        assert_eq!(presence(pid), Presence::Alive);
        assert_eq!(parent_of(pid), Some(Pid::this().as_raw()));
        assert!(start_time(pid).is_some());
        drop(child.stdin.take());
        child.wait().expect("it ends");
    }

    #[test]
    fn one_that_has_ended_is_there_until_it_is_collected() {
        let mut child =
            Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("cat");
        let pid = i32::try_from(child.id()).expect("a pid");
        assert_eq!(presence(pid), Presence::Alive);
        drop(child.stdin.take());
        // It has closed its output: it is about to end, and nothing else tells when it has.
        while presence(pid) == Presence::Alive {
            std::thread::yield_now();
        }
        assert_eq!(presence(pid), Presence::Uncollected);
        child.wait().expect("it ends");
        assert_eq!(presence(pid), Presence::Gone);
    }
}
