//! What persons have opened in this run for agents that had ended at a wall of their sandbox, and which agents are on their way from that end to
//! the next life.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use toka_core::capability::{Policy, Trust};
use toka_core::{AgentName, ApprovalAnswer, Capability, Declared, Event, EventKind, Opening, Origin};
use toka_workstream::Agent;

/// Who begins an agent anew after a yes, for the record.
pub(crate) const APPROVAL: &str = "approval";

/// What is open to which agent besides its declaration, until the run ends.
#[derive(Debug, Clone, Default)]
pub(crate) struct Openings(Arc<Mutex<BTreeMap<AgentName, Vec<Opening>>>>);

impl Openings {
    pub(crate) fn add(&self, agent: &AgentName, opening: Opening) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_agent = open.entry(agent.clone()).or_default();
        if !of_agent.contains(&opening) {
            of_agent.push(opening);
        }
    }

    pub(crate) fn of(&self, agent: &AgentName) -> Vec<Opening> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(agent).cloned().unwrap_or_default()
    }

    /// The declaration of an agent with what is open to it.
    pub(crate) fn declared(&self, agent: &Agent) -> Agent {
        let mut agent = agent.clone();
        for opening in self.of(&agent.name) {
            let declared = |path: &String| Declared::new(path.clone(), Origin::CommandLine(APPROVAL.into()));
            match &opening {
                Opening::Read { path } => agent.confinement.read.push(declared(path)),
                Opening::Write { path } => agent.confinement.write.push(declared(path)),
                Opening::Capability { .. } | Opening::Network { .. } => {}
            }
        }
        agent
    }

    /// What a person grants, with what they have granted by their yes. What the policy denies stays denied.
    pub(crate) fn granted(&self, policy: &Policy) -> Policy {
        let open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let grants = open.iter().map(|(agent, openings)| {
            let grants = openings.iter().filter_map(|opening| match opening {
                Opening::Read { path } => Some(Capability::OutsideRead(path.clone())),
                Opening::Write { path } => Some(Capability::OutsideWrite(path.clone())),
                Opening::Capability { .. } | Opening::Network { .. } => None,
            });
            (agent.clone(), grants.collect())
        });
        policy.clone().with(&Policy { trust: Trust::Recorded(grants.collect()), ..Policy::default() })
    }
}

/// Agents between the end at a wall and the next life.
#[derive(Debug, Default)]
pub(crate) struct Denials {
    /// What was told of in the life that is about to end.
    pub(crate) told: BTreeMap<AgentName, Opening>,
    /// Those that begin anew, since a person has said yes.
    pub(crate) opened: BTreeSet<AgentName>,
}

/// What is asked about: files. Others have ways of their own (`network: {ask: true}`), or are a person's to write down.
fn is_asked(opening: &Opening) -> bool {
    matches!(opening, Opening::Read { .. } | Opening::Write { .. })
}

/// What was opened in a run that another daemon began, and who is still on the way.
pub(crate) fn recall(past: &[Event], asks: impl Fn(&AgentName) -> bool) -> (Openings, Denials) {
    let (openings, mut denials) = (Openings::default(), Denials::default());
    let mut asked: BTreeMap<u64, (AgentName, Opening)> = BTreeMap::new();
    for event in past {
        if let EventKind::ApprovalAnswered { id, answer: ApprovalAnswer::Approved { .. }, .. } = &event.kind
            && let Some((agent, opening)) = asked.remove(id)
        {
            openings.add(&agent, opening);
            denials.opened.insert(agent);
        }
        let Some(agent) = &event.agent else { continue };
        match &event.kind {
            EventKind::ApprovalAsked(approval) => {
                if let Some(opening) = approval.subject.opening() {
                    asked.insert(approval.id, (agent.clone(), opening.clone()));
                    denials.told.remove(agent);
                }
            }
            kind => denials.hear(agent, kind, &asks),
        }
    }
    (openings, denials)
}

impl Denials {
    /// Takes note of what happens to an agent, but for its end.
    pub(crate) fn hear(&mut self, agent: &AgentName, kind: &EventKind, asks: &impl Fn(&AgentName) -> bool) {
        match kind {
            EventKind::AgentHint { opening: Some(opening), .. } if is_asked(opening) && asks(agent) => {
                self.told.insert(agent.clone(), opening.clone());
            }
            EventKind::AgentRestarting { .. } => drop(self.told.remove(agent)),
            EventKind::AgentStarting | EventKind::AgentRequeued { .. } => {
                self.told.remove(agent);
                self.opened.remove(agent);
            }
            _ => {}
        }
    }
}
