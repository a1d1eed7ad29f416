//! What agent programs say while they work: each writes events of its own, one JSON object a line, and here they become the
//! same few facts. What is unknown is passed over, for these programs change from week to week.
//!
//! | program | format |
//! |---|---|
//! | Claude Code | `--output-format stream-json`: messages as the Messages API has them, and a `result` |
//! | Codex | `exec --json`: a thread, turns, items |
//! | OpenCode | `run --format json`: parts of messages |
//! | Gemini CLI | `--output-format stream-json`: messages in pieces, tools, and a `result` |
//! | aider | plain lines |

use std::collections::BTreeMap;

use serde_json::Value;
use toka_core::Preset;
use toka_core::agent_program::failure;

/// One fact of what a program says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    /// The name of its conversation, by which it can go on with it.
    Conversation(String),
    /// What the model tells.
    Text(String),
    /// A line that is no event.
    Line(String),
    /// It uses a tool: its name, and on what.
    Tool(String, String),
    /// It has a plan, and so much of it is done.
    Plan {
        /// Steps that are done.
        done: usize,
        /// All steps.
        of: usize,
    },
    /// Something went wrong that does not end it.
    Trouble(String),
    /// It is through: with its last words, or with why it has not done it; nothing where it does not say why. A later one counts more.
    Ended(Result<String, String>),
}

/// Reads the lines of one program, from its start to its end.
#[derive(Debug)]
pub(crate) struct Reader {
    preset: Preset,
    /// Pieces of a text that comes in pieces.
    pieces: String,
    /// The last text, which is the answer where the end does not repeat it.
    last: String,
    /// The steps of a plan that is made one by one, and whether they are done.
    steps: BTreeMap<String, bool>,
    /// Steps that were made, those that are gone among them.
    made: usize,
    /// What an answer in plain lines says of a task that is not done.
    failed: Option<String>,
}

impl Reader {
    /// Reads what this program says.
    pub(crate) fn new(preset: Preset) -> Self {
        Self {
            preset,
            pieces: String::new(),
            last: String::new(),
            steps: BTreeMap::new(),
            made: 0,
            failed: None,
        }
    }

    /// Reads one line, without its end.
    pub(crate) fn read(&mut self, line: &str) -> Vec<Said> {
        let mut said = Vec::new();
        match serde_json::from_str::<Value>(line) {
            Ok(event) if event.is_object() && self.preset != Preset::Aider => match self.preset {
                Preset::ClaudeCode => self.claude_code(&event, &mut said),
                Preset::Codex => self.codex(&event, &mut said),
                Preset::Opencode => self.opencode(&event, &mut said),
                Preset::GeminiCli => self.gemini_cli(&event, &mut said),
                Preset::Aider => {}
            },
            _ if line.trim().is_empty() => {}
            _ if self.preset == Preset::Aider => self.aider(line, &mut said),
            _ => said.push(Said::Line(line.to_owned())),
        }
        if let Some(Said::Text(text)) = said.iter().rev().find(|said| matches!(said, Said::Text(_))) {
            self.last.clone_from(text);
        }
        said
    }

    /// It ends with 0 whatever has become of it. After each answer it tells how many tokens that took, and then what it has done with it; it
    /// asks a model for the words of a commit, too, and does without.
    fn aider(&mut self, line: &str, said: &mut Vec<Said>) {
        const ENDS: [&str; 3] =
            ["Empty response received from LLM", "Only 3 reflections allowed", "exhausted context window"];
        said.push(Said::Line(line.to_owned()));
        if let Some(why) = failure(line) {
            self.failed = Some(why);
        }
        let is_error = line.contains("litellm.") && line.contains("Error");
        if is_error || ENDS.iter().any(|words| line.contains(words)) {
            said.push(Said::Ended(Err(line.to_owned())));
        } else if line.starts_with("Tokens: ") {
            // It has a history from now on.
            said.push(Said::Conversation("history".to_owned()));
            said.push(Said::Ended(self.failed.take().map_or_else(|| Ok(String::new()), Err)));
        } else if line.starts_with("Commit ") {
            said.push(Said::Ended(Ok(String::new())));
        }
    }

