//! Whether an agent that is alive still does anything: one pure decision over the clock and what has been seen of it.
//!
//! ```text
//!            sign of life: progress, output, I/O                 nothing for N       2N            3N
//!   alive ◀─────────────────────────────────────── quiet ───────▶ wedged: warn ─▶ signal ─▶ restart
//!     │                                              ▲               │
//!     └── only CPU for N ─▶ spinning (an event) ─────┘◀──────────────┘ any sign of life
//! ```
//!
//! Two languages are understood, and the agent chooses by what it says. Unless it says anything, every sign of life
//! counts. From its first `WATCHDOG=1` on, only further ones count, whatever else it does: that is the contract of
//! sd_watchdog_enabled(3), and an agent that keeps it knows better than its output whether it is well.
//!
//! The clock is the caller's: it begins at zero with the agent (or, as in systemd.service(5), when it has become ready),
//! and stands still while the agent is paused. Time during which nobody looked counts for one N at most, so that a
//! supervisor that was itself held up skips no stage and blames no agent for its own absence.

mod finding;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use finding::{Finding, Silence, Stage};

/// CPU use up to this share of one CPU is no sign of life: one part in a thousand. A program that only waits is woken by
/// its timers: ten times a second at 50 µs is half of this. One that computes uses a hundred times as much and more.
const IDLE_SHARE: u128 = 1000;
/// Looks in one N: enough that the end of a silence is known to a quarter, few enough that nobody notices them.
const LOOKS: u32 = 4;
/// CPU that an agent may use for our own signal before it counts as work, in microseconds: for a handler that does nothing more.
const REACTION_US: u64 = 10_000;
/// Least time between two looks, whatever N is.
const SHORTEST_LOOK: Duration = Duration::from_millis(1);

/// What has been seen of an agent so far: counts and sums since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Signs {
    /// Messages of progress, of whichever kind, without keep-alives.
    pub progress: u64,
    /// Keep-alives: `WATCHDOG=1` of sd_notify(3).
    pub keep_alives: u64,
    /// Bytes that it wrote to its output and error streams.
    pub output: u64,
    /// CPU time of all its processes, in microseconds; `None` when the host does not tell or nobody asked this time.
    pub cpu_us: Option<u64>,
    /// Bytes that all its processes read from and wrote to storage; `None` as above. A sum that falls, because a process
    /// took its share with it, is a sign of life too.
    pub io_bytes: Option<u64>,
}

/// Which signs count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Language {
    /// All of them.
    Deeds,
    /// Only keep-alives.
    KeepAlives,
}

/// The best sign of one look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    Life,
    Work,
    None,
}

/// A moment and what had been seen by then.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Mark {
    /// Time that counts, since the start.
    age: Duration,
    signs: Signs,
}

/// The watchdog of one life of one agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watchdog {
    limit: Duration,
    language: Language,
    /// The caller's clock at the last look.
    seen: Duration,
    /// The last look.
    last: Mark,
    /// The last progress, output or I/O; or the last keep-alive.
    life: Mark,
    /// The last of these, or CPU use.
    work: Mark,
    /// The begin of the stretch whose CPU use has not been judged yet.
    stretch: Mark,
    /// What a failure that the agent itself reports adds to its silence.
    lead: Duration,
    /// Whether it was seen to use CPU when nothing else had been seen for N. Until a sign of life, or until it has rested for N.
    spins: bool,
    /// CPU that it may still use for the signal that it got, in microseconds; `None` when it got none in this silence.
    reaction: Option<u64>,
}

impl Watchdog {
    /// Watches from the clock's zero on; `limit` is N. `None` for a limit of zero, which is no watchdog, as
    /// `WatchdogSec=0` is none (systemd.service(5)).
    pub fn new(limit: Duration) -> Option<Self> {
        // At its start an agent has used nothing, also where nobody has asked yet.
        let nothing = Signs { cpu_us: Some(0), io_bytes: Some(0), ..Signs::default() };
        let start = Mark { age: Duration::ZERO, signs: nothing };
        (!limit.is_zero()).then_some(Self {
            limit,
            language: Language::Deeds,
            seen: Duration::ZERO,
            last: Mark::default(),
            life: start,
            work: start,
            stretch: start,
            lead: Duration::ZERO,
            spins: false,
            reaction: None,
        })
    }

    /// Takes in what is seen at `now`. Call it when [`Watchdog::next_look`] says so, with the figures of the agent's group;
    /// and at each keep-alive, so that its time is exact; then the figures may be left out.
    ///
    /// Without CPU time a computation that says nothing cannot be told from a silence. So unless the agent speaks in
    /// keep-alives, looks without it lead to [`Stage::Warn`] and no further.
    pub fn observe(&mut self, now: Duration, signs: Signs) -> Finding {
        let changed = self.changed(&signs);
        self.advance(now, signs.cpu_us);
        self.learn(signs);
        let worked = signs.cpu_us.is_some() && self.has_worked();
        let sign = match changed {
            Sign::None if worked => Sign::Work,
            other => other,
        };
        if sign != Sign::None {
            self.revive(sign);
        }
        let finding = self.judge(sign);
        if let Finding::Wedged { stage: Stage::Signal, .. } = finding {
            self.reaction.get_or_insert(REACTION_US);
        }
        finding
    }

