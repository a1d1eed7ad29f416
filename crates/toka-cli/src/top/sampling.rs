//! What agents use and how busy the machine is, once a second: of a few agents all, of many those on the screen, and the
//! others now and then, so that a daemon with a thousand agents is not kept busy by being looked at.

use std::time::{Duration, Instant};

use toka_api::client::Client;
use toka_core::{AgentName, ProjectName};
use tokio::sync::{mpsc, watch};

use super::machine::Machine;
use super::model::{Link, Message, Model, Sample};

/// How long between two looks.
const PERIOD: Duration = Duration::from_secs(1);
/// Up to so many agents, all are looked at every time.
const FEW: usize = 100;
/// Beyond that, all are looked at every so many times.
const ALL_EVERY: u64 = 5;

/// How well they are is judged every so many times, of few and of many agents; and in which of these turns, the first of which
/// knows nobody yet.
const HEALTH_EVERY: u64 = 3;
const HEALTH_OF_MANY_EVERY: u64 = 30;
const HEALTH_AT: u64 = 1;

/// Who is to be looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Watched {
    projects: Vec<(Client, ProjectName, Vec<AgentName>)>,
    agents: usize,
}

impl Watched {
    /// The agents on the screen.
    pub(crate) fn of(model: &Model) -> Self {
        let mut projects = Vec::new();
        for (name, project) in &model.projects {
            let of_project = |id: &&super::rows::AgentId| id.project == *name;
            let visible = || model.visible().iter().map(|row| &row.id);
            let selected = model.selected.iter().filter(|id| visible().all(|seen| seen != *id));
            let seen = visible().chain(selected).filter(of_project);
            if project.link == Link::Live {
                projects.push((
                    project.client.clone(),
                    name.clone(),
                    seen.map(|id| id.agent.clone()).collect(),
                ));
            }
        }
        Self { projects, agents: model.agents().count() }
    }

    /// Whom to ask about in the `turn`th turn: a project with nobody named is asked about everybody.
    fn asked(&self, turn: u64) -> Vec<(Client, ProjectName, Vec<AgentName>)> {
        if self.agents <= FEW || turn.is_multiple_of(ALL_EVERY) {
            let all =
                |(client, name, _): &(Client, ProjectName, _)| (client.clone(), name.clone(), Vec::new());
            return self.projects.iter().map(all).collect();
        }
        self.projects.iter().filter(|(.., agents)| !agents.is_empty()).cloned().collect()
    }
}

/// Tells it, until nobody wants to hear it.
pub(crate) async fn sample(watched: watch::Receiver<Watched>, messages: mpsc::Sender<Message>) {
    let begun = Instant::now();
    let mut clock = tokio::time::interval(PERIOD);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for turn in 0.. {
        clock.tick().await;
        if messages.send(Message::Machine(Machine::look())).await.is_err() {
            return;
        }
        let asked = watched.borrow().asked(turn);
        let few = watched.borrow().agents <= FEW;
        if turn % if few { HEALTH_EVERY } else { HEALTH_OF_MANY_EVERY } == HEALTH_AT {
            judge(&asked, &messages).await;
        }
        for (client, project, asked) in asked {
            // Whether the daemon answers at all is told by its events.
            let Ok(view) = client.resources(&project, &asked).await else { continue };
            let sample = Sample { project, at: begun.elapsed(), asked, view };
            let _ = messages.send(Message::Figures(sample)).await;
        }
    }
}

/// How well everybody is, of each daemon that has one of the projects.
async fn judge(asked: &[(Client, ProjectName, Vec<AgentName>)], messages: &mpsc::Sender<Message>) {
    let mut clients: Vec<&Client> = Vec::new();
    for (client, ..) in asked {
        if !clients.contains(&client) {
            clients.push(client);
        }
    }
    for client in clients {
        let Ok(view) = client.health().await else { continue };
        for project in view.projects {
            let _ = messages.send(Message::Health(Box::new(project))).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use toka_core::Name;

    use super::*;

    #[test]
    fn of_many_agents_those_on_the_screen_are_looked_at_most() {
        let name = |text| Name::new(text).expect("a label");
        let client = || Client::new("/nowhere");
        let watched = |agents| Watched {
            projects: vec![
                (client(), name("shop"), vec![name("api")]),
                (client(), name("unseen"), Vec::new()),
            ],
            agents,
        };
        let asked = |agents, turn| -> Vec<(String, usize)> {
            let asked = watched(agents).asked(turn);
            asked.into_iter().map(|(_, name, agents)| (name.to_string(), agents.len())).collect()
        };
        let all = [("shop".to_owned(), 0), ("unseen".to_owned(), 0)];
        assert_eq!(asked(FEW, 1), all);
        assert_eq!(asked(FEW + 1, 1), [("shop".to_owned(), 1)]);
        assert_eq!(asked(FEW + 1, ALL_EVERY), all);
    }
}
