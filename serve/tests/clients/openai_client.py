"""PyPI's openai against a server. What to ask, and what is right, comes as JSON on standard input."""

import asyncio
import base64
import json
import sys

import openai

given = json.load(sys.stdin)
url, key, right = given["url"] + "/v1", given["key"], given["right"]
with open(given["picture"], "rb") as file:
    picture = "data:image/png;base64," + base64.b64encode(file.read()).decode()


def messages(prompt, system=None):
    before = [{"role": "system", "content": system}] if system else []
    content = [{"type": "text", "text": prompt}, {"type": "image_url", "image_url": {"url": picture}}]
    return [*before, {"role": "user", "content": content}]


client = openai.OpenAI(base_url=url, api_key=key, max_retries=0)
for prompt, text in right.items():
    got = client.chat.completions.create(model="any", messages=messages(prompt), logprobs=True)
    choice = got.choices[0]
    assert choice.message.content == text, got
    assert choice.finish_reason == "stop" and got.model == "demo", got
    assert "".join(token.token for token in choice.logprobs.content) == text, got
    assert got.usage.total_tokens == got.usage.prompt_tokens + got.usage.completion_tokens, got
    chunks = list(
        client.chat.completions.create(
            model="any", messages=messages(prompt), stream=True, stream_options={"include_usage": True}
        )
    )
    deltas = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(deltas) == text, chunks
    assert chunks[-1].usage.completion_tokens == got.usage.completion_tokens, chunks
    assert chunks[-1].usage.prompt_tokens_details.cached_tokens > 0, chunks
    with client.chat.completions.stream(model="any", messages=messages(prompt)) as stream:
        assert stream.get_final_completion().choices[0].message.content == text


async def at_once():
    async with openai.AsyncOpenAI(base_url=url, api_key=key, max_retries=0) as client:
        asks = [client.chat.completions.create(model="any", messages=messages(prompt)) for prompt in right]
        for got, text in zip(await asyncio.gather(*asks), right.values()):
            assert got.choices[0].message.content == text, got


asyncio.run(at_once())

raw = client.chat.completions.with_raw_response.create(model="any", messages=messages("ocr", system="Be brief."))
assert raw.headers["warning"] == '199 palmtop "ignored: system text"', raw.headers
short = client.chat.completions.create(model="any", messages=messages("caption en"), max_completion_tokens=2)
assert short.choices[0].finish_reason == "length" and short.usage.completion_tokens == 2, short
schema = {
    "type": "object",
    "properties": {"it": {"type": "string", "enum": ["a cat", "a tree"]}},
    "required": ["it"],
    "additionalProperties": False,
}
chosen = client.chat.completions.create(
    model="any",
    messages=messages("What is it?"),
    response_format={"type": "json_schema", "json_schema": {"name": "it", "strict": True, "schema": schema}},
)
assert json.loads(chosen.choices[0].message.content)["it"] in ("a cat", "a tree"), chosen

models = client.models.list().data
assert [model.id for model in models] == ["demo"], models
assert client.models.retrieve("demo").owned_by == "palmtop"


def refused(kind, ask):
    try:
        got = ask()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}: {got}")


bad = refused(
    openai.BadRequestError,
    lambda: client.chat.completions.create(model="any", messages=[{"role": "user", "content": "Hi"}]),
)
assert bad.param == "messages" and bad.type == "invalid_request_error" and "add one" in bad.message, bad
assert refused(openai.NotFoundError, lambda: client.models.retrieve("gpt-4o")).code == "model_not_found"
assert refused(openai.NotFoundError, lambda: client.embeddings.create(model="any", input="a"))
stranger = openai.OpenAI(base_url=url, api_key="wrong-key", max_retries=0)
assert refused(openai.AuthenticationError, lambda: stranger.models.list()).code == "invalid_api_key"
