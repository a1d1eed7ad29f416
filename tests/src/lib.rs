//! What the end-to-end tests share: the program under test, users, scenes to attack, needs of the host, and a look for
//! traces afterwards.
//!
//! The tests see Toka as people do, through its one binary. The attacker is a program of its own
//! (`src/bin/attack/`) that runs inside the sandbox and only reports; the tests decide what was right.

mod answers;
mod binary;
mod certificate;
mod clock;
mod detached;
mod host;
pub mod measure;
mod need;
pub mod openmetrics;
mod program;
mod running;
mod scene;
pub mod socket;
mod terminal;
mod traces;
mod user;
mod wait;
mod web;
mod workstream;

pub use answers::{Answer, Proof, Try, allowed, answers_in, denied, words_of};
pub use binary::{attack_binary, toka_binary, workspace_root};
pub use certificate::{Authority, Certificate};
pub use clock::WallClock;
pub use detached::Detached;
pub use host::{Listener, Victim, abstract_listener, tells_exits, unix_datagram, unix_listener};
pub use need::{Need, require};
pub use program::write_program;
pub use running::Running;
pub use scene::{Finished, Scene, check};
pub use socket::listener_at;
pub use terminal::{OnTerminal, Reading};
pub use traces::{cgroups_of, processes_with};
pub use user::User;
pub use wait::until;
pub use web::{Posted, Serves, WebServer};
pub use workstream::Document;

/// Makes two tests of each function: one as root, one as an ordinary user.
#[macro_export]
macro_rules! as_both_users {
    ($($name:ident),* $(,)?) => {
        mod as_root {
            $(#[test]
            fn $name() {
                if let Some(user) = $crate::User::root() {
                    super::$name(user);
                }
            })*
        }
        mod as_ordinary_user {
            $(#[test]
            fn $name() {
                if let Some(user) = $crate::User::ordinary() {
                    super::$name(user);
                }
            })*
        }
    };
}
