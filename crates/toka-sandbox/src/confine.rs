//! Putting a plan in force: what the parent prepares, and the steps that a forked child takes before its first instruction.
//!
//! The parent opens everything ([`Preparer::prepare`]), so that the child ([`Prepared::enter`]) resolves no path that
//! anybody could change, and allocates little. The steps of the child, in their order:
//!
//! 0. process namespace: for an ordinary user, whose forked process is the first of new namespaces ([`crate::init`])
//! 1. descriptors: its own, without those that are kept for other agents; then a new session, and a plain umask
//! 2. cgroup: joins its v1 groups by writing `0` to descriptors that are open; in v2 it was born
//! 3. streams: null, stdout and stderr in place, everything else closed on exec
//! 4. namespaces: network, mounts, System V IPC; then the socket in that network at which its daemon listens, if there is one
//! 5. terminal: if one is asked for, made in its own view, in the place of the streams; the other side goes to the parent
//! 6. folder: the working folder
//! 7. keyring: a session keyring of its own
//! 8. user: another one, if declared
//! 9. capabilities: none
//! 10. privileges: no new ones
//! 11. landlock
//! 12. limits: rlimits, now that nothing more is opened
//! 13. signals: nothing blocked
//! 14. seccomp: last, since it denies some of the above
//!
//! Each step either works or ends the start with its name, the path and the error: what [`Enforcement`] reports is what
//! the steps have done, never what they were asked for.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, fchown};
use serde::{Deserialize, Serialize};
use toka_core::model::OWN_ADDRESS;
use toka_core::{Coverage, Enforcement, Layer, NetworkAccess, SandboxMode};
use toka_files::Directory;

use crate::cgroup::{Cgroups, Entrances, Group, GroupError, Kind};
use crate::host::{HostFacts, Namespaces};
use crate::landlock::{self, Anchors, Ports};
use crate::listener::NewListener;
use crate::mounts::{self, BaseView, Opened};
use crate::namespace::{Interfaces, OwnedNetwork};
use crate::plan::{Made, Right, RunAs, SandboxPlan, ToMake};
use crate::report::{coverage_of, demand, group_coverage, without_mounts};
use crate::seccomp::{self, Others, Sockets};
use crate::step::{PrepareError, StepError};
use crate::sys::{self, BirthPlace, Instruction, Stack};
use crate::terminal::NewTerminal;

/// The version of Landlock from which on it tells the audit what it refuses (landlock(7)).
const LANDLOCK_WITH_AUDIT: u32 = 7;

/// What one keeper prepares starts with: the host, the groups, the shared view, compiled filters.
#[derive(Debug)]
pub struct Preparer {
    pub(crate) host: HostFacts,
    cgroups: Cgroups,
    view: Option<BaseView>,
    pub(crate) view_error: Option<StepError>,
    pub(crate) filters: BTreeMap<Sockets, Arc<[Instruction]>>,
    pub(crate) filter_error: Option<String>,
    executable: OwnedFd,
    anchors: RefCell<Anchors>,
    stack: RefCell<Stack>,
    project_network: RefCell<Option<OwnedFd>>,
    /// The same for an ordinary user.
    owned_network: RefCell<Option<OwnedNetwork>>,
    empty_network: RefCell<Option<OwnedFd>>,
    spare_network: RefCell<Spare>,
}

/// A network with a loopback interface, for the next process that is to be alone in its own.
#[derive(Debug, Default)]
enum Spare {
    /// No process has asked for one yet, or none can be made.
    #[default]
    Unwanted,
    Wanted,
    Made(OwnedFd),
}

