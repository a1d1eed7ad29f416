"""A small agent: asks a model, runs the tool that it wants, asks again. Python's standard library alone.

It knows an address and a key from its environment, as every SDK does, and not that Toka is behind them.
"""

import json
import os
import urllib.request

MOST_TURNS = 10
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "list_files",
            "description": "Lists the files of a folder.",
            "parameters": {
                "type": "object",
                "properties": {"folder": {"type": "string"}},
                "required": ["folder"],
            },
        },
    }
]


def list_files(folder):
    return "\n".join(sorted(os.listdir(folder)))


def events(answer):
    """The data of server-sent events, one after the other."""
    for line in answer:
        text = line.decode().rstrip("\r\n")
        if text.startswith("data: ") and text != "data: [DONE]":
            yield json.loads(text[len("data: "):])


def ask(messages):
    """One turn of the model, shown as it comes: its text, and the tools that it wants to be run."""
    body = {"model": "default", "stream": True, "messages": messages, "tools": TOOLS}
    request = urllib.request.Request(
        os.environ["OPENAI_BASE_URL"] + "/chat/completions",
        data=json.dumps(body).encode(),
        headers={
            "authorization": "Bearer " + os.environ["OPENAI_API_KEY"],
            "content-type": "application/json",
        },
    )
    text, calls = "", []
    with urllib.request.urlopen(request) as answer:
        for event in events(answer):
            for choice in event["choices"]:
                delta = choice["delta"]
                piece = delta.get("content") or ""
                print(piece, end="", flush=True)
                text += piece
                for call in delta.get("tool_calls") or []:
                    if call.get("id"):
                        calls.append({"id": call["id"], "type": "function", "function": {"name": "", "arguments": ""}})
                    function = calls[call["index"]]["function"]
                    function["name"] += call["function"].get("name") or ""
                    function["arguments"] += call["function"].get("arguments") or ""
    print()
    return text, calls


def main():
    messages = [{"role": "user", "content": "What is in agents/scripted-door?"}]
    for _ in range(MOST_TURNS):
        text, calls = ask(messages)
        if not calls:
            with open(os.path.join(os.environ["TOKA_ARTIFACTS"], "answer.txt"), "w") as file:
                file.write(text + "\n")
            return
        messages.append({"role": "assistant", "content": text, "tool_calls": calls})
        for call in calls:
            arguments = json.loads(call["function"]["arguments"])
            print(f"> {call['function']['name']}({arguments})")
            result = list_files(**arguments)
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})
    raise SystemExit("the model wants ever more")


if __name__ == "__main__":
    main()
