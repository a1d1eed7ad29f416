//! Why a process ended, from what the kernel tells about it.

use std::time::Duration;

use toka_core::event::Usage;
use toka_core::{ByteSize, Exit};
use toka_keeper::Status;

/// SIGKILL, which the out-of-memory killer sends.
const SIGKILL: i32 = 9;

/// The cause of an end that nobody asked for. `status` is `None` when nobody saw it.
///
/// A process is taken to have died of its memory limit when the kernel counted such a kill in its group and it was
/// killed itself, or says like a shell (exit code 128 + 9) that its child was.
pub fn exit_reason(status: Option<Status>, usage: &Usage, memory: ByteSize) -> Exit {
    let exit = match status {
        None | Some(Status::Unknown) => Exit::Unknown,
        Some(Status::Code(code)) => Exit::Code { code },
        Some(Status::Signal { signal, core }) => Exit::Signal { signal, core },
    };
    out_of_memory(exit, usage, memory)
}

/// The end of one that was asked to stop. `killed` is how long it had when it was killed; it counts unless the process ended by
/// itself all the same.
pub(crate) fn stopped(exit: Exit, status: Option<Status>, killed: Option<Duration>) -> Exit {
    let by_us = matches!(status, None | Some(Status::Unknown | Status::Signal { signal: SIGKILL, .. }));
    match killed {
        Some(after) if by_us => exit.killed(after),
        _ => exit,
    }
}

/// The same for an exit that somebody else reported.
pub(crate) fn out_of_memory(exit: Exit, usage: &Usage, memory: ByteSize) -> Exit {
    let killed = match &exit {
        Exit::Signal { signal, .. } => *signal == SIGKILL,
        Exit::Code { code } => *code == 128 + SIGKILL,
        _ => false,
    };
    if killed && usage.oom_kills > 0 {
        return Exit::Oom { peak: usage.memory_peak.map(ByteSize), limit: memory };
    }
    exit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_had_to_be_killed_is_told_apart_from_one_that_went() {
        let (grace, kill) = (Duration::from_secs(3), Status::Signal { signal: SIGKILL, core: false });
        let asked = || Exit::stopped("operator");
        for (status, killed, text) in [
            (Some(Status::Code(0)), None, "stopped by operator"),
            (Some(Status::Code(0)), Some(grace), "stopped by operator"),
            (Some(kill), Some(grace), "stopped by operator (killed after 3.0s)"),
            (None, Some(grace), "stopped by operator (killed after 3.0s)"),
            (Some(kill), Some(Duration::ZERO), "stopped by operator (killed)"),
            (Some(kill), None, "stopped by operator"),
        ] {
            assert_eq!(stopped(asked(), status, killed).to_string(), text);
        }
        let timeout = Exit::Timeout { limit: grace };
        assert_eq!(stopped(timeout.clone(), Some(kill), Some(grace)), timeout);
    }

    #[test]
    fn causes_are_told_apart() {
        let memory = ByteSize::mib(64);
        let oom = Exit::Oom { peak: Some(ByteSize(5)), limit: memory };
        let kill = Status::Signal { signal: 9, core: false };
        let segv = Status::Signal { signal: 11, core: true };
        for (status, oom_kills, expected) in [
            (Some(Status::Code(0)), 0, Exit::Code { code: 0 }),
            (Some(Status::Code(0)), 1, Exit::Code { code: 0 }),
            (Some(Status::Code(3)), 1, Exit::Code { code: 3 }),
            (Some(Status::Code(137)), 0, Exit::Code { code: 137 }),
            (Some(Status::Code(137)), 1, oom.clone()),
            (Some(kill), 0, Exit::Signal { signal: 9, core: false }),
            (Some(kill), 2, oom),
            (Some(segv), 1, Exit::Signal { signal: 11, core: true }),
            (None, 1, Exit::Unknown),
        ] {
            let usage = Usage { memory_peak: Some(5), cpu_us: None, oom_kills };
            assert_eq!(exit_reason(status, &usage, memory), expected);
        }
    }
}
