//! The only crate that speaks SQL: a project's events in one SQLite database, written by one and read by many.
//!
//! [`Writer`] takes numbered events in groups, makes a group durable when it is told to, keeps events in memory while they
//! cannot be written, and begins a new database when the old one is damaged. [`Reader`] reads them again, in any thread
//! or process, while the writer writes. Neither has a thread of its own: when to write is for the journal to say.
//!
//! ```text
//! Event ─▶ Record ─▶ Writer ─▶ backlog ─▶ one transaction ─▶ journal.db ─▶ Reader ─▶ Event
//!                      └─▶ Change: waits, loses, well again, begun anew
//! ```

mod aside;
mod backlog;
mod chain;
mod connection;
mod error;
mod filter;
mod health;
mod numbers;
mod reader;
mod record;
mod retention;
mod schema;
mod store;
mod writer;

pub use aside::SetAside;
pub use backlog::BACKLOG;
pub use chain::{Broken, Head, NoHead, Verified};
pub use error::StoreError;
pub use filter::Filter;
pub use health::{Change, Health, Trouble};
pub use reader::{Ending, Reader, Run};
pub use record::Record;
pub use retention::{Retention, Tended};
pub use store::{Durability, Settings};
pub use writer::{Opened, Writer};
