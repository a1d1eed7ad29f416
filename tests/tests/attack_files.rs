//! Attacks on files from inside the sandbox: what is not the agent's can neither be read nor changed, by whatever
//! name it goes; what is the agent's works.

use std::path::Path;

use toka_tests::{Scene, Try, User, allowed, as_both_users, check, denied};

as_both_users!(
    secrets_of_the_system_and_of_the_caller_are_unreadable,
    folders_of_others_are_closed,
    nothing_outside_can_be_written,
    attributes_outside_stay_as_they_are,
    links_and_renames_lead_nowhere,
    no_other_name_reaches_a_hidden_file,
    kernel_files_and_devices_are_closed,
    no_device_can_be_made,
    a_readable_folder_is_not_writable,
    git_hooks_and_workstreams_stay_as_they_are,
    the_private_folders_work,
    no_descriptor_is_inherited,
    a_workspace_below_tmp_works,
);

/// A path as a word of the attacker's command line.
fn word(path: impl AsRef<Path>) -> String {
    path.as_ref().display().to_string()
}

fn secrets_of_the_system_and_of_the_caller_are_unreadable(user: User) {
    check(
        || Scene::new(user),
        |scene| {
            let home = scene.home();
            vec![
                denied(["read", "/etc/shadow"]).as_root(),
                denied(["read", "/etc/gshadow"]).as_root(),
                denied(["read", &word(home.join(".ssh/id_ed25519"))]),
                denied(["list", &word(home.join(".ssh"))]),
                denied(["list", &word(&home)]),
                denied(["list", "/root"]).as_root(),
                allowed(["read", "/etc/passwd"]),
                allowed(["read", "/etc/hosts"]),
                allowed(["list", "/usr/lib"]),
                allowed(["read", &word(scene.workspace().join("readable.txt"))]),
                allowed(["read", &word(scene.workspace().join("docs/guide.txt"))]),
            ]
        },
    );
}

fn folders_of_others_are_closed(user: User) {
    let with_others = || {
        let scene = Scene::new(user);
        let other = scene.state().join("projects/other/agents/neighbour/home");
        scene.make_folder(&other);
        scene.write(&other.join("token"), "theirs\n");
        scene.write(&scene.state().join("projects/other/journal.db"), "{}\n");
        scene
    };
    check(with_others, |scene| {
        let other = scene.state().join("projects/other");
        vec![
            denied(["read", &word(other.join("agents/neighbour/home/token"))]),
            denied(["append", &word(other.join("agents/neighbour/home/token"))]),
            denied(["list", &word(other.join("agents/neighbour/home"))]),
            denied(["read", &word(other.join("journal.db"))]),
            denied(["append", &word(other.join("journal.db"))]),
            denied(["create", &word(scene.state().join("planted"))]),
            denied(["read", &word(scene.outside().join("secret.txt"))]),
            denied(["list", &word(scene.outside())]),
            denied(["list", &word(scene.folder())]),
            allowed(["read", &word(scene.workspace().join("out/own.txt"))]),
        ]
    });
}

fn nothing_outside_can_be_written(user: User) {
    check(
        || Scene::new(user),
        |scene| {
            let (outside, out) = (scene.outside(), scene.workspace().join("out"));
            vec![
                denied(["append", &word(outside.join("secret.txt"))]),
                denied(["open-write", &word(outside.join("secret.txt"))]),
                denied(["create", &word(outside.join("new"))]),
                denied(["tmpfile", &word(&outside)]),
                denied(["mkdir", &word(outside.join("folder"))]),
                denied(["mkfifo", &word(outside.join("fifo"))]),
                denied(["truncate", &word(outside.join("secret.txt"))]),
                denied(["unlink", &word(outside.join("secret.txt"))]),
                denied(["create", "/etc/toka-planted"]).unproven("would change the host"),
                denied(["open-write", "/etc/passwd"]).as_root(),
                denied(["open-write", "/usr/bin/env"])
                    .unproven("a running program cannot be opened so anyway"),
                denied(["create", "/usr/local/bin/toka-planted"]).unproven("would change the host"),
                denied(["create", "/toka-planted"]).unproven("would change the host"),
                denied(["create", "/var/tmp/toka-planted"]).unproven("would leave a file"),
                denied(["create", "/dev/shm/../toka-planted"]).unproven("would change the host"),
                allowed(["append", &word(out.join("own.txt"))]),
                allowed(["create", &word(out.join("new"))]),
                allowed(["tmpfile", &word(&out)]),
                allowed(["mkdir", &word(out.join("folder"))]),
                allowed(["mkfifo", &word(out.join("fifo"))]),
                allowed(["truncate", &word(out.join("own.txt"))]),
                allowed(["rmdir", &word(out.join("folder"))]),
                allowed(["unlink", &word(out.join("new"))]),
            ]
        },
    );
}

