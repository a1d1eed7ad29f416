//! How long the daemon's loop is kept from everything else. It has one thread: a task that computes, or waits for a file, in its
//! turn holds up all agents, probes and callers. Nothing that an agent, a file system or a stranger can make slow may be done
//! there, and this shows whether that is so.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use pin_project_lite::pin_project;

/// From here on a turn is long: a person notices, and a probe's answer is late.
pub const LONG: Duration = Duration::from_millis(50);

static LONGEST_US: AtomicU64 = AtomicU64::new(0);
static LONG_TURNS: AtomicU64 = AtomicU64::new(0);

/// Turns of this process until now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turns {
    /// The longest of all, by the clock: it may have been kept waiting for a processor.
    pub longest: Duration,
    /// Those that took longer than [`LONG`].
    pub long: u64,
}

/// What was measured until now.
pub fn turns() -> Turns {
    Turns {
        longest: Duration::from_micros(LONGEST_US.load(Ordering::Relaxed)),
        long: LONG_TURNS.load(Ordering::Relaxed),
    }
}

pin_project! {
    /// A task whose turns are measured. Not an async function, which would have room for the task twice: as what it was given, and as
    /// what it waits for.
    #[derive(Debug)]
    pub struct Timed<F> {
        #[pin]
        task: F,
    }
}

/// The same task, with its turns measured.
pub fn timed<F: Future>(task: F) -> Timed<F> {
    Timed { task }
}

impl<F: Future> Future for Timed<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let begun = Instant::now();
        let polled = self.project().task.poll(context);
        note(begun.elapsed());
        polled
    }
}

fn note(turn: Duration) {
    LONGEST_US.fetch_max(u64::try_from(turn.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    if turn > LONG {
        LONG_TURNS.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(?turn, "a turn of the daemon's loop was long");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_takes_no_more_room() {
        let task = async {
            let kept = [0_u8; 4096];
            std::future::pending::<()>().await;
            std::hint::black_box(kept);
        };
        let room = size_of_val(&task);
        assert_eq!(size_of_val(&timed(task)), room);
    }

    #[tokio::test]
    async fn a_turn_that_holds_up_others_is_seen_and_one_that_waits_is_not() {
        // Other tests of this process may have turns of their own: only that one grows is certain.
        let before = turns();
        let answer = timed(async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            std::thread::sleep(LONG + Duration::from_millis(1));
            7
        })
        .await;
        assert_eq!(answer, 7);
        let after = turns();
        assert!(after.longest > LONG && after.long > before.long, "{after:?}");
    }
}
