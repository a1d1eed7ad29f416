//! What waits for a person, and the answer.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{ConnectInfo, Path, State};
use toka_api::wire::{AnswerBody, AnsweredView};

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
    let Json(AnswerBody { answer }) = body?;
    let answer = handle.answer(number, answer.into(), OPERATOR, peer.uid).await??;
    Ok(Json(AnsweredView { id: number, answer }))
}
