//! The only crate that opens HTTP connections to elsewhere: for probes of agents, for reports to web servers, and for whatever reaches
//! outside for an agent.
//!
//! ```text
//!  Request ─▶ Client ─▶ pool ─▶ Connector ─▶ Way: in which network a socket is made, who is asked for a name
//!                                 │            └─▶ AddressRule: which addresses are never talked to
//!                                 └─▶ tls: whom Trust believes, which version of HTTP both speak
//!  Response: a head of bounded length; a body that is read as it is wanted, so that who is slow holds the sender up
//! ```
//!
//! Nothing is followed, and nothing is tried again: who asks decides about that.

mod address;
mod client;
mod connector;
mod error;
mod hello;
mod tls;
mod way;

pub use address::AddressRule;
pub use client::{Client, HEAD, Options, Pool, skim};
pub use error::HttpError;
pub use hello::{Hello, HelloReader};
pub use tls::{Trust, Versions};
pub use way::{MakesSockets, NetworkReach, Way};