fn attributes_outside_stay_as_they_are(user: User) {
    check(
        || Scene::new(user),
        |scene| {
            let secret = word(scene.outside().join("secret.txt"));
            let readable = word(scene.workspace().join("readable.txt"));
            let own = word(scene.workspace().join("out/own.txt"));
            let uid = user.uid().to_string();
            vec![
                denied(["chmod", &secret]),
                denied(["chown", &secret, &uid]),
                denied(["utimes", &secret]),
                denied(["setxattr", &secret]),
                denied(["chmod", &readable]),
                denied(["chown", &readable, &uid]),
                denied(["utimes", &readable]),
                denied(["setxattr", &readable]),
                denied(["chmod", "/etc/passwd"]).unproven("would change the host"),
                denied(["utimes", "/etc/passwd"]).unproven("would change the host"),
                denied(["setxattr", "/usr/bin"]).unproven("would change the host"),
                denied(["chmod", "/"]).unproven("would change the host"),
                denied(["utimes", "/dev/null"]).unproven("would change the host"),
                denied(["chmod", "/dev/null"]).unproven("would change the host"),
                allowed(["chmod", &own]),
                allowed(["utimes", &own]),
                allowed(["setxattr", &own]),
            ]
        },
    );
}

fn links_and_renames_lead_nowhere(user: User) {
    check(
        || Scene::new(user),
        |scene| {
            let (outside, out) = (scene.outside(), scene.workspace().join("out"));
            let secret = word(outside.join("secret.txt"));
            let readable = word(scene.workspace().join("readable.txt"));
            vec![
                // A link may be made; what counts is that it opens nothing.
                allowed(["symlink", &secret, &word(out.join("link"))]),
                denied(["read", &word(out.join("link"))])
                    .unproven("the link is made by an attempt that is not"),
                denied(["append", &word(out.join("link"))])
                    .unproven("the link is made by an attempt that is not"),
                allowed(["symlink", &word(&outside), &word(out.join("folder-link"))]),
                denied(["create", &word(out.join("folder-link/new"))])
                    .unproven("the link is made by an attempt that is not"),
                denied(["list", &word(out.join("folder-link/"))])
                    .unproven("the link is made by an attempt that is not"),
                denied(["read", &word(out.join("../../outside/secret.txt"))]),
                denied(["append", &word(out.join("../../outside/secret.txt"))]),
                denied(["append", &word(out.join("../readable.txt"))]),
                denied(["hard-link", &secret, &word(out.join("hard"))]),
                denied(["hard-link", &word(out.join("own.txt")), &word(outside.join("hard"))]),
                denied(["hard-link", "/etc/passwd", &word(out.join("passwd"))]).as_root(),
                denied(["hard-link", &readable, &word(out.join("readable"))]),
                denied(["exchange", &word(out.join("own.txt")), &secret]),
                denied(["exchange", &word(out.join("own.txt")), &readable]),
                denied(["rename", &readable, &word(out.join("moved"))]),
                denied(["rename", &secret, &word(out.join("secret"))]),
                denied(["rename", &word(out.join("own.txt")), &word(outside.join("own.txt"))]),
                denied(["rename", &word(&out), &word(scene.workspace().join("out-moved"))]),
                allowed(["mkdir", &word(out.join("a"))]),
                allowed(["mkdir", &word(out.join("b"))]),
                allowed(["create", &word(out.join("a/file"))]),
                allowed(["rename", &word(out.join("a/file")), &word(out.join("b/file"))]),
                allowed(["hard-link", &word(out.join("b/file")), &word(out.join("a/hard"))]),
                allowed(["rename", &word(out.join("a")), &word(out.join("b/a"))]),
            ]
        },
    );
}

