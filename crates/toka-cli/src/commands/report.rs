//! `toka report`: a shell script's way to tell how far it is, from inside an agent.

use clap::Subcommand;
use toka_agent::client::{Client, ClientError, Done};
use toka_core::rpc::{Call, Metrics, ReplyError, RpcError};
use toka_core::{ExitCode, Progress};

use toka_terminal::failure::Failure;

/// Options of `toka report`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Works only inside an agent, where TOKA_SOCKET names the agent's door.\n\
    Exit status: 0 told, 2 refused as wrong, 69 no daemon, 77 refused to this process.")]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

/// What is told.
#[derive(Debug, Subcommand)]
enum What {
    /// How far the work is
    Progress {
        /// A fraction from 0 to 1, or a percentage such as 42%
        #[arg(value_name = "FRACTION", value_parser = parse_fraction, allow_negative_numbers = true)]
        fraction: f64,
        /// What is being done just now
        #[arg(long, value_name = "TEXT")]
        status: Option<String>,
        /// The task that it belongs to
        #[arg(long, value_name = "TEXT")]
        task: Option<String>,
    },
    /// What is being done just now
    Status {
        /// A line for people
        #[arg(value_name = "TEXT")]
        text: String,
    },
    /// That the agent now does what it is there for
    Ready,
    /// Numbers that the agent measured
    Metric {
        /// Pairs of a name and a number
        #[arg(required = true, num_args = 2.., value_names = ["NAME", "VALUE"], allow_negative_numbers = true)]
        pairs: Vec<String>,
    },
}

/// Tells the daemon.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let call = args.what.into_call()?;
    Client::from_environment()
        .and_then(|mut client| client.ask(&call))
        .map_err(failure)
        .map(|Done {}| ExitCode::Success)
        .map_err(Into::into)
}

impl What {
    fn into_call(self) -> Result<Call, Failure> {
        Ok(match self {
            Self::Progress { fraction, status, task } => Call::Progress(Progress {
                fraction: Some(fraction),
                status: status.map(Into::into),
                task: task.map(Into::into),
            }),
            Self::Status { text } => {
                Call::Progress(Progress { status: Some(text.into()), ..Progress::default() })
            }
            Self::Ready => Call::Ready,
            Self::Metric { pairs } => Call::Metrics(parse_metrics(&pairs)?),
        })
    }
}

fn parse_fraction(text: &str) -> Result<f64, String> {
    let (number, scale) = text.strip_suffix('%').map_or((text, 1.0), |number| (number, 100.0));
    number
        .trim()
        .parse::<f64>()
        .map(|number| number / scale)
        .ok()
        .filter(|fraction| (0.0..=1.0).contains(fraction))
        .ok_or_else(|| "expected a fraction from 0 to 1, or a percentage from 0% to 100%".to_owned())
}

fn parse_metrics(pairs: &[String]) -> Result<Metrics, Failure> {
    let usage =
        |message: String| Failure::new(ExitCode::Usage, message).help("write NAME VALUE [NAME VALUE]…");
    let mut metrics = Metrics::default();
    for pair in pairs.chunks(2) {
        let [name, value] = pair else {
            return Err(usage(format!("the metric {:?} has no value", pair[0])));
        };
        let value =
            value.parse::<f64>().ok().filter(|value| value.is_finite()).ok_or_else(|| {
                usage(format!("{value:?} is no number, so it cannot be the value of {name:?}"))
            })?;
        metrics.values.insert(name.clone(), value);
    }
    Ok(metrics)
}

fn failure(error: ClientError) -> Failure {
    let wrong = |code| matches!(code, RpcError::INVALID_PARAMS | RpcError::INVALID_REQUEST);
    match &error {
        ClientError::NotAnAgent => Failure::new(ExitCode::NoDaemon, error.to_string())
            .help("`toka report` is for programs that `toka run` starts"),
        ClientError::Reply(ReplyError::Refused(refusal)) if wrong(refusal.code) => {
            Failure::new(ExitCode::Usage, error.to_string())
        }
        ClientError::Reply(ReplyError::Refused(refusal)) if refusal.code == RpcError::REFUSED => {
            Failure::new(ExitCode::Denied, error.to_string())
        }
        ClientError::Connect { source, .. } | ClientError::Lost { source, .. } => {
            Failure::new(ExitCode::NoDaemon, format!("{error}: {source}"))
        }
        ClientError::Reply(_) => Failure::new(ExitCode::Internal, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parse(words: &[&str]) -> Result<Call, String> {
        let line = Line::try_parse_from([&["report"], words].concat()).map_err(|error| error.to_string())?;
        line.args.what.into_call().map_err(|failure| failure.to_string())
    }

    #[test]
    fn words_become_calls() {
        let progress = |fraction| Progress { fraction: Some(fraction), ..Progress::default() };
        for (words, call) in [
            (&["progress", "0.42"][..], Call::Progress(progress(0.42))),
            (&["progress", "42%"], Call::Progress(progress(0.42))),
            (
                &["progress", "1", "--status", "done", "--task", "t"],
                Call::Progress(Progress {
                    status: Some("done".into()),
                    task: Some("t".into()),
                    ..progress(1.0)
                }),
            ),
            (&["ready"], Call::Ready),
            (
                &["status", "reading"],
                Call::Progress(Progress { status: Some("reading".into()), ..Progress::default() }),
            ),
            (
                &["metric", "files", "12", "delta", "-0.5"],
                Call::Metrics(Metrics { values: [("files".into(), 12.0), ("delta".into(), -0.5)].into() }),
            ),
        ] {
            assert_eq!(parse(words), Ok(call), "{words:?}");
        }
    }

    #[test]
    fn wrong_words_are_refused_here() {
        for (words, message) in [
            (&["progress", "1.5"][..], "from 0 to 1"),
            (&["progress", "-0.1"], "from 0 to 1"),
            (&["progress", "nan"], "from 0 to 1"),
            (&["progress", "101%"], "from 0 to 1"),
            (&["metric", "files"], "values"),
            (&["metric", "files", "1", "lines"], "\"lines\" has no value"),
            (&["metric", "files", "many"], "\"many\" is no number"),
            (&["metric", "files", "inf"], "\"inf\" is no number"),
            (&[], "Usage"),
        ] {
            let error = parse(words).expect_err("a refusal");
            assert!(error.contains(message), "{words:?}: {error}");
        }
    }

    #[test]
    fn outside_an_agent_it_says_so() {
        assert_eq!(
            failure(ClientError::NotAnAgent).to_string(),
            "not inside an agent: TOKA_SOCKET is not set"
        );
    }
}
