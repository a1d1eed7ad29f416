//! Servers of tools that speak the Model Context Protocol (<https://modelcontextprotocol.io/specification>) at their standard input and output. The
//! keeper runs them in the agent's sandbox, as it runs commands: they belong to the attempt, and one kill ends them. What a server says of its tools is
//! shown to the model and believed by nobody: the walls hold for whatever it does.

use std::fmt::Write as _;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rmcp::model::{
    CallToolRequestParams, CallToolResult, ClientCapabilities, ClientConfig, ContentBlock, Implementation,
    ResourceContents,
};
use rmcp::service::{RoleClient, RunningService, ServiceError};
use rmcp::transport::async_rw::AsyncRwTransport;
use serde_json::{Map, Value};
use toka_core::Risk;
use toka_runtime::{Output, RunningCommand, RunsCommands};
use tokio::io::{AsyncWriteExt as _, DuplexStream};
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;

use super::exec::{Ran, Written, shown};
use super::{Place, Tool};

/// How long a server may take until it has told its tools.
const START: Duration = Duration::from_secs(60);
/// How long one that does not answer may take to end.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// How long a call may take.
const CALL: Duration = Duration::from_secs(300);
/// Tools of one server that a model is told of.
const MOST_TOOLS: usize = 128;
/// The longest name of a tool that providers take.
const LONGEST_NAME: usize = 64;
/// The longest description of a tool, in bytes; the rest is left out.
const LONGEST_DESCRIPTION: usize = 4 * 1024;
/// The largest schema of a tool's arguments, in bytes: a tool with a larger one is left out.
const LARGEST_SCHEMA: usize = 32 * 1024;
/// The longest message of a server, in bytes: a longer one is dropped.
const LONGEST_MESSAGE: usize = 4 * 1024 * 1024;
/// Bytes of what a server writes to standard error that are kept from its beginning, and from its end.
const KEPT_ERRORS: usize = 2 * 1024;
/// Bytes that are read at once, and the pause after so many: a server that floods costs the daemon little.
const PIECE: usize = 64 * 1024;
const BREATH: Duration = Duration::from_millis(10);

/// A server, as an agent declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct McpServer {
    /// Its name: small letters, digits and dashes.
    pub name: String,
    /// The program and its arguments.
    pub argv: Vec<String>,
}

/// The servers of an attempt.
#[derive(Default)]
pub(crate) struct McpServers(Vec<Server>);

struct Server {
    name: String,
    service: RunningService<RoleClient, ClientConfig>,
    /// Names as the model knows them, and as the server does.
    tools: Vec<(Tool, String)>,
    errors: Arc<Mutex<Written>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        // With it goes the command, which is killed with all that it started.
        self.task.abort();
    }
}

impl McpServers {
    /// Starts servers, all at once, and asks each for its tools.
    ///
    /// # Errors
    /// Why the first of them does not serve.
    pub(crate) async fn start(
        commands: &Arc<dyn RunsCommands>,
        wanted: &[McpServer],
    ) -> Result<Self, String> {
        let mut starting = tokio::task::JoinSet::new();
        for (at, server) in wanted.iter().cloned().enumerate() {
            let commands = Arc::clone(commands);
            starting.spawn(async move { (at, Server::start(&*commands, server).await) });
        }
        let mut servers = Vec::new();
        while let Some(started) = starting.join_next().await {
            let (at, server) = started.map_err(|error| error.to_string())?;
            servers.push((at, server?));
        }
        servers.sort_by_key(|(at, _)| *at);
        Ok(Self(servers.into_iter().map(|(_, server)| server).collect()))
    }

    /// Their tools.
    pub(crate) fn tools(&self) -> impl Iterator<Item = &Tool> {
        self.0.iter().flat_map(|server| server.tools.iter().map(|(tool, _)| tool))
    }

    /// Calls a tool by the name that the model knows.
    ///
    /// # Errors
    /// When it was not called: nothing was done.
    pub(crate) async fn call(&self, tool: &str, arguments: &Map<String, Value>) -> Result<Ran, String> {
        let find = |server: &'_ Server| server.tools.iter().position(|(known, _)| known.name == tool);
        let found = self.0.iter().find_map(|server| Some((server, find(server)?)));
        let (server, at) = found.ok_or_else(|| format!("no server has a tool {tool:?}"))?;
        let request =
            CallToolRequestParams::new(server.tools[at].1.clone()).with_arguments(arguments.clone());
        match tokio::time::timeout(CALL, server.service.call_tool(request)).await {
            Err(_) => {
                Ok(failed(format!("the server {} has not answered within {} s", server.name, CALL.as_secs())))
            }
            Ok(Err(ServiceError::McpError(error))) => {
                Ok(failed(format!("the server {} refuses: {}", server.name, error.message)))
            }
            Ok(Err(error)) => {
                let why =
                    if has_ended(&server.task).await { "it has ended".to_owned() } else { error.to_string() };
                let said = words_of(&server.errors);
                Ok(failed(format!("the server {} gives no answer: {why}{said}", server.name)))
            }
            Ok(Ok(result)) => Ok(ran(&result)),
        }
    }
}

