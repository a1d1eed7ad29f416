//! A conversation with tools, written as a request in each language: what a built-in agent asks a model. Pure: the same conversation
//! is the same bytes, and a longer one begins with those of the shorter, so that a provider's cache holds.
//!
//! Written from the public references that [the crate](crate) names.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::said::Call;
use crate::{Endpoint, Wire};

/// What stands for an answer in which nothing was.
const NOTHING: &str = "(no answer)";

/// What is asked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Conversation {
    /// The instructions.
    pub system: String,
    /// What was said, the oldest first.
    pub items: Vec<Item>,
    /// The tools that the model may call.
    pub tools: Vec<ToolDefinition>,
    /// Most tokens of the answer.
    pub max_output_tokens: u64,
    /// From 0.0; `None` for the model's own.
    pub temperature: Option<f64>,
}

/// A tool, as a model is told of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolDefinition {
    /// Its name: letters, digits, `_` and `-`, at most 64.
    pub name: String,
    /// What it does.
    pub description: String,
    /// A JSON Schema of its arguments.
    pub parameters: Value,
}

/// Something that was said.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// By whoever wants something.
    User(String),
    /// By a model.
    Assistant(Assistant),
    /// What tools gave back, in the order of the calls of the answer before.
    Results(Vec<ToolResult>),
}

/// An answer of a model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Assistant {
    /// Its text.
    pub text: String,
    /// Its calls.
    pub calls: Vec<Call>,
    /// Its blocks as they came, where they go back to the model that they are from, in the language in which they came.
    pub blocks: Vec<Value>,
}

/// What a tool gave back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolResult {
    /// The id of the call.
    pub id: String,
    /// The tool.
    pub name: String,
    /// What it says.
    pub text: String,
    /// Whether it failed.
    pub is_error: bool,
}

/// The API that a conversation is sent to, in a language. The answer is a stream.
pub fn endpoint(wire: Wire) -> Endpoint {
    match wire {
        Wire::OpenAiChat => Endpoint::ChatCompletions,
        Wire::OpenAiResponses => Endpoint::Responses,
        Wire::Anthropic => Endpoint::Messages,
        Wire::Gemini => Endpoint::StreamGenerateContent,
    }
}

impl Conversation {
    /// The body of a request for `model`, whose answer is a stream.
    pub fn body(&self, wire: Wire, model: &str) -> Value {
        match wire {
            Wire::OpenAiChat => self.chat(model),
            Wire::OpenAiResponses => self.responses(model),
            Wire::Anthropic => self.anthropic(model),
            Wire::Gemini => self.gemini(),
        }
    }

