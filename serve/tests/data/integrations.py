"""Writes integrations.json: what programs of others send, as their clients put it on the wire.

Each call is made as the named source makes it, with the packages that tests/setup.sh brings, to a server that only
listens. PICTURE stands for a picture in base64.

    target/tmp/clients/bin/python3 serve/tests/data/integrations.py
"""

import http.server
import json
import pathlib
import threading

import ollama
import openai

FRIGATE = "blakeblackshear/frigate 0.18.0 (e3fa70189), frigate/genai/plugins/"
LLM_VISION = "valentinfrlch/ha-llmvision 1.7.0 (85fcb983), custom_components/llmvision/providers.py"
HOME_ASSISTANT = "home-assistant/core, homeassistant/components/"
PROMPT = "What does the person do?"
URI = "data:image/jpeg;base64,PICTURE"
written = []


class Listens(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.server.heard = (self.path, self.rfile.read(int(self.headers["content-length"])).decode())
        self.send_response(400)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Listens)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}"
openai_client = openai.OpenAI(base_url=f"{url}/v1", api_key="key", max_retries=0)
ollama_client = ollama.Client(host=url)


def write(name, source, status, call):
    try:
        call()
    except (openai.APIError, ollama.ResponseError):
        pass
    path, body = server.heard
    written.append({"name": name, "source": source, "path": path, "status": status, "body": body})


def write_json(name, path, status, body):
    """As aiohttp does."""
    written.append({"name": name, "source": LLM_VISION, "path": path, "status": status, "body": json.dumps(body)})


part = {"type": "image_url", "image_url": {"url": URI, "detail": "low"}}
content = [{"type": "text", "text": PROMPT}, part]
create = openai_client.chat.completions.create
write(
    "frigate-openai-object",
    FRIGATE + "openai.py, _send",
    200,
    lambda: create(model="demo", messages=[{"role": "user", "content": content}], timeout=120),
)
review = {
    "type": "object",
    "title": "ReviewMetadata",
    "properties": {
        "observations": {"type": "array", "items": {"type": "string", "minLength": 20}, "minItems": 3},
        "title": {"type": "string", "maxLength": 80},
        "confidence": {"type": "number", "minimum": 0.0, "maximum": 1.0},
    },
    "required": ["observations", "title", "confidence"],
    "additionalProperties": False,
}
write(
    "frigate-openai-review",
    FRIGATE + "openai.py, _send with a response format",
    400,
    lambda: create(
        model="demo",
        messages=[{"role": "user", "content": content}],
        timeout=120,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "review_metadata", "strict": True, "schema": review},
        },
    ),
)
tools = [{"type": "function", "function": {"name": "search_objects", "parameters": {"type": "object"}}}]
write(
    "frigate-openai-chat",
    FRIGATE + "openai.py, chat_with_tools_stream",
    200,
    lambda: create(
        model="demo",
        messages=[{"role": "system", "content": "You help."}, {"role": "user", "content": content}],
        timeout=120,
        stream=True,
        stream_options={"include_usage": True},
        tools=tools,
        tool_choice="auto",
    ),
)
options = {"temperature": 0.5, "repeat_penalty": 1.05, "presence_penalty": 0.3}
write(
    "frigate-ollama-object",
    FRIGATE + "ollama.py, _send",
    200,
    lambda: ollama_client.generate("demo", PROMPT, images=["PICTURE="], options=options),
)
write("frigate-ollama-show", FRIGATE + "ollama.py, _init_provider", 200, lambda: ollama_client.show("demo"))

system = {"role": "system", "content": "Be brief."}
parts = [
    {"type": "text", "text": "Image 1:"},
    {"type": "image_url", "image_url": {"url": URI}},
    {"type": "text", "text": PROMPT},
]
sampling = {"temperature": 0.5, "top_p": 0.9}
write_json(
    "llmvision-openai-vision",
    "/v1/chat/completions",
    200,
    {"model": "demo", "messages": [system, {"role": "user", "content": parts}], "max_completion_tokens": 3000, **sampling},
)
write_json(
    "llmvision-localai-vision",
    "/v1/chat/completions",
    200,
    {"model": "demo", "messages": [system, {"role": "user", "content": parts}], "max_tokens": 3000, **sampling},
)
write_json(
    "llmvision-openai-title",
    "/v1/chat/completions",
    400,
    {
        "model": "demo",
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Write a title."}]},
            {"role": "user", "content": [{"type": "text", "text": "A person walks."}]},
        ],
        "max_completion_tokens": 4096,
        **sampling,
    },
)
write_json(
    "llmvision-openai-validate",
    "/v1/chat/completions",
    400,
    {"model": "demo", "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]},
)
write_json(
    "llmvision-ollama-vision",
    "/api/chat",
    200,
    {
        "model": "demo",
        "system": "Be brief.",
        "messages": [{"role": "user", "content": PROMPT, "images": ["PICTURE"]}],
        "prompt": (),
        "images": ["PICTURE"],
        "stream": False,
        "keep_alive": 5,
        "think": False,
        "options": {"num_predict": 3000, **sampling, "num_ctx": 4096},
    },
)

structure = {"type": "object", "properties": {"people": {"type": "number"}}, "required": ["people"]}
write(
    "homeassistant-ollama-task",
    HOME_ASSISTANT + "ollama/entity.py (0d0db908), _async_handle_chat_log",
    200,
    lambda: list(
        ollama_client.chat(
            model="demo:latest",
            messages=[
                ollama.Message(role="system", content="You are a Home Assistant expert."),
                ollama.Message(role="user", content="How many people are there?", images=[ollama.Image(value="PICTURE=")]),
            ],
            tools=None,
            stream=True,
            keep_alive=-1,
            options={"num_ctx": 8192},
            think=False,
            format=structure,
        )
    ),
)
write(
    "homeassistant-openai-task",
    HOME_ASSISTANT + "openai_conversation/entity.py (0150749b), _async_handle_chat_log",
    404,
    lambda: openai_client.responses.create(
        model="demo",
        input=[
            {
                "type": "message",
                "role": "user",
                "content": [
                    {"type": "input_text", "text": PROMPT},
                    {"type": "input_image", "image_url": URI, "detail": "auto"},
                ],
            }
        ],
        max_output_tokens=3000,
        top_p=1.0,
        temperature=1.0,
        user="conversation",
        store=False,
        stream=True,
    ),
)

for one in written:
    # Base64 has whole groups of four, or their client refuses it; the test puts a whole picture there.
    one["body"] = one["body"].replace("PICTURE=", "PICTURE")
text = json.dumps(written, indent=1, ensure_ascii=False) + "\n"
pathlib.Path(__file__).with_name("integrations.json").write_text(text, encoding="utf-8")