    fn claude_code(&mut self, event: &Value, said: &mut Vec<Said>) {
        match word(event, "/type") {
            "system" if word(event, "/subtype") == "init" => {
                said.push(Said::Conversation(word(event, "/session_id").to_owned()));
            }
            "assistant" => {
                // What its helpers tell, they tell it.
                let is_own = word(event, "/parent_tool_use_id").is_empty();
                for block in list(event, "/message/content") {
                    match word(block, "/type") {
                        "text" if is_own => text(said, word(block, "/text")),
                        "tool_use" => {
                            let (name, input) = (word(block, "/name"), &block["input"]);
                            self.claude_plan(name, input, said);
                            said.push(Said::Tool(name.to_owned(), about(input)));
                        }
                        _ => {}
                    }
                }
            }
            "result" => {
                let (result, kind) = (word(event, "/result"), word(event, "/subtype"));
                let failed = event["is_error"] == true || kind != "success";
                let first = word(event, "/errors/0");
                said.push(Said::Ended(match failed {
                    true if result.is_empty() && !first.is_empty() => Err(first.to_owned()),
                    true if result.is_empty() => Err(kind.replace('_', " ")),
                    true => Err(result.to_owned()),
                    false => Ok(result.to_owned()),
                }));
            }
            _ => {}
        }
    }

    /// A plan is a list that is written whole, or tasks that are made and updated one by one, numbered from 1.
    fn claude_plan(&mut self, tool: &str, input: &Value, said: &mut Vec<Said>) {
        match tool {
            "TodoWrite" => {
                return plan(said, list(input, "/todos").map(|todo| word(todo, "/status") == "completed"));
            }
            "TaskCreate" => {
                self.made += 1;
                self.steps.insert(self.made.to_string(), false);
            }
            "TaskUpdate" => {
                let (id, status) = (word(input, "/taskId").to_owned(), word(input, "/status"));
                match status {
                    "" => return,
                    "deleted" => drop(self.steps.remove(&id)),
                    // One of an earlier attempt is not known.
                    status => drop(self.steps.entry(id).and_modify(|done| *done = status == "completed")),
                }
            }
            _ => return,
        }
        plan(said, self.steps.values().copied());
    }

    fn codex(&mut self, event: &Value, said: &mut Vec<Said>) {
        let item = &event["item"];
        match (word(event, "/type"), word(item, "/type")) {
            ("thread.started", _) => said.push(Said::Conversation(word(event, "/thread_id").to_owned())),
            ("item.started" | "item.updated" | "item.completed", "todo_list") => {
                plan(said, list(item, "/items").map(|todo| todo["completed"] == true));
            }
            ("item.started", "command_execution") => {
                said.push(Said::Tool("exec".to_owned(), word(item, "/command").to_owned()));
            }
            ("item.started", "mcp_tool_call") => {
                let name = format!("{}/{}", word(item, "/server"), word(item, "/tool"));
                said.push(Said::Tool(name, about(&item["arguments"])));
            }
            ("item.completed", "file_change") => {
                let paths: Vec<&str> = list(item, "/changes").map(|change| word(change, "/path")).collect();
                said.push(Said::Tool("edit".to_owned(), paths.join(", ")));
            }
            ("item.completed", "web_search") => {
                said.push(Said::Tool("web_search".to_owned(), word(item, "/query").to_owned()));
            }
            ("item.completed", "agent_message") => text(said, word(item, "/text")),
            ("item.completed", "error") => said.push(Said::Trouble(word(item, "/message").to_owned())),
            ("error", _) => said.push(Said::Trouble(word(event, "/message").to_owned())),
            ("turn.completed", _) => said.push(Said::Ended(Ok(self.last.clone()))),
            ("turn.failed", _) => said.push(Said::Ended(Err(word(event, "/error/message").to_owned()))),
            _ => {}
        }
    }

    fn opencode(&mut self, event: &Value, said: &mut Vec<Said>) {
        let part = &event["part"];
        match word(event, "/type") {
            "step_start" => said.push(Said::Conversation(word(event, "/sessionID").to_owned())),
            "text" => text(said, word(part, "/text")),
            "tool_use" => {
                let (tool, state) = (word(part, "/tool"), &part["state"]);
                if tool == "todowrite" {
                    let todos = list(state, "/input/todos");
                    plan(said, todos.map(|todo| word(todo, "/status") == "completed"));
                }
                said.push(Said::Tool(tool.to_owned(), about(&state["input"])));
                if word(state, "/status") == "error" {
                    said.push(Said::Trouble(format!("{tool}: {}", word(state, "/error"))));
                }
            }
            "step_finish" => match word(part, "/reason") {
                // The turn goes on with what the tools answer.
                "tool-calls" => {}
                "stop" => said.push(Said::Ended(Ok(self.last.clone()))),
                other => said.push(Said::Ended(Err(format!("it stopped because of {other:?}")))),
            },
            "error" => {
                let (name, message) = (word(event, "/error/name"), word(event, "/error/data/message"));
                let why = if message.is_empty() { name } else { message };
                said.push(Said::Ended(Err(why.to_owned())));
            }
            _ => {}
        }
    }

