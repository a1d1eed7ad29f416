//! Attacks on the kernel and on other processes from inside the sandbox: system calls that no agent needs, signals,
//! tracing, `/proc`, identity and limits of one's own.

use toka_tests::{Scene, User, Victim, allowed, as_both_users, check, denied};

as_both_users!(
    system_calls_that_administer_are_refused,
    system_calls_with_a_history_are_refused,
    namespaces_are_refused,
    mounts_are_refused,
    other_processes_cannot_be_signalled,
    other_agents_cannot_be_signalled,
    other_processes_cannot_be_traced,
    other_agents_cannot_be_traced,
    other_processes_cannot_be_slowed,
    other_agents_cannot_be_slowed,
    other_processes_cannot_be_seen,
    other_agents_cannot_be_seen,
    rights_cannot_be_regained,
    limits_cannot_be_raised,
    terminals_cannot_be_typed_into,
    shared_memory_of_others_is_closed,
    message_queues_of_others_are_closed,
    facts_of_the_host_are_hidden,
);

/// In proc(5): sockets of the host with their paths, what only root may read, and what everybody may read and nobody needs.
fn facts_of_the_host_are_hidden(user: User) {
    let scene = Scene::new(user);
    let socket = scene.outside().join("of-the-host.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
    let on_host = std::fs::read_to_string("/proc/net/unix").expect("readable");
    assert!(on_host.contains("of-the-host.sock"), "the host lists it");
    let seen = scene.exec(&["cat", "/proc/net/unix"]).success();
    assert!(!seen.contains('/') && !seen.contains('@'), "{seen}");
    let files =
        ["slabinfo", "vmallocinfo", "timer_list", "keys", "locks", "kcore", "pagetypeinfo", "kpagecount"];
    let there = files
        .map(|name| format!("/proc/{name}"))
        .into_iter()
        .filter(|path| std::path::Path::new(path).exists());
    for path in there {
        let read = scene.exec(&["sh", "-c", "head -c 16 \"$1\" 2>/dev/null | wc -c", "sh", &path]).success();
        assert_eq!(read.trim(), "0", "{path}");
    }
    let memory = scene.exec(&["head", "-1", "/proc/meminfo"]).success();
    assert!(memory.starts_with("MemTotal"), "what programs need stays: {memory}");
}

fn system_calls_that_administer_are_refused(user: User) {
    check(
        || Scene::new(user),
        |_| {
            let rare = "not in every kernel";
            vec![
                denied(["reboot"]).as_root(),
                denied(["swapon"]).as_root(),
                denied(["swapoff"]).as_root(),
                denied(["settimeofday"]).as_root(),
                denied(["adjtimex"]).as_root(),
                denied(["sethostname"]).as_root(),
                denied(["setdomainname"]).as_root(),
                denied(["kexec"]).unproven(rare),
                denied(["kexec-file"]).unproven(rare),
                denied(["load-module"]).unproven(rare),
                denied(["load-module-file"]).unproven(rare),
                denied(["unload-module"]).unproven(rare),
                denied(["acct"]).unproven(rare),
                denied(["quotactl"]).unproven(rare),
                denied(["iopl"]).unproven(rare),
                denied(["ioperm"]).unproven(rare),
                denied(["kernel-log"]).as_root(),
                denied(["fanotify"]).as_root(),
            ]
        },
    );
}

fn system_calls_with_a_history_are_refused(user: User) {
    check(
        || Scene::new(user),
        |_| {
            vec![
                denied(["bpf"]).as_root(),
                denied(["keyctl"]),
                denied(["add-key"]),
                denied(["request-key"]),
                denied(["io-uring"]),
                denied(["perf-event"]).as_root(),
                denied(["userfaultfd"]).unproven("not in every kernel"),
                denied(["clone3"]),
            ]
        },
    );
}

fn namespaces_are_refused(user: User) {
    check(
        || Scene::new(user),
        |_| {
            let mut tries = vec![
                denied(["unshare", "user"]),
                denied(["clone", "user"]),
                denied(["setns", "/proc/self/ns/net"]).as_root(),
                denied(["setns", "/proc/1/ns/mnt"])
                    .unproven("the first process may have more rights than root here"),
            ];
            for namespace in ["mnt", "net", "pid", "ipc", "uts", "cgroup"] {
                tries.push(denied(["unshare", namespace]).as_root());
                tries.push(denied(["clone", namespace]).as_root());
            }
            tries.push(denied(["unshare", "time"]).unproven("not in every kernel"));
            tries
        },
    );
}

fn mounts_are_refused(user: User) {
    check(
        || Scene::new(user),
        |scene| {
            let out = scene.workspace().join("out").display().to_string();
            let risky = "would change the host's mounts";
            vec![
                denied(["mount", &out]).as_root(),
                denied(["bind", "/etc", &out]).as_root(),
                denied(["fsopen"]).as_root(),
                denied(["open-tree", "/"]).as_root(),
                denied(["move-mount"]).as_root(),
                denied(["mount-setattr"]).as_root(),
                denied(["pivot-root"]).as_root(),
                denied(["remount-writable", "/"]).unproven(risky),
                denied(["remount-writable", "/usr"]).unproven(risky),
                denied(["remount-writable", &out]).unproven(risky),
                denied(["umount", "/"]).unproven(risky),
                denied(["umount", "/tmp"]).unproven(risky),
                denied(["umount", "/proc"]).unproven(risky),
                denied(["umount", &out]).unproven(risky),
                denied(["umount", &scene.home().display().to_string()]).unproven(risky),
                denied(["umount", &scene.state().display().to_string()]).unproven(risky),
            ]
        },
    );
}

fn other_processes_cannot_be_signalled(user: User) {
    not_signalled(user, Victim::of(user));
}

fn other_agents_cannot_be_signalled(user: User) {
    not_signalled(user, Victim::agent_of(user));
}

fn not_signalled(user: User, mut victim: Victim) {
    let pid = victim.pid();
    let (nothing, cont) = ("0", "18");
    check(
        || Scene::new(user),
        |_| {
            vec![
                denied(["kill", &pid, nothing]),
                denied(["kill", &pid, cont]),
                denied(["tgkill", &pid, cont]),
                denied(["sigqueue", &pid, cont]),
                denied(["pidfd-signal", &pid, cont]),
                denied(["kill", &pid, "9"]).unproven("the victim dies once"),
                denied(["kill", &pid, "19"]).unproven("the victim would stand still"),
                denied(["tgkill", &pid, "9"]).unproven("the victim dies once"),
                denied(["pidfd-signal", &pid, "9"]).unproven("the victim dies once"),
                denied(["sigqueue", &pid, "15"]).unproven("the victim dies once"),
                denied(["signal-scan"]),
            ]
        },
    );
    // The kernel says nothing to whoever asked for a signal by SIGIO; the victim shows whether it came.
    let scene = Scene::new(user);
    let _ = scene.attack(&[denied(["fcntl-owner", &pid, "9"])]);
    assert!(victim.is_unharmed(), "a signal reached a process outside");
    scene.assert_nothing_left();
}

fn other_processes_cannot_be_traced(user: User) {
    not_traced(user, Victim::of(user));
}

fn other_agents_cannot_be_traced(user: User) {
    not_traced(user, Victim::agent_of(user));
}

fn not_traced(user: User, mut victim: Victim) {
    let pid = victim.pid();
    check(
        || Scene::new(user),
        |_| {
            let rare = "not in every kernel, nor under every policy of tracing";
            vec![
                denied(["ptrace-seize", &pid]).as_root(),
                denied(["ptrace-attach", &pid]).unproven("the victim would stand still"),
                denied(["vm-read", &pid, "4096"]).as_root(),
                denied(["pidfd-getfd", &pid]).as_root(),
                denied(["kcmp", &pid]).unproven(rare),
                denied(["prlimit", &pid]).as_root(),
                denied(["open-write", &format!("/proc/{pid}/mem")]).as_root(),
                denied(["setns-pidfd", &pid]).as_root(),
            ]
        },
    );
    assert!(victim.is_unharmed(), "it was traced");
}

fn other_processes_cannot_be_slowed(user: User) {
    not_slowed(user, &Victim::of(user));
}

fn other_agents_cannot_be_slowed(user: User) {
    not_slowed(user, &Victim::agent_of(user));
}

fn not_slowed(user: User, victim: &Victim) {
    let pid = victim.pid();
    check(
        || Scene::new(user),
        |_| {
            ["set-prlimit", "renice", "io-renice", "pin", "idle-class"]
                .map(|attack| denied([attack, &pid]))
                .into_iter()
                .collect()
        },
    );
}

/// Everybody: what is in a process stays in it. Root, who can mount a `/proc` of the agent's own: not even that it
/// exists is seen.
fn other_processes_cannot_be_seen(user: User) {
    not_seen(user, &Victim::of(user));
}

fn other_agents_cannot_be_seen(user: User) {
    not_seen(user, &Victim::agent_of(user));
}

fn not_seen(user: User, victim: &Victim) {
    let pid = victim.pid();
    check(
        || Scene::new(user),
        |_| {
            let path = |file: &str| format!("/proc/{pid}/{file}");
            let mut tries = vec![
                denied(["read", &path("environ")]),
                denied(["read", &path("maps")]),
                denied(["open-write", &path("mem")]),
                denied(["read", &path("auxv")]),
                denied(["list", &path("root/")]),
                denied(["list", &path("cwd/")]),
                denied(["read", &path("fd/1")]).unproven("the end of a pipe"),
                denied(["read", "/proc/1/environ"]).unproven("the first process may have more rights"),
                denied(["open-write", "/proc/1/mem"]).unproven("the first process may have more rights"),
                denied(["read", "/proc/1/maps"]).unproven("the first process may have more rights"),
                denied(["list", "/proc/1/root/"]).unproven("the first process may have more rights"),
                allowed(["list", "/proc/self/fd"]),
            ];
            if user == User::Root {
                tries.extend(["cmdline", "status", "stat"].map(|file| denied(["read", &path(file)])));
                tries.extend([denied(["list", &path("fd")]), denied(["proc-scan"])]);
            }
            for file in
                ["self/status", "self/maps", "self/environ", "self/limits", "meminfo", "cpuinfo", "stat"]
            {
                tries.push(allowed(["read", &format!("/proc/{file}")]));
            }
            tries
        },
    );
}

fn rights_cannot_be_regained(user: User) {
    check(
        || Scene::new(user),
        |_| {
            let other = (user.uid() + 1).to_string();
            vec![
                denied(["new-privileges"]),
                denied(["capabilities"]).as_root(),
                denied(["setuid", &other]).as_root(),
                denied(["setgid", &other]).as_root(),
                denied(["setgroups"]).as_root(),
                denied(["setns", "/proc/self/ns/user"])
                    .unproven("no one may enter the namespace they are in"),
                denied(["new-privileges"]),
            ]
        },
    );
}

/// Limits by the numbers of `getrlimit(2)`: core 4, processes 6, files 7, locked memory 8, signals 11, queues 12.
fn limits_cannot_be_raised(user: User) {
    check(
        || Scene::new(user),
        |_| {
            let none = "needs a right that not every root has";
            vec![
                denied(["raise-limit", "7"]).unproven(none),
                denied(["raise-limit", "4"]).unproven(none),
                denied(["nice", "-5"]).as_root(),
                denied(["real-time"]).as_root(),
                denied(["io-real-time"]).as_root(),
                denied(["oom-score"]).unproven(none),
                allowed(["nice", "5"]),
            ]
        },
    );
}

fn terminals_cannot_be_typed_into(user: User) {
    check(
        || Scene::new(user),
        |_| {
            vec![
                denied(["tty-inject"]).as_root(),
                denied(["tty-paste"]),
                denied(["controlling-tty"]).unproven("CI has no terminal"),
            ]
        },
    );
}

fn shared_memory_of_others_is_closed(user: User) {
    let shared = Shared::of(user);
    let id = shared.id.clone();
    check(|| Scene::new(user), |_| vec![denied(["shm-attach", &id])]);
}

fn message_queues_of_others_are_closed(user: User) {
    let maker = Scene::new(user);
    let queue = maker.name();
    let made = maker.attack_unconfined(&[allowed(["make-queue", queue])]);
    assert!(!made[0].is_denied(), "{made:?}");
    let attempt = [denied(["open-queue", queue])];
    let unconfined = maker.attack_unconfined(&attempt);
    let confined = maker.attack(&attempt);
    let removed = maker.attack_unconfined(&[allowed(["remove-queue", queue])]);
    assert!(!unconfined[0].is_denied() && !removed[0].is_denied(), "the queue was there: {unconfined:?}");
    assert!(confined[0].is_denied(), "as uid {}: {confined:?}", user.uid());
}

/// A segment of System V shared memory of the same user, made and removed with util-linux's tools.
struct Shared {
    user: User,
    id: String,
}

impl Shared {
    fn of(user: User) -> Self {
        let scene = Scene::new(user);
        let made = scene.run(&["ipcmk", "--shmem", "4096"]).success();
        let id = made.split_whitespace().last().expect("ipcmk names the segment").to_owned();
        Self { user, id }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let scene = Scene::new(self.user);
        let _ = scene.run(&["ipcrm", "--shmem-id", &self.id]);
    }
}
