//! Answers in a provider's words, whole and as a stream: what a scripted provider says. Written from the public references.

use serde_json::{Value, json};

use toka_core::Wire;

/// What a model says in one turn.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Turn {
    /// Text, in the pieces in which a stream brings it.
    pub text: Vec<String>,
    /// Calls of tools: name and arguments.
    pub tools: Vec<(String, Value)>,
    /// Tokens read.
    pub input: u64,
    /// Tokens read from a cache, besides.
    pub cached_read: u64,
    /// Tokens written.
    pub output: u64,
}

/// What an answer is called: the same for the same turn, so that two runs of one script say the same.
#[derive(Debug, Clone, Copy)]
pub struct Label<'a> {
    /// The model, as the request names it.
    pub model: &'a str,
    /// The place of the turn in its script, from 0.
    pub number: usize,
}

/// When scripted answers are said to be made: 2026-01-01, in seconds since 1970.
const CREATED: u64 = 1_767_225_600;

/// An answer that is no stream.
pub fn whole(wire: Wire, turn: &Turn, label: Label<'_>) -> Value {
    match wire {
        Wire::OpenAiChat => chat(turn, label),
        Wire::OpenAiResponses => response(turn, label, "completed"),
        Wire::Anthropic => message(turn, label),
        Wire::Gemini => json!({
            "candidates": [{"index": 0, "finishReason": "STOP", "content": {"role": "model", "parts": gemini_parts(turn)}}],
            "usageMetadata": gemini_usage(turn), "modelVersion": label.model,
            "responseId": format!("scripted-{}", label.number),
        }),
    }
}

/// The frames of a stream, each with the empty line that ends it. `usage` says whether one of Chat Completions tells its tokens.
pub fn stream(wire: Wire, turn: &Turn, label: Label<'_>, usage: bool) -> Vec<String> {
    match wire {
        Wire::OpenAiChat => chat_stream(turn, label, usage),
        Wire::OpenAiResponses => response_stream(turn, label),
        Wire::Anthropic => message_stream(turn, label),
        Wire::Gemini => gemini_stream(turn, label),
    }
}

fn data(value: &Value) -> String {
    format!("data: {value}\n\n")
}

/// A frame whose event has the name that its data has as `type`.
fn named(value: &Value) -> String {
    format!("event: {}\ndata: {value}\n\n", value["type"].as_str().unwrap_or_default())
}

fn call_id(label: Label<'_>, at: usize) -> String {
    format!("call_{}_{at}", label.number)
}

fn chat_usage(turn: &Turn) -> Value {
    let read = turn.input.saturating_add(turn.cached_read);
    json!({"prompt_tokens": read, "completion_tokens": turn.output, "total_tokens": read.saturating_add(turn.output),
        "prompt_tokens_details": {"cached_tokens": turn.cached_read},
        "completion_tokens_details": {"reasoning_tokens": 0}})
}

fn chat_calls(turn: &Turn, label: Label<'_>) -> Vec<Value> {
    let calls = turn.tools.iter().enumerate();
    calls
        .map(|(at, (name, arguments))| {
            json!({"id": call_id(label, at), "type": "function",
                "function": {"name": name, "arguments": arguments.to_string()}})
        })
        .collect()
}

fn finish(turn: &Turn) -> &'static str {
    if turn.tools.is_empty() { "stop" } else { "tool_calls" }
}

fn chat(turn: &Turn, label: Label<'_>) -> Value {
    let text = turn.text.concat();
    let mut said =
        json!({"role": "assistant", "content": if text.is_empty() { Value::Null } else { text.into() }});
    if !turn.tools.is_empty() {
        said["tool_calls"] = chat_calls(turn, label).into();
    }
    json!({"id": format!("chatcmpl-{}", label.number), "object": "chat.completion", "created": CREATED, "model": label.model,
        "choices": [{"index": 0, "message": said, "logprobs": null, "finish_reason": finish(turn)}],
        "usage": chat_usage(turn)})
}

fn chat_stream(turn: &Turn, label: Label<'_>, usage: bool) -> Vec<String> {
    let chunk = |choices: Value| {
        let mut chunk = json!({"id": format!("chatcmpl-{}", label.number), "object": "chat.completion.chunk",
            "created": CREATED, "model": label.model, "choices": choices});
        if usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    };
    let delta = |delta: Value| data(&chunk(json!([{"index": 0, "delta": delta, "finish_reason": null}])));
    let mut frames = vec![delta(json!({"role": "assistant", "content": ""}))];
    frames.extend(turn.text.iter().map(|piece| delta(json!({"content": piece}))));
    for (at, call) in chat_calls(turn, label).into_iter().enumerate() {
        let (name, arguments) = (&call["function"]["name"], &call["function"]["arguments"]);
        let begun = json!({"index": at, "id": call["id"], "type": "function", "function": {"name": name, "arguments": ""}});
        frames.push(delta(json!({"tool_calls": [begun]})));
        frames.push(delta(json!({"tool_calls": [{"index": at, "function": {"arguments": arguments}}]})));
    }
    frames.push(data(&chunk(json!([{"index": 0, "delta": {}, "finish_reason": finish(turn)}]))));
    if usage {
        let mut last = chunk(json!([]));
        last["usage"] = chat_usage(turn);
        frames.push(data(&last));
    }
    frames.push("data: [DONE]\n\n".to_owned());
    frames
}

