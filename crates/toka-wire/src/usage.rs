//! From a provider's figures to [`Tokens`]: each provider cuts them in its own way.

use serde_json::Value;
use toka_core::Tokens;

use toka_core::Wire;

/// The tokens that a `usage` object tells (`usageMetadata` of Gemini).
pub(crate) fn tokens(wire: Wire, usage: &Value) -> Tokens {
    match wire {
        Wire::OpenAiChat | Wire::OpenAiResponses => of_openai(usage),
        Wire::Anthropic => of_anthropic(usage),
        Wire::Gemini => of_gemini(usage),
    }
}

fn number(value: &Value, path: &[&str]) -> Option<u64> {
    path.iter().try_fold(value, |value, key| value.get(key))?.as_u64()
}

/// Chat Completions says `prompt_tokens`, Responses `input_tokens`; the cached ones and the reasoning are a part of the sums.
fn of_openai(usage: &Value) -> Tokens {
    let either = |old: &[&str], new: &[&str]| number(usage, old).or_else(|| number(usage, new));
    let all = either(&["prompt_tokens"], &["input_tokens"]);
    let cached =
        either(&["prompt_tokens_details", "cached_tokens"], &["input_tokens_details", "cached_tokens"]);
    Tokens {
        input: all.map(|all| all.saturating_sub(cached.unwrap_or(0))),
        cached_read: cached,
        output: either(&["completion_tokens"], &["output_tokens"]),
        reasoning: either(
            &["completion_tokens_details", "reasoning_tokens"],
            &["output_tokens_details", "reasoning_tokens"],
        ),
        ..Tokens::default()
    }
}

/// The cached ones stand beside `input_tokens`. Without the split by term, all that was written is for the short one.
fn of_anthropic(usage: &Value) -> Tokens {
    let hour = number(usage, &["cache_creation", "ephemeral_1h_input_tokens"]);
    let short = number(usage, &["cache_creation", "ephemeral_5m_input_tokens"]);
    Tokens {
        input: number(usage, &["input_tokens"]),
        cached_read: number(usage, &["cache_read_input_tokens"]),
        cached_write: short.or_else(|| number(usage, &["cache_creation_input_tokens"])),
        cached_write_hour: hour,
        output: number(usage, &["output_tokens"]),
        reasoning: None,
        server_tools: number(usage, &["server_tool_use", "web_search_requests"]),
    }
}

/// The cached ones are a part of the prompt; thoughts stand beside what is shown, and are billed with it.
fn of_gemini(usage: &Value) -> Tokens {
    let (prompt, tools) = (number(usage, &["promptTokenCount"]), number(usage, &["toolUsePromptTokenCount"]));
    let cached = number(usage, &["cachedContentTokenCount"]);
    let (shown, thoughts) =
        (number(usage, &["candidatesTokenCount"]), number(usage, &["thoughtsTokenCount"]));
    Tokens {
        input: prompt
            .map(|prompt| prompt.saturating_sub(cached.unwrap_or(0)).saturating_add(tools.unwrap_or(0))),
        cached_read: cached,
        output: shown.or(thoughts).map(|_| shown.unwrap_or(0).saturating_add(thoughts.unwrap_or(0))),
        reasoning: thoughts,
        ..Tokens::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_provider_cuts_its_figures_in_its_own_way() {
        let chat = json!({"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120,
            "prompt_tokens_details": {"cached_tokens": 64}, "completion_tokens_details": {"reasoning_tokens": 7}});
        let responses = json!({"input_tokens": 100, "output_tokens": 20,
            "input_tokens_details": {"cached_tokens": 64}, "output_tokens_details": {"reasoning_tokens": 7}});
        let gemini = json!({"promptTokenCount": 100, "cachedContentTokenCount": 64, "candidatesTokenCount": 13,
            "thoughtsTokenCount": 7, "totalTokenCount": 120});
        let expected = Tokens {
            input: Some(36),
            cached_read: Some(64),
            output: Some(20),
            reasoning: Some(7),
            ..Tokens::default()
        };
        assert_eq!(tokens(Wire::OpenAiChat, &chat), expected);
        assert_eq!(tokens(Wire::OpenAiResponses, &responses), expected);
        assert_eq!(tokens(Wire::Gemini, &gemini), expected);
        let anthropic = json!({"input_tokens": 36, "cache_read_input_tokens": 64, "cache_creation_input_tokens": 30,
            "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
            "output_tokens": 20, "server_tool_use": {"web_search_requests": 2}});
        assert_eq!(
            tokens(Wire::Anthropic, &anthropic),
            Tokens {
                cached_write: Some(10),
                cached_write_hour: Some(20),
                server_tools: Some(2),
                reasoning: None,
                ..expected
            }
        );
    }

    #[test]
    fn what_is_not_told_is_unknown() {
        for wire in Wire::ALL {
            for usage in
                [json!({}), json!(null), json!("x"), json!({"input_tokens": -1, "prompt_tokens": 1.5})]
            {
                assert!(tokens(wire, &usage).is_unknown(), "{wire}: {usage}");
            }
        }
    }
}
