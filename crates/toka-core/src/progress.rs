//! How far an agent is, in its own words: what one report says, and what follows from several. The runtime merges reports here to
//! write fewer events, and the status merges events here to say how far the agent is now.

use serde::{Deserialize, Serialize};

/// What a report says, as the params of `progress` and as an event; what is absent stays as it was, and an empty text takes
/// back the one before.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Progress {
    /// 0.0 to 1.0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fraction: Option<f64>,
    /// What it is doing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Box<str>>,
    /// The task that it is at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<Box<str>>,
}

impl Progress {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Becomes the one report that says what this one and a later one say together.
    pub fn merge(&mut self, later: Self) {
        let Self { fraction, status, task } = later;
        if let Some(fraction) = fraction.filter(|fraction| fraction.is_finite()) {
            self.fraction = Some(fraction.clamp(0.0, 1.0));
        }
        self.status = status.or_else(|| self.status.take());
        self.task = task.or_else(|| self.task.take());
    }

    /// How far the agent is after a report: nothing is left of what was taken back.
    pub fn observe(&mut self, report: Self) {
        self.merge(report);
        for text in [&mut self.status, &mut self.task] {
            text.take_if(|text| text.is_empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn report() -> impl Strategy<Value = Progress> {
        let fraction = prop::option::of(prop_oneof![-1.0..2.0f64, Just(f64::NAN), Just(f64::INFINITY)]);
        let text = || prop::option::of("[ab]{0,2}".prop_map(Box::from));
        (fraction, text(), text()).prop_map(|(fraction, status, task)| Progress { fraction, status, task })
    }

    proptest! {
        /// A reader of merged reports knows the same as a reader of each report.
        #[test]
        fn several_reports_in_one_say_the_same(reports in prop::collection::vec(report(), 1..8), cut in 0usize..8) {
            let mut one_by_one = Progress::default();
            reports.iter().for_each(|report| one_by_one.observe(report.clone()));
            let (first, rest) = reports.split_at(cut.min(reports.len()));
            let mut merged = Progress::default();
            for part in [first, rest] {
                let mut report = Progress::default();
                part.iter().for_each(|each| report.merge(each.clone()));
                merged.observe(report);
            }
            prop_assert_eq!(one_by_one, merged);
        }
    }

    #[test]
    fn it_is_an_event_and_the_params_of_a_call_alike() {
        let text = r#"{"fraction":0.5,"task":"t"}"#;
        let progress: Progress = serde_json::from_str(text).expect("params");
        assert_eq!(serde_json::to_string(&progress).expect("data"), text);
        assert!(
            serde_json::from_str::<Progress>(r#"{"fractoin":0.5}"#).is_err(),
            "what is unknown is refused"
        );
        let event = format!(
            r#"{{"seq":1,"time_ms":2,"project":"p","run":"{}","agent":"a","type":"progress","fraction":0.5,"task":"t"}}"#,
            uuid::Uuid::nil()
        );
        let read: crate::Event = serde_json::from_str(&event).expect("an event");
        assert_eq!(read.kind, crate::EventKind::Progress(progress));
        assert_eq!(serde_json::to_string(&read).expect("data"), event);
    }

    #[test]
    fn an_empty_text_takes_one_back() {
        let mut now =
            Progress { fraction: Some(0.5), status: Some("reading".into()), task: Some("t".into()) };
        now.observe(Progress { status: Some("".into()), ..Progress::default() });
        assert_eq!(now, Progress { fraction: Some(0.5), status: None, task: Some("t".into()) });
        now.observe(Progress { fraction: Some(f64::NAN), ..Progress::default() });
        assert_eq!(now.fraction, Some(0.5), "what is no number says nothing");
    }
}
