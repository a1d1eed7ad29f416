//! `--follow`: sleeps until something in an agent's folder changes (inotify(7)), and prints what has come.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use toka_core::ExitCode;

use super::find::Everybody;
use super::merge::Merged;
use super::print::Printer;
use crate::commands::signals::Signals;
use toka_terminal::out;

/// How long changes are let gather: a chatty agent's log changes a thousand times a second.
const GATHER: Duration = Duration::from_millis(20);

/// Prints what is there and what comes, until a signal ends the process.
pub(super) fn follow(
    merged: &mut Merged,
    mut printer: Printer<impl Write>,
    news: Option<Everybody>,
) -> anyhow::Result<ExitCode> {
    end_by_signal()?;
    let mut watch = Watch::begin(merged, news)?;
    loop {
        merged.refill()?;
        printer.sources(merged.sources());
        while let Some((source, item)) = merged.next()? {
            if let written @ Err(_) = printer.print(&merged.sources()[source], &item) {
                return Ok(out::settle(written, ExitCode::Success)?);
            }
        }
        if let written @ Err(_) = printer.flush() {
            return Ok(out::settle(written, ExitCode::Success)?);
        }
        watch.wait(merged)?;
    }
}

/// The first signal ends the process, whatever it waits for: whoever reads what it prints may have stopped to.
fn end_by_signal() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    let mut signals = {
        let _inside = runtime.enter();
        Signals::catch().context("cannot catch signals")?
    };
    let wait = move || {
        let signal = runtime.block_on(signals.next());
        std::process::exit(i32::from(signal.exit_code() as u8));
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(wait).context("no thread for signals")?;
    Ok(())
}

/// Takes in agents that have come.
fn join_news(merged: &mut Merged, everybody: &Everybody) {
    for source in everybody.sources() {
        if !merged.sources().iter().any(|known| known.agent == source.agent) {
            merged.join(source);
        }
    }
}

/// What is looked at.
struct Watch {
    inotify: Inotify,
    news: Option<(Everybody, WatchDescriptor)>,
}

impl Watch {
    fn begin(merged: &mut Merged, news: Option<Everybody>) -> anyhow::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC).context("no inotify instance")?;
        let mut watch = Self { inotify, news: None };
        for source in merged.sources() {
            watch.agent(&source.log)?;
        }
        if let Some(everybody) = news {
            let folder = everybody.folder();
            let added =
                watch.inotify.add_watch(&folder, AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO);
            let watched = added.with_context(|| format!("cannot watch {}", folder.display()))?;
            // Some are there, and have written nothing yet.
            watch.agents_of(&everybody)?;
            // An agent may have begun and ended since the logs were looked for, and then no change wakes us.
            join_news(merged, &everybody);
            watch.news = Some((everybody, watched));
        }
        Ok(watch)
    }

    /// Its log and index are written, made and renamed in its folder.
    fn agent(&self, log: &Path) -> anyhow::Result<()> {
        let folder = log.parent().unwrap_or(log);
        let flags = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
        let added = self.inotify.add_watch(folder, flags);
        added.with_context(|| format!("cannot watch {}", folder.display()))?;
        Ok(())
    }

    /// Waits for a change, and takes in agents that have come.
    fn wait(&mut self, merged: &mut Merged) -> anyhow::Result<()> {
        let events = self.inotify.read_events().context("cannot watch the logs")?;
        if let Some((everybody, watched)) = &self.news
            && events.iter().any(|event| event.wd == *watched)
        {
            // The folder of an agent is made before its log.
            self.agents_of(everybody)?;
        }
        let made = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
        if let Some((everybody, _)) = &self.news
            && events.iter().any(|event| event.mask.intersects(made))
        {
            join_news(merged, everybody);
        }
        std::thread::sleep(GATHER);
        Ok(())
    }

    /// One that is watched already stays so (inotify_add_watch(2)).
    fn agents_of(&self, everybody: &Everybody) -> anyhow::Result<()> {
        for agent in std::fs::read_dir(everybody.folder()).into_iter().flatten().flatten() {
            let is_wanted = agent.file_name().to_str().is_some_and(|name| everybody.wants(name));
            if is_wanted && agent.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.agent(&agent.path().join("log"))?;
            }
        }
        Ok(())
    }
}
