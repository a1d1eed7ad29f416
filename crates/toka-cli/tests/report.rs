//! `toka report` as a shell runs it: what goes over the wire, and the exit status for each answer.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output};
use std::thread;

fn toka_report(socket: Option<&Path>, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_toka"));
    command.arg("report").args(words).env_remove("TOKA_SOCKET");
    if let Some(socket) = socket {
        command.env("TOKA_SOCKET", socket);
    }
    command.output().expect("the command runs")
}

/// Runs it against a daemon that gives `answer`; returns what it was asked, too.
fn ask_a_daemon_that_says(answer: &str, words: &[&str]) -> (Output, String) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let socket = folder.path().join("agent");
    let listener = UnixListener::bind(&socket).expect("a socket");
    thread::scope(|scope| {
        let daemon = scope.spawn(|| {
            let (stream, _) = listener.accept().expect("a client");
            let mut stream = BufReader::new(stream);
            let mut question = String::new();
            stream.read_line(&mut question).expect("a question");
            writeln!(stream.get_mut(), "{answer}").expect("an answer");
            question
        });
        let output = toka_report(Some(&socket), words);
        (output, daemon.join().expect("a daemon that does not panic"))
    })
}

const OK: &str = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;

#[test]
fn what_is_told_goes_over_the_wire() {
    for (words, method_and_params) in [
        (
            &["progress", "42%", "--status", "reading"][..],
            r#""method":"progress","params":{"fraction":0.42,"status":"reading"}"#,
        ),
        (&["status", "a line\n"], r#""method":"progress","params":{"status":"a line\n"}"#),
        (&["ready"], r#""method":"ready","params":{}"#),
        (
            &["metric", "files", "12", "delta", "-0.5"],
            r#""method":"metrics","params":{"values":{"delta":-0.5,"files":12.0}}"#,
        ),
    ] {
        let (output, question) = ask_a_daemon_that_says(OK, words);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
        assert_eq!(question, format!("{{\"jsonrpc\":\"2.0\",\"id\":1,{method_and_params}}}\n"));
    }
}

#[test]
fn each_failure_has_its_status() {
    let wrong = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"a bad name"}}"#;
    let fault = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"message":"out of luck"}}"#;
    for (answer, status, message) in
        [(wrong, 2, "a bad name"), (fault, 70, "out of luck"), ("not JSON", 70, "makes no sense")]
    {
        let (output, _) = ask_a_daemon_that_says(answer, &["ready"]);
        assert_eq!(output.status.code(), Some(status), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(message), "{output:?}");
    }
}

#[test]
fn without_a_daemon_it_says_so() {
    for (socket, message) in
        [(None, "TOKA_SOCKET is not set"), (Some(Path::new("/nonexistent/agent")), "cannot connect")]
    {
        let output = toka_report(socket, &["ready"]);
        assert_eq!(output.status.code(), Some(69), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(message), "{output:?}");
    }
    assert_eq!(toka_report(None, &["progress", "2"]).status.code(), Some(2));
}
