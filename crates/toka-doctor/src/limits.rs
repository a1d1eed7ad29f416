//! Proofs that take more than one answer of a probe: limits that must be met by the kernel's figures, and ends that must be
//! the end of everything.

use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::process::{ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use toka_core::Layer::{self, Cgroup, Process};
use toka_core::{ByteSize, Coverage, CpuQuota, Enforcement, Exit};
use toka_sandbox::host::Namespaces;
use tokio::io::AsyncReadExt as _;
use tokio::time::{Instant, sleep, timeout};

use super::check::{Check, Section, Verdict};
use super::judge::{of_hole, promised};
use super::probe::{Act, Answer};
use super::proofs::{fix_of, told};
use super::test_bed::{Finished, Running, SetupError, TestBed};

/// The memory that a probe may take, and what it tries to.
const MEMORY: ByteSize = ByteSize::mib(48);
const TOO_MUCH_MEMORY: usize = 128;
/// The same of processes, and of open files.
const PROCESSES: u32 = 16;
const TOO_MANY_PROCESSES: usize = 64;
const FILES: u32 = 32;
const TOO_MANY_FILES: usize = 256;
/// CPU time that a probe may take that never rests.
const CPU: CpuQuota = CpuQuota { millis: 100 };
/// How long to wait for something that the kernel does within tens of milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks at figures.
const INTERVAL: Duration = Duration::from_millis(10);
/// A probe that writes every millisecond and is silent for so long stands still.
const SILENCE: Duration = Duration::from_millis(60);

/// A proof before its verdict.
#[derive(Debug, Clone, Copy)]
struct Question {
    id: &'static str,
    section: Section,
    layer: Layer,
    title: &'static str,
    means: &'static str,
}

impl Question {
    fn answered(self, verdict: Verdict, found: impl Into<String>) -> Check {
        told(self.id, self.section, self.title, verdict, found.into(), self.means)
            .layer(self.layer)
            .fix(fix_of(verdict, self.layer))
    }

    /// What could not be asked.
    fn unasked(self, trouble: SetupError) -> Check {
        self.answered(Verdict::Failed, trouble)
    }
}

const OF_MEMORY: Question = Question {
    id: "limits.memory",
    section: Section::Limits,
    layer: Cgroup,
    title: "take more memory than allowed",
    means: "an agent can take the memory of this host, and its end is not told as out of memory",
};
const OF_PROCESSES: Question = Question {
    id: "limits.processes",
    section: Section::Limits,
    layer: Cgroup,
    title: "make more processes than allowed",
    means: "an agent can fill this host with processes",
};
const OF_FILES: Question = Question {
    id: "limits.files",
    section: Section::Limits,
    layer: Process,
    title: "open more files than allowed",
    means: "an agent can use up the open files of this host",
};
const OF_CPU: Question = Question {
    id: "limits.cpu",
    section: Section::Limits,
    layer: Cgroup,
    title: "take more CPU time than allowed",
    means: "an agent can keep every CPU busy",
};
const OF_STOP: Question = Question {
    id: "life.stop",
    section: Section::Life,
    layer: Cgroup,
    title: "outlive its end as a daemon",
    means: "what an agent leaves behind lives on, behind its walls, until the run ends",
};
const OF_FREEZE: Question = Question {
    id: "life.freeze",
    section: Section::Life,
    layer: Cgroup,
    title: "run on while it is frozen",
    means: "agents cannot be paused",
};

/// Tries everything.
pub(super) async fn attempt_all(test_bed: &mut TestBed) -> Vec<Check> {
    vec![
        memory(test_bed).await.unwrap_or_else(|trouble| OF_MEMORY.unasked(trouble)),
        cpu(test_bed).await.unwrap_or_else(|trouble| OF_CPU.unasked(trouble)),
        processes(test_bed).await.unwrap_or_else(|trouble| OF_PROCESSES.unasked(trouble)),
        files(test_bed).await.unwrap_or_else(|trouble| OF_FILES.unasked(trouble)),
        stop(test_bed).await.unwrap_or_else(|trouble| OF_STOP.unasked(trouble)),
        freeze(test_bed).await.unwrap_or_else(|trouble| OF_FREEZE.unasked(trouble)),
    ]
}

async fn memory(test_bed: &mut TestBed) -> Result<Check, SetupError> {
    let plan = test_bed.plan(|limits| limits.memory.value = MEMORY)?;
    let Finished { answers, status, usage, enforcement, .. } =
        test_bed.run(plan, &Act::Fill(TOO_MUCH_MEMORY)).await?;
    let exit = toka_runtime::exit_reason(status, &usage, MEMORY);
    Ok(judge_memory(answers.first(), &exit, &enforcement))
}

/// Out of memory must be the cause that is told; a refusal of more is less than that.
fn judge_memory(answer: Option<&Answer>, exit: &Exit, enforcement: &Enforcement) -> Check {
    match (answer, exit) {
        (_, Exit::Oom { .. }) => OF_MEMORY.answered(Verdict::Ok, format!("ended: {exit}")),
        (Some(Answer::Refused(error)), _) => {
            let found = format!("refused to each process alone: {error}");
            let means = "several processes together can take more, and the end is not told as out of memory";
            OF_MEMORY.answered(Verdict::Weaker, found).but(Verdict::Weaker, means)
        }
        (Some(Answer::Through(note)), _) => {
            let found = format!("took {note} of {MEMORY}");
            OF_MEMORY.answered(of_hole(promised(enforcement, &[Cgroup])), found)
        }
        _ => OF_MEMORY.answered(Verdict::Failed, format!("not told as out of memory: {exit}")),
    }
}

async fn processes(test_bed: &mut TestBed) -> Result<Check, SetupError> {
    let plan = test_bed.plan(|limits| limits.processes.value = PROCESSES)?;
    let finished = test_bed.run(plan, &Act::Fork(TOO_MANY_PROCESSES)).await?;
    Ok(judge_count(OF_PROCESSES, &finished))
}

async fn files(test_bed: &mut TestBed) -> Result<Check, SetupError> {
    let plan = test_bed.plan(|limits| limits.open_files.value = FILES)?;
    let finished = test_bed.run(plan, &Act::Open(TOO_MANY_FILES)).await?;
    Ok(judge_count(OF_FILES, &finished))
}

fn judge_count(question: Question, finished: &Finished) -> Check {
    match finished.answers.first() {
        Some(Answer::Refused(error)) => question.answered(Verdict::Ok, format!("refused: {error}")),
        Some(Answer::Through(note)) => {
            let verdict = of_hole(promised(&finished.enforcement, &[question.layer]));
            question.answered(verdict, format!("got through: {note}"))
        }
        _ => question.answered(Verdict::Failed, "the probe did not report"),
    }
}

/// The kernel's own figure tells that it held the probe back; no clock of ours is asked.
async fn cpu(test_bed: &mut TestBed) -> Result<Check, SetupError> {
    let running = test_bed.start(test_bed.plan(|limits| limits.cpu.value = CPU)?, &Act::Burn).await?;
    let begun = Instant::now();
    let held_back = loop {
        let figure = test_bed.resources(&running).await.and_then(|resources| resources.throttled_us);
        match figure {
            Some(0) if begun.elapsed() < PATIENCE => sleep(INTERVAL).await,
            _ => break figure,
        }
    };
    let finished = test_bed.end(running).await?;
    Ok(judge_cpu(held_back, promised(&finished.enforcement, &[Cgroup])))
}

fn judge_cpu(held_back: Option<u64>, promised: Coverage) -> Check {
    match held_back {
        Some(1..) => OF_CPU.answered(Verdict::Ok, format!("held back to {} of a CPU", percent(CPU))),
        Some(0) => OF_CPU.answered(of_hole(promised), "got through: never held back"),
        None => OF_CPU.answered(of_hole(promised), "nothing holds it back"),
    }
}

fn percent(quota: CpuQuota) -> String {
    format!("{} %", quota.millis / 10)
}

/// Who still holds the pipe of the probe's output still runs. Without walls the daemon must do that.
async fn stop(test_bed: &mut TestBed) -> Result<Check, SetupError> {
    let control = lives_on_without_walls(test_bed).map_err(|error| format!("start a probe: {error}"))?;
    let finished = test_bed.run(test_bed.plan(|_| {})?, &Act::Outlive).await?;
    let promised =
        promised(&finished.enforcement, &[Cgroup]).max(of_namespace(test_bed.host.mount_namespace));
    Ok(judge_stop(finished.answers.first(), finished.survived, control, promised))
}

/// What a process namespace promises of an end: it ends with its first process. Root's agents have none.
fn of_namespace(namespaces: Namespaces) -> Coverage {
    match namespaces {
        Namespaces::ThroughUserNamespace | Namespaces::ThroughUserNamespaceWithoutProc => Coverage::Full,
        Namespaces::Privileged | Namespaces::Refused => Coverage::None,
    }
}

/// Whether a daemon outlived who left it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Survival {
    Lives,
    Gone,
}

