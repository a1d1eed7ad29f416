//! What the daemon asks for, and the answers.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::sys::epoll::{EpollEvent, EpollFlags};
use toka_core::SandboxMode;
use toka_sandbox::Birth;
use toka_sandbox::namespace::{self, Family};
use toka_sandbox::renewal::exposed_binds;

use super::child::{Child, Phase, with_source};
use super::peer::{Caller, Role};
use super::pipes::Readers;
use super::{Listener, Over, Server, Stage, WATCH};
use crate::process::{parent_of, session_of, text};
use crate::protocol::{Body, Call, Entry, Launch, ProcessId, Request};

/// As many processes as there can be on most machines (proc_sys_kernel(5), pid_max): no agent can put so many between itself and
/// its main process, and the walk ends although numbers are given anew meanwhile.
const MOST_ANCESTORS: usize = 4_194_304;

impl Server {
    pub(super) fn on_call(&mut self, peer: u64, Call { call, request }: Call, descriptors: Vec<OwnedFd>) {
        let caller = Caller { peer, call };
        let role = self.peers.get(&peer).map(|peer| peer.role);
        let body = match (role, request) {
            (_, Request::Attach { attach, .. }) => return self.attach(caller, attach),
            (Some(Role::Daemon), Request::Spawn(launch)) => {
                return self.spawn(caller, &launch, descriptors.into_iter().next());
            }
            (Some(Role::Daemon), Request::HandBack { id, from }) => return self.hand_back(caller, id, from),
            (Some(Role::Daemon), Request::Socket { id, family }) => {
                return match self.socket(id, family) {
                    Ok(socket) => self.answer(caller, Body::Done, vec![socket]),
                    Err(reason) => self.answer(caller, Body::Failed { reason }, Vec::new()),
                };
            }
            (Some(Role::Daemon), request) => self.act(request, descriptors),
            _ => failed("ask anything before attaching"),
        };
        self.answer(caller, body, Vec::new());
    }

    fn act(&mut self, request: Request, descriptors: Vec<OwnedFd>) -> Body {
        match request {
            Request::List => Body::List(self.list()),
            Request::Owner { pid } => Body::Owner(self.owner(pid)),
            Request::SetMain { id, pid } => self.set_main(id, pid),
            Request::Hold { id, name } => self.with_held(id, |held| held.replace(&name, descriptors)),
            Request::Release { id, name } => self.with_held(id, |held| held.release(&name)),
            Request::Signal { id, signal } => self.with(id, |child| child.signal(signal)),
            Request::Kill { id } => self.with(id, |child| child.kill()),
            Request::Freeze { id } => self.with(id, Child::freeze),
            Request::Thaw { id } => self.with(id, Child::thaw),
            Request::Limit { id, limits } => self.with(id, |child| child.limit(&limits)),
            Request::MakeLeaf { id, leaf, pid } => self.make_leaf(id, &leaf, pid),
            Request::RemoveLeaf { id, leaf } => {
                let left = self.children.get(&id).and_then(|child| child.left_in(&leaf));
                if let Some(text) = left {
                    self.tell(Body::Notice { id, text });
                }
                let removed = self.with(id, |child| {
                    let usage = child.group.remove_leaf(&leaf).map_err(|e| with_source(&e))?;
                    child.remember_leaf(&usage);
                    Ok(Body::Usage(usage))
                });
                self.look_for_kills(Instant::now());
                removed
            }
            Request::Resources { id } => {
                self.with(id, |child| Ok(Body::Resources(child.group.resources(Path::new("/proc")))))
            }
            Request::Usage { id } => self.with(id, |child| Ok(Body::Usage(child.usage_now()))),
            Request::Listen { socket } => self.listen(&PathBuf::from(socket)),
            Request::Adopt { orphans } => self.adopt(orphans),
            Request::Settled { id } => self.settled(id),
            Request::End => {
                self.begin_end();
                Body::Done
            }
            Request::Spawn(_)
            | Request::HandBack { .. }
            | Request::Socket { .. }
            | Request::Attach { .. } => failed("answer at once"),
        }
    }

    /// A socket in the network of the agent's main process.
    fn socket(&self, id: ProcessId, family: Family) -> Result<OwnedFd, String> {
        let child = self.children.get(&id).filter(|child| child.is_running());
        let pid = child.and_then(Child::inside).ok_or("it has no process")?;
        namespace::tcp_socket_within(pid, family).map_err(|error| error.to_string())
    }

