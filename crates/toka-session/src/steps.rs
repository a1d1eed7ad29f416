//! What the runner of an agent is told while a model works on a task: lines for the log, how far it is, calls of file tools, the end. One side
//! is the driver, which never waits but for the outcome of a call; the other answers the runner whenever it asks.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use toka_core::rpc::{TaskDo, TaskStep};
use toka_core::{Exit, FileCall, FileOutcome, Progress};
use tokio::sync::{Notify, oneshot};

/// Lines that wait; of more, the oldest are left out.
const LINES: usize = 1000;
/// The longest line, in bytes; the rest of a longer one is left out.
const LONGEST_LINE: usize = 4096;
/// Bytes of lines in one step, which has to fit into one line of the agent's socket, also when each of them is escaped.
const MOST_AT_ONCE: usize = 128 * 1024;

#[derive(Debug, Default)]
struct Inner {
    lines: VecDeque<String>,
    progress: Progress,
    /// A call of which there is no outcome yet.
    call: Option<(FileCall, oneshot::Sender<FileOutcome>)>,
    /// The call was given to the runner that asked last.
    is_given: bool,
    end: Option<Exit>,
}

/// What is between the driver and the runner.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    inner: Mutex<Inner>,
    news: Notify,
}

impl Steps {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds text to the log.
    pub(crate) fn say(&self, text: &str) {
        let mut inner = self.lock();
        inner.lines.extend(
            text.trim_end().lines().map(|line| line[..line.floor_char_boundary(LONGEST_LINE)].to_owned()),
        );
        let surplus = inner.lines.len().saturating_sub(LINES);
        inner.lines.drain(..surplus);
        drop(inner);
        self.news.notify_one();
    }

    /// Tells how far the task is.
    pub(crate) fn report(&self, progress: Progress) {
        self.lock().progress.merge(progress);
        self.news.notify_one();
    }

    /// Has the runner do something with files, and waits for the outcome. When this is dropped, nobody waits for it any more.
    pub(crate) async fn call(&self, call: FileCall) -> Option<FileOutcome> {
        let (answer, outcome) = oneshot::channel();
        {
            let mut inner = self.lock();
            (inner.call, inner.is_given) = (Some((call, answer)), false);
        }
        self.news.notify_one();
        outcome.await.ok()
    }

    /// The attempt has ended.
    pub(crate) fn end(&self, exit: Exit) {
        self.lock().end.get_or_insert(exit);
        self.news.notify_one();
    }

    /// How it has ended.
    pub(crate) fn verdict(&self) -> Option<Exit> {
        self.lock().end.clone()
    }

    /// Takes what the runner has done.
    fn hear(&self, outcome: Option<FileOutcome>) {
        let mut inner = self.lock();
        let Some(outcome) = outcome else {
            // It asks again without an outcome: the answer was lost.
            inner.is_given = false;
            return;
        };
        if inner.call.as_ref().is_some_and(|(call, _)| call.id == outcome.id)
            && let Some((_, answer)) = inner.call.take()
        {
            // The driver may have been stopped.
            let _ = answer.send(outcome);
        }
    }

    fn take(&self) -> Option<TaskStep> {
        let mut inner = self.lock();
        // The rest comes with the next step.
        let mut bytes = 0;
        let fits = |line: &&String| {
            bytes += line.len();
            bytes <= MOST_AT_ONCE
        };
        let count = inner.lines.iter().take_while(fits).count();
        let lines: Vec<String> = inner.lines.drain(..count).collect();
        let progress = std::mem::take(&mut inner.progress);
        let progress = (!progress.is_empty()).then_some(progress);
        let todo = match (&inner.call, &inner.end) {
            (Some((call, _)), _) if !inner.is_given => TaskDo::Call(call.clone()),
            (None, Some(exit)) => TaskDo::End(exit.clone()),
            _ => TaskDo::Wait,
        };
        inner.is_given |= matches!(todo, TaskDo::Call(_));
        let step = TaskStep { lines, progress, todo };
        (step != TaskStep::default()).then_some(step)
    }

    /// The next step; an empty one when there is none in time.
    pub(crate) async fn next(&self, outcome: Option<FileOutcome>, wait: Duration) -> TaskStep {
        self.hear(outcome);
        let next = async {
            loop {
                let news = self.news.notified();
                if let Some(step) = self.take() {
                    return step;
                }
                news.await;
            }
        };
        tokio::time::timeout(wait, next).await.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use toka_core::FileTool;
    use toka_core::tool::ListFolder;

    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    fn call(id: &str) -> FileCall {
        FileCall { id: id.into(), tool: FileTool::List(ListFolder::default()) }
    }

    fn outcome(id: &str) -> FileOutcome {
        FileOutcome { id: id.into(), text: "x".into(), is_error: false, changes: vec![], refused: None }
    }

    #[tokio::test]
    async fn a_call_is_given_once_and_again_when_its_answer_was_lost() {
        let steps = Arc::new(Steps::default());
        let driver = Arc::clone(&steps);
        let done = tokio::spawn(async move { driver.call(call("1")).await });
        assert_eq!(steps.next(None, SOON).await.todo, TaskDo::Call(call("1")));
        steps.say("a line");
        let lost = steps.next(None, SOON).await;
        assert_eq!((lost.lines, lost.todo), (vec!["a line".to_owned()], TaskDo::Call(call("1"))));
        assert_eq!(steps.next(Some(outcome("of nobody")), Duration::ZERO).await, TaskStep::default());
        assert_eq!(steps.next(Some(outcome("1")), Duration::ZERO).await, TaskStep::default());
        assert_eq!(done.await.expect("no panic"), Some(outcome("1")));
        steps.end(Exit::Code { code: 0 });
        steps.end(Exit::Code { code: 9 });
        assert_eq!(steps.next(None, SOON).await.todo, TaskDo::End(Exit::Code { code: 0 }));
    }

    #[tokio::test(start_paused = true)]
    async fn without_news_it_is_asked_again() {
        let steps = Steps::default();
        assert_eq!(steps.next(None, SOON).await, TaskStep::default());
        steps.report(Progress { fraction: Some(0.5), ..Progress::default() });
        assert!(steps.next(None, SOON).await.progress.is_some());
    }
}
