"""The SDKs of OpenAI and Anthropic, unmodified, with what Toka put into the environment: whatever differs from the script ends it with 1."""

import anthropic
import openai

SAYS = "Hello from the script."
ask = [{"role": "user", "content": "hi"}]

client = openai.OpenAI()
answer = client.chat.completions.create(model="default", messages=ask)
assert (answer.choices[0].message.content, answer.usage.prompt_tokens) == (SAYS, 12), answer
stream = client.chat.completions.create(model="default", messages=ask, stream=True)
chunks = list(stream)
assert all(chunk.choices for chunk in chunks), "the chunk that only Toka asked for is withheld"
assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == SAYS
stream = client.chat.completions.create(
    model="default", messages=ask, stream=True, stream_options={"include_usage": True}
)
assert list(stream)[-1].usage.completion_tokens == 5
answer = client.responses.create(model="default", input="hi")
assert (answer.output_text, answer.usage.input_tokens) == (SAYS, 12), answer
with client.responses.stream(model="default", input="hi") as stream:
    for _ in stream:
        pass
    assert stream.get_final_response().output_text == SAYS
assert client.embeddings.create(model="default", input="x", encoding_format="float").data[0].embedding
assert [model.id for model in client.models.list()] == ["scripted"]
try:
    openai.OpenAI(api_key="sk-of-somebody-else").models.list()
    raise SystemExit("another key was taken")
except openai.AuthenticationError as error:
    assert "not the one of this agent" in error.message

client = anthropic.Anthropic()
answer = client.messages.create(model="default", max_tokens=100, messages=ask)
assert (answer.content[0].text, answer.usage.input_tokens) == (SAYS, 12), answer
with client.messages.stream(model="default", max_tokens=100, messages=ask) as stream:
    assert "".join(stream.text_stream) == SAYS
    assert stream.get_final_message().usage.output_tokens == 5
assert client.messages.count_tokens(model="default", messages=ask).input_tokens == 100
assert [model.id for model in client.models.list()] == ["scripted"]
# A tool: the script wants one, and then to see what it said.
tools = [{"name": "look", "description": "Looks.", "input_schema": {"type": "object", "properties": {}}}]
asked = [{"role": "user", "content": "use the tool"}]
answer = client.messages.create(model="default", max_tokens=100, messages=asked, tools=tools)
call = answer.content[0]
assert (answer.stop_reason, call.type, call.name) == ("tool_use", "tool_use", "look"), answer
result = {"type": "tool_result", "tool_use_id": call.id, "content": "a tree"}
asked += [{"role": "assistant", "content": answer.content}, {"role": "user", "content": [result]}]
assert client.messages.create(model="default", max_tokens=100, messages=asked, tools=tools).content[0].text == "It saw it."
# Busy once, and then not: either side may try again.
assert client.messages.create(model="default", max_tokens=9, messages=[{"role": "user", "content": "be busy"}]).content
print("the SDKs are content")
