"""Do the SDKs send and get the same bytes through Toka as without it?

    bytes.py serve RECORDS   a server that answers as OpenAI and Anthropic do, with fields and events that nobody knows; says its port; records
                             what it is sent, until its input is at its end
    bytes.py ask OUT         asks the server at OPENAI_BASE_URL and ANTHROPIC_BASE_URL with the SDKs, and writes what came back, byte for byte
    bytes.py compare A B     compares two records: the same but for keys and headers of the connection
"""
import http.server
import json
import sys
import threading

OF_THE_CONNECTION = {"host", "authorization", "x-api-key", "connection", "accept-encoding", "content-length", "transfer-encoding"}

CHAT = (
    b'{"id":"c-1",  "object":"chat.completion","created":1,"model":"m","future":{"x":[1,2.50]},"choices":[{"index":0,"finish_reason":"stop",'
    b'"message":{"role":"assistant","content":"h\\u00e9llo","new_field":null}}],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}\n'
)
CHAT_STREAM = (
    b": a comment\n\n"
    b'data: {"id":"c-1","object":"chat.completion.chunk","created":1,"model":"m","future":1e3,"choices":[{"index":0,"delta":{"content":"he"}}]}\n\n'
    b"event: future_thing\r\ndata: {\"choices\":[]}\r\n\r\n"
    b'data: {"id":"c-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"llo"},"finish_reason":"stop"}]}\n\n'
    b'data: {"id":"c-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}\n\n'
    b"data: [DONE]\n\n"
)
MESSAGE = (
    b'{"id":"msg_1","type":"message","role":"assistant","model":"m","future":"\\ud83d\\ude00","content":[{"type":"text","text":"hello"},'
    b'{"type":"future_block","x":1}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":3,"output_tokens":2,"more":{}}}'
)
MESSAGE_STREAM = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[],'
    b'"stop_reason":null,"usage":{"input_tokens":3,"output_tokens":1}}}\n\n'
    b'event: ping\ndata: {"type": "ping"}\n\n'
    b'event: content_block_start\ndata: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}\n\n'
    b'event: future_event\ndata: {"type":"future_event","y":[true]}\n\n'
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"hello"}}\n\n'
    b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n'
    b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":2}}\n\n'
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
)


def serve(records):
    seen = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items() if name.lower() not in OF_THE_CONNECTION}
            seen.append({"path": self.path, "headers": headers, "body": body.decode()})
            streams = json.loads(body).get("stream")
            chat = "chat" in self.path
            answer = (CHAT_STREAM if chat else MESSAGE_STREAM) if streams else (CHAT if chat else MESSAGE)
            self.send_response(200)
            self.send_header("content-type", "text/event-stream; charset=utf-8" if streams else "application/json")
            self.send_header("x-future", "1")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()
    with open(records, "w") as file:
        json.dump(seen, file, indent=1, sort_keys=True)


def ask(out):
    import anthropic
    import openai

    answers = []

    def keep(response):
        answers.append({"status": response.status_code, "future": response.headers.get("x-future"), "body": b"".join(response.iter_bytes()).decode()})

    # Fields that the SDK does not know go on as they are, in their order.
    more = {"extra_body": {"zeta": 1.50, "alpha": {"b": None, "a": "é"}}, "extra_headers": {"x-mine": "1"}}
    prompt = [{"role": "user", "content": "say hé\n"}]
    chat = openai.OpenAI(max_retries=0).chat.completions.with_streaming_response
    with chat.create(model="m", messages=prompt, **more) as response:
        keep(response)
    with chat.create(model="m", messages=prompt, stream=True, stream_options={"include_usage": True}, **more) as response:
        keep(response)
    beta = {**more, "extra_headers": {"x-mine": "1", "anthropic-beta": "future-1"}}
    messages = anthropic.Anthropic(max_retries=0).messages.with_streaming_response
    with messages.create(model="m", max_tokens=9, messages=prompt, **beta) as response:
        keep(response)
    with messages.create(model="m", max_tokens=9, messages=prompt, stream=True, **beta) as response:
        keep(response)
    with open(out, "w") as file:
        json.dump(answers, file, indent=1)


def compare(one, other):
    with open(one) as first, open(other) as second:
        one, other = json.load(first), json.load(second)
    if one == other and len(one) == 4:
        return
    for number, (a, b) in enumerate(zip(one, other)):
        for key in a:
            if a[key] != b.get(key):
                print(f"{number} {key}:\n  {a[key]!r}\n  {b.get(key)!r}")
    sys.exit(f"{len(one)} and {len(other)} records, which are not the same")


{"serve": serve, "ask": ask, "compare": compare}[sys.argv[1]](*sys.argv[2:])
