//! Who is connected: guests become the daemon, one at a time, and daemons go.

use std::os::fd::OwnedFd;

use super::calls::descends_from_us;
use super::listener::Guest;
use super::peer::{Caller, Heard, Peer, Role};
use super::{PEER, Server, Stage};
use crate::protocol::{Attach, Body};

/// Connections that have not attached; one more, and the oldest is closed.
const MAX_GUESTS: usize = 8;

impl Server {
    /// Goes on with the daemon that started the keeper, which is attached from the beginning.
    pub(super) fn begin_with(&mut self, creator: Peer) -> nix::Result<()> {
        let number = self.welcome(creator)?;
        self.daemon = Some(number);
        Ok(())
    }

    fn welcome(&mut self, peer: Peer) -> nix::Result<u64> {
        let number = self.next_peer;
        peer.watch(&self.epoll, PEER | number)?;
        self.next_peer += 1;
        self.peers.insert(number, peer);
        self.flush(number);
        Ok(number)
    }

    pub(super) fn on_guests(&mut self) {
        while let Some(guest) = self.listener.as_mut().and_then(super::Listener::accept) {
            match self.refusal(&guest) {
                None => {
                    let mut peer = Peer::new(Role::Guest, guest.pid, guest.socket);
                    peer.greet();
                    let _ = self.welcome(peer);
                }
                Some(reason) => {
                    let mut peer = Peer::new(Role::Leaving, guest.pid, guest.socket);
                    peer.say(None, Body::Failed { reason }, Vec::new());
                    let _ = peer.flush(&self.epoll, PEER);
                }
            }
        }
        let guests =
            self.peers.iter().filter(|(_, peer)| peer.role == Role::Guest).map(|(number, _)| *number);
        let guests: Vec<u64> = guests.collect();
        for number in guests.iter().take(guests.len().saturating_sub(MAX_GUESTS)) {
            self.drop_peer(*number);
        }
    }

    /// Why somebody may not even ask: another user, or an agent.
    fn refusal(&self, guest: &Guest) -> Option<String> {
        if guest.uid != nix::unistd::geteuid().as_raw() {
            return Some(format!("the keeper is not of user {}", guest.uid));
        }
        let groups = crate::process::text(guest.pid, "cgroup");
        // A process that an agent has left behind is the keeper's child, and no agent's descendant any more.
        let is_stranger = groups.is_some_and(|groups| self.preparer.cgroups().owner(&groups).is_none())
            && !descends_from_us(guest.pid);
        (!is_stranger).then(|| "agents have no business with their keeper".to_owned())
    }

    pub(super) fn on_peer(&mut self, number: u64) {
        self.flush(number);
        while let Some(peer) = self.peers.get_mut(&number) {
            let is_heard = peer.role != Role::Leaving;
            match peer.hear() {
                Heard::Call(call, descriptors) if is_heard => self.on_call(number, call, descriptors),
                Heard::Strange { call, reason } if is_heard => {
                    let reason = format!("not understood: {reason}");
                    self.say(number, call, Body::Failed { reason }, Vec::new());
                }
                Heard::Call(..) | Heard::Strange { .. } => {}
                Heard::Silence => return,
                Heard::End => return self.drop_peer(number),
            }
        }
    }

    /// A guest asks to be the daemon.
    pub(super) fn attach(&mut self, caller: Caller, attach: Attach) {
        if self.daemon == Some(caller.peer) {
            return self.answer(caller, Body::Done, Vec::new());
        }
        if let Some(daemon) = self.daemon {
            // What it had asked for before it died is done first, and shows that it is dead.
            self.on_peer(daemon);
        }
        match (self.daemon.and_then(|daemon| self.peers.get(&daemon)), attach) {
            (Some(peer), Attach::IfFree) => {
                let pid = peer.pid;
                return self.answer(caller, Body::Occupied { pid }, Vec::new());
            }
            (Some(_), Attach::Replace) => self.replace(),
            (None, _) => {}
        }
        let Some(peer) = self.peers.get_mut(&caller.peer) else { return };
        peer.role = Role::Daemon;
        self.daemon = Some(caller.peer);
        self.answer(caller, Body::Done, Vec::new());
        self.catch_up();
    }

    /// Tells the daemon that it is none any more.
    fn replace(&mut self) {
        let Some(number) = self.daemon.take() else { return };
        if let Some(peer) = self.peers.get_mut(&number) {
            peer.role = Role::Leaving;
        }
        self.say(number, None, Body::Replaced, Vec::new());
    }

    /// Tells a new daemon all ends that no other has settled.
    fn catch_up(&mut self) {
        let exited = self
            .children
            .iter()
            .filter_map(|(id, child)| child.told_status().map(|status| Body::Exited { id: *id, status }));
        let over = self.past.values().flat_map(super::Over::news);
        let news: Vec<Body> = exited.chain(over).collect();
        for body in news {
            self.tell(body);
        }
    }

    /// Answers whoever asked, if it is still there.
    pub(super) fn answer(&mut self, caller: Caller, body: Body, descriptors: Vec<OwnedFd>) {
        self.say(caller.peer, Some(caller.call), body, descriptors);
    }

    /// Tells the daemon some news, if there is one.
    pub(super) fn tell(&mut self, body: Body) {
        if let Some(daemon) = self.daemon {
            self.say(daemon, None, body, Vec::new());
        }
    }

    /// Sends, or queues while the other side does not keep up.
    fn say(&mut self, number: u64, call: Option<u64>, body: Body, descriptors: Vec<OwnedFd>) {
        if let Some(peer) = self.peers.get_mut(&number) {
            peer.say(call, body, descriptors);
            self.flush(number);
        }
    }

    fn flush(&mut self, number: u64) {
        let Some(peer) = self.peers.get_mut(&number) else { return };
        let is_gone = peer.flush(&self.epoll, PEER | number).is_err();
        // That it cannot be told anything does not mean that it has said everything: its end is read like its words.
        if peer.role == Role::Leaving && (is_gone || peer.is_flushed()) {
            self.drop_peer(number);
        }
    }

    fn drop_peer(&mut self, number: u64) {
        let Some(peer) = self.peers.remove(&number) else { return };
        let socket = peer.leave(&self.epoll);
        if self.daemon != Some(number) {
            return;
        }
        self.daemon = None;
        if !self.outlives() {
            self.begin_end();
        }
        if self.stage == Stage::Ending {
            self.parked.push(socket);
        }
    }
}
