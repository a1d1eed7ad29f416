//! What an agent asks of models at its port: who may ask, what it is, and which way it goes.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Bytes, Incoming};
use toka_core::Wire;
use toka_wire::wire::of_client;
use toka_wire::{Endpoint, Problem, ProblemKind, RequestFacts, Route};
use tokio::sync::OwnedSemaphorePermit;

use crate::batched::Batches;
use crate::call::{Asked, of_problem};
use crate::candidates::{Candidate, candidates};
use crate::joined::Fingerprint;
use crate::log::next_number;
use crate::outgoing::Outgoing;
use crate::port::{MOST_ASKED, PortState};
use crate::{batched, headers};

/// How long a client may take to send its request.
const ASKS_WITHIN: Duration = Duration::from_secs(120);

/// Answers a request of an agent.
pub(crate) async fn handle(
    port: Arc<PortState>,
    batches: &Arc<Batches>,
    request: Request<Incoming>,
) -> Response<Outgoing> {
    let (head, body) = request.into_parts();
    let anthropic = head.headers.contains_key("anthropic-version");
    let (route, wire) = match Route::find(head.method.as_str(), head.uri.path(), anthropic) {
        Ok(route) => {
            let wire = route.endpoint.wire();
            (Ok(route), wire)
        }
        Err(error) => (Err(error), of_client(head.uri.path(), anthropic)),
    };
    if let Some(quiet) = quiet(&head, wire) {
        return quiet;
    }
    let answered = async {
        if !port.has_models() {
            let message = "this agent asks no models: `spec.model` would say so, and a person grant it";
            return Err(Problem::new(ProblemKind::Denied, message));
        }
        if !headers::keys(&head.headers, head.uri.query()).iter().any(|key| port.is_key(key)) {
            let message = "the key is not the one of this agent: use the variables that Toka set (ANTHROPIC_API_KEY, OPENAI_API_KEY, …)";
            return Err(Problem::new(ProblemKind::Key, message));
        }
        let route = route.map_err(|error| {
            let help = "Toka passes on chat completions, responses, embeddings, messages, generateContent and lists of models";
            Problem::new(ProblemKind::NotFound, format!("{error}; {help}"))
        })?;
        ask((&port, batches), &route, head, body).await
    };
    match answered.await {
        Ok(response) => response,
        Err(problem) => {
            port.refused(&problem);
            of_problem(&problem, wire, None)
        }
    }
}

/// Answers a request of an agent whose session this process keeps: nobody else can ask here, so that it needs no key.
pub(crate) async fn handle_own(
    port: Arc<PortState>,
    batches: &Arc<Batches>,
    request: Request<Full<Bytes>>,
) -> Response<Outgoing> {
    let (head, body) = request.into_parts();
    let route = match Route::find(head.method.as_str(), head.uri.path(), false) {
        Ok(route) => route,
        Err(error) => {
            let problem = Problem::new(ProblemKind::NotFound, error.to_string());
            return of_problem(&problem, of_client(head.uri.path(), false), None);
        }
    };
    match ask((&port, batches), &route, head, body).await {
        Ok(response) => response,
        Err(problem) => {
            port.refused(&problem);
            of_problem(&problem, route.endpoint.wire(), None)
        }
    }
}

/// What programs try that is no call and no mistake of theirs: whether anybody is there, and whether it speaks WebSocket (RFC 6455), which
/// they leave when they hear of 426.
fn quiet(head: &Parts, wire: Wire) -> Option<Response<Outgoing>> {
    if head.method == http::Method::HEAD {
        let mut response = Response::new(Outgoing::Whole(Full::default()));
        *response.status_mut() = StatusCode::NOT_FOUND;
        return Some(response);
    }
    let upgrade = head.headers.get("upgrade")?;
    let problem = Problem::new(ProblemKind::NotFound, "models are asked over plain HTTP here");
    let mut response = of_problem(&problem, wire, None);
    if upgrade.to_str().is_ok_and(|upgrade| upgrade.eq_ignore_ascii_case("websocket")) {
        *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
    }
    Some(response)
}