impl Preparer {
    /// What will be in force of each layer but the groups, which are known only once they are made: what the facts promise,
    /// less what failed when the view and the filters were made.
    pub(crate) fn report(&self, plan: &SandboxPlan) -> Enforcement {
        let mut enforcement = self.host.enforcement(plan);
        enforcement.set(Layer::Cgroup, Coverage::Full, Vec::new());
        if plan.mode == SandboxMode::Off {
            return enforcement;
        }
        if let Some(error) = &self.view_error {
            enforcement.set(Layer::Mounts, Coverage::None, vec![error.to_string()]);
            without_mounts(&mut enforcement, plan);
        }
        if let Some(error) = &self.filter_error {
            let coverage = coverage_of(!self.filters.is_empty(), std::slice::from_ref(error));
            enforcement.set(Layer::Seccomp, coverage, vec![error.clone()]);
        }
        if self.filters.is_empty() && (plan.network == NetworkAccess::None || plan.port_alone) {
            let reason = "no system call filter to refuse sockets with".to_owned();
            enforcement.set(Layer::Network, Coverage::None, vec![reason]);
        }
        enforcement
    }
}

/// Everything that a child needs to confine itself, opened.
#[derive(Debug)]
pub struct Prepared {
    /// What will be in force once the child has taken its steps.
    pub enforcement: Enforcement,
    /// The agent's control group.
    pub group: Group,
    entrances: Entrances,
    mounts: Mounts,
    ruleset: Ruleset,
    network: NewNetwork,
    filter: Option<Arc<[Instruction]>>,
    confined: SandboxMode,
}

#[derive(Debug)]
enum Mounts {
    /// The host's own view.
    None,
    /// A copy of the shared view, with these folders.
    Shared { opened: Vec<Opened>, terminals: OwnedFd },
    /// Built in the child, in a user namespace, with a process namespace that ends all of it. The pipe is for the status.
    Own { status: (OwnedFd, OwnedFd) },
}

#[derive(Debug)]
enum Ruleset {
    None,
    Ready(OwnedFd),
    /// Made in the child, whose mounts do not exist before.
    InChild,
}

/// How a process begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Birth {
    /// In the keeper's memory, and with its descriptors, while the keeper stands still: by far the fastest.
    Sharing,
    /// With a copy of the keeper's memory.
    Copied,
    /// The same, as the first process of its namespaces.
    InNamespaces,
}

#[derive(Debug)]
enum NewNetwork {
    None,
    Loopback,
    /// One of its own with nothing in it, if that can be.
    Empty,
    /// That of a process that runs already.
    Joined(OwnedFd),
    /// One that an ordinary user's processes are born into.
    Within(OwnedNetwork),
}

/// A network that processes share, made for the first of them.
fn shared(network: &RefCell<Option<OwnedFd>>, interfaces: Interfaces) -> io::Result<OwnedFd> {
    let mut shared = network.borrow_mut();
    let known = match shared.take() {
        Some(network) => network,
        None => crate::namespace::make_network(interfaces)?,
    };
    let own = known.try_clone();
    *shared = Some(known);
    own
}

/// Where a process is put.
#[derive(Debug, Clone, Copy)]
pub enum Seat<'a> {
    /// In control groups and a network of its own.
    Own,
    /// Beside an agent that runs: in a leaf of its control groups, so within its limits and ended with it, and in its
    /// network. Files and calls are confined by the plan, as for the agent itself.
    Beside {
        /// The agent's groups.
        group: &'a Group,
        /// The leaf's name; nobody else uses it meanwhile.
        leaf: &'a str,
        /// The agent's main process.
        pid: i32,
    },
}

/// Makes what a grant names and is not there.
fn make(missing: &ToMake, owner: Option<&RunAs>) -> Result<(), StepError> {
    let ToMake { path, kind } = missing;
    let (above, name) = (path.parent().unwrap_or(path), path.file_name().unwrap_or_default());
    Directory::open_real(above)
        .and_then(|above| match kind {
            Made::Folder => above.make_directory(name, owner.map(|user| (user.uid, user.gid))),
            Made::File => above.make_file(name, owner.map(|user| (user.uid, user.gid))),
        })
        .map_err(|error| StepError::new("folders: make", Some(path), &error))
}

