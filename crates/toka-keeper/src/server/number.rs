//! Which process an agent means by a number of its own process namespace (pid_namespaces(7)).
//!
//! Those who live in such a namespace know each other by its numbers, and so name their processes to us. The kernel tells
//! of each process all its numbers and the namespace that the innermost one belongs to; that is compared, so that neither
//! a process of another namespace with the same number is taken for it, nor the host's process of that number.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The number on the host of the process that is called `number` in the namespace of the process `first`: the only one of
/// `members`, which are numbers on the host. `None` when there is none, or when it cannot be told. `proc` is where procfs
/// is mounted.
pub(super) fn on_host(
    proc: &Path,
    members: impl IntoIterator<Item = i32>,
    first: i32,
    number: i32,
) -> Option<i32> {
    let namespace = namespace_of(proc, first)?;
    let is_meant = |pid: &i32| {
        innermost_number(proc, *pid) == Some(number) && namespace_of(proc, *pid).as_ref() == Some(&namespace)
    };
    // The kernel may list one twice that was moved while it wrote the list.
    let members: BTreeSet<i32> = members.into_iter().collect();
    let mut meant = members.into_iter().filter(is_meant);
    match (meant.next(), meant.next()) {
        (Some(pid), None) => Some(pid),
        _ => None,
    }
}

/// All that descend from `first`, from the kernel's lists of children (proc_tid_children(5)): for where there are no groups.
pub(super) fn descendants(proc: &Path, first: i32) -> BTreeSet<i32> {
    let (mut found, mut open) = (BTreeSet::new(), vec![first]);
    while let Some(pid) = open.pop() {
        let Ok(threads) = fs::read_dir(proc.join(pid.to_string()).join("task")) else { continue };
        for thread in threads.flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            let new = children.split_whitespace().filter_map(|pid| pid.parse().ok());
            open.extend(new.filter(|pid| found.insert(*pid)));
        }
    }
    found
}

fn namespace_of(proc: &Path, pid: i32) -> Option<PathBuf> {
    fs::read_link(proc.join(pid.to_string()).join("ns/pid")).ok()
}

/// Its number in the namespace that it lives in: the last of the line `NSpid:` (proc_pid_status(5)).
fn innermost_number(proc: &Path, pid: i32) -> Option<i32> {
    let status = fs::read_to_string(proc.join(pid.to_string()).join("status")).ok()?;
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    numbers.split_whitespace().next_back()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A folder that looks like procfs, with these processes: number, line of numbers, namespace.
    fn proc(processes: &[(i32, &str, &str)]) -> tempfile::TempDir {
        let proc = tempfile::tempdir().expect("a temporary folder");
        for (pid, numbers, namespace) in processes {
            let folder = proc.path().join(pid.to_string());
            fs::create_dir_all(folder.join("ns")).expect("a folder");
            // A process may call itself what it likes.
            let status = format!("Name:\tNSpid: 1\nPid:\t{pid}\nNSpid:\t{numbers}\nNSpgid:\t9\t9\n");
            fs::write(folder.join("status"), status).expect("a file");
            symlink(namespace, folder.join("ns/pid")).expect("a link");
        }
        proc
    }

    #[test]
    fn descendants_are_found_through_every_thread() {
        let proc = tempfile::tempdir().expect("a temporary folder");
        for (pid, thread, children) in
            [(100, 100, "101 "), (100, 105, "102 "), (101, 101, ""), (102, 102, "103 "), (9, 9, "10 ")]
        {
            let task = proc.path().join(format!("{pid}/task/{thread}"));
            fs::create_dir_all(&task).expect("a folder");
            fs::write(task.join("children"), children).expect("a file");
        }
        assert_eq!(descendants(proc.path(), FIRST), BTreeSet::from([101, 102, 103]));
    }

    const FIRST: i32 = 100;

    fn found(processes: &[(i32, &str, &str)], number: i32) -> Option<i32> {
        let proc = proc(processes);
        on_host(proc.path(), processes.iter().map(|(pid, ..)| *pid), FIRST, number)
    }

    #[test]
    fn a_number_means_the_process_of_the_same_namespace() {
        let processes = [
            (FIRST, "100\t1", "pid:[7]"),
            (101, "101\t2", "pid:[7]"),
            // Of a namespace beside it, of the host, of a namespace within it.
            (102, "102\t5", "pid:[8]"),
            (5, "5", "pid:[1]"),
            (103, "103\t6\t5", "pid:[9]"),
            (104, "104\t5", "pid:[7]"),
        ];
        assert_eq!(found(&processes, 5), Some(104));
        assert_eq!(found(&processes[..5], 5), None, "namesakes elsewhere are strangers");
        assert_eq!(found(&processes, 104), None, "the host's number means nothing there");
        assert_eq!(found(&processes, 6), None, "nor does one of an outer namespace");
        assert_eq!(found(&processes[1..], 5), None, "without the first process nothing is known");
    }

    #[test]
    fn a_number_that_matches_two_means_neither() {
        let processes =
            [(FIRST, "100\t1", "pid:[7]"), (101, "101\t5", "pid:[7]"), (102, "102\t5", "pid:[7]")];
        assert_eq!(found(&processes, 5), None);
    }

    #[test]
    fn who_is_no_member_is_not_looked_at() {
        let proc = proc(&[(FIRST, "100\t1", "pid:[7]"), (101, "101\t5", "pid:[7]")]);
        assert_eq!(on_host(proc.path(), [FIRST], FIRST, 5), None);
        assert_eq!(
            on_host(proc.path(), [FIRST, 101, 102, 101], FIRST, 5),
            Some(101),
            "who went is passed over"
        );
    }
}