    fn gemini_cli(&mut self, event: &Value, said: &mut Vec<Said>) {
        let kind = word(event, "/type");
        if kind == "message" && word(event, "/role") == "assistant" {
            self.pieces += word(event, "/content");
            if event["delta"] == true {
                return;
            }
        }
        let whole = std::mem::take(&mut self.pieces);
        text(said, &whole);
        if !whole.trim().is_empty() {
            self.last = whole;
        }
        match kind {
            "init" => said.push(Said::Conversation(word(event, "/session_id").to_owned())),
            "tool_use" => {
                let (name, input) = (word(event, "/tool_name"), &event["parameters"]);
                if name == "write_todos" {
                    plan(said, list(input, "/todos").map(|todo| word(todo, "/status") == "completed"));
                }
                said.push(Said::Tool(name.to_owned(), about(input)));
            }
            "tool_result" if word(event, "/status") == "error" => {
                said.push(Said::Trouble(word(event, "/error/message").to_owned()));
            }
            "error" => said.push(Said::Trouble(word(event, "/message").to_owned())),
            "result" if word(event, "/status") == "success" => said.push(Said::Ended(Ok(self.last.clone()))),
            "result" => said.push(Said::Ended(Err(word(event, "/error/message").to_owned()))),
            _ => {}
        }
    }
}

fn text(said: &mut Vec<Said>, text: &str) {
    if !text.trim().is_empty() {
        said.push(Said::Text(text.to_owned()));
    }
}

fn plan(said: &mut Vec<Said>, steps: impl Iterator<Item = bool>) {
    let (mut done, mut of) = (0, 0);
    for is_done in steps {
        done += usize::from(is_done);
        of += 1;
    }
    if of > 0 {
        said.push(Said::Plan { done, of });
    }
}

