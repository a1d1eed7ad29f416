//! What a doctor's probes are let loose on: two folders with the same in them, one for those that are confined and one for
//! those that are not, sockets that listen, and secrets.

use std::fs::Permissions;
use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};

use nix::unistd::mkdtemp;
use toka_api::caller::user_home;
use toka_core::Name;
use toka_prepare::FolderError;
use toka_prepare::folders::ProjectFolders;
use toka_prepare::workplace::{Remains, make_private, set_up};
use toka_sandbox::AgentFolders;

/// What an attempt aims at.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// A folder of the same user that the agent was not given.
    pub(crate) outside: PathBuf,
    /// A folder of its own.
    pub(crate) own: PathBuf,
    /// A secret of its own.
    pub(crate) own_secret: PathBuf,
    /// A program in a folder that it may only read.
    pub(crate) program: PathBuf,
    /// A secret of somebody else.
    pub(crate) other_secret: PathBuf,
    /// A Unix socket that listens outside.
    pub(crate) socket: PathBuf,
    /// The name of an abstract one.
    pub(crate) abstract_name: String,
    /// A port that listens.
    pub(crate) tcp: u16,
    /// A port that datagrams can be sent to.
    pub(crate) udp: u16,
    /// A process of the same user.
    pub(crate) victim: i32,
}

/// The folder where everything of a doctor lies, removed when it is dropped.
#[derive(Debug)]
pub(super) struct TargetDir(PathBuf);

impl Drop for TargetDir {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(folder = %self.0.display(), %error, "not removed");
        }
    }
}

/// Where it is made. Not in /tmp if it can be avoided: an agent has a /tmp of its own, which hides the other and would make
/// every denial cheap.
const BASE: &str = "/var/tmp";
/// Text of the files that no probe may read.
const SECRET: &str = "nobody may read this\n";

impl TargetDir {
    /// Makes the folder, private and empty.
    pub(super) fn make(name: &str) -> io::Result<Self> {
        let below = |base: &Path| mkdtemp(&base.join(format!("{name}-XXXXXX")));
        let made = below(Path::new(BASE)).or_else(|_| below(&std::env::temp_dir()))?;
        // Held from the first moment, so that it goes whatever comes.
        let mut made = Self(made);
        made.0 = made.0.canonicalize()?;
        Ok(made)
    }

    /// Where it lies, without links.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Makes everything in it; the answer is the folders of the probe.
    pub(super) fn populate(&self) -> Result<AgentFolders, FolderError> {
        let folders = folders_below(&self.0, &probe());
        let other = folders_below(&self.0, &neighbour());
        for agent in [&folders, &other] {
            make_private(&agent.workspace)?;
            set_up(agent, Remains::Nothing)?;
            make_private(&agent.door)?;
            write(&agent.credentials.join(KEY))?;
            write_program(&agent.credentials.join(PROGRAM))?;
        }
        for folder in [self.outside(), self.twin()] {
            make_private(&folder)?;
            for name in FILES {
                write(&folder.join(name))?;
            }
            write_program(&folder.join(PROGRAM))?;
        }
        Ok(folders)
    }

    fn outside(&self) -> PathBuf {
        self.0.join("outside")
    }

    fn twin(&self) -> PathBuf {
        self.0.join("twin")
    }

    /// What confined probes aim at.
    pub(super) fn inside(&self, folders: &AgentFolders, listeners: &Listeners, victim: i32) -> Place {
        let other = folders_below(&self.0, &neighbour());
        Place {
            outside: self.outside(),
            own: folders.home.clone(),
            own_secret: folders.credentials.join(KEY),
            program: folders.credentials.join(PROGRAM),
            other_secret: other.credentials.join(KEY),
            ..self.without(listeners, victim)
        }
        .with_socket()
    }

    /// What the unconfined aim at.
    pub(super) fn without(&self, listeners: &Listeners, victim: i32) -> Place {
        let twin = self.twin();
        Place {
            own: twin.clone(),
            own_secret: twin.join(FILES[0]),
            other_secret: twin.join(FILES[0]),
            program: twin.join(PROGRAM),
            socket: PathBuf::new(),
            outside: twin,
            abstract_name: listeners.name.clone(),
            tcp: listeners.ports.0,
            udp: listeners.ports.1,
            victim,
        }
        .with_socket()
    }

