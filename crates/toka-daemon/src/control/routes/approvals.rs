//! What waits for a person, and the answer.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{ConnectInfo, Path, State};
use toka_api::wire::{AnswerBody, AnsweredView, MAX_STEER};
use toka_core::approval::Reply;

use super::super::error::Error;
use super::super::peer::Peer;
use super::super::server::{OPERATOR, Server};

/// Answers an approval. Whether the peer is an agent was looked at before, as for every request.
pub(super) async fn answer(
    State(server): State<Server>,
    Path((project, id)): Path<(String, String)>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Result<Json<AnswerBody>, JsonRejection>,
) -> Result<Json<AnsweredView>, Error> {
    let handle = server.project(&project)?;
    let number = id.parse().map_err(|_| Error::bad_request(format!("{id:?} is no number of an approval")))?;
    let Json(AnswerBody { answer, words }) = body?;
    if words.as_ref().is_some_and(|words| words.trim().is_empty() || words.len() > MAX_STEER) {
        let why = format!("words are at least one, and at most {} KiB", MAX_STEER / 1024);
        return Err(Error::bad_request(why));
    }
    let reply = Reply { answer: answer.into(), words };
    let answer = handle.answer(number, reply, OPERATOR, peer.uid).await??;
    Ok(Json(AnsweredView { id: number, answer }))
}
