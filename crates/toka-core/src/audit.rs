//! Which events are acts that somebody may have to answer for, and how an audit tells them: one envelope, whatever happened.
//!
//! The record is the journal itself, which has a hash over each row and the one before it. What is here is a way to read it.

use serde::Serialize;
use serde_json::{Value, json};

use crate::{AgentName, ApprovalAnswer, CallOutcome, Event, EventKind, HostOutcome, Opening};

/// What became of an act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditStatus {
    /// It was done.
    Success,
    /// It was refused, or failed.
    Failure,
    /// It was about to be done, or waits.
    Pending,
}

impl AuditStatus {
    fn of(is_success: bool) -> Self {
        if is_success { Self::Success } else { Self::Failure }
    }
}

/// What an act was. Its name has a family before the dot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr, strum::VariantNames)]
#[expect(missing_docs, reason = "the name says it")]
pub enum ActKind {
    #[strum(serialize = "run.started")]
    RunStarted,
    #[strum(serialize = "run.changed")]
    RunChanged,
    #[strum(serialize = "run.ending")]
    RunEnding,
    #[strum(serialize = "run.ended")]
    RunEnded,
    #[strum(serialize = "agent.started")]
    AgentStarted,
    #[strum(serialize = "agent.paused")]
    AgentPaused,
    #[strum(serialize = "agent.resumed")]
    AgentResumed,
    #[strum(serialize = "agent.ended")]
    AgentEnded,
    #[strum(serialize = "denial.suspected")]
    DenialSuspected,
    #[strum(serialize = "wall.planted")]
    WallPlanted,
    #[strum(serialize = "wall.uncovered")]
    WallUncovered,
    #[strum(serialize = "exec.started")]
    ExecStarted,
    #[strum(serialize = "exec.ended")]
    ExecEnded,
    #[strum(serialize = "session.created")]
    SessionCreated,
    #[strum(serialize = "session.restored")]
    SessionRestored,
    #[strum(serialize = "session.steered")]
    SessionSteered,
    #[strum(serialize = "tool.invoked")]
    ToolInvoked,
    #[strum(serialize = "tool.executed")]
    ToolExecuted,
    #[strum(serialize = "model.selected")]
    ModelSelected,
    #[strum(serialize = "model.refused")]
    ModelRefused,
    #[strum(serialize = "cost.tracked")]
    CostTracked,
    #[strum(serialize = "model.joined")]
    ModelJoined,
    #[strum(serialize = "model.batched")]
    ModelBatched,
    #[strum(serialize = "secret.sent")]
    SecretSent,
    #[strum(serialize = "host.connecting")]
    HostConnecting,
    #[strum(serialize = "host.closed")]
    HostClosed,
    #[strum(serialize = "host.denied")]
    HostDenied,
    #[strum(serialize = "budget.nearing")]
    BudgetNearing,
    #[strum(serialize = "approval.asked")]
    ApprovalAsked,
    #[strum(serialize = "approval.answered")]
    ApprovalAnswered,
}

impl ActKind {
    /// The names of all, such as `model.selected`.
    pub const NAMES: &'static [&'static str] = <Self as strum::VariantNames>::VARIANTS;

    /// The name.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Whether a name of an act is `wanted`, or is of the family that is wanted: `model` wants `model.selected` too.