async fn ask<B: Body<Data = Bytes, Error: Display> + Unpin>(
    (port, batches): (&Arc<PortState>, &Arc<Batches>),
    route: &Route,
    head: Parts,
    body: B,
) -> Result<Response<Outgoing>, Problem> {
    let wire = route.endpoint.wire();
    let providers = port.providers.get();
    if let Endpoint::Models(wire) = route.endpoint {
        let found = if port.declared.is_empty() {
            let all = providers.all();
            let speaks = |wire| all.iter().find(|provider| provider.speaks(wire));
            speaks(wire)
                .or_else(|| speaks(Wire::OpenAiResponses).filter(|_| wire == Wire::OpenAiChat))
                .cloned()
        } else {
            None
        };
        // Without one there is a reason, which is told as for any other request.
        let provider = match found {
            Some(provider) => provider,
            None => Arc::clone(&candidates("default", wire, &port.declared, &providers)?[0].provider),
        };
        let candidate = Candidate { provider, model: route.model.clone().unwrap_or_default() };
        let facts = RequestFacts::of_nothing();
        let asked = Asked::new(port, providers, route, (head, Bytes::new()), facts, None);
        return asked.without_meter(&candidate).await;
    }
    let (body, room) = read(port, &head, body).await?;
    let facts = RequestFacts::read(route.endpoint, route.model.as_deref(), &body)
        .map_err(|error| Problem::new(ProblemKind::BadRequest, error.to_string()))?;
    let mut candidates = candidates(&facts.model, wire, &port.declared, &providers)?;
    if facts.is_stateful {
        // What it goes on with is kept by one of them.
        candidates.truncate(1);
    }
    let asked = Asked::new(port, providers, route, (head, body), facts, Some(room));
    if !asked.route.endpoint.is_metered() {
        return asked.without_meter(&candidates[0]).await;
    }
    let call = next_number();
    let print = || {
        let target = asked.head.uri.path_and_query().map_or("", |target| target.as_str());
        Fingerprint::of(target, &headers::of_request(&asked.head.headers), &asked.body)
    };
    if let Some(api) = batches.api_of(&asked, &candidates[0]) {
        let print = print();
        return batched::ask(batches, (asked, candidates), (call, api), print).await;
    }
    let port = &asked.port;
    if !port.joins || asked.facts.is_stateful {
        return asked.with_meter(&candidates, call).await;
    }
    let print = print();
    let make = || asked.with_meter(&candidates, call);
    port.flights.join(print, call, make, |first| port.joined(first)).await
}

/// The whole body of a request, within the room that the agent has for those: taken as the bytes come.
async fn read<B: Body<Data = Bytes, Error: Display> + Unpin>(
    port: &PortState,
    head: &Parts,
    mut body: B,
) -> Result<(Bytes, OwnedSemaphorePermit), Problem> {
    let bad = |message: String| Problem::new(ProblemKind::BadRequest, message);
    let too_large = || {
        let message = format!("the request is larger than {} MiB", MOST_ASKED / 1024 / 1024);
        Problem::new(ProblemKind::TooLarge, message)
    };
    let told =
        head.headers.get("content-length").and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if told.is_some_and(|told| told > MOST_ASKED) {
        return Err(too_large());
    }
    if head.headers.get("content-encoding").is_some_and(|value| value != "identity") {
        return Err(bad("a compressed request cannot be read: send it without Content-Encoding".to_owned()));
    }
    let is_full = AtomicBool::new(false);
    let whole = async {
        is_full.store(true, Ordering::Relaxed);
        let closed = |_| bad("the port is closed".to_owned());
        let mut room = Arc::clone(&port.room).acquire_many_owned(1).await.map_err(closed)?;
        is_full.store(false, Ordering::Relaxed);
        let mut whole = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| bad(format!("the request broke off: {error}")))?;
            let Some(data) = frame.data_ref() else { continue };
            if whole.len() + data.len() > MOST_ASKED {
                return Err(too_large());
            }
            let kib = |bytes: usize| u32::try_from(bytes / 1024 + 1).unwrap_or(u32::MAX);
            let more = kib(whole.len() + data.len()) - kib(whole.len());
            is_full.store(true, Ordering::Relaxed);
            room.merge(Arc::clone(&port.room).acquire_many_owned(more).await.map_err(closed)?);
            is_full.store(false, Ordering::Relaxed);
            whole.extend_from_slice(data);
        }
        Ok((whole.freeze(), room))
    };
    match tokio::time::timeout(ASKS_WITHIN, whole).await {
        Ok(read) => read,
        Err(_) if is_full.load(Ordering::Relaxed) => Err(Problem::new(
            ProblemKind::Busy,
            "other requests of this agent take all the room that there is for them: try again when some of them are over",
        )),
        Err(_) => Err(bad("the request did not come to its end within two minutes".to_owned())),
    }
}