impl Server {
    async fn start(commands: &dyn RunsCommands, wanted: McpServer) -> Result<Self, String> {
        let McpServer { name, argv } = wanted;
        let failed = |why: String| format!("the MCP server {name} does not serve: {why}");
        let (reads, writes) = std::io::pipe().map_err(|error| failed(format!("make a pipe: {error}")))?;
        // A shell finds the program as it finds those of `exec`.
        let shell = ["/bin/sh", "-c", "exec \"$@\"", "sh"].map(str::to_owned);
        let words = shell.into_iter().chain(argv).collect();
        let mut running = commands.run(words, Some(OwnedFd::from(reads))).await.map_err(&failed)?;
        let input =
            pipe::Sender::from_owned_fd(OwnedFd::from(writes)).map_err(|error| failed(error.to_string()))?;
        let streams = running.take_streams().ok_or_else(|| failed("its output cannot be read".to_owned()))?;
        let errors = Arc::new(Mutex::new(Written::keeping(KEPT_ERRORS)));
        let (read, passed) = tokio::io::duplex(PIECE);
        let watched = watch(running, streams.output, passed, streams.errors, Arc::clone(&errors));
        let task = tokio::spawn(watched);
        let transport = AsyncRwTransport::new(read, input).with_max_line_length(LONGEST_MESSAGE);
        let client = Implementation::new("toka", env!("CARGO_PKG_VERSION"));
        let client = ClientConfig::new(ClientCapabilities::default(), client);
        let serve = async {
            let service = rmcp::serve_client(client, transport).await.map_err(|error| error.to_string())?;
            let tools = service
                .list_all_tools()
                .await
                .map_err(|error| format!("it does not tell its tools: {error}"))?;
            Ok::<_, String>((service, tools))
        };
        let served = tokio::time::timeout(START, serve).await;
        let served =
            served.unwrap_or_else(|_| Err(format!("it has not told its tools within {} s", START.as_secs())));
        let (service, tools) = match served {
            Ok(served) => served,
            Err(why) => {
                let why = if has_ended(&task).await {
                    "it ended before it had told its tools".to_owned()
                } else {
                    why
                };
                task.abort();
                return Err(failed(format!("{why}{}", words_of(&errors))));
            }
        };
        let tools = tools.into_iter().filter_map(|tool| known(&name, tool)).take(MOST_TOOLS).collect();
        Ok(Self { name, service, tools, errors, task })
    }
}

/// Whether a server has ended; its last words may still be on their way.
async fn has_ended(task: &JoinHandle<()>) -> bool {
    let deadline = tokio::time::Instant::now() + LAST_WORDS;
    while !task.is_finished() && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(BREATH).await;
    }
    task.is_finished()
}

/// What a server has written to standard error, as the end of a sentence.
fn words_of(errors: &Mutex<Written>) -> String {
    let mut errors = errors.lock().unwrap_or_else(PoisonError::into_inner);
    let whole = std::mem::replace(&mut *errors, Written::keeping(KEPT_ERRORS)).whole();
    let text = String::from_utf8_lossy(&whole);
    match text.trim() {
        "" => String::new(),
        text => format!("; it says: {text}"),
    }
}

/// A tool of a server, as a model is told of it; none where providers would not take it.
fn known(server: &str, tool: rmcp::model::Tool) -> Option<(Tool, String)> {
    let raw = tool.name.into_owned();
    let name = name_of(server, &raw)?;
    let parameters = Value::Object(Arc::unwrap_or_clone(tool.input_schema));
    if parameters.to_string().len() > LARGEST_SCHEMA
        || parameters.get("type").is_none_or(|kind| kind != "object")
    {
        return None;
    }
    let mut description = tool.description.unwrap_or_default().into_owned();
    description.truncate(description.floor_char_boundary(LONGEST_DESCRIPTION));
    // It only decides whether a person is asked: what it can do, the sandbox decides.
    let is_destructive = tool.annotations.as_ref().and_then(|hints| hints.destructive_hint) == Some(true);
    let risk = if is_destructive { Risk::High } else { Risk::Medium };
    let tool = Tool {
        name: name.into(),
        version: 1,
        description: description.into(),
        category: "mcp",
        risk,
        place: Place::Mcp,
        parameters,
    };
    Some((tool, raw))
}

