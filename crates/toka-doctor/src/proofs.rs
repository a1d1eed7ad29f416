//! What a probe tries, one row each, and what is said about it. Some that must work stand beside those that must not: a wall
//! around everything would pass every denial.

use toka_core::Layer::{self, Landlock, Mounts, Network, Process, Seccomp};
use toka_core::{Coverage, Enforcement};

use super::attempt::Attempt;
use super::check::{Check, Section, Verdict, Weight};
use super::judge::{Control, permission, promised, violation};
use super::probe::{Act, Answer};
use super::target_dir::Place;
use super::test_bed::{SetupError, TestBed};

/// One attempt.
struct Proof {
    id: &'static str,
    section: Section,
    /// The walls in its way; empty for what must work.
    walls: &'static [Layer],
    title: &'static str,
    /// What it costs when it gets through, or does not work.
    means: &'static str,
    attempt: fn(&Place) -> Attempt,
}

/// What to do about a hole.
pub(super) const HOLE: &str =
    "run nothing here that you do not trust, and report it with the output of toka doctor --json";

const FILE_WALLS: &[Layer] = &[Mounts, Landlock];
const READS: &str = "agents can read files that they were not given";
const CHANGES: &str = "agents can change files that they were not given";
const TALKS: &str = "agents can talk to programs outside";
const MEDDLES: &str = "agents can meddle with other programs of the same user";
const SURFACE: &str = "agents reach parts of the kernel that have had holes";

