//! The daemon's side: a handle that starts, signals, freezes and asks, and a stream of what happened.

mod error;
mod handle;
mod kin;
mod open;
mod options;
mod succession;
mod traffic;

#[cfg(test)]
mod tests;

pub use error::{KeeperError, SpawnError};
pub use handle::{Keeper, Started};
pub use kin::Kin;
pub use open::Attached;
pub use options::{HostLook, KeeperOptions, Outlive};
pub use traffic::{KeeperEvent, kill_groups};
