//! `toka approvals`: what waits for a person, and the answer.

use std::str::FromStr;
use std::time::Duration;

use clap::Subcommand;
use toka_api::wire::AnswerBody;
use toka_core::approval::{Subject, ToolRequest};
use toka_core::budget::Measure;
use toka_core::units::{parse_amount, parse_duration};
use toka_core::{AgentName, ApprovalAnswer, ExitCode, Lasting, Money, ProjectName};

use super::ps::now_ms;
use super::reach::{Found, Reach, block_on, failure, narrows};
use super::trust::confirm;
use toka_terminal::approvals::{OpenApproval, approval, approvals, name};
use toka_terminal::failure::Failure;
use toka_terminal::palette::Palette;
use toka_terminal::screen::columns;
use toka_terminal::table::PIPE_COLUMNS;
use toka_terminal::text::safe;
use toka_terminal::{json, out};

/// Options of `toka approvals`.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Without a command: list. An agent that has used up its budget is frozen until somebody answers, and a connection to a host that is not listed waits; when nobody does in time \
    (30 minutes, or `approvals: {expire: …}` in toka.yaml), the answer is no."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    list: List,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List what waits
    List(List),
    /// Show all that is known of one
    Show(One),
    /// Say yes
    Approve {
        #[command(flatten)]
        one: One,
        /// For a budget: allow so much more, such as 2.50 (dollars), 500k (tokens, calls) or 30m [default: as much as there was]
        #[arg(long, value_name = "AMOUNT")]
        raise: Option<String>,
    },
    /// Say yes to a host beyond this run, or to calls like this one for a time: nobody is asked about those again
    #[command(
        after_help = "What was allowed so is kept outside of the workspace, where no agent can write; `toka trust --list` shows it, and `toka trust --revoke` forgets it. A `deny` in a policy wins over it."
    )]
    Trust {
        #[command(flatten)]
        one: One,
        /// For so long, such as 8h or 30d [default: until it is revoked]
        #[arg(long = "for", value_name = "TIME", value_parser = lasting)]
        lasts: Option<Duration>,
        /// Record without asking
        #[arg(long, short)]
        yes: bool,
    },
    /// Answer a question of a model's
    Answer {
        /// Which, as ID or PROJECT/ID
        #[arg(value_name = "ID")]
        id: ApprovalRef,
        /// The answer
        #[arg(value_name = "TEXT", required = true, num_args = 1..)]
        text: Vec<String>,
        #[command(flatten)]
        reach: Reach,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Say no
    Deny {
        #[command(flatten)]
        one: One,
        /// Tell the model why, and what to do instead
        #[arg(long, short, value_name = "TEXT")]
        message: Option<String>,
    },
}

fn lasting(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Ok(lasts) if !lasts.is_zero() => Ok(lasts),
        Ok(_) => Err("it is no time at all".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

#[derive(Debug, clap::Args)]
#[command(mut_arg("project", narrows))]
struct List {
    #[command(flatten)]
    reach: Reach,
    /// Print one JSON array
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
#[command(mut_arg("project", narrows))]
struct One {
    /// Which, as ID or PROJECT/ID [default: the only one that waits]
    #[arg(value_name = "ID")]
    id: Option<ApprovalRef>,
    #[command(flatten)]
    reach: Reach,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// An approval as a person names it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ApprovalRef {
    project: Option<ProjectName>,
    id: u64,
}

impl FromStr for ApprovalRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (project, id) = match text.split_once('/') {
            Some((project, id)) => (Some(ProjectName::new(project).map_err(|error| error.to_string())?), id),
            None => (None, text),
        };
        let id = id.parse().map_err(|_| format!("{id:?} is no number; `toka approvals` lists them"))?;
        Ok(Self { project, id })
    }
}

/// Lists, shows or answers.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.what.unwrap_or(What::List(args.list)) {
        What::List(List { reach, json: as_json }) => {
            let found = reach.named_among(block_on(reach.running())?)?;
            let open: Vec<OpenApproval> = found.iter().flat_map(open).collect();
            let palette = Palette::for_stream(&std::io::stdout());
            let text = match as_json {
                true => json::line(&open) + "\n",
                false => approvals(&open, now_ms(), columns(PIPE_COLUMNS), palette),
            };
            Ok(out::end(&text, ExitCode::Success)?)
        }
        What::Show(One { id, reach, json: as_json }) => {
            let (_, open) = find(&reach, id.as_ref())?;
            let text = if as_json { json::line(&open) + "\n" } else { approval(&open, now_ms()) };
            Ok(out::end(&text, ExitCode::Success)?)
        }
        What::Approve { one, raise } => answer(&one, None, |open| {
            let raise = raise.as_deref().map(|text| amount(text, &open.approval.subject)).transpose()?;
            Ok(ApprovalAnswer::Approved { raise, lasting: None })
        }),
        What::Trust { one, lasts, yes } => answer(&one, None, |open| trust(open, lasts, yes)),
        What::Answer { id, text, reach, json } => {
            let one = One { id: Some(id), reach, json };
            answer(&one, Some(text.join(" ")), |open| match open.approval.subject {
                Subject::Question(_) => Ok(ApprovalAnswer::YES),
                _ => {
                    let message = format!(
                        "{} is no question: it is about a {}",
                        name(open),
                        open.approval.subject.kind()
                    );
                    Err(Failure::new(ExitCode::Usage, message).help("`toka approvals approve`, or `deny`"))
                }
            })
        }
        What::Deny { one, message } => answer(&one, message, |_| Ok(ApprovalAnswer::Denied)),
    }
}

