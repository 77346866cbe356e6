"""PyPI's ollama against a server. What to ask, and what is right, comes as JSON on standard input."""

import asyncio
import json
import sys

import ollama

given = json.load(sys.stdin)
url, right, picture = given["url"], given["right"], given["picture"]
headers = {"Authorization": f"Bearer {given['key']}"}
client = ollama.Client(host=url, headers=headers)
with open(picture, "rb") as file:
    as_bytes = file.read()

for prompt, text in right.items():
    messages = [{"role": "user", "content": prompt, "images": [picture]}]
    got = client.chat(model="demo", messages=messages)
    assert got.message.content == text and got.done and got.done_reason == "stop", got
    assert got.eval_count > 0 and got.prompt_eval_count > 0 and got.total_duration > 0, got
    parts = list(client.chat(model="demo", messages=messages, stream=True))
    assert "".join(part.message.content for part in parts) == text, parts
    assert parts[-1].done and not any(part.done for part in parts[:-1]), parts
    got = client.generate(model="demo", prompt=prompt, images=[as_bytes])
    assert got.response == text and got.created_at, got
    parts = list(client.generate(model="demo", prompt=prompt, images=[as_bytes], stream=True))
    assert "".join(part.response for part in parts) == text, parts


async def at_once():
    client = ollama.AsyncClient(host=url, headers=headers)
    asks = [client.generate(model="demo", prompt=prompt, images=[as_bytes]) for prompt in right]
    for got, text in zip(await asyncio.gather(*asks), right.values()):
        assert got.response == text, got


asyncio.run(at_once())

schema = {"type": "object", "properties": {"it": {"type": "boolean"}}, "required": ["it"]}
chosen = client.chat(
    model="demo", messages=[{"role": "user", "content": "Is it a cat?", "images": [picture]}], format=schema
)
assert isinstance(json.loads(chosen.message.content)["it"], bool), chosen
short = client.generate(model="demo", prompt="caption en", images=[as_bytes], options={"num_predict": 2})
assert short.eval_count == 2 and short.done_reason == "length", short
assert client.generate(model="demo").done_reason == "load"

(listed,) = client.list().models
assert listed.model == "demo:latest" and listed.size > 0 and listed.details.format == "palm", listed
(loaded,) = client.ps().models
assert loaded.name == "demo:latest" and loaded.context_length > 0 and loaded.expires_at.year > 3000, loaded
shown = client.show("demo")
assert "vision" in shown.capabilities and shown.modelinfo["general.architecture"].startswith("paligemma"), shown


def refused(status, ask):
    try:
        got = ask()
    except ollama.ResponseError as error:
        assert error.status_code == status, error
        return error.error
    raise AssertionError(f"no error: {got}")


assert "not found" in refused(404, lambda: client.show("llava"))
assert "add one" in refused(400, lambda: client.chat(model="demo", messages=[{"role": "user", "content": "Hi"}]))
stranger = ollama.Client(host=url, headers={"Authorization": "Bearer wrong-key"})
assert "API key" in refused(401, lambda: stranger.list())