impl Preparer {
    /// Prepares what all agents share. Must be called while the process has a single thread.
    ///
    /// # Errors
    /// When `/proc/self/exe` cannot be opened. That a layer cannot be had is not an error; it shows in what is enforced.
    pub fn new(host: HostFacts, cgroups: Cgroups) -> io::Result<Self> {
        let (view, view_error) = match host.mount_namespace {
            Namespaces::Privileged => match BaseView::build(&host) {
                Ok(view) => (Some(view), None),
                Err(error) => (None, Some(error.into())),
            },
            _ => (None, None),
        };
        let others = match host.mount_namespace {
            Namespaces::ThroughUserNamespace | Namespaces::ThroughUserNamespaceWithoutProc => {
                Others::Nameless
            }
            Namespaces::Privileged | Namespaces::Refused => Others::Nameable,
        };
        let mut filters = BTreeMap::new();
        let mut filter_error = None;
        for sockets in Sockets::ALL {
            match seccomp::compile(sockets, others) {
                Ok(program) => drop(filters.insert(sockets, Arc::from(program))),
                Err(error) => filter_error = Some(error),
            }
        }
        let executable = std::fs::File::open("/proc/self/exe")?.into();
        let anchors = anchors(&host);
        Ok(Self {
            host,
            cgroups,
            view,
            view_error,
            filters,
            filter_error,
            executable,
            anchors: RefCell::new(anchors),
            stack: RefCell::new(Stack::new()?),
            project_network: RefCell::new(None),
            owned_network: RefCell::new(None),
            empty_network: RefCell::new(None),
            spare_network: RefCell::default(),
        })
    }