fn answer(
    one: &One,
    words: Option<String>,
    decide: impl FnOnce(&OpenApproval) -> Result<ApprovalAnswer, Failure>,
) -> anyhow::Result<ExitCode> {
    let (found, open) = find(&one.reach, one.id.as_ref())?;
    let body = AnswerBody::of(decide(&open)?).with(words);
    let answered = block_on(async {
        let answered = found.client.answer(found.name(), open.approval.id, &body).await;
        Ok(answered.map_err(failure)?)
    })?;
    let done = match (answered.answer, &open.approval.subject) {
        (ApprovalAnswer::Approved { raise: Some(more), .. }, Subject::Budget { measure, .. }) => {
            format!("approved: {}", measure.tell_more(more))
        }
        (ApprovalAnswer::Approved { lasting: Some(lasting), .. }, _) => {
            format!("approved, {}", until(lasting))
        }
        (ApprovalAnswer::Approved { .. }, Subject::Question(_)) => "answered".to_owned(),
        (answer, _) => answer.as_str().to_owned(),
    };
    let text = match one.json {
        true => json::line(&answered) + "\n",
        false => format!("{}  {done}\n", name(&open)),
    };
    Ok(out::end(&text, ExitCode::Success)?)
}

/// A yes that lasts, once the person has seen in words what it means.
fn trust(open: &OpenApproval, lasts: Option<Duration>, yes: bool) -> Result<ApprovalAnswer, Failure> {
    let lasting = match lasts {
        None => Lasting::Always,
        Some(lasts) => {
            let lasts = i64::try_from(lasts.as_millis()).unwrap_or(i64::MAX);
            Lasting::Until(now_ms().saturating_add(lasts))
        }
    };
    let agents: Vec<&str> = open.agents.iter().map(AgentName::as_str).collect();
    let agents = agents.join(", ");
    let (words, waits) = match &open.approval.subject {
        Subject::Host { host, port } => {
            let (host, until) = (safe(host), until(lasting));
            let words = format!(
                "{agents} may reach {host}:{port} and send there whatever it can read, in every run in this workspace, {until}."
            );
            (words, "the connection waits")
        }
        Subject::Tool(request) => (trust_tool(open, request, &agents, lasting)?, "the call waits"),
        subject => {
            let kind = subject.kind();
            let message =
                format!("{} is about a {kind}: only what is said of a host or a tool can last", name(open));
            return Err(Failure::new(ExitCode::Usage, message).help(match subject {
                Subject::Budget { .. } => "`toka approvals approve` raises it for this run; `budgets` in ~/.config/toka/toka.yaml is for every run",
                _ => "`toka approvals approve` opens it for this run; the declaration opens it for every run, once it is trusted (`toka trust`)",
            }));
        }
    };
    if !yes && !confirm(&words)? {
        return Err(Failure::new(ExitCode::Denied, format!("nothing was answered, and {waits}")));
    }
    Ok(ApprovalAnswer::Approved { raise: None, lasting: Some(lasting) })
}

/// What it means to allow calls like this one for a time.
fn trust_tool(
    open: &OpenApproval,
    request: &ToolRequest,
    agents: &str,
    lasting: Lasting,
) -> Result<String, Failure> {
    let Some(like) = &request.like else {
        let message = format!("{}: no other call is like this one", name(open));
        return Err(Failure::new(ExitCode::Usage, message).help("`toka approvals approve` allows it once"));
    };
    if lasting == Lasting::Always {
        let message =
            format!("{} is about a tool: nobody is asked about calls like it only for a time", name(open));
        return Err(Failure::new(ExitCode::Usage, message).help("say for how long, such as --for 30m"));
    }
    Ok(format!(
        "{agents} may use {} without a question: {}, {}, but no longer than this run; nothing of a higher risk than {}.",
        safe(&request.tool),
        safe(like),
        until(lasting),
        request.risk
    ))
}

/// How long it lasts, in words that end a sentence.
fn until(lasting: Lasting) -> String {
    match lasting {
        Lasting::Always => "until you revoke it (`toka trust --revoke`)".to_owned(),
        Lasting::Until(ms) => match jiff::Timestamp::from_millisecond(ms) {
            Ok(time) => format!("until {}", time.strftime("%Y-%m-%d %H:%M UTC")),
            Err(_) => "until the end of time".to_owned(),
        },
    }
}