fn response_items(turn: &Turn, label: Label<'_>, status: &str) -> Vec<Value> {
    let mut items = Vec::new();
    if !turn.text.is_empty() {
        items.push(json!({"id": format!("msg_{}", label.number), "type": "message", "role": "assistant", "status": status,
            "content": [{"type": "output_text", "text": turn.text.concat(), "annotations": []}]}));
    }
    for (at, (name, arguments)) in turn.tools.iter().enumerate() {
        items.push(
            json!({"id": format!("fc_{}_{at}", label.number), "type": "function_call", "status": status,
            "call_id": call_id(label, at), "name": name, "arguments": arguments.to_string()}),
        );
    }
    items
}

fn response(turn: &Turn, label: Label<'_>, status: &str) -> Value {
    let is_done = status == "completed";
    let read = turn.input.saturating_add(turn.cached_read);
    let usage = json!({"input_tokens": read, "input_tokens_details": {"cached_tokens": turn.cached_read},
        "output_tokens": turn.output, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": read.saturating_add(turn.output)});
    json!({"id": format!("resp_{}", label.number), "object": "response", "created_at": CREATED, "status": status,
        "error": null, "incomplete_details": null, "instructions": null, "metadata": {}, "model": label.model,
        "output": if is_done { response_items(turn, label, "completed") } else { Vec::new() },
        "parallel_tool_calls": true, "temperature": 1.0, "tool_choice": "auto", "tools": [], "top_p": 1.0,
        "usage": if is_done { usage } else { Value::Null }})
}

fn response_stream(turn: &Turn, label: Label<'_>) -> Vec<String> {
    let mut events = vec![
        json!({"type": "response.created", "response": response(turn, label, "in_progress")}),
        json!({"type": "response.in_progress", "response": response(turn, label, "in_progress")}),
    ];
    for (at, item) in response_items(turn, label, "completed").into_iter().enumerate() {
        let mut begun = item.clone();
        begun["status"] = "in_progress".into();
        if item["type"] == "message" {
            begun["content"] = json!([]);
            events.push(json!({"type": "response.output_item.added", "output_index": at, "item": begun}));
            let part = |text: &str| json!({"type": "output_text", "text": text, "annotations": []});
            let at_part = |kind: &str, more: Value| {
                let mut event =
                    json!({"type": kind, "item_id": item["id"], "output_index": at, "content_index": 0});
                event
                    .as_object_mut()
                    .into_iter()
                    .for_each(|event| event.extend(more.as_object().cloned().unwrap_or_default()));
                event
            };
            events.push(at_part("response.content_part.added", json!({"part": part("")})));
            for piece in &turn.text {
                events.push(at_part("response.output_text.delta", json!({"delta": piece, "logprobs": []})));
            }
            let text = turn.text.concat();
            events.push(at_part("response.output_text.done", json!({"text": text, "logprobs": []})));
            events.push(at_part("response.content_part.done", json!({"part": part(&text)})));
        } else {
            begun["arguments"] = "".into();
            events.push(json!({"type": "response.output_item.added", "output_index": at, "item": begun}));
            events.push(json!({"type": "response.function_call_arguments.delta", "item_id": item["id"], "output_index": at,
                "delta": item["arguments"]}));
            events.push(json!({"type": "response.function_call_arguments.done", "item_id": item["id"], "output_index": at,
                "name": item["name"], "arguments": item["arguments"]}));
        }
        events.push(json!({"type": "response.output_item.done", "output_index": at, "item": item}));
    }
    events.push(json!({"type": "response.completed", "response": response(turn, label, "completed")}));
    for (number, event) in events.iter_mut().enumerate() {
        event["sequence_number"] = number.into();
    }
    events.iter().map(named).collect()
}

fn message_blocks(turn: &Turn, label: Label<'_>) -> Vec<Value> {
    let mut blocks = Vec::new();
    if !turn.text.is_empty() {
        blocks.push(json!({"type": "text", "text": turn.text.concat()}));
    }
    for (at, (name, input)) in turn.tools.iter().enumerate() {
        blocks.push(json!({"type": "tool_use", "id": format!("toolu_{}_{at}", label.number), "name": name, "input": input}));
    }
    blocks
}

fn message_reason(turn: &Turn) -> &'static str {
    if turn.tools.is_empty() { "end_turn" } else { "tool_use" }
}

fn message_usage(turn: &Turn, output: u64) -> Value {
    json!({"input_tokens": turn.input, "cache_creation_input_tokens": 0, "cache_read_input_tokens": turn.cached_read,
        "output_tokens": output})
}

fn message(turn: &Turn, label: Label<'_>) -> Value {
    json!({"id": format!("msg_{}", label.number), "type": "message", "role": "assistant", "model": label.model,
        "content": message_blocks(turn, label), "stop_reason": message_reason(turn), "stop_sequence": null,
        "usage": message_usage(turn, turn.output)})
}

fn message_stream(turn: &Turn, label: Label<'_>) -> Vec<String> {
    let mut begun = message(turn, label);
    begun["content"] = json!([]);
    begun["stop_reason"] = Value::Null;
    begun["usage"] = message_usage(turn, 1);
    let mut events = vec![json!({"type": "message_start", "message": begun}), json!({"type": "ping"})];
    for (at, block) in message_blocks(turn, label).into_iter().enumerate() {
        let mut begun = block.clone();
        let deltas: Vec<Value> = if block["type"] == "text" {
            begun["text"] = "".into();
            turn.text.iter().map(|piece| json!({"type": "text_delta", "text": piece})).collect()
        } else {
            begun["input"] = json!({});
            vec![json!({"type": "input_json_delta", "partial_json": block["input"].to_string()})]
        };
        events.push(json!({"type": "content_block_start", "index": at, "content_block": begun}));
        events.extend(
            deltas
                .into_iter()
                .map(|delta| json!({"type": "content_block_delta", "index": at, "delta": delta})),
        );
        events.push(json!({"type": "content_block_stop", "index": at}));
    }
    events.push(
        json!({"type": "message_delta", "delta": {"stop_reason": message_reason(turn), "stop_sequence": null},
        "usage": message_usage(turn, turn.output)}),
    );
    events.push(json!({"type": "message_stop"}));
    events.iter().map(named).collect()
}

fn gemini_parts(turn: &Turn) -> Vec<Value> {
    let mut parts = Vec::new();
    if !turn.text.is_empty() {
        parts.push(json!({"text": turn.text.concat()}));
    }
    parts.extend(
        turn.tools.iter().map(|(name, arguments)| json!({"functionCall": {"name": name, "args": arguments}})),
    );
    parts
}

fn gemini_usage(turn: &Turn) -> Value {
    let read = turn.input.saturating_add(turn.cached_read);
    json!({"promptTokenCount": read, "cachedContentTokenCount": turn.cached_read, "candidatesTokenCount": turn.output,
        "totalTokenCount": read.saturating_add(turn.output)})
}

fn gemini_stream(turn: &Turn, label: Label<'_>) -> Vec<String> {
    let text = turn.text.iter().map(|piece| json!({"text": piece}));
    let calls =
        turn.tools.iter().map(|(name, arguments)| json!({"functionCall": {"name": name, "args": arguments}}));
    let parts: Vec<Value> = text.chain(calls).collect();
    let last = parts.len().saturating_sub(1);
    let frame = |part: Option<&Value>, is_last: bool| {
        let mut candidate =
            json!({"index": 0, "content": {"role": "model", "parts": part.into_iter().collect::<Vec<_>>()}});
        let mut value =
            json!({"modelVersion": label.model, "responseId": format!("scripted-{}", label.number)});
        if is_last {
            candidate["finishReason"] = "STOP".into();
            value["usageMetadata"] = gemini_usage(turn);
        }
        value["candidates"] = json!([candidate]);
        format!("data: {value}\r\n\r\n")
    };
    if parts.is_empty() {
        return vec![frame(None, true)];
    }
    parts.iter().enumerate().map(|(at, part)| frame(Some(part), at == last)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Frame, Meter, answer};

    fn turn() -> Turn {
        Turn {
            text: vec!["Hel".into(), "lo".into()],
            tools: vec![("run".into(), json!({"command": "ls"}))],
            input: 10,
            cached_read: 4,
            output: 6,
        }
    }

    #[test]
    fn what_is_written_is_read_with_the_same_figures() {
        let label = Label { model: "m", number: 3 };
        for wire in Wire::ALL {
            let whole = answer::read(wire, whole(wire, &turn(), label).to_string().as_bytes());
            assert_eq!(whole.error, None);
            let mut meter = Meter::new(wire, false);
            let frames: Vec<Frame> = stream(wire, &turn(), label, true)
                .iter()
                .map(|frame| meter.observe(frame.as_bytes()))
                .collect();
            let progress = meter.progress();
            assert!(progress.is_whole && progress.has_content, "{wire}: {frames:?}");
            for (tokens, calls) in [(whole.tokens, whole.tool_calls), (progress.tokens, progress.tool_calls)]
            {
                assert_eq!(
                    (tokens.input, tokens.cached_read, tokens.output),
                    (Some(10), Some(4), Some(6)),
                    "{wire}"
                );
                assert_eq!(calls, 1, "{wire}");
            }
        }
    }
}
