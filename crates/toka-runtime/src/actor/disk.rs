//! Looks how much storage an agent holds, and ends one that holds more than it may.

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Actor;
use super::notices::Remark;
use crate::Processes;
use crate::disk::{Measured, rest, verdict};

/// The measurements of one life.
pub(super) enum Survey {
    /// It is measured then.
    Due(Instant),
    /// It is being measured.
    UnderWay(oneshot::Receiver<Measured>),
    /// It is paused, and writes nothing.
    Held,
}

impl Survey {
    pub(super) fn due(&self) -> Option<Instant> {
        match self {
            Self::Due(when) => Some(*when),
            Self::UnderWay(_) | Self::Held => None,
        }
    }
}

impl<P: Processes> Actor<P> {
    /// Begins to measure, when it runs; at once, since much may be there from earlier lives.
    pub(super) fn survey(&mut self) {
        self.survey = self.profile.disk.is_some().then(|| Box::new(Survey::Due(Instant::now())));
    }

    pub(super) fn pause_survey(&mut self) {
        self.survey = self.survey.take().map(|_| Box::new(Survey::Held));
    }

    /// Measures, when it is time to.
    pub(super) fn survey_if_due(&mut self, now: Instant) {
        let is_due = self.survey.as_ref().and_then(|survey| survey.due()).is_some_and(|due| due <= now);
        if let Some(limit) = self.profile.disk.as_ref().filter(|_| is_due) {
            self.survey = Some(Box::new(Survey::UnderWay(self.surveyor.measure(limit))));
        }
    }

    pub(super) async fn on_measured(&mut self, measured: Measured) {
        let Some(limit) = self.profile.disk.as_ref().map(|disk| disk.limit) else { return };
        if let Some(exit) = verdict(measured.held, limit) {
            self.survey = None;
            self.stop(exit).await;
            return;
        }
        if measured.held.unseen > 0 {
            self.remark(Remark::Unseen);
        }
        self.survey = Instant::now().checked_add(rest(measured.took)).map(Survey::Due).map(Box::new);
    }
}

/// What was measured, when something is.
pub(super) async fn measured(survey: &mut Option<Box<Survey>>) -> Measured {
    if let Some(Survey::UnderWay(answer)) = survey.as_deref_mut()
        && let Ok(measured) = answer.await
    {
        return measured;
    }
    std::future::pending().await
}
