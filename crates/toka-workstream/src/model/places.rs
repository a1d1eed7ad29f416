//! An agent without the places in files that its values come from: two that say the same are equal, wherever they say it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use toka_core::Origin;

use super::Agent;

impl Agent {
    /// The same agent, declared nowhere. A field with a place that is not named here makes two agents different that say the
    /// same, which is seen; one that is left out of a comparison would not be.
    #[must_use]
    pub fn without_places(&self) -> Self {
        let mut agent = Self { file: PathBuf::new(), spec_places: BTreeMap::new(), ..self.clone() };
        agent.places().into_iter().for_each(|origin| *origin = Origin::default_of(""));
        agent
    }

    fn places(&mut self) -> Vec<&mut Origin> {
        let hooks = &mut self.hooks;
        let hooks = [&mut hooks.pre_start, &mut hooks.post_start, &mut hooks.pre_stop, &mut hooks.post_stop];
        let mut places = self.confinement.places();
        places.push(&mut self.origin);
        places.extend(
            self.process.iter_mut().flat_map(|it| [&mut it.command_origin, &mut it.working_dir.origin]),
        );
        places.extend(self.tasks.iter_mut().map(|it| &mut it.origin));
        places.extend(self.dependencies.iter_mut().map(|it| &mut it.origin));
        places.extend(self.secrets.iter_mut().map(|it| &mut it.origin));
        places.extend(self.mcp.iter_mut().map(|it| &mut it.origin));
        places.extend(self.schedule.iter_mut().map(|it| &mut it.origin));
        places.extend(self.objectives.iter_mut().map(|it| &mut it.origin));
        places.extend(self.reporting.channels.iter_mut().map(|it| &mut it.origin));
        if let Some(model) = &mut self.model {
            places.push(&mut model.origin);
            places.extend(model.chain.iter_mut().map(|it| &mut it.origin));
        }
        places.extend(hooks.into_iter().flatten().map(|it| &mut it.origin));
        places
    }
}