    /// Takes in `WATCHDOG=trigger` (sd_notify(3)): the agent found out by itself that it is not well, which counts as if its
    /// keep-alive had not come. It is to be signalled at once, and has one more N to recover: with `WATCHDOG=1`.
    pub fn trigger(&mut self, now: Duration) -> Finding {
        self.language = Language::KeepAlives;
        self.advance(now, None);
        let due = self.limit.saturating_mul(2);
        self.lead = self.lead.max(due.saturating_sub(self.last.age - self.work.age));
        self.judge(Sign::None)
    }

    /// How long after `now` [`Watchdog::observe`] is to be called next: after a quarter of N; for an agent that speaks in
    /// keep-alives only when the next stage is due. Nothing is due while the agent is paused.
    pub fn next_look(&self, now: Duration) -> Duration {
        let wait = match self.language {
            Language::Deeds => self.limit / LOOKS,
            Language::KeepAlives => self.until_stage(),
        };
        self.seen.saturating_add(wait.max(SHORTEST_LOOK)).saturating_sub(now)
    }

    /// Lets time count: one N at most, and without CPU time none that would lead to a stage after the first.
    fn advance(&mut self, now: Duration, cpu_us: Option<u64>) {
        let mut counts = now.saturating_sub(self.seen).min(self.limit);
        if self.language == Language::Deeds && cpu_us.is_none() {
            let first = self.until_stage().max(self.limit.saturating_mul(2).saturating_sub(self.quiet_for()));
            counts = counts.min(first.saturating_sub(Duration::from_nanos(1)));
        }
        self.last.age += counts;
        self.seen = self.seen.max(now);
    }

    /// How much longer the silence must be for the next stage.
    fn until_stage(&self) -> Duration {
        let limit = self.limit.as_nanos();
        let left = limit - self.quiet_for().as_nanos() % limit;
        Duration::from_nanos(u64::try_from(left).unwrap_or(u64::MAX))
    }

    fn changed(&mut self, signs: &Signs) -> Sign {
        let last = &self.last.signs;
        if signs.keep_alives != last.keep_alives {
            self.language = Language::KeepAlives;
            return Sign::Life;
        }
        let transferred = matches!((last.io_bytes, signs.io_bytes), (Some(last), Some(now)) if last != now);
        let acted = signs.progress != last.progress || signs.output != last.output || transferred;
        if acted && self.language == Language::Deeds { Sign::Life } else { Sign::None }
    }

    /// Keeps the last figures known, and lets the marks that had none count from the first ones on.
    fn learn(&mut self, signs: Signs) {
        let last = &mut self.last;
        last.signs = Signs {
            cpu_us: signs.cpu_us.or(last.signs.cpu_us),
            io_bytes: signs.io_bytes.or(last.signs.io_bytes),
            ..signs
        };
        if self.stretch.signs.cpu_us.is_none() {
            self.stretch = self.last;
        }
        for mark in [&mut self.life, &mut self.work] {
            mark.signs.cpu_us = mark.signs.cpu_us.or(signs.cpu_us);
            mark.signs.io_bytes = mark.signs.io_bytes.or(signs.io_bytes);
        }
    }

    /// Whether CPU was used in the stretch up to now. Stretches are whole quarters of N, so that one wake-up between two
    /// looks that follow each other closely is not taken for work.
    fn has_worked(&mut self) -> bool {
        let took = self.last.age - self.stretch.age;
        if took < self.limit / LOOKS {
            return false;
        }
        let used = used(self.stretch.signs.cpu_us, self.last.signs.cpu_us).unwrap_or(0);
        self.stretch = self.last;
        let spared = self.reaction.unwrap_or(0).min(used);
        self.reaction = self.reaction.map(|left| left - spared);
        let used = used - spared;
        self.language == Language::Deeds && u128::from(used) * IDLE_SHARE > took.as_micros()
    }

    fn revive(&mut self, sign: Sign) {
        self.work = self.last;
        if sign == Sign::Life {
            self.life = self.last;
        }
        self.spins = sign == Sign::Work && self.last.age - self.life.age >= self.limit;
        self.lead = Duration::ZERO;
        self.reaction = None;
    }

    fn quiet_for(&self) -> Duration {
        (self.last.age - self.work.age).saturating_add(self.lead)
    }

    fn judge(&self, sign: Sign) -> Finding {
        if let Some(stage) = Stage::after(self.quiet_for(), self.limit) {
            return Finding::Wedged { stage, silence: self.since(&self.work) };
        }
        if self.spins {
            return Finding::Spinning { silence: self.since(&self.life) };
        }
        match sign {
            Sign::None => Finding::Quiet { silence: self.since(&self.work) },
            Sign::Life | Sign::Work => Finding::Alive,
        }
    }

    fn since(&self, mark: &Mark) -> Silence {
        let (then, now) = (&mark.signs, &self.last.signs);
        Silence {
            since: self.seen.saturating_sub(self.last.age - mark.age),
            quiet_for: self.last.age - mark.age,
            cpu_us: used(then.cpu_us, now.cpu_us),
            output_bytes: now.output.saturating_sub(then.output),
            io_bytes: used(then.io_bytes, now.io_bytes),
        }
    }
}

/// What was added to a figure, where it is known.
fn used(then: Option<u64>, now: Option<u64>) -> Option<u64> {
    Some(now?.saturating_sub(then?))
}