    fn listen(&mut self, path: &Path) -> Body {
        if self.listener.is_some() {
            return failed("listen twice");
        }
        let listener = match Listener::bind(path) {
            Ok(listener) => listener,
            Err(error) => {
                return Body::Failed { reason: format!("cannot listen at {}: {error}", path.display()) };
            }
        };
        if let Err(error) = self.epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, super::GUESTS)) {
            return Body::Failed { reason: format!("cannot listen at {}: {error}", path.display()) };
        }
        self.listener = Some(listener);
        Body::Done
    }

    /// The end of a process is on record.
    fn settled(&mut self, id: ProcessId) -> Body {
        if self.children.contains_key(&id) {
            return failed("settle a process that is not over");
        }
        // Once is as good as twice.
        self.past.remove(&id);
        Body::Done
    }

    fn with_held(&mut self, id: Option<ProcessId>, act: impl FnOnce(&mut super::Held)) -> Body {
        let held = match id {
            None => Some(&mut self.held),
            Some(id) => match self.children.get_mut(&id) {
                Some(child) => Some(&mut child.held),
                None => self.past.get_mut(&id).map(|over| &mut over.held),
            },
        };
        match held {
            Some(held) => {
                act(held);
                Body::Done
            }
            None => failed("find the process"),
        }
    }

    /// Moves the process that the agent calls `number` into a leaf, if the kernel says that it is the agent's.
    fn make_leaf(&self, id: ProcessId, leaf: &str, number: i32) -> Body {
        let Some(child) = self.children.get(&id) else { return failed("find the process") };
        if !child.group.can_kill() {
            // There is nothing to move it into, and nothing that would tell whose it is.
            return Body::Done;
        }
        match child.on_host(number).filter(|pid| self.owner(*pid) == Some(id)) {
            Some(pid) => {
                done(child.group.make_leaf(leaf, pid)).unwrap_or_else(|reason| Body::Failed { reason })
            }
            None => Body::Stranger,
        }
    }

    fn with(&mut self, id: ProcessId, act: impl FnOnce(&mut Child) -> Result<Body, String>) -> Body {
        match self.children.get_mut(&id) {
            Some(child) => act(child).unwrap_or_else(|reason| Body::Failed { reason }),
            None => failed("find the process"),
        }
    }

    /// Starts a process, which reads `input`, if there is any.
    fn spawn(&mut self, caller: Caller, launch: &Launch, input: Option<OwnedFd>) {
        let id = launch.id;
        if let Some(obstacle) = self.obstacle_to(id) {
            return self.answer(caller, failed(obstacle), Vec::new());
        }
        self.past.remove(&id);
        if let Some(obstacle) = launch.beside.and_then(|host| self.obstacle_beside(host)) {
            return self.answer(caller, failed(obstacle), Vec::new());
        }
        let is_confined = launch.plan.mode == SandboxMode::On;
        let exposed = if is_confined { exposed_binds(&launch.plan.binds) } else { Vec::new() };
        let protection = self.watch_names(exposed);
        let host = launch.beside.and_then(|host| self.children.get(&host));
        if let Some(input) = &input {
            super::child::terminal::give_input(input, launch);
        }
        let input = input.as_ref().unwrap_or(&self.null);
        let readers = if self.outlives() { Readers::AreSucceeded } else { Readers::MayGo };
        match Child::start(&self.preparer, input, caller, launch, host, readers) {
            Ok(mut child) => {
                let birth = child.birth;
                child.protection = protection;
                self.mains.insert(child.pid, id);
                self.children.insert(id, child);
                self.watch_memory_of(id);
                match birth {
                    // It has executed its program, or has failed to: we stood still meanwhile.
                    Birth::Sharing => self.on_report(id),
                    Birth::Copied | Birth::InNamespaces => self.await_report(id),
                }
            }
            Err(error) => {
                self.release_names(&protection);
                self.remember(Over::unprepared(launch, error.clone()));
                self.answer(caller, Body::NotPrepared(error), Vec::new());
            }
        }
    }

    /// Why a process must not be started under a number. A start that failed gives its number free.
    fn obstacle_to(&self, id: ProcessId) -> Option<&'static str> {
        if self.stage == Stage::Ending {
            Some("start anything while ending")
        } else if id.0 >= WATCH {
            Some("take a number as large as this")
        } else if self.children.contains_key(&id) {
            Some("reuse the number of a process that still runs")
        } else if self.past.get(&id).is_some_and(Over::was_started) {
            Some("reuse the number of a process whose end is not settled")
        } else {
            None
        }
    }

    /// Why nothing must be started beside a process.
    fn obstacle_beside(&self, host: ProcessId) -> Option<&'static str> {
        match self.children.get(&host).filter(|host| host.is_running()) {
            Some(host) if host.is_frozen() || host.group.is_frozen() => {
                Some("start beside a process that is frozen")
            }
            Some(_) => None,
            None => Some("find the process to start beside"),
        }
    }

    fn await_report(&mut self, id: ProcessId) {
        let Some(Child { phase: Phase::Starting { report, .. }, .. }) = self.children.get(&id) else {
            return;
        };
        if self.epoll.add(report, EpollEvent::new(EpollFlags::EPOLLIN, id.0)).is_err() {
            // Nothing would tell of it: the keeper waits for this one.
            self.on_report(id);
        }
    }

    fn hand_back(&mut self, caller: Caller, id: Option<ProcessId>, from: usize) {
        let page = match id {
            None => Some(self.held.page(None, from)),
            Some(id) => match (self.children.get(&id), self.past.get(&id)) {
                (Some(child), _) => Some(child.held.page(child.pipes.as_ref(), from)),
                (None, over) => over.map(|over| over.held.page(over.pipes.as_ref(), from)),
            },
        };
        match page {
            Some(Ok((body, descriptors))) => self.answer(caller, body, descriptors),
            Some(Err(error)) => {
                let reason = format!("cannot duplicate descriptors: {error}");
                self.answer(caller, Body::Failed { reason }, Vec::new());
            }
            None => self.answer(caller, failed("find the process"), Vec::new()),
        }
    }

    fn list(&mut self) -> Vec<Entry> {
        let children = self.children.iter_mut().map(|(id, child)| child.entry(*id));
        let over = self.past.values().map(|over| over.entry());
        children.chain(over).collect()
    }

    /// Whose group the kernel says that a process is in. Without groups, whose main process it is or descends from.
    pub(super) fn owner(&self, pid: i32) -> Option<ProcessId> {
        let text = text(pid, "cgroup")?;
        let by_group = self.preparer.cgroups().owner(&text).and_then(|(project, agent)| {
            self.children.iter().find(|(_, child)| {
                child.beside.is_none() && child.project == project && child.agent.as_str() == agent
            })
        });
        by_group
            .map(|(id, _)| *id)
            .or_else(|| self.owner_by_ancestry(pid))
            .or_else(|| self.owner_by_session(pid))
    }

    /// Whose session a process is in: an agent's main process begins one, which nobody else can join (setsid(2)). So what it has left
    /// behind is its own where there are no groups, unless that has begun a session of its own.
    fn owner_by_session(&self, pid: i32) -> Option<ProcessId> {
        let session = session_of(pid)?;
        let (id, child) = self.children.iter().find(|(_, child)| child.pid == session)?;
        child.beside.or(Some(*id))
    }

    pub(super) fn owner_by_ancestry(&self, mut pid: i32) -> Option<ProcessId> {
        for _ in 0..MOST_ANCESTORS {
            if let Some((id, child)) = self.children.iter().find(|(_, child)| child.pid == pid) {
                // What runs beside an agent speaks for it.
                return child.beside.or(Some(*id));
            }
            pid = parent_of(pid).filter(|parent| *parent > 1)?;
        }
        None
    }
}

