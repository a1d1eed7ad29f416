//! Tells that a secret leaves which is not the agent's to send: once in a life of the agent for each secret and receiver.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use toka_core::{AgentName, EventKind};

use crate::known_secrets::{KnownSecrets, Receiver, Search};
use crate::log::record_beside;
use crate::{CallLog, Current};

/// Secrets and receivers that are told in one life of an agent.
const MOST_TOLD: usize = 100;

/// The alarm of one port.
pub(crate) struct SecretAlarm {
    agent: AgentName,
    secrets: Arc<KnownSecrets>,
    /// Whose keys are looked for, too.
    providers: Arc<Current>,
    log: Arc<dyn CallLog>,
    told: Mutex<BTreeSet<(Arc<str>, String)>>,
}

impl SecretAlarm {
    pub(crate) fn new(
        agent: AgentName,
        secrets: Arc<KnownSecrets>,
        providers: Arc<Current>,
        log: Arc<dyn CallLog>,
    ) -> Self {
        Self { agent, secrets, providers, log, told: Mutex::default() }
    }

    /// What is looked for.
    pub(crate) fn secrets(&self) -> &KnownSecrets {
        &self.secrets
    }

    /// Looks for secrets in the parts of a request to a model.
    pub(crate) fn look_at_request(&self, parts: &[&[u8]], provider: &str) {
        let search = self.search(Receiver::Model);
        parts.iter().for_each(|part| self.tell(&search.whole(part), provider));
    }

    /// A search in what goes to somebody.
    pub(crate) fn search(&self, receiver: Receiver) -> Search {
        self.secrets.of_others(&self.agent, receiver, &self.providers.get().keys())
    }

    /// Records what was found in what goes to somebody.
    pub(crate) fn tell(&self, found: &[Arc<str>], to: &str) {
        for name in found {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            if told.len() < MOST_TOLD && told.insert((Arc::clone(name), to.to_owned())) {
                let kind = EventKind::SecretSent { secret: name.to_string(), to: to.to_owned() };
                record_beside(&*self.log, kind);
            }
        }
    }
}
