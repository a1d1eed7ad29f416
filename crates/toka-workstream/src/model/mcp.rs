//! Servers of tools that speak the Model Context Protocol.

use serde::Serialize;
use toka_core::Origin;

/// One of `spec.mcp`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct McpServer {
    /// Its name.
    pub name: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Where it is declared.
    pub origin: Origin,
}
