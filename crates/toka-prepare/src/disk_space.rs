//! Whether there is room for what a run writes before and while its first agents start. Later a full disk disturbs no
//! agent; but when there is no room for a log in the beginning, no agent would start, and that is to be said as what it
//! is: the state folder cannot be written.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::statvfs::{Statvfs, statvfs};
use nix::unistd::geteuid;

use crate::FolderError;

/// Files that a run makes in a folder, for each of its agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    /// How many; each takes an inode.
    files: u64,
    /// How many of them begin with text, which takes a block.
    blocks: u64,
    /// Blocks that the run itself takes, however many agents it has.
    once: u64,
}

/// Folders and files that what is mounted below an agent's `/tmp` needs as its places there, as a rule at most. Counted for
/// one agent: with most of them there are none, and a refusal without need would be worse than a late one.
const PLACES: u64 = 16;
/// What an agent writes into the state folder: `log` and `log.index`, whose first bytes are written at once. The journal
/// is there already, but not yet its first events, of which each transaction takes some blocks.
const OF_STATE: Wanted = Wanted { files: 2, blocks: 1, once: 16 };
/// What an agent has in the run folder: its two sockets.
const OF_RUN: Wanted = Wanted { files: 2, blocks: 0, once: 1 };

/// Fails when there is no room in the two folders for what `agents` agents want there, and a little for the run itself.
///
/// # Errors
/// When a disk is full.
pub fn find(state: &Path, run: &Path, agents: usize) -> Result<(), FolderError> {
    if is_same_disk(state, run) {
        let both = Wanted {
            files: OF_STATE.files + OF_RUN.files,
            blocks: OF_STATE.blocks + OF_RUN.blocks,
            once: OF_STATE.once + OF_RUN.once,
        };
        return find_in(state, both, agents);
    }
    find_in(state, OF_STATE, agents)?;
    find_in(run, OF_RUN, agents)
}

/// Whether one more agent could start in `folder`, and what is left of its disk, in bytes.
///
/// # Errors
/// When there is no room.
pub fn look(folder: &Path) -> Result<Option<u64>, FolderError> {
    find_in(folder, OF_STATE, 1)?;
    // As df(1) counts: the reserve of root is not for agents.
    let disk = statvfs(folder).ok().filter(|disk| disk.blocks() > 0);
    Ok(disk.map(|disk| disk.blocks_available().saturating_mul(disk.fragment_size())))
}

fn is_same_disk(one: &Path, other: &Path) -> bool {
    let disk = |path: &Path| path.metadata().map(|metadata| metadata.dev()).ok();
    disk(one) == disk(other)
}

fn find_in(folder: &Path, wanted: Wanted, agents: usize) -> Result<(), FolderError> {
    // A file system that cannot say is given the benefit of the doubt.
    let Ok(disk) = statvfs(folder) else { return Ok(()) };
    let agents = u64::try_from(agents).unwrap_or(u64::MAX);
    if has_room(Free::of(&disk), wanted, agents) {
        return Ok(());
    }
    let source = io::Error::from(Errno::ENOSPC);
    Err(FolderError { what: "write to", path: folder.to_owned(), source })
}

/// What is left of a disk; `None` where it has no bound.
#[derive(Debug, Clone, Copy)]
struct Free {
    blocks: Option<u64>,
    files: Option<u64>,
}

impl Free {
    /// A disk without any blocks or inodes does not count them, as btrfs and an unbounded tmpfs (statvfs(3)).
    fn of(disk: &Statvfs) -> Self {
        let root = geteuid().is_root();
        let blocks = if root { disk.blocks_free() } else { disk.blocks_available() };
        let files = if root { disk.files_free() } else { disk.files_available() };
        Self { blocks: (disk.blocks() > 0).then_some(blocks), files: (disk.files() > 0).then_some(files) }
    }
}

fn has_room(free: Free, wanted: Wanted, agents: u64) -> bool {
    let enough = |free: Option<u64>, needed: u64| free.is_none_or(|free| free >= needed);
    enough(free.blocks, wanted.blocks.saturating_mul(agents).saturating_add(wanted.once))
        && enough(free.files, wanted.files.saturating_mul(agents).saturating_add(PLACES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_counted_in_blocks_and_files() {
        for (blocks, files, agents, expected) in [
            (Some(17), Some(18), 1, true),
            (Some(16), Some(18), 1, false),
            (Some(17), Some(17), 1, false),
            (Some(1000), Some(35), 10, false),
            (None, None, u64::MAX, true),
        ] {
            let free = Free { blocks, files };
            assert_eq!(has_room(free, OF_STATE, agents), expected, "{free:?} for {agents}");
        }
    }

    #[test]
    fn there_is_room_for_a_test() {
        find(&std::env::temp_dir(), &std::env::temp_dir(), 1).expect("room");
    }
}
