//! Hearing of kills for memory while the group lives on: one descriptor that wakes up, whatever the number of groups.
//!
//! Version 1: an eventfd that is registered with each group (`cgroup.event_control`, section 10 of the kernel's
//! admin-guide/cgroup-v1/memory.rst); the kernel also signals it when a group is removed. Version 2: `memory.events` is
//! modified (admin-guide/cgroup-v2.rst), which inotify(7) tells, for other pressure on the limit too. So a wake says only
//! that it is worth looking at [`Group::oom_kills`], and the kernel may count the kill a moment after it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::{Group, Kind, files};

/// Wakes up when a process of a watched group may have been killed for memory.
#[derive(Debug)]
pub struct OomWatch(Way);

#[derive(Debug)]
enum Way {
    Registered(EventFd),
    Modified(Inotify),
}

impl OomWatch {
    /// A watch of no group yet, for a layout; `None` where memory is not counted per group.
    ///
    /// # Errors
    /// When the process has no descriptor left, or the user no inotify instance.
    pub fn new(kind: Kind) -> io::Result<Option<Self>> {
        Ok(Some(Self(match kind {
            Kind::Unified => Way::Modified(Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?),
            Kind::Hybrid | Kind::Legacy => {
                Way::Registered(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?)
            }
            Kind::None => return Ok(None),
        })))
    }

    /// Watches a group until it is removed. One whose memory is not counted is not watched.
    ///
    /// # Errors
    /// When the kernel does not let us.
    pub fn add(&self, group: &Group) -> io::Result<()> {
        let Some(folder) = group.memory_folder() else { return Ok(()) };
        match &self.0 {
            Way::Modified(inotify) => {
                inotify.add_watch(&folder.join("memory.events"), AddWatchFlags::IN_MODIFY)?;
                Ok(())
            }
            Way::Registered(event) => {
                let control = File::open(folder.join("memory.oom_control"))?;
                let line = format!("{} {}", event.as_fd().as_raw_fd(), control.as_raw_fd());
                files::write(&folder.join("cgroup.event_control"), &line)
            }
        }
    }

    /// Takes what has woken us, so that the next news wakes us again.
    pub fn clear(&self) {
        match &self.0 {
            Way::Registered(event) => drop(event.read()),
            Way::Modified(inotify) => while inotify.read_events().is_ok_and(|events| !events.is_empty()) {},
        }
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Way::Registered(event) => event.as_fd(),
            Way::Modified(inotify) => inotify.as_fd(),
        }
    }
}
