//! `process_start`, `process_poll`, `process_write`, `process_kill`: programs that run on while the model thinks. The keeper runs them, as it
//! runs those of `exec`. They belong to the attempt: with its end, and with the end of the daemon, the keeper kills them.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use toka_core::event::Usage;
use toka_core::exit::signal_name;
use toka_keeper::Status;
use toka_runtime::{RunningCommand, RunsCommands, Streams};
use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::pipe;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::exec::{DRAIN, Ran, Written, argv_of, shown};

/// Processes of one attempt at one time.
const MOST: usize = 16;
/// How long a start waits for first words, or for an end that comes at once.
const FIRST_WORDS: Duration = Duration::from_millis(300);
/// How long a poll waits at most.
const LONGEST_POLL: Duration = Duration::from_secs(60);
/// How long a process may leave what is written to it unread.
const WRITTEN_WITHIN: Duration = Duration::from_secs(10);

/// Bytes of what a process has written and nobody was told: so many from the beginning, and from the end. All of an attempt hold no more than `exec`
/// does.
const KEPT: usize = 128 * 1024;
/// How long a process that writes more than is kept is left alone between two reads: its flood costs the daemon little.
const BREATH: Duration = Duration::from_millis(10);

/// What is known of a process.
struct State {
    /// What it has written, and nobody was told.
    news: Written,
    ended: Option<Status>,
    usage: Option<Usage>,
}

struct Shared {
    state: Mutex<State>,
    news: Notify,
    kill: Notify,
}

impl Default for Shared {
    fn default() -> Self {
        let state = State { news: Written::keeping(KEPT), ended: None, usage: None };
        Self { state: Mutex::new(state), news: Notify::new(), kill: Notify::new() }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.news.notify_waiters();
    }
}

struct Process {
    shared: Arc<Shared>,
    input: Option<pipe::Sender>,
    task: AbortHandle,
}

impl Drop for Process {
    fn drop(&mut self) {
        // With it goes the command, which is killed.
        self.task.abort();
    }
}

/// The processes of an attempt.
pub(crate) struct Processes {
    of: BTreeMap<u64, Process>,
    last: u64,
}

impl Processes {
    /// None yet, in a session in which so many were started before: a number is never given twice.
    pub(crate) fn after(last: u64) -> Self {
        Self { of: BTreeMap::new(), last }
    }

    /// Starts a program; what it says first.
    ///
    /// # Errors
    /// When it does not start: nothing was done.
    pub(crate) async fn start(
        &mut self,
        commands: &dyn RunsCommands,
        (line, folder): (&str, Option<&str>),
    ) -> Result<Ran, String> {
        self.of.retain(|_, process| process.shared.lock().usage.is_none());
        if self.of.len() >= MOST {
            return Err(format!("{MOST} processes run already: end one with process_kill"));
        }
        let (reads, writes) = std::io::pipe().map_err(|error| format!("make a pipe: {error}"))?;
        let mut running = commands.run(argv_of(line, folder), Some(OwnedFd::from(reads))).await?;
        let input = pipe::Sender::from_owned_fd(OwnedFd::from(writes));
        let input = input.map_err(|error| format!("watch a pipe: {error}"))?;
        let shared = Arc::<Shared>::default();
        let streams = running.take_streams();
        let task = tokio::spawn(watch(running, streams, Arc::clone(&shared))).abort_handle();
        self.last += 1;
        let number = self.last;
        let process = Process { shared, input: Some(input), task };
        wait(&process.shared, FIRST_WORDS).await;
        let ran = tell(number, &process.shared);
        self.of.insert(number, process);
        Ok(ran)
    }

    /// What a process has written since the last look, and whether it runs.
    ///
    /// # Errors
    /// When there is none of this number.
    pub(crate) async fn poll(&self, number: u64, wait_s: Option<u64>) -> Result<Ran, String> {
        let process = self.get(number)?;
        let longest = Duration::from_secs(wait_s.unwrap_or(0)).min(LONGEST_POLL);
        if !longest.is_zero() {
            wait(&process.shared, longest).await;
        }
        Ok(tell(number, &process.shared))
    }

    /// Writes to a process.
    ///
    /// # Errors
    /// When there is none of this number, or it takes nothing.
    pub(crate) async fn write(&mut self, number: u64, text: &str, closes: bool) -> Result<Ran, String> {
        let known = self.names();
        let process = self.of.get_mut(&number).ok_or_else(|| none(number, &known))?;
        let input = process.input.as_mut().ok_or("its input is closed")?;
        let written = tokio::time::timeout(WRITTEN_WITHIN, input.write_all(text.as_bytes())).await;
        match written {
            Err(_) => {
                return Err(
                    "it does not read what is written to it: a part of the text was written".to_owned()
                );
            }
            Ok(Err(error)) => return Err(format!("write to it: {error}")),
            Ok(Ok(())) => {}
        }
        if closes {
            process.input = None;
        }
        wait(&process.shared, FIRST_WORDS).await;
        Ok(tell(number, &process.shared))
    }

