//! Attacks on files: every way to read, change, make or move one, and the ways around a path.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};

use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::{Attack, Attempt, argument, done, errno_of, io, number, sys};

pub(crate) const ATTACKS: &[Attack] = &[
    ("read", |a| {
        let mut file = io(fs::File::open(argument(a, 0)))?;
        let mut byte = [0];
        done(io(file.read(&mut byte)))
    }),
    ("list", |a| {
        let names = io(fs::read_dir(argument(a, 0)))?.flatten().map(|entry| entry.file_name());
        let mut names: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
        names.sort();
        Ok(names.join(" "))
    }),
    ("stat", |a| done(io(fs::symlink_metadata(argument(a, 0))))),
    ("append", |a| {
        let mut file = io(OpenOptions::new().append(true).open(argument(a, 0)))?;
        done(io(file.write_all(b"attacked\n")))
    }),
    // Opens for writing and writes nothing: for files whose content the host needs.
    ("open-write", |a| done(io(OpenOptions::new().write(true).open(argument(a, 0))))),
    ("create", |a| done(io(OpenOptions::new().write(true).create_new(true).open(argument(a, 0))))),
    ("tmpfile", |a| {
        let unnamed = OpenOptions::new().write(true).custom_flags(libc::O_TMPFILE).open(argument(a, 0));
        done(io(unnamed))
    }),
    ("truncate", |a| {
        let path = sys::text(argument(a, 0));
        done(sys::call(libc::SYS_truncate, &[sys::of(&path), 0]))
    }),
    ("mkdir", |a| done(io(fs::create_dir(argument(a, 0))))),
    ("rmdir", |a| done(io(fs::remove_dir(argument(a, 0))))),
    ("unlink", |a| done(io(fs::remove_file(argument(a, 0))))),
    ("rename", |a| done(io(fs::rename(argument(a, 0), argument(a, 1))))),
    ("exchange", |a| {
        let (one, other) = (sys::text(argument(a, 0)), sys::text(argument(a, 1)));
        let here = libc::AT_FDCWD as usize;
        let flags = libc::RENAME_EXCHANGE as usize;
        done(sys::call(libc::SYS_renameat2, &[here, sys::of(&one), here, sys::of(&other), flags]))
    }),
    ("hard-link", |a| done(io(fs::hard_link(argument(a, 0), argument(a, 1))))),
    ("symlink", |a| done(io(std::os::unix::fs::symlink(argument(a, 0), argument(a, 1))))),
    ("chmod", |a| done(io(fs::set_permissions(argument(a, 0), fs::Permissions::from_mode(0o777))))),
    ("chown", |a| done(io(std::os::unix::fs::chown(argument(a, 0), Some(number(a, 1)), None)))),
    ("utimes", |a| {
        let path = sys::text(argument(a, 0));
        let times = [libc::timespec { tv_sec: 0, tv_nsec: 0 }, libc::timespec { tv_sec: 0, tv_nsec: 0 }];
        done(sys::call(libc::SYS_utimensat, &[libc::AT_FDCWD as usize, sys::of(&path), sys::at(&times), 0]))
    }),
    ("setxattr", |a| {
        let (path, name) = (sys::text(argument(a, 0)), sys::text("user.toka-attack"));
        done(sys::call(libc::SYS_setxattr, &[sys::of(&path), sys::of(&name), sys::of(&name), 4, 0]))
    }),
    ("execute", |a| {
        let ended = io(std::process::Command::new(argument(a, 0)).args(&a[1..]).output())?;
        Ok(ended.status.to_string())
    }),
    ("mkfifo", |a| done(mknod(argument(a, 0), SFlag::S_IFIFO, Mode::S_IRUSR, 0))),
    ("mknod-char", |a| {
        let device = makedev(number(a, 1), number(a, 2));
        done(mknod(argument(a, 0), SFlag::S_IFCHR, Mode::S_IRUSR, device))
    }),
    ("mknod-block", |a| {
        let device = makedev(number(a, 1), number(a, 2));
        done(mknod(argument(a, 0), SFlag::S_IFBLK, Mode::S_IRUSR, device))
    }),
    ("open-by-handle", open_by_handle),
    ("chroot-escape", chroot_escape),
    ("through-descriptors", through_descriptors),
    ("inherited-descriptors", inherited_descriptors),
];

/// `struct file_handle` with room for the largest handle (open_by_handle_at(2)).
#[repr(C, align(8))]
struct FileHandle {
    bytes: u32,
    kind: i32,
    handle: [u8; 128],
}

/// Opens a file by its inode number instead of its path, past every rule on paths.
fn open_by_handle(arguments: &[String]) -> Attempt {
    let path = sys::text(argument(arguments, 0));
    let mut handle = [FileHandle { bytes: 128, kind: 0, handle: [0; 128] }];
    let mut mount = [0i32];
    let here = libc::AT_FDCWD as usize;
    sys::call(
        libc::SYS_name_to_handle_at,
        &[here, sys::of(&path), sys::at_mut(&mut handle), sys::at_mut(&mut mount), 0],
    )?;
    let flags = libc::O_RDONLY as usize;
    done(sys::call(libc::SYS_open_by_handle_at, &[here, sys::at(&handle), flags]))
}

/// The classic way out of a chroot: a second one below, and `..` until the real root.
fn chroot_escape(arguments: &[String]) -> Attempt {
    nix::unistd::chroot(argument(arguments, 0))?;
    let up = "../".repeat(32);
    nix::unistd::chroot(up.as_str())?;
    done(io(fs::File::open("/etc/passwd")))
}

/// Reads a path through every name that `/proc/self` has for the root and for the working folder.
fn through_descriptors(arguments: &[String]) -> Attempt {
    let path = argument(arguments, 0);
    let up = "../".repeat(32);
    let ways = [
        format!("/proc/self/root{path}"),
        format!("/proc/thread-self/root{path}"),
        format!("/proc/self/cwd/{up}{path}"),
        format!("/proc/1/root{path}"),
        format!("/dev/fd/../root{path}"),
        format!("{up}{path}"),
    ];
    let mut last = Errno::ENOENT;
    for way in ways {
        match fs::read(&way) {
            Ok(_) => return Ok(way),
            Err(error) => last = errno_of(&error),
        }
    }
    Err(last)
}

/// Descriptors above the standard three that are open though nobody here opened them.
fn inherited_descriptors(_: &[String]) -> Attempt {
    let open: Vec<String> = (3..1024)
        .filter(|fd| sys::call(libc::SYS_fcntl, &[*fd, libc::F_GETFD as usize]).is_ok())
        .map(|fd| {
            let target = fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default();
            format!("{fd}={}", target.display())
        })
        .collect();
    if open.is_empty() { Err(Errno::EBADF) } else { Ok(open.join(" ")) }
}
