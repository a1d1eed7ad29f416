//! What an agent can say to the daemon, each kind with its rules.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{RpcError, TaskEnd, TaskEnter, TaskNext};
use crate::Progress;

/// Longest text that a message carries for people, in bytes; what is longer is cut, not refused.
pub const MAX_TEXT: usize = 1024;
/// Most metrics in one message, and of one agent at all: more than a person reads, far less than would fill a journal.
pub const MAX_METRICS: usize = 256;

/// Everything that can be asked at the agent's door.
#[derive(Debug, Clone, PartialEq)]
pub enum Call {
    /// `progress`: how far it is.
    Progress(Progress),
    /// `metrics`: numbers it reports of itself.
    Metrics(Metrics),
    /// `ready`: it does now what it is there for.
    Ready,
    /// `tasks/get`: what is there to do?
    TasksGet,
    /// `task/enter`: a child waits to begin a task.
    TaskEnter(TaskEnter),
    /// `task/next`: what is to be done for a task on which the daemon has a model work?
    TaskNext(TaskNext),
    /// `task/end`: it ended.
    TaskEnd(TaskEnd),
}

/// The params of `metrics`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// Name and value; at most [`MAX_METRICS`], names of 1 to 128 bytes, values finite.
    pub values: BTreeMap<String, f64>,
}

impl Call {
    /// The method's name.
    pub fn method(&self) -> &'static str {
        match self {
            Self::Progress(_) => "progress",
            Self::Metrics(_) => "metrics",
            Self::Ready => "ready",
            Self::TasksGet => "tasks/get",
            Self::TaskEnter(_) => "task/enter",
            Self::TaskNext(_) => "task/next",
            Self::TaskEnd(_) => "task/end",
        }
    }

    /// The params, as they go over the wire.
    pub(super) fn params(&self) -> Value {
        match self {
            Self::Progress(params) => to_value(params),
            Self::Metrics(params) => to_value(params),
            Self::Ready | Self::TasksGet => Value::Object(Map::new()),
            Self::TaskEnter(params) => to_value(params),
            Self::TaskNext(params) => to_value(params),
            Self::TaskEnd(params) => to_value(params),
        }
    }

    /// Reads a call and checks it.
    pub(super) fn read(method: &str, params: Value) -> Result<Self, RpcError> {
        match method {
            "progress" => within_limits(from_value(params)?).map(Self::Progress),
            "metrics" => Metrics::checked(from_value(params)?).map(Self::Metrics),
            "ready" => Ok(Self::Ready),
            "tasks/get" => Ok(Self::TasksGet),
            "task/enter" => from_value(params).map(Self::TaskEnter),
            "task/next" => from_value(params).map(Self::TaskNext),
            "task/end" => from_value(params).map(Self::TaskEnd),
            _ => Err(RpcError::new(RpcError::METHOD_NOT_FOUND, format!("no method {method:?}"))),
        }
    }
}

/// Within its limits: longer texts are cut to [`MAX_TEXT`] bytes.
fn within_limits(mut progress: Progress) -> Result<Progress, RpcError> {
    if progress.fraction.is_some_and(|fraction| !(0.0..=1.0).contains(&fraction)) {
        return Err(RpcError::new(RpcError::INVALID_PARAMS, "fraction must be from 0.0 to 1.0"));
    }
    for text in [&mut progress.status, &mut progress.task].into_iter().flatten() {
        *text = text[..text.floor_char_boundary(MAX_TEXT)].into();
    }
    Ok(progress)
}

impl Metrics {
    fn checked(self) -> Result<Self, RpcError> {
        let problem = if self.values.len() > MAX_METRICS {
            format!("at most {MAX_METRICS} metrics in one message")
        } else if let Some(name) = self.values.keys().find(|name| name.is_empty() || name.len() > 128) {
            format!("a metric's name has 1 to 128 bytes, not {}", name.len())
        } else if let Some((name, _)) = self.values.iter().find(|(_, value)| !value.is_finite()) {
            format!("{name} is no finite number")
        } else {
            return Ok(self);
        };
        Err(RpcError::new(RpcError::INVALID_PARAMS, problem))
    }
}

fn to_value(params: &impl Serialize) -> Value {
    serde_json::to_value(params).expect("maps with text keys, numbers and texts always are JSON")
}

fn from_value<T: DeserializeOwned>(params: Value) -> Result<T, RpcError> {
    serde_json::from_value(params).map_err(|error| RpcError::new(RpcError::INVALID_PARAMS, error.to_string()))
}
