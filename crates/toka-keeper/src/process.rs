//! What the kernel says of a process by its number (proc_pid_stat(5)). A number may be given to another process when its own
//! has gone: who means one and the same, compares when it began, too.

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

/// A field by its number in proc_pid_stat(5), from 3 on: those behind the name, which may itself have parentheses.
pub(crate) fn stat_field(pid: i32, number: usize) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(") ")?.1.split(' ').nth(number.checked_sub(3)?).map(|field| field.trim().to_owned())
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
