//! The events of a project as a stream of lines. Each reader has its own place in the journal and reads on from there when
//! there is more: one that is slow, or stops reading, holds up nobody and costs no memory.

use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use toka_core::{AgentName, Event, RunId};
use toka_prepare::folders::journal_in;
use toka_store::{Filter, Reader};
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use super::super::error::Error;
use super::super::server::Server;

/// Events that are read at once.
const PAGE: usize = 512;
/// Pages that wait for a reader.
const PAGES: usize = 2;

#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    /// The number of the last event that the reader has.
    #[serde(default)]
    since: u64,
    /// Whether to wait for more.
    #[serde(default)]
    follow: bool,
    /// Only those about this agent.
    agent: Option<String>,
    /// Only these kinds, separated by commas.
    kinds: Option<String>,
    /// Only those of the run with this id.
    run: Option<Uuid>,
}

pub(super) async fn events(
    State(server): State<Server>,
    Path(project): Path<String>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, Error> {
    let handle = server.project(&project)?;
    let Query(wanted) = wanted?;
    let agent = wanted.agent.as_deref().map(AgentName::new).transpose();
    let filter = Filter {
        agent: agent.map_err(|error| Error::bad_request(error.to_string()))?,
        types: wanted.kinds.iter().flat_map(|kinds| kinds.split(',')).map(str::to_owned).collect(),
        run: wanted.run.map(RunId::from_uuid),
    };
    let reader = Reader::new(journal_in(&handle.overview().root));
    let follow = wanted.follow.then(|| handle.moved());
    let (pages, lines) = mpsc::channel(PAGES);
    tokio::spawn(read_on(Place { reader, filter, after: wanted.since }, follow, pages));
    let body = Body::new(Pages(lines));
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

/// Where a reader is.
struct Place {
    reader: Reader,
    filter: Filter,
    after: u64,
}

impl Place {
    /// The next page as lines, empty when there is nothing more at the moment; and the place after it.
    fn next(mut self) -> (Self, Result<Vec<u8>, String>) {
        match self.reader.events(self.after, &self.filter, PAGE) {
            Ok(events) => {
                self.after = events.last().map_or(self.after, |event| event.seq);
                let lines = lines(&events);
                (self, Ok(lines))
            }
            Err(error) => (self, Err(error.to_string())),
        }
    }
}

fn lines(events: &[Event]) -> Vec<u8> {
    let mut text = Vec::new();
    for event in events {
        // What was read can be written.
        if serde_json::to_writer(&mut text, event).is_ok() {
            text.push(b'\n');
        }
    }
    text
}

/// Reads until there is nothing more, or as long as the run goes on and somebody reads.
async fn read_on(
    mut place: Place,
    mut follow: Option<watch::Receiver<u64>>,
    pages: mpsc::Sender<Result<Bytes, String>>,
) {
    let mut is_last = follow.is_none();
    loop {
        if let Some(moved) = &mut follow {
            moved.borrow_and_update();
        }
        let Ok((next, page)) = tokio::task::spawn_blocking(move || place.next()).await else { return };
        place = next;
        let is_empty = page.as_ref().is_ok_and(Vec::is_empty);
        let failed = page.is_err();
        if !is_empty && pages.send(page.map(Bytes::from)).await.is_err() || failed {
            return;
        }
        match &mut follow {
            _ if !is_empty => {}
            _ if is_last => return,
            Some(moved) => tokio::select! {
                // The run is over: its last events may just have come.
                changed = moved.changed() => is_last = changed.is_err(),
                () = pages.closed() => return,
            },
            None => return,
        }
    }
}

/// The pages as a body.
struct Pages(mpsc::Receiver<Result<Bytes, String>>);

impl hyper::body::Body for Pages {
    type Data = Bytes;
    type Error = String;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, String>>> {
        self.0.poll_recv(cx).map(|page| page.map(|page| page.map(hyper::body::Frame::data)))
    }
}
