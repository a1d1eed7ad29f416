//! Attacks on the host's resources: too many processes, too much memory, too long a file, and ways to outlive one's end.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::Signal;

use crate::{Attack, Attempt, argument, done, errno_of, io, number, say, sys};

pub(crate) const ATTACKS: &[Attack] = &[
    ("fork-bomb", fork_bomb),
    ("memory-bomb", memory_bomb),
    ("memory-herd", memory_herd),
    ("file-bomb", file_bomb),
    ("descriptor-bomb", descriptor_bomb),
    ("burn", burn),
    ("outlive", outlive),
    ("leave-cgroup", leave_cgroup),
    ("write-cgroup-limits", write_cgroup_limits),
];

/// Forks until the kernel declines, or until `most` sleepers exist; the note has how many.
fn fork_bomb(arguments: &[String]) -> Attempt {
    let most: u32 = number(arguments, 0);
    let mut children = Vec::new();
    let mut answer = None;
    while children.len() < most as usize {
        match sys::fork_off(|| std::thread::sleep(Duration::from_secs(600))) {
            Ok(pid) => children.push(pid),
            Err(errno) => {
                answer = Some(errno);
                break;
            }
        }
    }
    for pid in &children {
        let pid = nix::unistd::Pid::from_raw(*pid);
        let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
        let _ = nix::sys::wait::waitpid(pid, None);
    }
    say(&format!("# children {}", children.len()));
    answer.map_or_else(|| Ok(children.len().to_string()), Err)
}

/// Touches this many MiB, eight at a time.
fn memory_bomb(arguments: &[String]) -> Attempt {
    const STEP: usize = 8;
    let most: usize = number(arguments, 0);
    for _ in 0..most / STEP {
        sys::fill_memory(STEP << 20)?;
    }
    Ok(format!("{most} MiB"))
}

/// Several processes of this many MiB each; through when each got its memory and all are alive then. One that has got it
/// may have been ended for the sake of the next.
fn memory_herd(arguments: &[String]) -> Attempt {
    let (processes, each): (usize, usize) = (number(arguments, 0), number(arguments, 1));
    let mut herd = Vec::new();
    for _ in 0..processes {
        let (ready, full) = nix::unistd::pipe()?;
        let pid = sys::fork_off(|| {
            if sys::fill_memory(each << 20).is_ok() {
                let _ = nix::unistd::write(&full, b"x");
            }
            std::thread::sleep(Duration::from_secs(600));
        })?;
        herd.push((ready, nix::unistd::Pid::from_raw(pid)));
    }
    let mut byte = [0];
    let fed = herd.iter().filter(|(door, _)| nix::unistd::read(door, &mut byte) == Ok(1)).count();
    let still = Some(nix::sys::wait::WaitPidFlag::WNOHANG);
    let is_alive = |pid| nix::sys::wait::waitpid(pid, still) == Ok(nix::sys::wait::WaitStatus::StillAlive);
    let alive = herd.iter().filter(|(_, pid)| is_alive(*pid)).count();
    say(&format!("# fed {fed}, alive {alive}"));
    if fed.min(alive) == processes { Ok(String::new()) } else { Err(Errno::ENOMEM) }
}

/// Writes this many MiB to a file. A file that is too long is a signal first; without it, an error.
fn file_bomb(arguments: &[String]) -> Attempt {
    let most: u64 = number(arguments, 1);
    ignore(Signal::SIGXFSZ)?;
    let mut file =
        io(OpenOptions::new().write(true).create(true).truncate(true).open(argument(arguments, 0)))?;
    let block = vec![7u8; 1 << 20];
    for written in 0..most {
        if let Err(error) = file.write_all(&block) {
            say(&format!("# wrote {written} MiB"));
            return Err(errno_of(&error));
        }
    }
    Ok(format!("{most} MiB"))
}

/// Opens files until the kernel declines.
fn descriptor_bomb(arguments: &[String]) -> Attempt {
    let most: usize = number(arguments, 0);
    let mut open = Vec::new();
    while open.len() < most {
        match fs::File::open("/dev/null") {
            Ok(file) => open.push(file),
            Err(error) => {
                let count = open.len();
                open.clear();
                say(&format!("# opened {count}"));
                return Err(errno_of(&error));
            }
        }
    }
    Ok(open.len().to_string())
}