    /// The program that runs now, even if its file has been replaced since.
    pub fn executable(&self) -> BorrowedFd<'_> {
        self.executable.as_fd()
    }

    /// The groups that agents are put in.
    pub fn cgroups(&self) -> &Cgroups {
        &self.cgroups
    }

    /// Makes and opens everything that `plan` asks for.
    ///
    /// # Errors
    /// When the host cannot enforce what the plan's compatibility demands, or a folder or group cannot be opened.
    pub fn prepare(&self, plan: &SandboxPlan, seat: Seat<'_>) -> Result<Prepared, PrepareError> {
        if !self.anchors.borrow().are_current() {
            self.anchors.replace(anchors(&self.host));
        }
        let mut enforcement = self.report(plan);
        demand(plan.compatibility, plan.mode, &enforcement)?;
        plan.to_make.iter().try_for_each(|missing| make(missing, plan.run_as.as_ref()))?;
        let mounts = self.mounts(plan, &enforcement)?;
        let ruleset = self.ruleset(plan, &enforcement, &mounts)?;
        let network = self.network(plan, seat, &enforcement)?;
        let has_own_network = !matches!(network, NewNetwork::None);
        if plan.listen == Some(OWN_ADDRESS) && !has_own_network {
            // In the host's network this address is nobody's own.
            let reason = "models are reached through a network namespace, which cannot be had here";
            return Err(PrepareError::Refused(reason.to_owned()));
        }
        let (group, reasons) = self.group(plan, seat).map_err(group_error)?;
        enforcement.set(Layer::Cgroup, group_coverage(self.cgroups.layout().kind, &reasons), reasons);
        if let Err(refused) = demand(plan.compatibility, plan.mode, &enforcement) {
            let _ = group.remove();
            return Err(refused);
        }
        let entrances = group.entrances().map_err(group_error)?;
        let filter = match plan.mode {
            SandboxMode::On => self.filters.get(&Sockets::of(plan)).cloned(),
            SandboxMode::Off => None,
        };
        Ok(Prepared { enforcement, group, entrances, mounts, ruleset, network, filter, confined: plan.mode })
    }

    fn group(&self, plan: &SandboxPlan, seat: Seat<'_>) -> Result<(Group, Vec<String>), GroupError> {
        match seat {
            Seat::Own => {
                Group::create(&self.cgroups, plan.project.as_str(), plan.agent.as_str(), &plan.group)
            }
            Seat::Beside { group, leaf, .. } => Ok((group.leaf(leaf)?, Vec::new())),
        }
    }

    fn network(
        &self,
        plan: &SandboxPlan,
        seat: Seat<'_>,
        enforcement: &Enforcement,
    ) -> Result<NewNetwork, StepError> {
        if plan.mode == SandboxMode::Off {
            return Ok(NewNetwork::None);
        }
        if plan.network == NetworkAccess::None {
            return Ok(self.no_network(seat, enforcement));
        }
        if plan.port_alone
            || !plan.network.is_private()
            || enforcement.coverage(Layer::Network) == Coverage::None
        {
            return Ok(NewNetwork::None);
        }
        match (seat, &self.view) {
            (Seat::Beside { pid, .. }, Some(_)) => {
                let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
                let flags = nix::fcntl::OFlag::O_CLOEXEC;
                nix::fcntl::open(&path, flags, Mode::empty())
                    .map(NewNetwork::Joined)
                    .map_err(|error| StepError::new("network: open", Some(&path), &error.into()))
            }
            (Seat::Own, Some(_)) if plan.network == NetworkAccess::Project => {
                self.project_network().map(NewNetwork::Joined)
            }
            (_, None) if plan.network == NetworkAccess::Project => {
                step_io("network: make that of the project", self.owned_network()).map(NewNetwork::Within)
            }
            (Seat::Own, Some(_)) => Ok(self.network_alone()),
            // A user namespace cannot enter what another one owns; there the process has a loopback of its own.
            (Seat::Own | Seat::Beside { .. }, None) => Ok(NewNetwork::Loopback),
        }
    }

    /// A network that no agent has ever entered: the spare one, or else one that the child makes.
    fn network_alone(&self) -> NewNetwork {
        match self.spare_network.replace(Spare::Wanted) {
            Spare::Made(network) => NewNetwork::Joined(network),
            Spare::Unwanted | Spare::Wanted => NewNetwork::Loopback,
        }
    }

    /// Makes the network of the next process that is to be alone in its own, if there has been such a process: it takes a fifth of a
    /// start. To be called when nobody waits.
    pub fn make_spare_network(&self) {
        let mut spare = self.spare_network.borrow_mut();
        if let Spare::Wanted = *spare {
            // Where it cannot be made, the child tells why.
            *spare =
                crate::namespace::make_network(Interfaces::Loopback).map_or(Spare::Unwanted, Spare::Made);
        }
    }

    /// The network that agents share, made for the first of them. It is there as long as the keeper, and as any process in it.
    fn project_network(&self) -> Result<OwnedFd, StepError> {
        let mut known = self.project_network.borrow_mut();
        // The user may have no network left but the spare one (user.max_net_namespaces).
        if known.is_none()
            && let Spare::Made(network) = self.spare_network.take()
        {
            *known = Some(network);
        }
        drop(known);
        step_io("network: make that of the project", shared(&self.project_network, Interfaces::Loopback))
    }

    fn owned_network(&self) -> io::Result<OwnedNetwork> {
        let mut known = self.owned_network.borrow_mut();
        let network = match known.take() {
            Some(network) => network,
            None => OwnedNetwork::make(self.host.uid, self.host.gid)?,
        };
        let own = network.try_clone();
        *known = Some(network);
        own
    }

    /// Where one is that may make no internet socket: in a network with nothing in it, so that /proc/net tells nothing of the
    /// host, and abstract Unix sockets of the host are out of reach on old kernels, too. The wall is the filter, which holds
    /// without this: where no namespace can be made, it stands alone.
    fn no_network(&self, seat: Seat<'_>, enforcement: &Enforcement) -> NewNetwork {
        match (seat, &self.view) {
            (Seat::Own, Some(_)) => {
                shared(&self.empty_network, Interfaces::None).map_or(NewNetwork::None, NewNetwork::Joined)
            }
            (Seat::Beside { pid, .. }, Some(_)) => {
                let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
                let found = nix::fcntl::open(&path, nix::fcntl::OFlag::O_CLOEXEC, Mode::empty());
                found.map_or(NewNetwork::None, NewNetwork::Joined)
            }
            (_, None) if enforcement.coverage(Layer::Mounts) != Coverage::None => NewNetwork::Empty,
            (_, None) => NewNetwork::None,
        }
    }

    /// Makes the network of those that may make no internet socket, if this process can: it takes the longest of all that the first
    /// start waits for.
    pub fn make_empty_network(&self) {
        if self.view.is_some() {
            // Where it cannot be made, the filter stands alone.
            let _ = shared(&self.empty_network, Interfaces::None);
        }
    }

    /// Agents that this process starts share the network of this one, which an earlier keeper has started.
    ///
    /// # Errors
    /// When there is no such process, or it cannot be looked into.
    pub fn share_network_of(&self, pid: i32) -> io::Result<()> {
        let network = std::fs::File::open(format!("/proc/{pid}/ns/net"))?;
        self.project_network.replace(Some(network.into()));
        Ok(())
    }

    fn mounts(&self, plan: &SandboxPlan, enforcement: &Enforcement) -> Result<Mounts, StepError> {
        if enforcement.coverage(Layer::Mounts) == Coverage::None {
            return Ok(Mounts::None);
        }
        match &self.view {
            Some(view) => Ok(Mounts::Shared {
                opened: view.open(&plan.binds, &plan.working_dir)?,
                terminals: mounts::new_terminals()?,
            }),
            None => Ok(Mounts::Own { status: status_pipe()? }),
        }
    }

    fn ruleset(
        &self,
        plan: &SandboxPlan,
        enforcement: &Enforcement,
        mounts: &Mounts,
    ) -> Result<Ruleset, StepError> {
        if enforcement.coverage(Layer::Landlock) == Coverage::None {
            return Ok(Ruleset::None);
        }
        let mut extra = vec![(&self.executable, Right::Execute)];
        match (mounts, &self.view) {
            (Mounts::Own { .. }, _) => return Ok(Ruleset::InChild),
            (Mounts::Shared { terminals, opened }, Some(view)) => {
                extra.push((&view.proc, Right::Read));
                extra.push((terminals, Right::Device));
                self.make_ruleset(plan, opened, &extra)
            }
            _ => {
                let proc = open_proc()?;
                extra.push((&proc, Right::Read));
                self.make_ruleset(plan, &[], &extra)
            }
        }
        .map(Ruleset::Ready)
    }

    fn make_ruleset(
        &self,
        plan: &SandboxPlan,
        mounted: &[Opened],
        extra: &[(&OwnedFd, Right)],
    ) -> Result<OwnedFd, StepError> {
        let (abi, anchors) = (self.host.landlock_abi, self.anchors.borrow());
        landlock::ruleset(abi, &anchors, &plan.files, mounted, extra, Ports::of(plan))
            .map_err(|error| StepError::new("landlock", error.path.as_deref().map(Path::new), &error.source))
    }
}