fn no_other_name_reaches_a_hidden_file(user: User) {
    check(
        || Scene::new(user),
        |scene| {
            let secret = word(scene.outside().join("secret.txt"));
            vec![
                denied(["through-descriptors", &secret]),
                denied(["through-descriptors", "/etc/shadow"]).as_root(),
                denied(["open-by-handle", &secret]).as_root(),
                denied(["open-by-handle", "/etc/shadow"]).as_root(),
                denied(["chroot", &word(scene.workspace())]).as_root(),
                denied(["chroot-escape", &word(scene.workspace().join("out"))]).as_root(),
                denied(["execute", &word(scene.workspace().join("out/own.txt"))])
                    .unproven("not a program at all"),
                allowed(["through-descriptors", &word(scene.workspace().join("readable.txt"))]),
                allowed(["execute", &word(scene.workspace().join("attack")), "read", "/etc/passwd"]),
                allowed(["execute", "/bin/true"]),
            ]
        },
    );
}

fn kernel_files_and_devices_are_closed(user: User) {
    let disks = std::fs::read_to_string("/proc/partitions").expect("every Linux has it");
    let disk =
        disks.lines().skip(2).filter_map(|line| line.split_whitespace().nth(3)).next().unwrap_or("vda");
    check(
        || Scene::new(user),
        |_| {
            let disk = format!("/dev/{disk}");
            let mut tries = vec![
                denied(["open-write", "/proc/sys/kernel/core_pattern"]).as_root(),
                denied(["open-write", "/proc/sys/kernel/hostname"]).as_root(),
                denied(["open-write", "/proc/sys/vm/overcommit_memory"]).as_root(),
                denied(["open-write", "/proc/sysrq-trigger"]).unproven("not on every kernel"),
                denied(["read", "/proc/kcore"]).unproven("not on every kernel"),
                denied(["read", "/dev/mem"]).unproven("not on every kernel"),
                denied(["read", "/dev/kmsg"]).unproven("an empty log blocks"),
                denied(["open-write", "/dev/kmsg"]).as_root(),
                denied(["open-write", "/sys/kernel/mm/transparent_hugepage/enabled"])
                    .unproven("not on every kernel"),
                denied(["create", "/sys/fs/cgroup/toka-planted"]).unproven("would change the host"),
                denied(["mkdir", "/sys/fs/cgroup/toka-planted"]).unproven("would change the host"),
            ];
            if Path::new(&disk).exists() {
                tries.push(denied(["read", &disk]).unproven("not every root may"));
            }
            for device in ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"] {
                tries.push(allowed(["read", device]));
            }
            tries.push(allowed(["append", "/dev/null"]));
            tries
        },
    );
}

fn no_device_can_be_made(user: User) {
    check(
        || Scene::new(user),
        |scene| {
            let out = scene.workspace().join("out");
            vec![
                denied(["mknod-char", &word(out.join("mem")), "1", "1"]).as_root(),
                denied(["mknod-char", &word(out.join("null")), "1", "3"]).as_root(),
                denied(["mknod-block", &word(out.join("disk")), "254", "0"]).as_root(),
                denied(["mknod-char", "/tmp/mem", "1", "1"]).unproven("would leave a device"),
            ]
        },
    );
}

fn a_readable_folder_is_not_writable(user: User) {
    check(
        || Scene::new(user),
        |scene| {
            let (workspace, readable) = (scene.workspace(), word(scene.workspace().join("readable.txt")));
            vec![
                denied(["append", &readable]),
                denied(["truncate", &readable]),
                denied(["create", &word(workspace.join("new"))]),
                denied(["mkdir", &word(workspace.join("folder"))]),
                denied(["symlink", "/etc", &word(workspace.join("link"))]),
                denied(["unlink", &readable]),
                denied(["open-write", &word(workspace.join("docs/guide.txt"))]),
                allowed(["stat", &readable]),
                allowed(["list", &word(&workspace)]),
            ]
        },
    );
}