/// Whether a process descends from the keeper: agents do, and what they leave behind; no daemon does.
pub(super) fn descends_from_us(mut pid: i32) -> bool {
    let own = i32::try_from(std::process::id()).ok();
    for _ in 0..MOST_ANCESTORS {
        match parent_of(pid) {
            Some(parent) if Some(parent) == own => return true,
            Some(parent) if parent > 1 => pid = parent,
            _ => return false,
        }
    }
    // A process with so many ancestors has made them itself, to hide the keeper among them.
    true
}

pub(super) fn failed(what: &str) -> Body {
    Body::Failed { reason: format!("cannot {what}") }
}

fn done<E: std::error::Error>(result: Result<(), E>) -> Result<Body, String> {
    result.map(|()| Body::Done).map_err(|error| with_source(&error))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Where there are no groups, what an agent leaves behind is known by nothing else: it is the keeper's own child then.
    #[test]
    fn who_descends_from_the_keeper_is_no_daemon() {
        let mut shell = Command::new("sh");
        shell.args(["-c", "sleep 1000 & echo $!; wait"]).stdout(std::process::Stdio::piped());
        let mut child = shell.spawn().expect("a shell");
        let mut line = String::new();
        let output = child.stdout.take().expect("a pipe");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line).expect("a line");
        let grandchild: i32 = line.trim().parse().expect("a number");
        let own = i32::try_from(child.id()).expect("a number");
        assert!(descends_from_us(own) && descends_from_us(grandchild));
        let parent = nix::unistd::getppid().as_raw();
        assert!(!descends_from_us(parent) && !descends_from_us(1));
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(grandchild), nix::sys::signal::Signal::SIGKILL)
            .expect("ours");
        child.wait().expect("ours");
    }
}
