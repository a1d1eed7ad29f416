//! The daemon that answers: control sockets with a file of routes for each thing that can be asked for, any number of projects, the
//! next daemon in its place, and the removal of what nobody needs any more.
//!
//! What runs is a [`toka_project::Project`] each; here it is found, asked and told of.

pub mod control;
pub mod gc;
mod service;

pub use service::{EndRequest, Ended, Service, ServiceOptions};
