//! What others ask of an actor, and what they tell it; what they are told is an event, or the answer.

use toka_core::{AgentName, Decision, Exit, Request, Unmet};
use toka_keeper::KeeperEvent;
use tokio::sync::oneshot;

use crate::{Adjustment, Command, Terminal};

/// What others ask of an actor.
#[derive(Debug)]
pub(crate) enum Order {
    /// A request.
    Ask {
        /// What.
        request: Request,
        /// Who, for the record.
        by: String,
        /// Where the decision goes.
        answer: oneshot::Sender<Decision>,
    },
    /// It is to end, gracefully first, for a reason that is no request of anybody's.
    End {
        /// How it will have ended.
        exit: Exit,
    },
    /// A dependency did not succeed.
    Block {
        /// Which.
        by: AgentName,
        /// What was required of it.
        why: Option<Box<Unmet>>,
    },
    /// It cannot be started.
    Refuse {
        /// Why.
        exit: Exit,
    },
    /// How it is started from now on.
    Equip {
        /// What is executed.
        command: Box<Command>,
    },
    /// What of its profile is another from now on.
    Adjust {
        /// That.
        adjustment: Box<Adjustment>,
    },
    /// Whether its next life waits for what it depends on.
    HoldRestarts {
        /// Whether it does.
        restarts: Restarts,
    },
    /// What others may look at and type into, if it runs on a terminal.
    Terminal {
        /// Where that goes.
        answer: oneshot::Sender<Option<Terminal>>,
    },
    /// The keeper's word.
    Keeper(KeeperEvent),
}

/// Whether a life that its restart policy wants begins when it is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restarts {
    /// It does.
    Free,
    /// It waits: something that the agent requires to be ready is not.
    Held,
}