const PROOFS: &[Proof] = &[
    Proof {
        id: "works.home",
        section: Section::Works,
        walls: &[],
        title: "write to its own home",
        means: "agents cannot keep anything",
        attempt: |place| Attempt::Create(place.own.join("made")),
    },
    Proof {
        id: "works.secret",
        section: Section::Works,
        walls: &[],
        title: "read its own secret",
        means: "agents do not get their secrets",
        attempt: |place| Attempt::Read(place.own_secret.clone()),
    },
    Proof {
        id: "works.proc",
        section: Section::Works,
        walls: &[],
        title: "read its own /proc entry",
        means: "many runtimes do not start without",
        attempt: |_| Attempt::Read("/proc/self/maps".into()),
    },
    Proof {
        id: "files.read",
        section: Section::Files,
        walls: FILE_WALLS,
        title: "read a file outside",
        means: READS,
        attempt: |place| Attempt::Read(place.file()),
    },
    Proof {
        id: "files.list",
        section: Section::Files,
        walls: FILE_WALLS,
        title: "list a folder outside",
        means: READS,
        attempt: |place| Attempt::List(place.outside.clone()),
    },
    Proof {
        id: "files.secret",
        section: Section::Files,
        walls: FILE_WALLS,
        title: "read the secret of another agent",
        means: "agents can read each other's secrets",
        attempt: |place| Attempt::Read(place.other_secret.clone()),
    },
    Proof {
        id: "files.write",
        section: Section::Files,
        walls: FILE_WALLS,
        title: "write to a file outside",
        means: CHANGES,
        attempt: |place| Attempt::Write(place.file()),
    },
    Proof {
        id: "files.create",
        section: Section::Files,
        walls: FILE_WALLS,
        title: "make a file outside",
        means: CHANGES,
        attempt: |place| Attempt::Create(place.outside.join("planted")),
    },
    Proof {
        id: "files.remove",
        section: Section::Files,
        walls: FILE_WALLS,
        title: "remove a file outside",
        means: CHANGES,
        attempt: |place| Attempt::Remove(place.spare_file()),
    },
    Proof {
        id: "files.execute",
        section: Section::Files,
        walls: &[Landlock],
        title: "execute a file that it may only read",
        means: "agents can execute whatever they can read",
        attempt: |place| Attempt::Execute(place.program.clone()),
    },
    // Landlock has no rules on these three.
    Proof {
        id: "files.mode",
        section: Section::Files,
        walls: &[Mounts],
        title: "change the rights of a file outside",
        means: CHANGES,
        attempt: |place| Attempt::Chmod(place.file()),
    },
    Proof {
        id: "files.times",
        section: Section::Files,
        walls: &[Mounts],
        title: "change the time of a file outside",
        means: CHANGES,
        attempt: |place| Attempt::Times(place.file()),
    },
    Proof {
        id: "files.attributes",
        section: Section::Files,
        walls: &[Mounts],
        title: "set an attribute of a file outside",
        means: CHANGES,
        attempt: |place| Attempt::Attribute(place.file()),
    },
    Proof {
        id: "network.tcp",
        section: Section::Network,
        walls: &[Network],
        title: "connect to a TCP port of this host",
        means: TALKS,
        attempt: |place| Attempt::Tcp(place.tcp),
    },
    Proof {
        id: "network.udp",
        section: Section::Network,
        walls: &[Network],
        title: "send to a UDP port of this host",
        means: TALKS,
        attempt: |place| Attempt::Udp(place.udp),
    },
    Proof {
        id: "network.socket",
        section: Section::Network,
        walls: &[Mounts],
        title: "connect to a Unix socket outside",
        means: TALKS,
        attempt: |place| Attempt::Unix(place.socket.clone()),
    },
    Proof {
        id: "network.abstract",
        section: Section::Network,
        walls: &[Landlock],
        title: "connect to an abstract Unix socket",
        means: TALKS,
        attempt: |place| Attempt::Abstract(place.abstract_name.clone()),
    },
    Proof {
        id: "processes.see",
        section: Section::Processes,
        walls: &[Mounts],
        title: "see a process outside",
        means: "agents can see which programs run, with their arguments",
        attempt: |place| Attempt::See(place.victim),
    },
    Proof {
        id: "processes.signal",
        section: Section::Processes,
        walls: &[Landlock],
        title: "signal a process outside",
        means: MEDDLES,
        attempt: |place| Attempt::Signal(place.victim),
    },
    Proof {
        id: "processes.trace",
        section: Section::Processes,
        walls: &[Seccomp],
        title: "trace a process outside",
        means: MEDDLES,
        attempt: |place| Attempt::Trace(place.victim),
    },
    Proof {
        id: "processes.memory",
        section: Section::Processes,
        walls: FILE_WALLS,
        title: "open the memory of a process outside",
        means: MEDDLES,
        attempt: |place| Attempt::Memory(place.victim),
    },
    Proof {
        id: "kernel.mount",
        section: Section::Kernel,
        walls: &[Seccomp],
        title: "mount a file system",
        means: SURFACE,
        attempt: |place| Attempt::Mount(place.own.clone()),
    },
    Proof {
        id: "kernel.unshare",
        section: Section::Kernel,
        walls: &[Seccomp],
        title: "make a user namespace",
        means: SURFACE,
        attempt: |_| Attempt::Unshare,
    },
    Proof {
        id: "kernel.clone3",
        section: Section::Kernel,
        walls: &[Seccomp],
        title: "make one with clone3",
        means: SURFACE,
        attempt: |_| Attempt::Clone,
    },
    Proof {
        id: "kernel.setns",
        section: Section::Kernel,
        walls: &[Seccomp],
        title: "enter a namespace",
        means: SURFACE,
        attempt: |_| Attempt::Setns,
    },
    Proof {
        id: "kernel.bpf",
        section: Section::Kernel,
        walls: &[Seccomp],
        title: "make a BPF map",
        means: SURFACE,
        attempt: |_| Attempt::Bpf,
    },
    Proof {
        id: "kernel.keys",
        section: Section::Kernel,
        walls: &[Seccomp],
        title: "look for the session keyring",
        means: "agents can look for the keys of their user",
        attempt: |_| Attempt::Keyring,
    },
    Proof {
        id: "kernel.io_uring",
        section: Section::Kernel,
        walls: &[Seccomp],
        title: "make an io_uring",
        means: SURFACE,
        attempt: |_| Attempt::IoUring,
    },
    Proof {
        id: "kernel.perf",
        section: Section::Kernel,
        walls: &[Seccomp],
        title: "make a performance counter",
        means: SURFACE,
        attempt: |_| Attempt::PerfEvent,
    },
    Proof {
        id: "rights.gain",
        section: Section::Rights,
        walls: &[Process],
        title: "gain rights by a set-user-id program",
        means: "agents can become root with sudo and its like",
        attempt: |_| Attempt::Gain,
    },
    Proof {
        id: "rights.capabilities",
        section: Section::Rights,
        walls: &[Process],
        title: "hold capabilities",
        means: "agents of root can administer this host",
        attempt: |_| Attempt::Capabilities,
    },
    Proof {
        id: "rights.set_id",
        section: Section::Rights,
        walls: &[Seccomp],
        title: "make a set-user-id program",
        means: "an agent can leave a program behind that lends its user to others",
        attempt: |place| Attempt::SetId(place.own.join("program")),
    },
];

