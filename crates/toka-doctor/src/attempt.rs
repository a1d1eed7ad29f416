//! The violations themselves, as the probe makes them. Each changes nothing, or nothing but what was made for it, so that
//! it can be made where nothing refuses it as well: an attempt that fails everywhere proves no wall.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use toka_sandbox::sys;

/// Something to try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Attempt {
    /// Reads a file.
    Read(PathBuf),
    /// Lists a folder.
    List(PathBuf),
    /// Opens a file to write to it.
    Write(PathBuf),
    /// Makes a file.
    Create(PathBuf),
    /// Removes a file.
    Remove(PathBuf),
    /// Executes a file.
    Execute(PathBuf),
    /// Makes a file executable.
    Chmod(PathBuf),
    /// Changes the time of a file.
    Times(PathBuf),
    /// Sets an extended attribute of a file.
    Attribute(PathBuf),
    /// Makes a file of its own a set-user-id program.
    SetId(PathBuf),
    /// Connects to a Unix socket at a path.
    Unix(PathBuf),
    /// Connects to a Unix socket with an abstract name.
    Abstract(String),
    /// Connects to a port of this host.
    Tcp(u16),
    /// Sends to a port of this host.
    Udp(u16),
    /// Looks a process up.
    See(i32),
    /// Signals a process.
    Signal(i32),
    /// Traces a process.
    Trace(i32),
    /// Opens the memory of a process.
    Memory(i32),
    /// Mounts something at a folder.
    Mount(PathBuf),
    /// Makes a user namespace.
    Unshare,
    /// Enters a namespace.
    Setns,
    /// Starts a process in a user namespace with clone3.
    Clone,
    /// Makes a BPF map.
    Bpf,
    /// Looks for the session keyring.
    Keyring,
    /// Makes a ring for I/O.
    IoUring,
    /// Makes a performance counter.
    PerfEvent,
    /// Would gain the rights of a set-user-id program.
    Gain,
    /// Holds capabilities.
    Capabilities,
}

impl Attempt {
    /// Makes it. What comes back when it got through is a note for people, perhaps empty.
    ///
    /// # Errors
    /// When it was refused.
    pub(crate) fn make(&self) -> io::Result<String> {
        let silent = |result: io::Result<()>| result.map(|()| String::new());
        match self {
            Self::Read(path) => std::fs::read(path).map(|bytes| format!("{} bytes", bytes.len())),
            Self::List(path) => path.read_dir().map(|entries| format!("{} entries", entries.count())),
            Self::Write(path) => silent(OpenOptions::new().append(true).open(path).map(drop)),
            Self::Create(path) => silent(File::create_new(path).map(drop)),
            Self::Remove(path) => silent(std::fs::remove_file(path)),
            Self::Execute(path) => silent(execute(path)),
            Self::Chmod(path) => silent(std::fs::set_permissions(path, Permissions::from_mode(0o700))),
            Self::Times(path) => silent(touch(path)),
            Self::Attribute(path) => {
                silent(sys::attempt::set_attribute(&sys::c_path(path)?, c"user.toka", b"x"))
            }
            Self::SetId(path) => silent(set_id(path)),
            Self::Unix(path) => silent(UnixStream::connect(path).map(drop)),
            Self::Abstract(name) => {
                let address = SocketAddr::from_abstract_name(name)?;
                silent(UnixStream::connect_addr(&address).map(drop))
            }
            Self::Tcp(port) => {
                let address = (Ipv4Addr::LOCALHOST, *port).into();
                silent(TcpStream::connect_timeout(&address, PATIENCE).map(drop))
            }
            Self::Udp(port) => {
                let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
                silent(socket.send_to(b"x", (Ipv4Addr::LOCALHOST, *port)).map(drop))
            }
            Self::See(pid) => std::fs::read_to_string(format!("/proc/{pid}/comm")).map(|_| String::new()),
            // Signal 0 is checked and not sent (kill(2)).
            Self::Signal(pid) => silent(kill(Pid::from_raw(*pid), None).map_err(Into::into)),
            Self::Trace(pid) => silent(sys::attempt::trace(*pid)),
            Self::Memory(pid) => {
                silent(OpenOptions::new().write(true).open(format!("/proc/{pid}/mem")).map(drop))
            }
            Self::Mount(path) => silent(mount_at(path).map_err(Into::into)),
            Self::Unshare => silent(unshare(CloneFlags::CLONE_NEWUSER).map_err(Into::into)),
            Self::Setns => {
                let own = File::open("/proc/self/ns/ipc")?;
                silent(setns(own, CloneFlags::CLONE_NEWIPC).map_err(Into::into))
            }
            Self::Clone => silent(sys::attempt::clone_into_user_namespace()),
            Self::Bpf => silent(sys::attempt::bpf().map(drop)),
            Self::Keyring => silent(sys::attempt::keyring()),
            Self::IoUring => silent(sys::attempt::io_uring().map(drop)),
            Self::PerfEvent => silent(sys::attempt::perf_event().map(drop)),
            Self::Gain => none_of("NoNewPrivs", |value| value == "1"),
            Self::Capabilities => none_of("CapEff", |value| value.chars().all(|digit| digit == '0'))
                .map(|held| format!("0x{held}")),
        }
    }
}

/// How long a connection may take where nothing answers.
const PATIENCE: Duration = Duration::from_millis(500);

fn touch(path: &Path) -> io::Result<()> {
    // By its path: who owns a file may set its times without opening it for writing, and a rule on files cannot see it.
    let time = nix::sys::time::TimeSpec::from_duration(
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default(),
    );
    let follow = nix::sys::stat::UtimensatFlags::FollowSymlink;
    Ok(nix::sys::stat::utimensat(nix::fcntl::AT_FDCWD, path, &time, &time, follow)?)
}

/// However it ends: that it was begun is enough.
fn execute(path: &Path) -> io::Result<()> {
    let mut command = Command::new(path);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().map(drop)
}

fn set_id(path: &Path) -> io::Result<()> {
    match File::create_new(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    std::fs::set_permissions(path, Permissions::from_mode(0o4700))
}

/// Mounts where nobody else sees it: in a namespace of its own, or, where none can be made, just there and not for long.
fn mount_at(path: &Path) -> nix::Result<()> {
    let own = if nix::unistd::geteuid().is_root() {
        CloneFlags::CLONE_NEWNS
    } else {
        CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS
    };
    let nothing = None::<&str>;
    if unshare(own).is_ok() {
        mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?;
    }
    mount(nothing, path, Some("tmpfs"), MsFlags::empty(), nothing)?;
    umount2(path, MntFlags::MNT_DETACH)
}

/// Refused when the kernel's account of this process says so (proc_pid_status(5)); else the value.
fn none_of(key: &str, is_safe: impl Fn(&str) -> bool) -> io::Result<String> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let value = line.map(str::trim).ok_or(Errno::ENODATA)?;
    if is_safe(value) { Err(Errno::EPERM.into()) } else { Ok(value.to_owned()) }
}

/// The name of an error (errno(3)), which is what people can look up.
pub(crate) fn name_of(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => format!("{:?}", Errno::from_raw(number)),
        None => error.to_string(),
    }
}
