//! Room for agents and what they like to find: descriptors, folders, disks, programs.

use toka_api::host::HostFigures;
use toka_core::ByteSize;

use super::super::check::{Check, Section, Verdict, Weight};
use super::super::facts::{Facts, FolderFacts};
use super::listed;

/// Open files of Toka for each agent: its two pipes, its log with the index, its two sockets, and two to spare for
/// connections.
const FILES_PER_AGENT: u64 = 8;
/// Those that are open anyhow, most of them the keeper's.
const FILES_OF_TOKA: u64 = 80;
/// So many agents should always fit.
const ENOUGH_AGENTS: u64 = 100;
/// Below this a disk is nearly full.
const LITTLE_ROOM: u64 = 256 << 20;
const FEW_FILES: u64 = 2000;
/// Below this a host is short of memory: a few agents with the default limit do not fit.
const LITTLE_MEMORY: u64 = 512 << 20;
/// Leftovers that are named; of more, how many.
const NAMED: usize = 3;

pub(super) fn inspect(facts: &Facts) -> Vec<Check> {
    vec![
        open_files(facts),
        memory(facts.figures.as_ref()),
        folder("room.state", "state folder", &facts.state),
        folder("room.run", "run folder", &facts.run),
        secrets(facts),
        leftovers(facts),
        git(facts),
        zones(facts),
        toolchains(facts),
    ]
}

fn open_files(facts: &Facts) -> Check {
    let (soft, hard) = facts.open_files;
    let agents = soft.saturating_sub(FILES_OF_TOKA) / FILES_PER_AGENT;
    let found = if soft == u64::MAX {
        "no limit".to_owned()
    } else {
        format!("{soft}: about {agents} agents at once")
    };
    let check = Check::ok("room.files", Section::Room, "open files", found);
    if agents >= ENOUGH_AGENTS {
        return check;
    }
    let most = hard.min(1 << 16);
    check
        .but(Verdict::Weaker, "with more agents than that, starts fail")
        .fix(format!("ulimit -n {most}; for good, LimitNOFILE= of the service or /etc/security/limits.conf"))
}

fn memory(figures: Option<&HostFigures>) -> Check {
    let Some(figures) = figures else {
        let check = Check::ok("room.memory", Section::Room, "memory", "unknown");
        return check.but(Verdict::Unprovable, "the kernel does not tell how much there is");
    };
    let HostFigures { cpus, load: [load, ..], memory_total, memory_available, .. } = *figures;
    let whole = |bytes: u64| ByteSize(bytes / MEBIBYTE * MEBIBYTE);
    let found = format!(
        "{} of {} available, {cpus} CPUs, load {load:.2}",
        whole(memory_available),
        whole(memory_total)
    );
    let check = Check::ok("room.memory", Section::Room, "memory", found);
    if memory_available >= LITTLE_MEMORY {
        return check;
    }
    check.but(Verdict::Weaker, "the kernel swaps, or kills agents and other programs").fix(
        "end what is not needed, or lower max_memory and run fewer at once (`toka run --max-concurrent`)",
    )
}

fn folder(id: &str, title: &str, facts: &FolderFacts) -> Check {
    let path = facts.path.display();
    let free = |bytes: u64| format!("{} free", ByteSize(bytes / MEBIBYTE * MEBIBYTE));
    let made = if facts.path == facts.nearest { "" } else { ", not made yet" };
    let room = facts.free_bytes.map_or_else(|| "room unknown".to_owned(), free);
    let check = Check::ok(id, Section::Room, title, format!("{path}{made}, {room}")).weight(Weight::Required);
    if !facts.is_writable {
        return check
            .but(Verdict::Missing, "no run begins: nothing can be kept")
            .fix(format!("sudo install -d -o $(id -u) -m 700 {path}; or name another one with --state-dir"));
    }
    if facts.free_bytes.is_some_and(|bytes| bytes < LITTLE_ROOM) {
        return check
            .but(Verdict::Weaker, "output of agents and the journal are lost when the disk is full")
            .fix("make room, or name a folder on another disk with --state-dir");
    }
    if let Some(files) = facts.free_files.filter(|files| *files < FEW_FILES) {
        return check
            .but(Verdict::Weaker, format!("only {files} more files can be made on that disk"))
            .fix("remove small files, or name a folder on another disk with --state-dir");
    }
    match facts.mode {
        Some(mode) if mode & 0o022 != 0 => check
            .but(Verdict::Weaker, "others can put files of theirs in the place of yours")
            .fix(format!("chmod go-w {path}")),
        _ => check,
    }
}

const MEBIBYTE: u64 = 1 << 20;

fn secrets(facts: &Facts) -> Check {
    let check = |text: &str| Check::ok("room.secrets", Section::Room, "secrets of running agents", text);
    if facts.run.is_tmpfs {
        return check("in memory");
    }
    let fix = if facts.run.path.starts_with("/run") {
        "let /run be in memory, as systems make it at boot; in a container, start it with --tmpfs /run"
    } else if facts.host.uid == 0 {
        "keep the run folder in /run: leave --state-dir and TOKA_STATE_DIR out"
    } else {
        "export XDG_RUNTIME_DIR=/run/user/$(id -u), which sudo loginctl enable-linger $USER makes; leave --state-dir out"
    };
    check("on a disk").but(Verdict::Weaker, "a disk can keep traces of what was removed").fix(fix)
}

fn leftovers(facts: &Facts) -> Check {
    let check = |text: String| Check::ok("room.leftovers", Section::Room, "left by dead runs", text);
    let Some(first) = facts.leftovers.first() else { return check("nothing".to_owned()) };
    let mut named: Vec<String> =
        facts.leftovers.iter().take(NAMED).map(|left| left.path.display().to_string()).collect();
    if facts.leftovers.len() > NAMED {
        named.push(format!("{} more", facts.leftovers.len() - NAMED));
    }
    check(listed(&named))
        .but(
            Verdict::Weaker,
            "a run was ended together with its keeper; what is listed does nothing any more",
        )
        .fix(&first.cure)
}

fn git(facts: &Facts) -> Check {
    match &facts.git {
        Some(path) => Check::ok("tools.git", Section::Tools, "git", path.display().to_string()),
        None => Check::ok("tools.git", Section::Tools, "git", "not found")
            .but(Verdict::Missing, "agents with git-access have nothing to use it with")
            .fix("sudo apt install git, or as your system does it"),
    }
}

fn zones(facts: &Facts) -> Check {
    if facts.has_zones {
        return Check::ok("tools.zones", Section::Tools, "time zones", "there");
    }
    Check::ok("tools.zones", Section::Tools, "time zones", "not found")
        .but(Verdict::Missing, "times are shown in UTC")
        .fix("sudo apt install tzdata, or as your system does it; or set TZ")
}

fn toolchains(facts: &Facts) -> Check {
    let found = if facts.toolchains.is_empty() { "none".to_owned() } else { listed(&facts.toolchains) };
    Check::ok("tools.toolchains", Section::Tools, "on the search path", found)
}