/// Tries everything, in the sandbox and without. The second part of the answer is what confined the probe.
pub(super) async fn attempt_all(test_bed: &mut TestBed) -> Result<(Vec<Check>, Enforcement), SetupError> {
    let attempts = |place: &Place| Act::Try(PROOFS.iter().map(|proof| (proof.attempt)(place)).collect());
    let controls = test_bed.unconfined(&attempts(&test_bed.without))?;
    let before = test_bed.state_outside();
    let finished = test_bed.run(test_bed.plan(|_| {})?, &attempts(&test_bed.inside)).await?;
    let untouched = untouched(&before, &test_bed.state_outside(), &finished.enforcement);
    let mut checks = judged(&finished.answers, &controls, &finished.enforcement);
    let after_files = checks.iter().rposition(|check| check.section == Section::Files).map_or(0, |at| at + 1);
    checks.insert(after_files, untouched);
    Ok((checks, finished.enforcement))
}

/// From the answers to verdicts. An answer that is missing is silence.
fn judged(inside: &[Answer], without: &[Answer], enforcement: &Enforcement) -> Vec<Check> {
    let at = |answers: &[Answer], at: usize| answers.get(at).cloned().unwrap_or(Answer::Silent);
    let judge = |(place, proof): (usize, &Proof)| {
        let answer = at(inside, place);
        let promised = promised(enforcement, proof.walls);
        let (verdict, found) = if proof.walls.is_empty() {
            permission(&answer)
        } else {
            violation(&answer, &Control::of(&at(without, place)), promised)
        };
        let check = told(proof.id, proof.section, proof.title, verdict, found, proof.means);
        match proof.walls.first() {
            Some(layer) => check.layer(*layer).fix(fix_of(verdict, *layer)),
            None => check.fix(fix_of(verdict, Process)),
        }
    };
    PROOFS.iter().enumerate().map(judge).collect()
}

/// A finding of a proof; what it means is said only where it is not well.
pub(super) fn told(
    id: &str,
    section: Section,
    title: &str,
    verdict: Verdict,
    found: String,
    means: &str,
) -> Check {
    let means = match verdict {
        Verdict::Ok => "",
        Verdict::Unprovable => "the refusal inside says nothing about the sandbox",
        _ => means,
    };
    Check::ok(id, section, title, found).but(verdict, means).weight(Weight::Full)
}

/// What mends a wall that does not hold.
pub(super) fn fix_of(verdict: Verdict, layer: Layer) -> String {
    match verdict {
        Verdict::Ok | Verdict::Unprovable => String::new(),
        Verdict::Failed => HOLE.to_owned(),
        Verdict::Weaker | Verdict::Missing => format!("see layer.{}", layer.as_str()),
    }
}

