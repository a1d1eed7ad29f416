//! `spec.model`.

use serde::Serialize;
use toka_core::{Declared, ModelName, Origin};

/// Which models an agent asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModelUse {
    /// The models that it may ask, the first before the others; empty for those that the person has chosen.
    pub chain: Vec<Declared<ModelName>>,
    /// Where it is declared.
    pub origin: Origin,
}