/// Gives the output pipes to the user, who could otherwise write to them but not open them by name (`/dev/stderr`).
fn give_streams(user: &RunAs) -> Result<(), StepError> {
    let owner = (Some(Uid::from_raw(user.uid)), Some(Gid::from_raw(user.gid)));
    step("streams: give away", fchown(io::stdout(), owner.0, owner.1))?;
    step("streams: give away", fchown(io::stderr(), owner.0, owner.1))
}

fn anchors(host: &HostFacts) -> Anchors {
    Anchors::open(host.system.rules())
}

impl Prepared {
    /// How the process begins. It shares the keeper's memory where nobody else can reach it through that process: agents are behind
    /// Landlock, which denies tracing what is outside (landlock(7)), and it is the same user all the time; and where what it needs, with the descriptors
    /// `passed` to it, survives [`sys::own_descriptors`]: hundreds of folders may have filled the low numbers.
    pub fn birth(&self, plan: &SandboxPlan, passed: &[BorrowedFd<'_>]) -> Birth {
        let low = passed.iter().copied().chain(self.descriptors()).all(|fd| fd.as_raw_fd() < sys::KEPT_FROM);
        let is_closed = self.filter.is_some() && matches!(self.ruleset, Ruleset::Ready(_));
        match self.mounts {
            Mounts::Own { .. } => Birth::InNamespaces,
            _ if low && is_closed && plan.run_as.is_none() => Birth::Sharing,
            _ => Birth::Copied,
        }
    }

    /// Everything that was opened for the child.
    fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let (opened, terminals) = match &self.mounts {
            Mounts::Shared { opened, terminals } => (opened.as_slice(), Some(terminals)),
            Mounts::None | Mounts::Own { .. } => (&[][..], None),
        };
        let ruleset = match &self.ruleset {
            Ruleset::Ready(ruleset) => Some(ruleset),
            Ruleset::None | Ruleset::InChild => None,
        };
        let network = match &self.network {
            NewNetwork::Joined(network) => Some(network),
            NewNetwork::None | NewNetwork::Loopback | NewNetwork::Empty | NewNetwork::Within(_) => None,
        };
        let entrances = self.entrances.tasks.iter().chain(&self.entrances.birthplace);
        let trees = opened.iter().map(|opened| &opened.tree);
        trees.chain(terminals).chain(ruleset).chain(network).chain(entrances).map(AsFd::as_fd)
    }