    /// Ends a process with all that it started.
    ///
    /// # Errors
    /// When there is none of this number.
    pub(crate) async fn kill(&mut self, number: u64) -> Result<Ran, String> {
        let process = self.get(number)?;
        process.shared.kill.notify_one();
        while process.shared.lock().usage.is_none() {
            wait(&process.shared, DRAIN).await;
        }
        let ran = tell(number, &process.shared);
        self.of.remove(&number);
        Ok(ran)
    }

    fn get(&self, number: u64) -> Result<&Process, String> {
        self.of.get(&number).ok_or_else(|| none(number, &self.names()))
    }

    fn names(&self) -> String {
        self.of.keys().map(u64::to_string).collect::<Vec<_>>().join(", ")
    }
}

fn none(number: u64, known: &str) -> String {
    match known {
        "" => format!(
            "there is no process {number}: none runs. One ends with the attempt that started it, and with Toka's daemon"
        ),
        known => format!("there is no process {number}; there are {known}"),
    }
}

/// Waits until there is something to tell, or so long.
async fn wait(shared: &Shared, longest: Duration) {
    let news = shared.news.notified();
    tokio::pin!(news);
    // From here on nothing is missed.
    news.as_mut().enable();
    let has_news = {
        let state = shared.lock();
        !state.news.is_empty() || state.usage.is_some()
    };
    if !has_news {
        let _ = tokio::time::timeout(longest, news).await;
    }
}

fn tell(number: u64, shared: &Shared) -> Ran {
    let mut state = shared.lock();
    let whole = std::mem::replace(&mut state.news, Written::keeping(KEPT)).whole();
    let how = match state.ended {
        None => "runs".to_owned(),
        Some(Status::Code(code)) => format!("has ended: exit code {code}"),
        Some(Status::Signal { signal, .. }) => format!("has ended: killed by {}", signal_name(signal)),
        Some(Status::Unknown) => "has ended, and nobody saw how".to_owned(),
    };
    let usage = state.usage.unwrap_or_default();
    drop(state);
    let (output, is_cut) = shown(&whole);
    let output = if output.trim().is_empty() { "(no new output)".to_owned() } else { output };
    Ran {
        text: format!("process {number} {how}\n{output}"),
        whole: is_cut.then_some(whole),
        is_success: true,
        usage,
    }
}

/// Reads what a process writes, until it is gone.
async fn watch(mut running: Box<dyn RunningCommand>, streams: Option<Streams>, shared: Arc<Shared>) {
    let read = async {
        let Some(Streams { mut output, mut errors }) = streams else { return };
        let (mut out, mut err) = (vec![0; 16 * 1024], vec![0; 16 * 1024]);
        let (mut out_open, mut err_open) = (true, true);
        while out_open || err_open {
            tokio::select! {
                read = output.read(&mut out), if out_open => match read {
                    Ok(count @ 1..) => shared.change(|state| state.news.add(&out[..count])),
                    _ => out_open = false,
                },
                read = errors.read(&mut err), if err_open => match read {
                    Ok(count @ 1..) => shared.change(|state| state.news.add(&err[..count])),
                    _ => err_open = false,
                },
            }
            if shared.lock().news.is_full() {
                tokio::time::sleep(BREATH).await;
            }
        }
    };
    tokio::pin!(read);
    let mut is_read = false;
    {
        let exited = running.exited();
        tokio::pin!(exited);
        loop {
            tokio::select! {
                _ = &mut exited => break,
                () = shared.kill.notified() => break,
                () = &mut read, if !is_read => is_read = true,
            }
        }
    }
    running.kill();
    if !is_read {
        let _ = tokio::time::timeout(DRAIN, &mut read).await;
    }
    let (status, usage) = running.gone().await;
    shared.change(|state| (state.ended, state.usage) = (Some(status), Some(usage)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_is_not_there_is_told_with_those_that_are() {
        assert!(none(3, "").contains("none runs"));
        assert_eq!(none(3, "1, 2"), "there is no process 3; there are 1, 2");
    }

    #[test]
    fn a_flood_is_kept_in_part() {
        let shared = Shared::default();
        for _ in 0..10_000 {
            shared.change(|state| state.news.add(&[b'x'; 1024]));
        }
        assert!(shared.lock().news.is_full());
        let whole = tell(1, &shared).whole.expect("a model is told less");
        assert!(whole.len() < 2 * KEPT + 100, "{}", whole.len());
        assert!(!shared.lock().news.is_full() && shared.lock().news.is_empty(), "what was told is gone");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_hears_of_what_comes_and_of_what_was_there() {
        let shared = Arc::<Shared>::default();
        let begun = tokio::time::Instant::now();
        wait(&shared, Duration::from_secs(5)).await;
        assert_eq!(begun.elapsed(), Duration::from_secs(5), "nothing came");
        let other = Arc::clone(&shared);
        let waits = tokio::spawn(async move { wait(&other, Duration::from_secs(50)).await });
        tokio::task::yield_now().await;
        shared.change(|state| state.news.add(b"word"));
        waits.await.expect("no panic");
        assert_eq!(begun.elapsed(), Duration::from_secs(5));
        assert!(tell(1, &shared).text.ends_with("runs\nword"));
        assert!(tell(1, &shared).text.ends_with("(no new output)"), "it is told once");
    }
}
