//! How often and where an agent reports, and what it measures.

use serde::Serialize;
use toka_core::Declared;

use super::Channel;

/// `reporting`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Reporting {
    /// How often.
    pub frequency: Frequency,
    /// Where to.
    pub channels: Vec<Declared<Channel>>,
    /// What is measured, in the order of the file.
    pub metrics: Vec<Metric>,
}

/// How often an agent reports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Frequency {
    /// At every change of its state, once a second at most.
    RealTime,
    /// Once an hour, at its beginning.
    Hourly,
    /// Once a day, at midnight in UTC.
    Daily,
    /// Once a week, when Monday begins in UTC.
    Weekly,
    /// When a task has ended, an objective is met, or another quarter of its progress is done.
    OnMilestone,
    /// When the agent has ended, which every other frequency reports as well.
    #[default]
    OnCompletion,
}

/// One metric.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Metric {
    /// Its name.
    pub name: String,
    /// What it says.
    pub description: Option<String>,
    /// `counter`, `gauge`, …: free text.
    pub kind: Option<String>,
    /// Its unit, free text.
    pub unit: Option<String>,
}