fn lives_on_without_walls(test_bed: &TestBed) -> io::Result<Survival> {
    let mut command = test_bed.bare(&Act::Outlive);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let (input, output) = (child.stdin.take(), child.stdout.take());
    child.wait()?;
    match (input, output) {
        (Some(input), Some(output)) => end_of_daemon(input, output),
        _ => Ok(Survival::Gone),
    }
}

/// Looks whether somebody still holds the pipe, and ends it by closing the other.
fn end_of_daemon(input: ChildStdin, mut output: ChildStdout) -> io::Result<Survival> {
    let mut polled = [PollFd::new(output.as_fd(), PollFlags::POLLIN)];
    poll(&mut polled, PollTimeout::ZERO)?;
    let hung_up = polled[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP));
    drop(input);
    output.read_to_end(&mut Vec::new())?;
    Ok(if hung_up { Survival::Gone } else { Survival::Lives })
}

fn judge_stop(answer: Option<&Answer>, survived: bool, control: Survival, promised: Coverage) -> Check {
    match (answer, survived, control) {
        (_, true, _) => OF_STOP.answered(of_hole(promised), "got through: it still ran"),
        (Some(Answer::Through(_)), false, Survival::Lives) => {
            OF_STOP.answered(Verdict::Ok, "ended with its agent")
        }
        (Some(Answer::Through(_)), false, Survival::Gone) => {
            OF_STOP.answered(Verdict::Unprovable, "ended with its agent; without walls, too")
        }
        _ => OF_STOP.answered(Verdict::Failed, "the probe did not report"),
    }
}