    /// Starts the process that is to [`Prepared::enter`] in `work`, which returns only when that or the exec has failed.
    ///
    /// # Errors
    /// As fork(2) and clone3(2).
    pub fn start(&self, birth: Birth, preparer: &Preparer, work: impl FnOnce() -> i32) -> io::Result<i32> {
        let group = self.entrances.birthplace.as_ref().map(|folder| folder.as_fd());
        match birth {
            Birth::Sharing => sys::start_sharing(group, &mut preparer.stack.borrow_mut(), work),
            Birth::Copied => sys::start_copied(group, BirthPlace::Here, work),
            Birth::InNamespaces => match &self.network {
                NewNetwork::Within(OwnedNetwork { user, network }) => {
                    sys::start_within(group, (user.as_fd(), network.as_fd()), work)
                }
                _ => sys::start_copied(group, BirthPlace::Namespaces, work),
            },
        }
    }

    /// In the parent, after the fork: the pipe from which [`crate::init::read_status`] reads how the agent ended, when
    /// the forked process is not the agent itself.
    pub fn into_status_pipe(self) -> Option<OwnedFd> {
        match self.mounts {
            Mounts::Own { status: (read, _) } => Some(read),
            Mounts::None | Mounts::Shared { .. } => None,
        }
    }

    /// In the child: takes the steps, in the order that the module's documentation lists. After it only exec is left.
    /// Owns nothing when it returns, since the child may share its parent's memory.
    ///
    /// # Errors
    /// The first step that failed; the child must then end.
    pub fn enter(
        &self,
        plan: &SandboxPlan,
        preparer: &Preparer,
        birth: Birth,
        streams: Streams<'_>,
    ) -> Result<(), StepError> {
        if birth == Birth::Sharing {
            step_io("descriptors", sys::own_descriptors())?;
        }
        self.enter_process_namespace(preparer)?;
        step("session", nix::unistd::setsid())?;
        umask(Mode::from_bits_truncate(0o022));
        for entrance in &self.entrances.tasks {
            step("cgroup: join", nix::unistd::write(entrance, b"0"))?;
        }
        streams.place()?;
        let terminals = self.enter_namespaces(plan, preparer)?;
        if let Some(listener) = streams.listener {
            listener.open()?;
        }
        if let Some(terminal) = streams.terminal {
            terminal.take_place()?;
        }
        enter_folder(&plan.working_dir)
            .map_err(|error| StepError::new("folder: enter", Some(&plan.working_dir), &error))?;
        match sys::new_keyring() {
            // A kernel without keys has none to share.
            Err(error) if error.raw_os_error() != Some(libc::ENOSYS) => {
                return step_io("keyring", Err(error));
            }
            _ => {}
        }
        if let Some(user) = &plan.run_as {
            give_streams(user)?;
            step_io("user", sys::become_user(user.uid, user.gid, &user.groups))?;
        }
        if self.confined == SandboxMode::On {
            step_io("capabilities", sys::drop_capabilities())?;
            step_io("privileges", sys::no_new_privileges())?;
            self.enter_landlock(plan, preparer, terminals.as_ref())?;
        }
        set_limits(plan, preparer.cgroups.layout().kind, self.countable())?;
        step("signals", sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None))?;
        if let Some(filter) = &self.filter {
            step_io("seccomp", sys::seccomp_install(filter))?;
        }
        Ok(())
    }

    fn countable(&self) -> Countable {
        if matches!(self.mounts, Mounts::Own { .. }) {
            Countable::OwnProcesses
        } else {
            Countable::AllOfTheUser
        }
    }

    /// For an ordinary user the forked process is the first of new namespaces; the agent is a child of it.
    fn enter_process_namespace(&self, preparer: &Preparer) -> Result<(), StepError> {
        let Mounts::Own { status: (_, write) } = &self.mounts else { return Ok(()) };
        mounts::map_user(preparer.host.uid, preparer.host.gid)?;
        crate::init::split(step_io("process namespace: duplicate", write.try_clone())?)
    }

    /// Returns the terminals when they were made here.
    fn enter_namespaces(
        &self,
        plan: &SandboxPlan,
        preparer: &Preparer,
    ) -> Result<Option<OwnedFd>, StepError> {
        match &self.network {
            NewNetwork::None | NewNetwork::Within(_) => {}
            NewNetwork::Loopback => {
                step("network: make namespace", unshare(CloneFlags::CLONE_NEWNET))?;
                step_io("network: loopback", sys::loopback_up())?;
            }
            // The filter keeps it from the network of the host all the same.
            NewNetwork::Empty => drop(unshare(CloneFlags::CLONE_NEWNET)),
            NewNetwork::Joined(network) => {
                step("network: join namespace", setns(network, CloneFlags::CLONE_NEWNET))?;
            }
        }
        match (&self.mounts, &preparer.view) {
            (Mounts::Shared { opened, terminals }, Some(view)) => {
                view.join(CloneFlags::CLONE_NEWIPC)?;
                opened.iter().try_for_each(Opened::attach)?;
                mounts::attach_terminals(terminals.as_fd())?;
                Ok(None)
            }
            (Mounts::Own { .. }, _) => mounts::build_own(&preparer.host, &plan.binds, &plan.working_dir)
                .map(Some)
                .map_err(StepError::from),
            _ => Ok(None),
        }
    }

    fn enter_landlock(
        &self,
        plan: &SandboxPlan,
        preparer: &Preparer,
        terminals: Option<&OwnedFd>,
    ) -> Result<(), StepError> {
        let made;
        let ruleset = match &self.ruleset {
            Ruleset::None => return Ok(()),
            Ruleset::Ready(ruleset) => ruleset,
            Ruleset::InChild => {
                let proc = open_proc()?;
                let mut extra = vec![(&preparer.executable, Right::Execute), (&proc, Right::Read)];
                extra.extend(terminals.map(|terminals| (terminals, Right::Device)));
                made = preparer.make_ruleset(plan, &[], &extra)?;
                &made
            }
        };
        step_io(
            "landlock",
            sys::landlock_restrict(ruleset.as_fd(), preparer.host.landlock_abi >= LANDLOCK_WITH_AUDIT),
        )
    }
}