    /// What was said. An answer in which nothing was gets words: providers take none without, and the model sees what it has done.
    fn said(&self) -> impl Iterator<Item = Cow<'_, Item>> {
        let worded = |item: &'_ Item| match item {
            Item::Assistant(said)
                if said.text.trim().is_empty() && said.calls.is_empty() && said.blocks.is_empty() =>
            {
                Some(Item::Assistant(Assistant { text: NOTHING.to_owned(), ..Assistant::default() }))
            }
            _ => None,
        };
        self.items.iter().map(move |item| worded(item).map_or(Cow::Borrowed(item), Cow::Owned))
    }

    fn chat(&self, model: &str) -> Value {
        let mut messages = vec![json!({"role": "system", "content": self.system})];
        for item in self.said() {
            match &*item {
                Item::User(text) => messages.push(json!({"role": "user", "content": text})),
                Item::Assistant(said) => {
                    let content =
                        if said.text.trim().is_empty() { Value::Null } else { said.text.clone().into() };
                    let mut message = json!({"role": "assistant", "content": content});
                    if !said.calls.is_empty() {
                        let call = |call: &Call| {
                            json!({"id": call.id, "type": "function",
                                "function": {"name": call.name, "arguments": object(call).to_string()}})
                        };
                        message["tool_calls"] = said.calls.iter().map(call).collect();
                    }
                    messages.push(message);
                }
                Item::Results(results) => messages.extend(results.iter().map(
                    |result| json!({"role": "tool", "tool_call_id": result.id, "content": result.text}),
                )),
            }
        }
        let mut body = json!({"model": model, "messages": messages, "max_tokens": self.max_output_tokens,
            "stream": true, "stream_options": {"include_usage": true}});
        let tool = |tool: &ToolDefinition| {
            json!({"type": "function",
                "function": {"name": tool.name, "description": tool.description, "parameters": tool.parameters}})
        };
        self.put_tools(&mut body, "tools", self.tools.iter().map(tool).collect());
        self.put_temperature(&mut body);
        body
    }

    fn responses(&self, model: &str) -> Value {
        let mut input = Vec::new();
        for item in self.said() {
            match &*item {
                Item::User(text) => input.push(json!({"type": "message", "role": "user", "content": text})),
                Item::Assistant(said) if !said.blocks.is_empty() => input.extend(said.blocks.iter().cloned()),
                Item::Assistant(said) => {
                    if !said.text.trim().is_empty() {
                        input.push(json!({"type": "message", "role": "assistant", "content": said.text}));
                    }
                    input.extend(said.calls.iter().map(|call| {
                        json!({"type": "function_call", "call_id": call.id, "name": call.name,
                            "arguments": object(call).to_string()})
                    }));
                }
                Item::Results(results) => input.extend(results.iter().map(
                    |result| json!({"type": "function_call_output", "call_id": result.id, "output": result.text}),
                )),
            }
        }
        // Nothing is kept by the provider: the transcript is the truth, and reasoning comes back sealed.
        let mut body = json!({"model": model, "instructions": self.system, "input": input, "store": false,
            "include": ["reasoning.encrypted_content"], "max_output_tokens": self.max_output_tokens, "stream": true});
        let tool = |tool: &ToolDefinition| {
            json!({"type": "function", "name": tool.name, "description": tool.description,
                "parameters": tool.parameters, "strict": false})
        };
        self.put_tools(&mut body, "tools", self.tools.iter().map(tool).collect());
        self.put_temperature(&mut body);
        body
    }

    fn anthropic(&self, model: &str) -> Value {
        let mut messages: Vec<(&str, Vec<Value>)> = Vec::new();
        // Roles alternate: what comes from one side in a row is one message, results before words.
        let mut add = |role: &'static str, blocks: Vec<Value>| match messages.last_mut() {
            Some((last, known)) if *last == role => known.extend(blocks),
            _ => messages.push((role, blocks)),
        };
        for item in self.said() {
            match &*item {
                Item::User(text) => add("user", vec![json!({"type": "text", "text": text})]),
                Item::Assistant(said) if !said.blocks.is_empty() => add("assistant", said.blocks.clone()),
                Item::Assistant(said) => {
                    let text =
                        (!said.text.trim().is_empty()).then(|| json!({"type": "text", "text": said.text}));
                    let call = |call: &Call| json!({"type": "tool_use", "id": call.id, "name": call.name, "input": object(call)});
                    add("assistant", text.into_iter().chain(said.calls.iter().map(call)).collect());
                }
                Item::Results(results) => {
                    let result = |result: &ToolResult| {
                        let mut block =
                            json!({"type": "tool_result", "tool_use_id": result.id, "content": result.text});
                        if result.is_error {
                            block["is_error"] = true.into();
                        }
                        block
                    };
                    add("user", results.iter().map(result).collect());
                }
            }
        }
        // Kept up to here: the tools and instructions, which stay, and all that was said.
        let kept = json!({"type": "ephemeral"});
        let last = messages.last_mut().and_then(|(_, blocks)| blocks.last_mut());
        if let Some(block) = last.filter(|block| block.is_object()) {
            block["cache_control"] = kept.clone();
        }
        let messages: Vec<Value> =
            messages.into_iter().map(|(role, content)| json!({"role": role, "content": content})).collect();
        let mut body = json!({"model": model, "max_tokens": self.max_output_tokens,
            "system": [{"type": "text", "text": self.system, "cache_control": kept}],
            "messages": messages, "stream": true});
        let tool = |tool: &ToolDefinition| json!({"name": tool.name, "description": tool.description, "input_schema": tool.parameters});
        self.put_tools(&mut body, "tools", self.tools.iter().map(tool).collect());
        self.put_temperature(&mut body);
        body
    }

    fn gemini(&self) -> Value {
        let mut contents: Vec<Value> = Vec::new();
        for item in self.said() {
            let (role, parts) = match &*item {
                Item::User(text) => ("user", vec![json!({"text": text})]),
                Item::Assistant(said) if !said.blocks.is_empty() => ("model", said.blocks.clone()),
                Item::Assistant(said) => {
                    let text = (!said.text.trim().is_empty()).then(|| json!({"text": said.text}));
                    let call =
                        |call: &Call| json!({"functionCall": {"name": call.name, "args": object(call)}});
                    ("model", text.into_iter().chain(said.calls.iter().map(call)).collect())
                }
                Item::Results(results) => {
                    let result = |result: &ToolResult| {
                        let key = if result.is_error { "error" } else { "output" };
                        json!({"functionResponse": {"name": result.name, "response": {key: result.text}}})
                    };
                    ("user", results.iter().map(result).collect())
                }
            };
            // The API wants turns that have something in them.
            if !parts.is_empty() {
                contents.push(json!({"role": role, "parts": parts}));
            }
        }
        let mut config = json!({"maxOutputTokens": self.max_output_tokens});
        if let Some(temperature) = self.temperature {
            config["temperature"] = temperature.into();
        }
        let mut body = json!({"systemInstruction": {"parts": [{"text": self.system}]}, "contents": contents,
            "generationConfig": config});
        if !self.tools.is_empty() {
            let tool = |tool: &ToolDefinition| json!({"name": tool.name, "description": tool.description, "parametersJsonSchema": tool.parameters});
            let declarations: Vec<Value> = self.tools.iter().map(tool).collect();
            body["tools"] = json!([{"functionDeclarations": declarations}]);
        }
        body
    }

    fn put_tools(&self, body: &mut Value, key: &str, tools: Vec<Value>) {
        if !tools.is_empty() {
            body[key] = tools.into();
        }
    }

    fn put_temperature(&self, body: &mut Value) {
        if let Some(temperature) = self.temperature {
            body["temperature"] = temperature.into();
        }
    }
}