/// The name by which a model knows a tool of a server.
fn name_of(server: &str, tool: &str) -> Option<String> {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    let tool: String = tool.chars().map(plain).collect();
    let name = format!("mcp__{}__{tool}", server.replace('-', "_"));
    (!tool.is_empty() && name.len() <= LONGEST_NAME).then_some(name)
}

fn failed(text: String) -> Ran {
    Ran { text, whole: None, is_success: false, usage: Default::default() }
}

/// What a call gave, in words.
fn ran(result: &CallToolResult) -> Ran {
    let mut text = String::new();
    for block in &result.content {
        let _ = match block {
            ContentBlock::Text(block) => writeln!(text, "{}", block.text),
            ContentBlock::Image(image) => {
                writeln!(text, "(an image, {}, of {} bytes in base64)", image.mime_type, image.data.len())
            }
            ContentBlock::Audio(audio) => {
                writeln!(text, "(a sound, {}, of {} bytes in base64)", audio.mime_type, audio.data.len())
            }
            ContentBlock::Resource(resource) => match &resource.resource {
                ResourceContents::TextResourceContents { uri, text: words, .. } => {
                    writeln!(text, "{uri}:\n{words}")
                }
                ResourceContents::BlobResourceContents { uri, blob, .. } => {
                    writeln!(text, "({uri}, of {} bytes in base64)", blob.len())
                }
                _ => Ok(()),
            },
            ContentBlock::ResourceLink(link) => writeln!(text, "({}: {})", link.name, link.uri),
            _ => writeln!(text, "(something that is no text)"),
        };
    }
    if text.trim().is_empty() {
        text = result.structured_content.as_ref().map_or_else(|| "(no output)".to_owned(), Value::to_string);
    }
    let whole = text.trim_end().as_bytes().to_vec();
    let (text, is_cut) = shown(&whole);
    let is_success = result.is_error != Some(true);
    Ran { text, whole: is_cut.then_some(whole), is_success, usage: Default::default() }
}

/// Passes on what a server writes, until it has ended.
async fn watch(
    mut running: Box<dyn RunningCommand>,
    mut output: Output,
    mut passed: DuplexStream,
    mut errors: Output,
    kept: Arc<Mutex<Written>>,
) {
    let pass = async {
        let mut piece = vec![0; PIECE];
        while let Ok(count @ 1..) = output.read(&mut piece).await {
            if passed.write_all(&piece[..count]).await.is_err() {
                break;
            }
            if count == piece.len() {
                tokio::time::sleep(BREATH).await;
            }
        }
        drop(passed);
    };
    let keep = async {
        let mut piece = vec![0; KEPT_ERRORS];
        while let Ok(count @ 1..) = errors.read(&mut piece).await {
            kept.lock().unwrap_or_else(PoisonError::into_inner).add(&piece[..count]);
            if count == piece.len() {
                tokio::time::sleep(BREATH).await;
            }
        }
    };
    let read = async { tokio::join!(pass, keep) };
    tokio::pin!(read);
    let mut is_read = false;
    loop {
        tokio::select! {
            _ = running.exited() => break,
            _ = &mut read, if !is_read => is_read = true,
        }
    }
    if !is_read {
        // What it wrote last; what it started and left running does not count.
        let _ = tokio::time::timeout(Duration::from_secs(2), &mut read).await;
    }
    running.kill();
    let _ = running.gone().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_providers_take() {
        assert_eq!(name_of("my-files", "read.file").as_deref(), Some("mcp__my_files__read_file"));
        assert_eq!(name_of("x", &"y".repeat(60)), None);
        assert_eq!(name_of("x", ""), None);
    }

    #[test]
    fn what_a_server_says_of_its_tools_is_bounded() {
        let tool = |schema: Value| {
            let schema = schema.as_object().cloned().expect("an object");
            rmcp::model::Tool::new("t", "x".repeat(10_000), Arc::new(schema))
        };
        let (known_tool, raw) = known("s", tool(serde_json::json!({"type": "object"}))).expect("a tool");
        assert_eq!(
            (known_tool.description.len(), raw.as_str(), known_tool.risk),
            (LONGEST_DESCRIPTION, "t", Risk::Medium)
        );
        assert!(known("s", tool(serde_json::json!({"type": "string"}))).is_none());
        let large = serde_json::json!({"type": "object", "description": "y".repeat(40_000)});
        assert!(known("s", tool(large)).is_none());
    }
}