pub fn is_of_type(name: &str, wanted: &str) -> bool {
    name.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// An act.
#[derive(Debug, Clone, PartialEq)]
pub struct Act {
    /// What it was, such as `model.selected`.
    pub kind: ActKind,
    /// What became of it.
    pub status: AuditStatus,
    /// The user who did it, where the event tells; else it is whoever owns the journal.
    pub uid: Option<u32>,
    /// What there is to know of it, by kind.
    pub context: Value,
}

/// Of an agent in a run: what programs of others do between their start and their end.
pub fn session(event: &Event) -> Option<String> {
    let agent: &AgentName = event.agent.as_ref()?;
    Some(format!("agent:{agent}:{}", event.run.short()))
}

/// The act that an event tells of; `None` for what nobody has to answer for.
pub fn act(event: &Event) -> Option<Act> {
    use AuditStatus::{Failure, Pending, Success};
    let agent = event.agent.as_ref();
    let (kind, status, context) = match &event.kind {
        EventKind::RunStarted { workspace, agents, .. } => {
            (ActKind::RunStarted, Success, json!({"workspace": workspace, "agents": agents}))
        }
        EventKind::RunChanged { by, added, changed, adjusted, removed, .. } => {
            let what = json!({"by": by, "added": added, "changed": changed, "adjusted": adjusted, "removed": removed});
            (ActKind::RunChanged, Success, what)
        }
        EventKind::RunEnding { by, .. } => (ActKind::RunEnding, Pending, json!({"by": by})),
        EventKind::RunEnded { exit_code } => {
            (ActKind::RunEnded, AuditStatus::of(*exit_code == 0), json!({"exit_code": exit_code}))
        }
        EventKind::AgentStarted { pid, enforcement } => (
            ActKind::AgentStarted,
            Success,
            json!({"agent_id": agent, "pid": pid, "enforcement": enforcement}),
        ),
        EventKind::AgentPaused { by } => {
            (ActKind::AgentPaused, Success, json!({"agent_id": agent, "by": by}))
        }
        EventKind::AgentResumed => (ActKind::AgentResumed, Success, json!({"agent_id": agent})),
        EventKind::AgentEnded { exit, duration_ms, usage } => {
            let what = json!({"agent_id": agent, "exit": exit, "duration_ms": duration_ms, "usage": usage});
            (ActKind::AgentEnded, AuditStatus::of(!exit.is_failure()), what)
        }
        EventKind::AgentHint { wrote, by_kernel, why, origin, opening } => {
            let patch = opening.as_ref().map(Opening::patch);
            let context = json!({"agent_id": agent, "wrote": wrote, "by_kernel": by_kernel, "why": why, "origin": origin, "patch": patch});
            (ActKind::DenialSuspected, Failure, context)
        }
        EventKind::AgentPlanted { path, outcome } => {
            (ActKind::WallPlanted, Failure, json!({"agent_id": agent, "path": path, "outcome": outcome}))
        }
        EventKind::AgentUncovered { path, outcome } => {
            (ActKind::WallUncovered, Failure, json!({"agent_id": agent, "path": path, "outcome": outcome}))
        }
        EventKind::ExecStarted { exec, argv, by, uid, tty } => {
            let context = json!({"agent_id": agent, "exec": exec, "argv": argv, "by": by, "tty": tty});
            return Some(Act { kind: ActKind::ExecStarted, status: Pending, uid: Some(*uid), context });
        }
        EventKind::ExecEnded { exec, exit, duration_ms } => {
            let what = json!({"agent_id": agent, "exec": exec, "exit": exit, "duration_ms": duration_ms});
            (ActKind::ExecEnded, AuditStatus::of(exit.is_success()), what)
        }
        EventKind::SessionStarted { session, model, resumed } => {
            let kind = if *resumed { ActKind::SessionRestored } else { ActKind::SessionCreated };
            (kind, Success, json!({"agent_id": agent, "session_id": session, "model": model}))
        }
        EventKind::SessionSteered { session, text, by, uid, .. } => {
            let context = json!({"agent_id": agent, "session_id": session, "text": text, "by": by});
            return Some(Act { kind: ActKind::SessionSteered, status: Success, uid: Some(*uid), context });
        }
        EventKind::ToolCallStart { session, call, tool, about, risk, hash } => {
            let what = json!({
                "agent_id": agent, "session_id": session, "call": call, "tool_id": tool, "params": about, "risk": risk, "hash": hash,
            });
            (ActKind::ToolInvoked, Pending, what)
        }
        EventKind::ToolCallComplete { session, call, tool, duration_ms, usage, changes } => {
            let what = json!({
                "agent_id": agent, "session_id": session, "call": call, "tool_id": tool, "duration_ms": duration_ms, "usage": usage,
                "changes": changes,
            });
            (ActKind::ToolExecuted, Success, what)
        }
        EventKind::ToolCallFailed { session, call, tool, reason, effect, duration_ms, usage } => {
            let what = json!({
                "agent_id": agent, "session_id": session, "call": call, "tool_id": tool, "reason": reason, "effect": effect,
                "duration_ms": duration_ms, "usage": usage,
            });
            (ActKind::ToolExecuted, Failure, what)
        }
        EventKind::ModelAsked { call, asked, model, bytes, hash, reserved, .. } => {
            let what = json!({
                "call": call, "model": model, "provider": model.provider, "reason": format!("asked for as {asked}"), "bytes": bytes, "hash": hash,
                "reserved": reserved,
            });
            (ActKind::ModelSelected, Pending, what)
        }
        EventKind::ModelAnswered { receipt, .. } if receipt.tries == 0 => {
            (ActKind::ModelRefused, Failure, json!({"agent_id": agent, "outcome": receipt.outcome}))
        }
        EventKind::ModelAnswered { call, receipt } => {
            let what = json!({
                "call": call, "session_id": session(event), "provider": receipt.provider, "model": receipt.model, "tokens": receipt.tokens,
                "cost": receipt.cost, "outcome": receipt.outcome,
            });
            (ActKind::CostTracked, AuditStatus::of(receipt.outcome == CallOutcome::Completed), what)
        }
        EventKind::ModelJoined { call } => {
            (ActKind::ModelJoined, Success, json!({"agent_id": agent, "call": call}))
        }
        EventKind::ModelBatched { provider, batch, calls, .. } => {
            let calls: Vec<u64> = calls.iter().map(|batched| batched.call).collect();
            let what = json!({"agent_id": agent, "provider": provider, "batch": batch, "calls": calls});
            (ActKind::ModelBatched, Success, what)
        }
        EventKind::SecretSent { secret, to } => {
            (ActKind::SecretSent, Failure, json!({"agent_id": agent, "secret": secret, "to": to}))
        }
        EventKind::HostAsked { connection, host, port } => (
            ActKind::HostConnecting,
            Pending,
            json!({"agent_id": agent, "connection": connection, "host": host, "port": port}),
        ),
        EventKind::HostClosed { connection, host, port, outcome, sent, received, duration_ms } => {
            let what = json!({
                "agent_id": agent, "connection": connection, "host": host, "port": port, "outcome": outcome, "sent": sent, "received": received,
                "duration_ms": duration_ms,
            });
            (ActKind::HostClosed, AuditStatus::of(*outcome == HostOutcome::Closed), what)
        }
        EventKind::HostDenied { host, port, reason } => (
            ActKind::HostDenied,
            Failure,
            json!({"agent_id": agent, "host": host, "port": port, "reason": reason}),
        ),
        EventKind::BudgetNearing { scope, measure, used, limit } => {
            let what =
                json!({"agent_id": agent, "scope": scope, "measure": measure, "used": used, "limit": limit});
            (ActKind::BudgetNearing, Success, what)
        }
        EventKind::ApprovalAsked(approval) => (
            ActKind::ApprovalAsked,
            Pending,
            json!({"agent_id": agent, "approval_id": approval.id, "asked": approval}),
        ),
        EventKind::ApprovalAnswered { id, kind, answer, by, uid, words } => {
            let mut context = json!({"approval_id": id, "decision": answer.as_str(), "approver": by, "kind": kind, "granted": answer});
            if let Some(words) = words {
                context["words"] = words.as_str().into();
            }
            let status = AuditStatus::of(matches!(answer, ApprovalAnswer::Approved { .. }));
            return Some(Act { kind: ActKind::ApprovalAnswered, status, uid: *uid, context });
        }
        _ => return None,
    };
    Some(Act { kind, status, uid: None, context })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Name, RunId};

    #[test]
    fn a_type_is_a_name_or_the_family_before_the_dot() {
        assert!(ActKind::NAMES.contains(&ActKind::ModelSelected.as_str()), "{:?}", ActKind::NAMES);
        for (wanted, is_it) in
            [("model.selected", true), ("model", true), ("mod", false), ("model.", false), ("", false)]
        {
            assert_eq!(is_of_type(ActKind::ModelSelected.as_str(), wanted), is_it, "{wanted}");
        }
    }

    #[test]
    fn an_act_has_its_status_its_user_and_its_session() {
        let of = |kind: EventKind| {
            let name = Name::new("a").expect("a label");
            let run = RunId::from_uuid(uuid::Uuid::nil());
            Event { seq: 1, time_ms: 0, project: name.clone(), run, agent: Some(name), kind }
        };
        let answer = ApprovalAnswer::Approved { raise: Some(5), lasting: None };
        let kind = EventKind::ApprovalAnswered {
            id: 3,
            kind: "budget".into(),
            answer,
            by: "operator".into(),
            uid: Some(7),
            words: None,
        };
        let event = of(kind);
        let told = act(&event).expect("an act");
        assert_eq!(
            (told.kind, told.status, told.uid),
            (ActKind::ApprovalAnswered, AuditStatus::Success, Some(7))
        );
        assert_eq!(told.context["decision"], "approved");
        assert_eq!(session(&event).as_deref(), Some("agent:a:000000000000"));
        assert_eq!(act(&of(EventKind::AgentReady)), None);
        let exit = crate::Exit::Code { code: 1 };
        let ended = of(EventKind::AgentEnded { exit, duration_ms: 1, usage: Default::default() });
        assert_eq!(act(&ended).map(|act| act.status), Some(AuditStatus::Failure));
    }
}
