//! The only crate that grants: whatever leaves a sandbox and costs something is counted against budgets here, and waits here for a person
//! when a budget does not suffice.
//!
//! ```text
//!  a call ─▶ admit ─▶ accounts: does it fit? ── yes ─▶ reserved until its receipt
//!              ▲                  │
//!              │                  ├─ when others are over, perhaps ─▶ waits for their receipts
//!              │                  └─ no ─▶ approvals: asked once, answered once, or expired
//!              └───────── raised ─────────────────────┘
//! ```
//!
//! What is decided is pure and knows the time as a number ([`Accounts`], [`Approvals`]). The truth is the journal: accounts and approvals
//! are what its events say, and a daemon that succeeds another reads them again. Only reservations are ahead of it.

mod accounts;
mod approvals;
mod broker;

pub use accounts::{Accounts, Fit, Nearing, Over};
pub use approvals::{Answered, Approvals, NotAnswered};
pub use broker::{Broker, HostGrants, Record};