async fn freeze(test_bed: &mut TestBed) -> Result<Check, SetupError> {
    let mut running = test_bed.start(test_bed.plan(|_| {})?, &Act::Beat).await?;
    let stages = freeze_and_thaw(test_bed, &mut running).await;
    let finished = test_bed.end(running).await?;
    Ok(judge_freeze(stages, promised(&finished.enforcement, &[Cgroup])))
}

/// How far a freeze and a thaw came.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Frozen {
    /// It never ran.
    Dead,
    /// There is nothing to freeze with.
    Unable(SetupError),
    /// It ran on.
    RanOn,
    /// It stood still, and stayed so when it was thawed.
    Stuck,
    /// It stood still until it was thawed.
    Well,
}

async fn freeze_and_thaw(test_bed: &TestBed, running: &mut Running) -> Frozen {
    if !beats(running, PATIENCE).await {
        return Frozen::Dead;
    }
    if let Err(trouble) = test_bed.freeze(running).await {
        return Frozen::Unable(trouble);
    }
    // What it wrote before is still in the pipe, and a freeze takes the kernel a moment.
    let begun = Instant::now();
    while beats(running, SILENCE).await {
        if begun.elapsed() > PATIENCE {
            return Frozen::RanOn;
        }
    }
    match test_bed.thaw(running).await {
        Err(trouble) => Frozen::Unable(trouble),
        Ok(()) if beats(running, PATIENCE).await => Frozen::Well,
        Ok(()) => Frozen::Stuck,
    }
}

/// Whether something comes within this time.
async fn beats(running: &mut Running, patience: Duration) -> bool {
    let mut buffer = [0; 64 * 1024];
    matches!(timeout(patience, running.output.read(&mut buffer)).await, Ok(Ok(1..)))
}