    /// What must not change outside, in words: names, sizes, rights, times and texts.
    pub(super) fn state_outside(&self) -> io::Result<Vec<String>> {
        let mut found = Vec::new();
        for entry in self.outside().read_dir()? {
            let path = entry?.path();
            let data = path.symlink_metadata()?;
            let text = if data.is_file() { std::fs::read_to_string(&path)? } else { String::new() };
            let rights = data.permissions().mode();
            let (time, nanos) = (data.mtime(), data.mtime_nsec());
            found.push(format!("{} {rights:o} {time}.{nanos} {text}", path.display()));
        }
        found.sort();
        Ok(found)
    }
}

impl Place {
    fn with_socket(self) -> Self {
        Self { socket: self.outside.join(SOCKET), ..self }
    }

    /// A file of the folder outside.
    pub(super) fn file(&self) -> PathBuf {
        self.outside.join(FILES[0])
    }

    /// One that may go.
    pub(super) fn spare_file(&self) -> PathBuf {
        self.outside.join(FILES[1])
    }
}

/// Files of the folders that are attacked: one to read and change, one to remove.
const FILES: [&str; 2] = ["secret", "spare"];
const SOCKET: &str = "socket";
/// The secret of an agent.
const KEY: &str = "key";
const PROGRAM: &str = "program";
/// A program for whoever may execute it: this binary, which has nothing to do and ends.
const SCRIPT: &str = "#!/proc/self/exe __probe\n";

/// The project of the probes.
pub(super) fn project() -> Name {
    Name::new("doctor").expect("a label")
}

/// The agent that tries.
pub(super) fn probe() -> Name {
    Name::new("probe").expect("a label")
}

/// The agent whose secret it tries to read.
fn neighbour() -> Name {
    Name::new("neighbour").expect("a label")
}

/// The folders of an agent, as those of a run in a state folder of its own lie.
pub(super) fn folders_below(root: &Path, agent: &Name) -> AgentFolders {
    let (state_dir, run_dir) = (root.join("state"), root.join("run"));
    let workspace = root.join("workspace");
    let project =
        ProjectFolders { state_dir, run_dir, project: project(), workspace, user_home: user_home() };
    let (own, runtime) = (project.agent(agent), project.runtime(agent));
    AgentFolders {
        home: own.join("home"),
        tmp: own.join("tmp"),
        artifacts: project.artifacts(agent),
        inputs: Vec::new(),
        inputs_dir: own.join("inputs"),
        credentials: runtime.join("credentials"),
        door: runtime.join("door"),
        working_dir: project.workspace.clone(),
        workspace: project.workspace,
        state_dir: project.state_dir,
        run_dir: project.run_dir,
        user_home: project.user_home,
    }
}

fn write(path: &Path) -> Result<(), FolderError> {
    std::fs::write(path, SECRET).map_err(|source| FolderError {
        what: "write",
        path: path.to_owned(),
        source,
    })
}

fn write_program(path: &Path) -> Result<(), FolderError> {
    let failed = |source| FolderError { what: "write", path: path.to_owned(), source };
    std::fs::write(path, SCRIPT).map_err(failed)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o755)).map_err(failed)
}

/// Sockets of the doctor's, which listen as long as this is there. Nobody ever answers: that a connection is made is enough.
#[derive(Debug)]
pub(super) struct Listeners {
    name: String,
    ports: (u16, u16),
    _unix: [Option<UnixListener>; 3],
    _tcp: Option<TcpListener>,
    _udp: Option<UdpSocket>,
}

/// A port where nobody listens (discard), for a host without a loopback: then no attempt gets through anywhere, and
/// nothing is proved.
const NO_PORT: u16 = 9;

impl Listeners {
    /// Listens in both folders and on the loopback. What cannot be listened on is left out.
    pub(super) fn below(target_dir: &Path) -> Self {
        let name = format!("toka-doctor-{}", std::process::id());
        let at = |folder: &str| UnixListener::bind(target_dir.join(folder).join(SOCKET)).ok();
        let unnamed = || UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).ok()?).ok();
        let unix = [at("outside"), at("twin"), unnamed()];
        let here = (Ipv4Addr::LOCALHOST, 0);
        let (tcp, udp) = (TcpListener::bind(here).ok(), UdpSocket::bind(here).ok());
        let port_of = |address: Option<io::Result<std::net::SocketAddr>>| {
            address.and_then(Result::ok).map_or(NO_PORT, |address| address.port())
        };
        let ports = (
            port_of(tcp.as_ref().map(TcpListener::local_addr)),
            port_of(udp.as_ref().map(UdpSocket::local_addr)),
        );
        Self { name, ports, _unix: unix, _tcp: tcp, _udp: udp }
    }
}