/// Whatever the probe says about itself, the files outside tell whether they were touched.
fn untouched(before: &[String], after: &[String], enforcement: &Enforcement) -> Check {
    let (verdict, found) = match (before == after, promised(enforcement, &[Mounts])) {
        _ if before.is_empty() => (Verdict::Unprovable, "cannot be read".to_owned()),
        (true, _) => (Verdict::Ok, "as they were".to_owned()),
        // Without mounts their rights and times are open, which the rows above say.
        (false, Coverage::Full) => (Verdict::Failed, "changed".to_owned()),
        (false, _) => (Verdict::Weaker, "changed".to_owned()),
    };
    told("files.untouched", Section::Files, "the files outside afterwards", verdict, found, CHANGES)
        .layer(Mounts)
        .fix(fix_of(verdict, Mounts))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn in_full() -> Enforcement {
        let mut enforcement = Enforcement::default();
        for layer in Layer::ALL {
            enforcement.set(layer, Coverage::Full, Vec::new());
        }
        enforcement
    }

    fn through() -> Answer {
        Answer::Through(String::new())
    }

    /// What a sandbox without a fault answers.
    fn faultless() -> Vec<Answer> {
        let answer = |proof: &Proof| {
            if proof.walls.is_empty() { through() } else { Answer::Refused("EPERM".into()) }
        };
        PROOFS.iter().map(answer).collect()
    }

    #[test]
    fn a_hole_is_found_wherever_it_is_and_nothing_else_is_called_one() {
        let controls = vec![through(); PROOFS.len()];
        let well = judged(&faultless(), &controls, &in_full());
        assert!(well.iter().all(|check| check.verdict == Verdict::Ok), "{well:#?}");
        for (at, proof) in PROOFS.iter().enumerate() {
            let mut answers = faultless();
            // The contrary of what should be.
            answers[at] = if proof.walls.is_empty() { Answer::Refused("EPERM".into()) } else { through() };
            let checks = judged(&answers, &controls, &in_full());
            let holes: Vec<&str> =
                checks.iter().filter(|check| check.is_hole()).map(|c| c.id.as_str()).collect();
            assert_eq!(holes, [proof.id]);
            let hole = checks.into_iter().find(|check| check.id == proof.id).expect("it is there");
            assert_eq!((hole.fix.as_str(), hole.means.as_str()), (HOLE, proof.means));
        }
    }

    #[test]
    fn a_probe_that_says_nothing_proves_nothing() {
        let checks = judged(&[], &[], &in_full());
        assert!(checks.iter().all(|check| check.verdict == Verdict::Failed), "{checks:#?}");
    }

    #[test]
    fn what_gets_through_where_no_wall_was_promised_is_missing_and_says_where_to_look() {
        let mut enforcement = in_full();
        enforcement.set(Mounts, Coverage::None, vec!["refused".into()]);
        let answers = vec![through(); PROOFS.len()];
        let checks = judged(&answers, &answers, &enforcement);
        let of = |id: &str| checks.iter().find(|check| check.id == id).expect("it is there");
        assert_eq!(
            (of("files.mode").verdict, of("files.mode").fix.as_str()),
            (Verdict::Missing, "see layer.mounts")
        );
        assert_eq!(of("files.read").verdict, Verdict::Failed, "Landlock was promised");
    }

    #[test]
    fn files_that_changed_are_a_hole_even_if_the_probe_says_otherwise() {
        let (before, after) = (["a".to_owned()], ["b".to_owned()]);
        assert_eq!(untouched(&before, &before, &in_full()).verdict, Verdict::Ok);
        assert!(untouched(&before, &after, &in_full()).is_hole());
        assert!(!untouched(&before, &after, &Enforcement::default()).is_hole());
    }

    #[test]
    fn every_proof_has_a_name_of_its_own() {
        let names: BTreeSet<&str> = PROOFS.iter().map(|proof| proof.id).collect();
        assert_eq!(names.len(), PROOFS.len());
    }
}