fn judge_freeze(frozen: Frozen, promised: Coverage) -> Check {
    match frozen {
        Frozen::Well => OF_FREEZE.answered(Verdict::Ok, "stood still until it was thawed"),
        Frozen::Unable(_) if promised == Coverage::None => {
            OF_FREEZE.answered(Verdict::Missing, "there is nothing to freeze with")
        }
        Frozen::Unable(trouble) => OF_FREEZE.answered(of_hole(promised), trouble),
        Frozen::RanOn => OF_FREEZE.answered(of_hole(promised), "got through: it ran on"),
        Frozen::Stuck => OF_FREEZE.answered(Verdict::Failed, "stayed frozen when it was thawed"),
        Frozen::Dead => OF_FREEZE.answered(Verdict::Failed, "the probe did not report"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(coverage: Coverage) -> Enforcement {
        let mut enforcement = Enforcement::default();
        enforcement.set(Cgroup, coverage, Vec::new());
        enforcement
    }

    fn through() -> Option<Answer> {
        Some(Answer::Through("128 MiB".to_owned()))
    }

    #[test]
    fn memory_is_limited_when_the_end_is_told_as_such() {
        let (oom, done) = (Exit::Oom { peak: None, limit: MEMORY }, Exit::Code { code: 0 });
        let killed = Exit::Signal { signal: 9, core: false };
        let refused = Some(Answer::Refused("ENOMEM".to_owned()));
        for (answer, exit, coverage, expected) in [
            (None, &oom, Coverage::Full, Verdict::Ok),
            (through(), &done, Coverage::Full, Verdict::Failed),
            (through(), &done, Coverage::Partial, Verdict::Weaker),
            (through(), &done, Coverage::None, Verdict::Missing),
            (refused, &done, Coverage::None, Verdict::Weaker),
            (None, &killed, Coverage::Full, Verdict::Failed),
        ] {
            let check = judge_memory(answer.as_ref(), exit, &groups(coverage));
            assert_eq!(check.verdict, expected, "{check:?}");
        }
    }

    #[test]
    fn a_cpu_that_is_never_held_back_is_a_hole_where_a_limit_was_promised() {
        for (held_back, promised, expected) in [
            (Some(7), Coverage::Full, Verdict::Ok),
            (Some(0), Coverage::Full, Verdict::Failed),
            (None, Coverage::Full, Verdict::Failed),
            (None, Coverage::None, Verdict::Missing),
        ] {
            assert_eq!(judge_cpu(held_back, promised).verdict, expected, "{held_back:?}");
        }
    }

    #[test]
    fn counts_that_are_not_limited_are_holes() {
        let finished = |answer: Option<Answer>| Finished {
            answers: Vec::from_iter(answer),
            status: None,
            usage: Default::default(),
            enforcement: groups(Coverage::Full),
            survived: false,
        };
        let refused = Some(Answer::Refused("EAGAIN after 9 processes".into()));
        for (answer, expected) in
            [(refused, Verdict::Ok), (through(), Verdict::Failed), (None, Verdict::Failed)]
        {
            assert_eq!(judge_count(OF_PROCESSES, &finished(answer)).verdict, expected);
        }
    }

    #[test]
    fn what_outlives_its_agent_is_a_hole() {
        use Survival::{Gone, Lives};
        for (answer, survived, control, promised, expected) in [
            (through(), false, Lives, Coverage::Full, Verdict::Ok),
            (through(), false, Gone, Coverage::Full, Verdict::Unprovable),
            (through(), true, Lives, Coverage::Full, Verdict::Failed),
            (through(), true, Lives, Coverage::None, Verdict::Missing),
            (None, false, Lives, Coverage::Full, Verdict::Failed),
        ] {
            assert_eq!(judge_stop(answer.as_ref(), survived, control, promised).verdict, expected);
        }
    }

    #[test]
    fn a_freeze_must_freeze_and_a_thaw_must_thaw() {
        for (frozen, promised, expected) in [
            (Frozen::Well, Coverage::Full, Verdict::Ok),
            (Frozen::RanOn, Coverage::Full, Verdict::Failed),
            (Frozen::Stuck, Coverage::None, Verdict::Failed),
            (Frozen::Dead, Coverage::Full, Verdict::Failed),
            (Frozen::Unable("no freezer".into()), Coverage::None, Verdict::Missing),
        ] {
            assert_eq!(judge_freeze(frozen.clone(), promised).verdict, expected, "{frozen:?}");
        }
    }
}