/// What waits in a project.
fn open(found: &Found) -> Vec<OpenApproval> {
    let mut open: Vec<OpenApproval> = Vec::new();
    for agent in &found.project.agents {
        for approval in &agent.approvals {
            match open.iter_mut().find(|known| known.approval.id == approval.id) {
                Some(known) => known.agents.push(agent.name.clone()),
                None => open.push(OpenApproval {
                    project: found.name().clone(),
                    agents: vec![agent.name.clone()],
                    approval: approval.clone(),
                }),
            }
        }
    }
    open.sort_by_key(|open| open.approval.id);
    open
}

/// The one that is meant, and who runs it. One that is answered already is asked for all the same: who answers says so.
fn find(reach: &Reach, wanted: Option<&ApprovalRef>) -> anyhow::Result<(Found, OpenApproval)> {
    let of = wanted.and_then(|wanted| wanted.project.clone());
    let reach = Reach { project: of.or_else(|| reach.project.clone()), ..reach.clone() };
    let found = reach.named_among(block_on(reach.running())?)?;
    if found.is_empty() {
        return Err(reach.nothing_runs().into());
    }
    let is_meant = |open: &OpenApproval| wanted.is_none_or(|wanted| wanted.id == open.approval.id);
    let all: Vec<(Found, OpenApproval)> =
        found.iter().flat_map(|found| open(found).into_iter().map(|open| (found.clone(), open))).collect();
    let mut fitting: Vec<(Found, OpenApproval)> =
        all.iter().filter(|(_, open)| is_meant(open)).cloned().collect();
    let names =
        |of: &[(Found, OpenApproval)]| of.iter().map(|(_, open)| name(open)).collect::<Vec<_>>().join(", ");
    match (fitting.pop(), fitting.is_empty()) {
        (Some(one), true) => Ok(one),
        (Some(last), false) => {
            fitting.push(last);
            let message = "it is not clear which approval is meant";
            Err(Failure::new(ExitCode::Usage, message)
                .help(format!("name one of {}", names(&fitting)))
                .into())
        }
        (None, _) if all.is_empty() => {
            let message = match wanted {
                Some(wanted) => format!("approval {} does not wait for an answer; nothing does", wanted.id),
                None => "nothing waits for a person".to_owned(),
            };
            Err(Failure::new(ExitCode::Usage, message)
                .help("`toka events --kind approval_answered` tells what was answered")
                .into())
        }
        (None, _) => {
            let id = wanted.map_or(0, |wanted| wanted.id);
            let message = format!("approval {id} does not wait for an answer");
            Err(Failure::new(ExitCode::Usage, message).help(format!("these do: {}", names(&all))).into())
        }
    }
}

/// By how much a budget grows, in the unit of its measure.
fn amount(text: &str, subject: &Subject) -> Result<u64, Failure> {
    let Subject::Budget { measure, .. } = subject else {
        return Err(Failure::new(ExitCode::Usage, "--raise is for budgets, and this is about none"));
    };
    let amount = match measure {
        Measure::Money => {
            let dollars = text.trim().trim_start_matches('$').parse::<f64>().ok();
            dollars.and_then(Money::from_dollars).map(|money| money.0)
        }
        Measure::Tokens | Measure::Calls => parse_amount(text).ok(),
        Measure::Wall => parse_duration(text)
            .ok()
            .map(|wall: Duration| u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)),
    };
    amount.filter(|amount| *amount > 0).ok_or_else(|| {
        let example = match measure {
            Measure::Money => "2.50, in US dollars",
            Measure::Tokens | Measure::Calls => "500k or 200",
            Measure::Wall => "30m",
        };
        Failure::new(ExitCode::Usage, format!("{text:?} is no amount of {}", measure.as_str()))
            .help(format!("such as {example}"))
    })
}

#[cfg(test)]
mod tests {
    use toka_core::budget::Scope;

    use super::*;

    #[test]
    fn approvals_are_named_with_or_without_their_project() {
        assert_eq!("3".parse(), Ok(ApprovalRef { project: None, id: 3 }));
        assert!("shop/3".parse::<ApprovalRef>().is_ok_and(|found| found.project.is_some() && found.id == 3));
        for bad in ["", "x", "-1", "a/b", "A/1", "1/"] {
            assert!(bad.parse::<ApprovalRef>().is_err(), "{bad}");
        }
    }

    #[test]
    fn amounts_are_in_the_unit_of_the_budget() {
        let subject = |measure| Subject::Budget { scope: Scope::Agent, measure, used: 0, limit: 1, next: 1 };
        let of = |text, measure| amount(text, &subject(measure)).ok();
        assert_eq!(of("$2.50", Measure::Money), Some(2_500_000_000));
        assert_eq!(of("500k", Measure::Tokens), Some(500_000));
        assert_eq!(of("30m", Measure::Wall), Some(1_800_000));
        for (bad, measure) in
            [("0", Measure::Calls), ("-1", Measure::Money), ("NaN", Measure::Money), ("x", Measure::Wall)]
        {
            assert_eq!(of(bad, measure), None, "{bad}");
        }
    }
}
