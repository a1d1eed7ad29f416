//! What runs: the daemons there are, their projects, and the events of each. States are never polled; only whether there
//! are other daemons or projects than before is looked up now and then.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::Duration;

use toka_api::client::{Client, ClientError};
use toka_core::{Event, EventKind, ProjectName};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::model::Message;
use super::pages::MOST_EVENTS;
use crate::commands::reach::Reach;

/// How long between two searches.
const PERIOD: Duration = Duration::from_secs(1);

type Messages = mpsc::Sender<Message>;

/// A project whose events are read.
struct Stream {
    client: Client,
    task: JoinHandle<()>,
}

/// Tells what runs, until nobody wants to hear it.
pub(crate) async fn feed(reach: Reach, messages: Messages) {
    let mut streams: BTreeMap<ProjectName, Stream> = BTreeMap::new();
    let mut clock = tokio::time::interval(PERIOD);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !messages.is_closed() {
        clock.tick().await;
        let found = search(&reach, &mut streams, &messages).await;
        if messages.send(found).await.is_err() {
            return;
        }
    }
}

/// Looks for daemons and begins to read what is new; the answer says how many there are, and what is left of others.
async fn search(reach: &Reach, streams: &mut BTreeMap<ProjectName, Stream>, messages: &Messages) -> Message {
    let (mut daemons, mut answered) = (0, BTreeSet::new());
    let is_wanted = |name: &ProjectName| reach.project.as_ref().is_none_or(|project| project == name);
    for client in reach.clients().unwrap_or_default() {
        let Ok(Some(daemon)) = client.settled(Client::daemon).await else { continue };
        daemons += 1;
        let runs: BTreeSet<ProjectName> =
            daemon.projects.iter().filter(|name| is_wanted(name)).cloned().collect();
        let is_gone = |name: &ProjectName, stream: &mut Stream| {
            stream.client == client && !runs.contains(name) && stream.task.is_finished()
        };
        let gone: Vec<_> = streams.extract_if(.., |name, stream| is_gone(name, stream)).collect();
        for (name, _) in gone {
            let _ = messages.send(Message::Gone(name)).await;
        }
        answered.extend(runs.iter().cloned());
        for name in runs {
            if streams.get(&name).is_none_or(|stream| stream.task.is_finished()) {
                let task = tokio::spawn(read(client.clone(), name.clone(), messages.clone()));
                streams.insert(name, Stream { client: client.clone(), task });
            }
        }
    }
    let left = reach.left().unwrap_or_default().but(|name| answered.contains(name) || !is_wanted(name));
    // A run in the foreground that was killed: when nothing of it is left, there is nothing to wait for.
    let is_over = |name: &ProjectName, stream: &mut Stream| {
        !stream.client.is_service()
            && stream.task.is_finished()
            && !answered.contains(name)
            && !left.has(name)
    };
    let over: Vec<_> = streams.extract_if(.., |name, stream| is_over(name, stream)).collect();
    for (name, _) in over {
        let _ = messages.send(Message::Gone(name)).await;
    }
    Message::Searched { daemons, left }
}

/// Tells a project as it is, what happened in it before, and what happens from then on, until its events end.
async fn read(client: Client, name: ProjectName, messages: Messages) {
    let (mut after, mut known) = (None, 0);
    loop {
        let since = match after {
            Some(seq) => seq,
            None => {
                let Ok(view) = client.project(&name).await else { break };
                let seq = view.seq;
                if messages.send(Message::Project(Box::new(view), client.clone())).await.is_err() {
                    return;
                }
                known = seq;
                seq.saturating_sub(MOST_EVENTS)
            }
        };
        match follow(&client, &name, (since, known), &messages).await {
            Pause::Slow(event) => {
                after = Some(event.seq);
                if messages.send(Message::Event(event)).await.is_err() {
                    return;
                }
            }
            Pause::Other => after = None,
            Pause::End => break,
        }
    }
    let _ = messages.send(Message::Quiet(name)).await;
}

/// Why reading events pauses.
enum Pause {
    /// They come faster than they are shown: this one is still to be told.
    Slow(Box<Event>),
    /// Its agents are others now, and events do not tell all of them.
    Other,
    /// There are no more.
    End,
}

/// Tells what came after the event number `since`. Up to `known` that changes nothing of what is known.
async fn follow(
    client: &Client,
    name: &ProjectName,
    (since, known): (u64, u64),
    messages: &Messages,
) -> Pause {
    let path = format!("/v1/projects/{name}/events?since={since}&follow=true");
    let mut pause = Pause::End;
    let take = |line: &[u8]| {
        let Ok(event) = serde_json::from_slice::<Event>(line) else { return ControlFlow::Continue(()) };
        let is_other = matches!(event.kind, EventKind::RunChanged { .. } | EventKind::RunStarted { .. });
        if is_other && event.seq > known {
            pause = Pause::Other;
            return ControlFlow::Break(());
        }
        match messages.try_send(Message::Event(Box::new(event))) {
            Err(mpsc::error::TrySendError::Full(Message::Event(event))) => {
                pause = Pause::Slow(event);
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        }
    };
    match client.lines(&path, take).await {
        Ok(()) => pause,
        Err(ClientError::NobodyThere { .. } | ClientError::Broken { .. } | ClientError::Refused(_)) => {
            Pause::End
        }
    }
}
