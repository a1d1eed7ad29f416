//! What persons have opened in this run for agents that had ended at a wall of their sandbox, and which agents are on their way from that end to
//! the next life.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use toka_core::capability::{Policy, Trust};
use toka_core::{AgentName, ApprovalAnswer, Capability, Declared, Event, EventKind, Exit, Opening, Origin};
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

    /// Closes again what was opened for these agents.
    pub(crate) fn forget<'a>(&self, agents: impl IntoIterator<Item = &'a AgentName>) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        agents.into_iter().for_each(|agent| drop(open.remove(agent)));
    }

    /// Others, without what was opened for these agents.
    pub(crate) fn without<'a>(&self, agents: impl IntoIterator<Item = &'a AgentName>) -> Self {
        let copy = Self(Arc::new(Mutex::new(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone())));
        copy.forget(agents);
        copy
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
    /// Those that have ended, and about which nobody was asked before the daemon was killed.
    pub(crate) unasked: BTreeMap<AgentName, Opening>,
    /// Those that begin anew, since a person has said yes.
    pub(crate) opened: BTreeSet<AgentName>,
    /// Those of them that have not begun yet, as far as the journal tells.
    beginning: BTreeSet<AgentName>,
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
            denials.beginning.insert(agent.clone());
            denials.opened.insert(agent);
        }
        if let EventKind::RunChanged { added, changed, removed, .. } = &event.kind {
            openings.forget(added.iter().chain(changed).chain(removed));
        }
        let Some(agent) = &event.agent else { continue };
        match &event.kind {
            EventKind::ApprovalAsked(approval) => {
                if let Some(opening) = approval.subject.opening() {
                    asked.insert(approval.id, (agent.clone(), opening.clone()));
                    denials.unasked.remove(agent);
                }
            }
            EventKind::AgentEnded { exit, .. } | EventKind::AgentQuarantined { exit, .. } => {
                // What a person had opened, admission refused.
                if denials.beginning.remove(agent) {
                    openings.forget([agent]);
                }
                let told = denials.told.remove(agent);
                if let Some(opening) = told.filter(|opening| is_to_ask(&openings, agent, opening, exit)) {
                    denials.unasked.insert(agent.clone(), opening);
                }
            }
            kind => denials.hear(agent, kind, &asks),
        }
    }
    (openings, denials)
}

/// Most paths that are opened for one agent in a run: each is a question, and a person may not read the twentieth.
const MOST_OPENINGS: usize = 10;

/// Whether a person is asked about what an agent has ended at: what is open already is not what it ended at.
pub(crate) fn is_to_ask(openings: &Openings, agent: &AgentName, opening: &Opening, exit: &Exit) -> bool {
    let open = openings.of(agent);
    exit.is_failure() && !open.contains(opening) && open.len() < MOST_OPENINGS
}

impl Denials {
    fn forget(&mut self, agent: &AgentName) {
        self.told.remove(agent);
        self.unasked.remove(agent);
        self.opened.remove(agent);
    }

    /// Takes note of what happens to an agent, but for its end.
    pub(crate) fn hear(&mut self, agent: &AgentName, kind: &EventKind, asks: &impl Fn(&AgentName) -> bool) {
        match kind {
            EventKind::AgentHint { opening: Some(opening), .. } if is_asked(opening) && asks(agent) => {
                self.told.insert(agent.clone(), opening.clone());
            }
            EventKind::AgentRestarting { .. } => drop(self.told.remove(agent)),
            EventKind::AgentRequeued { .. } => self.forget(agent),
            EventKind::AgentStarting => {
                self.forget(agent);
                self.beginning.remove(agent);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use toka_core::approval::Subject;
    use toka_core::event::{Awaits, Usage};
    use toka_core::{Approval, Name, RunId};

    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).expect("a label")
    }

    /// A journal of agent `a`.
    fn past(kinds: Vec<EventKind>) -> Vec<Event> {
        let event = |(seq, kind)| Event {
            seq,
            time_ms: 0,
            project: name("p"),
            run: RunId::from_uuid(uuid::Uuid::nil()),
            agent: Some(name("a")),
            kind,
        };
        (1..).zip(kinds).map(event).collect()
    }

    fn opening() -> Opening {
        Opening::Read { path: "/srv/data".into() }
    }

    fn hint() -> EventKind {
        EventKind::AgentHint {
            wrote: "x".into(),
            by_kernel: false,
            why: "y".into(),
            origin: None,
            opening: Some(opening()),
        }
    }

    fn ended(exit: Exit) -> EventKind {
        EventKind::AgentEnded { exit, duration_ms: 1, usage: Usage::default() }
    }

    fn failed() -> EventKind {
        ended(Exit::Code { code: 1 })
    }

    fn asked() -> EventKind {
        let subject = Subject::Denial { opening: opening() };
        EventKind::ApprovalAsked(Approval { id: 1, subject, expires_ms: 9 })
    }

    fn yes() -> EventKind {
        let answer = ApprovalAnswer::YES;
        EventKind::ApprovalAnswered {
            id: 1,
            kind: "denial".into(),
            answer,
            by: "operator".into(),
            uid: None,
            words: None,
        }
    }

    fn requeued() -> EventKind {
        EventKind::AgentRequeued { by: APPROVAL.into(), awaits: Awaits::Dependencies }
    }

    #[test]
    fn whoever_was_killed_leaves_nobody_waiting_for_ever() {
        let agent = name("a");
        let of = |kinds: Vec<EventKind>| recall(&past(kinds), |_| true);
        // Killed before it could ask.
        let (_, denials) = of(vec![hint(), failed()]);
        assert_eq!(denials.unasked.get(&agent), Some(&opening()));
        assert!(denials.told.is_empty() && denials.opened.is_empty());
        // Asked, and not answered.
        let (openings, denials) = of(vec![hint(), failed(), asked()]);
        assert!(denials.unasked.is_empty() && openings.of(&agent).is_empty());
        // Answered, and not begun anew yet; then begun.
        let (openings, denials) = of(vec![hint(), failed(), asked(), yes()]);
        assert!(denials.opened.contains(&agent) && openings.of(&agent) == [opening()]);
        let begun = vec![hint(), failed(), asked(), yes(), requeued(), EventKind::AgentStarting];
        let (openings, denials) = of(begun.clone());
        assert!(denials.opened.is_empty() && openings.of(&agent) == [opening()]);
        // It has ended at what is open already: nobody is asked again, and nobody waits.
        let (_, denials) = of([begun, vec![hint(), failed()]].concat());
        assert!(denials.told.is_empty() && denials.unasked.is_empty());
        // Admission refused what was opened: it is closed again.
        let refused = ended(Exit::StartFailed { reason: "denied".into() });
        let (openings, _) = of(vec![hint(), failed(), asked(), yes(), requeued(), refused]);
        assert!(openings.of(&agent).is_empty());
        // Who has not declared it is not asked.
        let (_, denials) = recall(&past(vec![hint(), failed()]), |_| false);
        assert!(denials.unasked.is_empty());
    }
}