/// What a tool is used on: the one argument that tells most.
fn about(input: &Value) -> String {
    let keys = [
        "command",
        "cmd",
        "file_path",
        "filePath",
        "absolute_path",
        "path",
        "pattern",
        "query",
        "url",
        "subject",
        "description",
    ];
    let known = keys.into_iter().find_map(|key| match &input[key] {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Array(words) => Some(words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")),
        _ => None,
    });
    // A patch names its files in its first lines.
    let patch = || {
        let patch = input["patchText"].as_str().or_else(|| input["patch"].as_str())?;
        let files = patch.lines().filter_map(|line| line.strip_prefix("*** ")?.split_once(" File: "));
        Some(files.map(|(_, file)| file).collect::<Vec<_>>().join(", "))
    };
    known.or_else(patch).unwrap_or_default()
}

fn word<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(preset: Preset, lines: &[&str]) -> Vec<Said> {
        let mut reader = Reader::new(preset);
        lines.iter().flat_map(|line| reader.read(line)).collect()
    }

    fn text(text: &str) -> Said {
        Said::Text(text.to_owned())
    }

    fn tool(name: &str, about: &str) -> Said {
        Said::Tool(name.to_owned(), about.to_owned())
    }

    fn done(text: &str) -> Said {
        Said::Ended(Ok(text.to_owned()))
    }

    fn undone(why: &str) -> Said {
        Said::Ended(Err(why.to_owned()))
    }

    /// Lines of Claude Code 2.1.197 against a script, without what is not read.
    #[test]
    fn claude_code() {
        let said = read(
            Preset::ClaudeCode,
            &[
                r#"{"type":"system","subtype":"init","cwd":"/w","session_id":"2542","tools":["Task"],"model":"m"}"#,
                r#"{"type":"assistant","message":{"role":"assistant","content":[{"type":"text","text":"I write."}]},"parent_tool_use_id":null}"#,
                r#"{"type":"assistant","message":{"content":[{"type":"tool_use","id":"t","name":"Write","input":{"file_path":"/w/a","content":"b"}}]},"parent_tool_use_id":null}"#,
                r#"{"type":"user","message":{"role":"user","content":[{"tool_use_id":"t","type":"tool_result","content":"made"}]}}"#,
                r#"{"type":"assistant","message":{"content":[{"type":"text","text":"a helper's"},{"type":"tool_use","name":"Grep","input":{"pattern":"x"}}]},"parent_tool_use_id":"t"}"#,
                r#"{"type":"result","subtype":"success","is_error":false,"result":"Done.","session_id":"2542","total_cost_usd":0.1}"#,
            ],
        );
        assert_eq!(
            said,
            [
                Said::Conversation("2542".into()),
                text("I write."),
                tool("Write", "/w/a"),
                tool("Grep", "x"),
                done("Done.")
            ]
        );
        let failed = r#"{"type":"result","subtype":"error_max_turns","is_error":true}"#;
        assert_eq!(read(Preset::ClaudeCode, &[failed]), [undone("error max turns")]);
        let failed =
            r#"{"type":"result","subtype":"success","is_error":true,"result":"API Error: 402 no budget"}"#;
        assert_eq!(read(Preset::ClaudeCode, &[failed]), [undone("API Error: 402 no budget")]);
    }

    #[test]
    fn a_plan_of_claude_code_is_made_at_once_or_step_by_step() {
        let uses = |name: &str, input: &str| {
            format!(
                r#"{{"type":"assistant","message":{{"content":[{{"type":"tool_use","name":"{name}","input":{input}}}]}}}}"#
            )
        };
        let lines = [
            uses("TaskCreate", r#"{"subject":"one"}"#),
            uses("TaskCreate", r#"{"subject":"two"}"#),
            uses("TaskUpdate", r#"{"taskId":"1","status":"in_progress"}"#),
            uses("TaskUpdate", r#"{"taskId":"1","status":"completed"}"#),
            uses("TaskUpdate", r#"{"taskId":"2","status":"deleted"}"#),
            uses(
                "TodoWrite",
                r#"{"todos":[{"content":"a","status":"completed"},{"content":"b","status":"pending"}]}"#,
            ),
        ];
        let said = read(Preset::ClaudeCode, &lines.each_ref().map(String::as_str));
        let plans: Vec<(usize, usize)> = said
            .iter()
            .filter_map(|said| match said {
                Said::Plan { done, of } => Some((*done, *of)),
                _ => None,
            })
            .collect();
        assert_eq!(plans, [(0, 1), (0, 2), (0, 2), (1, 2), (1, 1), (1, 2)]);
    }

    /// Lines of Codex 0.171 against a script.
    #[test]
    fn codex() {
        let said = read(
            Preset::Codex,
            &[
                "Reading additional input from stdin...",
                r#"{"type":"thread.started","thread_id":"01a2"}"#,
                r#"{"type":"item.completed","item":{"id":"item_0","type":"error","message":"Model metadata not found."}}"#,
                r#"{"type":"turn.started"}"#,
                r#"{"type":"item.started","item":{"id":"item_1","type":"todo_list","items":[{"text":"a","completed":true},{"text":"b","completed":false}]}}"#,
                r#"{"type":"item.completed","item":{"id":"item_2","type":"file_change","changes":[{"path":"/w/a","kind":"add"}],"status":"completed"}}"#,
                r#"{"type":"item.started","item":{"id":"item_4","type":"command_execution","command":"/bin/bash -lc 'cat a'","status":"in_progress"}}"#,
                r#"{"type":"item.completed","item":{"id":"item_5","type":"agent_message","text":"It is written."}}"#,
                r#"{"type":"turn.completed","usage":{"input_tokens":300}}"#,
            ],
        );
        assert_eq!(
            said,
            [
                Said::Line("Reading additional input from stdin...".into()),
                Said::Conversation("01a2".into()),
                Said::Trouble("Model metadata not found.".into()),
                Said::Plan { done: 1, of: 2 },
                tool("edit", "/w/a"),
                tool("exec", "/bin/bash -lc 'cat a'"),
                text("It is written."),
                done("It is written."),
            ]
        );
        let failed = r#"{"type":"turn.failed","error":{"message":"stream disconnected"}}"#;
        assert_eq!(read(Preset::Codex, &[failed]), [undone("stream disconnected")]);
    }

    /// Lines of OpenCode 1.18.33 against a script.
    #[test]
    fn opencode() {
        let said = read(
            Preset::Opencode,
            &[
                r#"{"type":"step_start","sessionID":"ses_1","part":{"type":"step-start"}}"#,
                r#"{"type":"tool_use","part":{"type":"tool","tool":"apply_patch","state":{"status":"completed","input":{"patchText":"*** Begin Patch\n*** Add File: a.txt\n+x\n*** End Patch\n"}}}}"#,
                r#"{"type":"tool_use","part":{"type":"tool","tool":"bash","state":{"status":"error","input":{"command":"ls"},"error":"no"}}}"#,
                r#"{"type":"step_finish","part":{"reason":"tool-calls"}}"#,
                r#"{"type":"text","part":{"type":"text","text":"Written."}}"#,
                r#"{"type":"step_finish","part":{"reason":"stop"}}"#,
            ],
        );
        assert_eq!(
            said,
            [
                Said::Conversation("ses_1".into()),
                tool("apply_patch", "a.txt"),
                tool("bash", "ls"),
                Said::Trouble("bash: no".into()),
                text("Written."),
                done("Written."),
            ]
        );
        let failed = r#"{"type":"error","error":{"name":"APIError","data":{"message":"402 no budget"}}}"#;
        assert_eq!(read(Preset::Opencode, &[failed]), [undone("402 no budget")]);
        let cut = r#"{"type":"step_finish","part":{"reason":"length"}}"#;
        assert_eq!(read(Preset::Opencode, &[cut]), [undone("it stopped because of \"length\"")]);
    }

    /// Lines of Gemini CLI 0.61 against a script.
    #[test]
    fn gemini_cli() {
        let said = read(
            Preset::GeminiCli,
            &[
                r#"{"type":"init","session_id":"s","model":"m"}"#,
                r#"{"type":"message","role":"user","content":"prompt"}"#,
                r#"{"type":"message","role":"assistant","content":"I wr","delta":true}"#,
                r#"{"type":"message","role":"assistant","content":"ite.","delta":true}"#,
                r#"{"type":"tool_use","tool_name":"write_file","tool_id":"1","parameters":{"file_path":"/w/a"}}"#,
                r#"{"type":"tool_result","tool_id":"1","status":"error","error":{"type":"x","message":"read-only"}}"#,
                r#"{"type":"message","role":"assistant","content":"No.","delta":true}"#,
                r#"{"type":"result","status":"success","stats":{}}"#,
            ],
        );
        assert_eq!(
            said,
            [
                Said::Conversation("s".into()),
                text("I write."),
                tool("write_file", "/w/a"),
                Said::Trouble("read-only".into()),
                text("No."),
                done("No."),
            ]
        );
    }

    #[test]
    fn aider_tells_tokens_after_each_answer_and_errors_of_models() {
        let ends = |lines: &[&str]| {
            let mut ends = read(Preset::Aider, lines).into_iter().filter_map(|said| match said {
                Said::Ended(end) => Some(end),
                _ => None,
            });
            ends.next_back()
        };
        let err = |why: &str| Some(Err(why.to_owned()));
        let tokens = "Tokens: 679 sent, 17 received.";
        assert_eq!(ends(&["litellm.BadRequestError: no", "", tokens]), Some(Ok(String::new())));
        assert_eq!(ends(&["I litellm.APIConnectionError: cut"]), err("I litellm.APIConnectionError: cut"));
        assert_eq!(ends(&["FAILED: no ink", tokens]), err("no ink"));
        assert_eq!(
            ends(&[tokens, "Only 3 reflections allowed, stopping."]),
            err("Only 3 reflections allowed, stopping.")
        );
        // It has asked for the words of a commit, got none, and done without.
        assert_eq!(
            ends(&[tokens, "litellm.APIError: no", "Commit 3faa644 a change"]),
            Some(Ok(String::new()))
        );
        assert_eq!(ends(&["Aider v0.86.2"]), None);
    }

    #[test]
    fn the_last_paragraph_tells_that_a_task_failed() {
        for (answer, why) in [
            ("a\n\n**FAILED: no ink**\n\n", Some("no ink")),
            ("**FAILED**: no ink", Some("no ink")),
            ("- FAILED: no ink.\nNor paper.", Some("no ink. Nor paper.")),
            ("I looked.\nFAILED: no ink", Some("no ink")),
            ("FAILED:", Some("")),
            ("FAILED: tests are mended.\n\nAll is done.", None),
            ("FAILED tests are mended.", None),
            ("", None),
        ] {
            assert_eq!(failure(answer).as_deref(), why, "{answer:?}");
        }
    }

    #[test]
    fn what_is_unknown_or_no_event_does_no_harm() {
        for preset in Preset::ALL {
            let lines = [
                "[1]",
                "null",
                "{",
                r#"{"type":7}"#,
                r#"{"type":"new","item":[]}"#,
                r#"{"part":{"state":"x"}}"#,
                "",
            ];
            let said = read(preset, &lines);
            assert!(!said.iter().any(|said| matches!(said, Said::Ended(_))), "{preset}: {said:?}");
        }
    }
}