/// Makes a folder the working folder. Who can write to the workspace can make a link of it, and one below /proc leads out of
/// what the mounts show: to the root of another process, or to a descriptor that is still open here (proc_pid_root(5)).
fn enter_folder(folder: &Path) -> io::Result<()> {
    let folder = sys::open_without_links(&sys::c_path(folder)?)?;
    Ok(nix::unistd::fchdir(folder)?)
}

fn status_pipe() -> Result<(OwnedFd, OwnedFd), StepError> {
    step("process namespace: make pipe", nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC))
}

/// The three standard streams of a child.
#[derive(Debug, Clone, Copy)]
pub struct Streams<'a> {
    /// What it reads.
    pub input: BorrowedFd<'a>,
    /// Where its output goes.
    pub output: BorrowedFd<'a>,
    /// Where its errors go.
    pub error: BorrowedFd<'a>,
    /// What takes the place of all three, if anything does.
    pub terminal: Option<NewTerminal<'a>>,
    /// A socket that it makes in its network for its daemon, if it is to make one.
    pub listener: Option<NewListener<'a>>,
}

impl Streams<'_> {
    fn place(self) -> Result<(), StepError> {
        step_io("streams", sys::place_descriptor(self.input, 0))?;
        step_io("streams", sys::place_descriptor(self.output, 1))?;
        step_io("streams", sys::place_descriptor(self.error, 2))?;
        step_io("streams: close", sys::close_on_exec_from(3))
    }
}