/// Spins for this many milliseconds in as many processes as asked; the note has the CPU time in thousandths of the
/// time that passed.
fn burn(arguments: &[String]) -> Attempt {
    let (length, processes): (u64, usize) = (number(arguments, 0), number(arguments, 1));
    let begun = Instant::now();
    let spin = || {
        while begun.elapsed() < Duration::from_millis(length) {
            std::hint::spin_loop();
        }
    };
    let children = (0..processes).map(|_| sys::fork_off(spin)).collect::<nix::Result<Vec<_>>>()?;
    for pid in children {
        nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None)?;
    }
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN)?;
    let used = (usage.user_time().tv_sec() + usage.system_time().tv_sec()) * 1_000_000
        + usage.user_time().tv_usec()
        + usage.system_time().tv_usec();
    let passed = i64::try_from(begun.elapsed().as_micros()).unwrap_or(i64::MAX);
    Ok((used * 1000 / passed.max(1)).to_string())
}

/// Leaves a grandchild in a session of its own that ignores every signal it can; its command line holds the marker
/// among our arguments, so that the test finds it from outside.
fn outlive(_: &[String]) -> Attempt {
    let (reader, writer) = nix::unistd::pipe()?;
    let child = sys::fork_off(|| {
        let _ = nix::unistd::setsid();
        let _ = sys::fork_off(|| {
            for signal in Signal::iterator() {
                let _ = ignore(signal);
            }
            let _ = nix::unistd::setsid();
            let _ = nix::unistd::write(&writer, b"x");
            // Nothing of it may hold the pipes of the agent's output, or waiting for their end would be enough.
            for fd in [0, 1, 2] {
                let _ = sys::call(libc::SYS_close, &[fd]);
            }
            std::thread::sleep(Duration::from_secs(3600));
        });
    })?;
    nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(child), None)?;
    let mut byte = [0];
    done(nix::unistd::read(&reader, &mut byte))
}

fn ignore(signal: Signal) -> nix::Result<()> {
    let number = signal as usize;
    let action = [SigAction { handler: 1, flags: 0, restorer: 0, mask: 0 }];
    sys::call(libc::SYS_rt_sigaction, &[number, sys::at(&action), 0, 8]).map(drop)
}

/// `struct kernel_sigaction`; a handler of 1 is SIG_IGN.
#[repr(C)]
struct SigAction {
    handler: usize,
    flags: usize,
    restorer: usize,
    mask: usize,
}

/// Moves itself to the topmost group of any hierarchy that it can find.
fn leave_cgroup(_: &[String]) -> Attempt {
    each_group_file("cgroup.procs", &format!("{}\n", std::process::id()))
}

/// Opens the limits of any group that it can find; writes nothing, as they may be the host's.
fn write_cgroup_limits(_: &[String]) -> Attempt {
    each_group_file("memory.limit_in_bytes", "")
        .or_else(|_| each_group_file("memory.max", ""))
        .or_else(|_| each_group_file("cpu.cfs_quota_us", ""))
}

/// Writes to the first file of this name, in any mounted hierarchy, that lets it.
fn each_group_file(name: &str, content: &str) -> Attempt {
    let mut last = Errno::ENOENT;
    let mut folders = vec![(std::path::PathBuf::from("/sys/fs/cgroup"), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let file = folder.join(name);
        match OpenOptions::new()
            .write(true)
            .open(&file)
            .and_then(|mut file| file.write_all(content.as_bytes()))
        {
            Ok(()) => return Ok(file.display().to_string()),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => last = errno_of(&error),
        }
        let below = fs::read_dir(&folder).into_iter().flatten().flatten();
        let below = below.filter(|entry| depth < 4 && entry.file_type().is_ok_and(|kind| kind.is_dir()));
        folders.extend(below.map(|entry| (entry.path(), depth + 1)));
    }
    Err(last)
}