/// The arguments of a call as an object: what a model wrote that is none is told in the result, and not sent back.
fn object(call: &Call) -> Value {
    Value::Object(call.arguments.clone().unwrap_or_else(|_| Map::new()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Prompt, Relation, RequestFacts};

    fn conversation() -> Conversation {
        let arguments = Map::from_iter([("path".to_owned(), json!("a.txt"))]);
        let call = Call { id: "c1".into(), name: "read".into(), arguments: Ok(arguments) };
        Conversation {
            system: "You work.".into(),
            items: vec![
                Item::User("Do it.".into()),
                Item::Assistant(Assistant { text: "I look.".into(), calls: vec![call], blocks: vec![] }),
                Item::Results(vec![ToolResult {
                    id: "c1".into(),
                    name: "read".into(),
                    text: "hello".into(),
                    is_error: false,
                }]),
                Item::User("Be quick.".into()),
            ],
            tools: vec![ToolDefinition {
                name: "read".into(),
                description: "Reads a file.".into(),
                parameters: json!({"type": "object"}),
            }],
            max_output_tokens: 100,
            temperature: None,
        }
    }

    #[test]
    fn every_language_says_the_same() {
        let bodies: Vec<String> = Wire::ALL
            .into_iter()
            .map(|wire| {
                format!(
                    "{wire}\n{}\n",
                    serde_json::to_string_pretty(&conversation().body(wire, "m")).expect("JSON")
                )
            })
            .collect();
        insta::assert_snapshot!(bodies.concat());
    }

    #[test]
    fn an_answer_in_which_nothing_was_has_words() {
        for wire in Wire::ALL {
            let mut with_nothing = conversation();
            let blank = Assistant { text: " \n".into(), ..Assistant::default() };
            with_nothing.items.insert(1, Item::Assistant(blank));
            assert!(with_nothing.body(wire, "m").to_string().contains(NOTHING), "{wire}");
        }
    }

    #[test]
    fn the_gateway_reads_what_is_written() {
        for wire in Wire::ALL {
            let body = conversation().body(wire, "m").to_string();
            let facts = RequestFacts::read(endpoint(wire), Some("m"), body.as_bytes()).expect("a request");
            assert_eq!((facts.model.as_str(), facts.max_output_tokens), ("m", Some(100)), "{wire}");
            assert!(facts.stream, "{wire}");
        }
    }

    #[test]
    fn a_longer_conversation_begins_with_the_shorter_one() {
        let mut conversation = conversation();
        // Long enough that a provider would keep it.
        conversation.items[0] = Item::User("word ".repeat(4000));
        for wire in Wire::ALL {
            let read = |of: &Conversation| {
                Prompt::read(endpoint(wire), "m", of.body(wire, "m").to_string().as_bytes())
                    .expect("a prompt")
            };
            let before = read(&conversation);
            let mut longer = conversation.clone();
            longer.items.push(Item::Assistant(Assistant { text: "Done.".into(), ..Assistant::default() }));
            longer.items.push(Item::User("Thanks.".into()));
            assert_eq!(before.relation(&read(&longer)), Relation::Continues, "{wire}");
        }
    }
}