/// What a limit on a user's processes counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Countable {
    /// The agent's alone.
    OwnProcesses,
    /// Everything that the user runs anywhere; useless as a limit of one agent.
    AllOfTheUser,
}

/// Too small for any core dump. With 0 a program that the host names in core_pattern is started all the same, as root and
/// outside of every wall; 1 is the value that tells the kernel not to (core(5), "Piping core dumps to a program").
const NO_CORE: u64 = 1;

/// Queued signals and POSIX timers of an agent's user (getrlimit(2)): the kernel counts them per user, and without a limit of its
/// own one agent could take all that the host has for that user.
const SIGNALS: u64 = 4096;

fn set_limits(plan: &SandboxPlan, kind: Kind, countable: Countable) -> Result<(), StepError> {
    let files = u64::from(plan.process.open_files);
    let mut limits = vec![(Resource::RLIMIT_NOFILE, files), (Resource::RLIMIT_CORE, NO_CORE)];
    limits.push((Resource::RLIMIT_SIGPENDING, SIGNALS));
    if let Some(size) = plan.process.file_size {
        limits.push((Resource::RLIMIT_FSIZE, size));
    }
    if kind == Kind::None {
        limits.push((Resource::RLIMIT_DATA, plan.group.memory));
        // In a user namespace of its own only its own processes are counted (getrlimit(2), since Linux 5.14).
        if countable == Countable::OwnProcesses {
            limits.push((Resource::RLIMIT_NPROC, u64::from(plan.group.processes)));
        }
    }
    for (resource, most) in limits {
        // Nobody may raise a hard limit above what we have ourselves.
        let (_, hard) = step("limits", nix::sys::resource::getrlimit(resource))?;
        let most = most.min(hard);
        step("limits", setrlimit(resource, most, most))?;
    }
    Ok(())
}

fn open_proc() -> Result<OwnedFd, StepError> {
    let flags = nix::fcntl::OFlag::O_PATH | nix::fcntl::OFlag::O_CLOEXEC;
    nix::fcntl::open("/proc", flags, Mode::empty())
        .map_err(|error| StepError::new("landlock: open", Some(Path::new("/proc")), &error.into()))
}

fn group_error(error: GroupError) -> StepError {
    StepError::new(format!("cgroup: {}", error.operation), Some(&error.path), &error.source)
}

fn step<T>(name: &str, result: nix::Result<T>) -> Result<T, StepError> {
    result.map_err(|error| StepError::new(name, None, &error.into()))
}

fn step_io<T>(name: &str, result: io::Result<T>) -> Result<T, StepError> {
    result.map_err(|error| StepError::new(name, None, &error))
}

/// The program of a start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Program {
    /// A file, absolute.
    Path(PathBuf),
    /// The `toka` binary that runs now.
    Itself,
}
