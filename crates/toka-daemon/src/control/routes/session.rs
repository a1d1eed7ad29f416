//! What the session of an agent says, as a stream of lines: first what is on record, then what happens.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use serde::Deserialize;
use toka_core::{AgentName, SessionNews};
use tokio::sync::mpsc;

use super::super::error::Error;
use super::super::server::Server;
use super::steer::refused;

#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    /// The last line of the transcript that the reader has.
    #[serde(default)]
    after: u64,
}

pub(super) async fn session(
    State(server): State<Server>,
    Path((project, agent)): Path<(String, String)>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, Error> {
    let handle = server.project(&project)?;
    let Query(Wanted { after }) = wanted?;
    let agent: AgentName =
        agent.parse().map_err(|error| Error::bad_request(format!("{agent:?} is no agent: {error}")))?;
    let news = handle.look_on(agent.clone(), after).await?.map_err(|error| refused(&agent, &error))?;
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], Body::new(News(news))).into_response())
}

/// News as a body, each a line.
struct News(mpsc::Receiver<SessionNews>);

impl hyper::body::Body for News {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let line = |news: SessionNews| {
            // What has names and texts alone can be written.
            let mut line = serde_json::to_vec(&news).unwrap_or_default();
            line.push(b'\n');
            Ok(Frame::data(Bytes::from(line)))
        };
        self.0.poll_recv(cx).map(|news| news.map(line))
    }
}