/// `filesystem-write` alone is the whole workspace but for what would run later with more rights than the agent's.
fn git_hooks_and_workstreams_stay_as_they_are(user: User) {
    let repository = || {
        let scene = Scene::new(user).security(
            "\n  capabilities_required: [filesystem-read, filesystem-write]\n  filesystem: {execute: [attack]}",
        );
        scene.make_folder(&scene.workspace().join(".git/hooks"));
        scene.make_folder(&scene.workspace().join(".git/refs"));
        scene.write(&scene.workspace().join(".git/config"), "[core]\n");
        scene.write(&scene.workspace().join(".git/hooks/pre-commit"), "#!/bin/sh\n");
        scene
    };
    check(repository, |scene| {
        let git = scene.workspace().join(".git");
        vec![
            denied(["append", &word(git.join("config"))]),
            denied(["create", &word(git.join("hooks/post-checkout"))]),
            denied(["append", &word(git.join("hooks/pre-commit"))]),
            denied(["unlink", &word(git.join("config"))]),
            denied(["rename", &word(git.join("hooks")), &word(git.join("old-hooks"))]),
            denied(["rename", &word(&git), &word(scene.workspace().join("old-git"))]),
            allowed(["create", &word(git.join("refs/new"))]),
            allowed(["create", &word(scene.workspace().join("new"))]),
            allowed(["append", &word(scene.workspace().join("readable.txt"))]),
            allowed(["unlink", &word(scene.workspace().join("docs/guide.txt"))]),
        ]
    });
}

fn the_private_folders_work(user: User) {
    let planted =
        tempfile::Builder::new().prefix("toka-planted").tempfile_in("/tmp").expect("a file in /tmp");
    let planted = word(planted.path());
    check(
        || Scene::new(user),
        |_| -> Vec<Try> {
            vec![
                denied(["stat", &planted]),
                denied(["unlink", &planted]).unproven("the twin would remove it"),
                allowed(["create", "/tmp/file"]),
                allowed(["append", "/tmp/file"]),
                allowed(["mkdir", "/tmp/folder"]),
                allowed(["rename", "/tmp/file", "/tmp/folder/file"]),
                allowed(["tmpfile", "/tmp"]),
                allowed(["read", "/tmp/folder/file"]),
            ]
        },
    );
}

fn no_descriptor_is_inherited(user: User) {
    use std::os::fd::AsRawFd;

    let scene = Scene::new(user);
    let secret = std::fs::File::open(scene.outside().join("secret.txt")).expect("a file of the scene");
    let fd = secret.as_raw_fd();
    nix::fcntl::fcntl(&secret, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()))
        .expect("an open file");
    let attempt = [denied(["inherited-descriptors"])];
    let unconfined = scene.attack_unconfined(&attempt);
    let found = format!("{unconfined:?}");
    assert!(found.contains(&format!("{fd}=")), "the descriptor is there to be inherited: {found}");
    let confined = scene.attack(&attempt);
    assert!(confined[0].is_denied(), "inherited: {confined:?}");
    scene.assert_nothing_left();
}

/// The private `/tmp` must not hide a workspace that lies below the host's.
fn a_workspace_below_tmp_works(user: User) {
    check(
        || {
            let scene = Scene::in_folder(user, Path::new("/tmp"));
            for folder in ["docs", "out"] {
                scene.write_program(&scene.workspace().join(folder).join("tool"), "#!/bin/sh\n");
            }
            scene
        },
        |scene| {
            vec![
                denied(["read", &word(scene.outside().join("secret.txt"))]),
                denied(["append", &word(scene.workspace().join("readable.txt"))]),
                allowed(["read", &word(scene.workspace().join("readable.txt"))]),
                allowed(["create", &word(scene.workspace().join("out/new"))]),
                allowed(["create", "/tmp/file"]),
                // Landlock's rule of the private `/tmp` reaches below the mounts in it.
                denied(["execute", &word(scene.workspace().join("docs/tool"))]),
                // `filesystem-write` is for build output, which is run.
                allowed(["execute", &word(scene.workspace().join("out/tool"))]),
                allowed(["execute", &word(scene.workspace().join("attack")), "read", "/etc/passwd"]),
            ]
        },
    );
}
