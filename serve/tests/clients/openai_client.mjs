// npm's openai against a server. What to ask, and what is right, comes as JSON on standard input.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const given = JSON.parse(readFileSync(0, "utf8"));
const OpenAI = createRequire(join(given.modules, "x.js"))("openai").default;
const url = `data:image/png;base64,${readFileSync(given.picture).toString("base64")}`;
const options = { baseURL: `${given.url}/v1`, maxRetries: 0 };
const client = new OpenAI({ ...options, apiKey: given.key });
const ask = (text, more) =>
    client.chat.completions.create({
        model: "any",
        messages: [{ role: "user", content: [{ type: "image_url", image_url: { url } }, { type: "text", text }] }],
        ...more,
    });

for (const [prompt, text] of Object.entries(given.right)) {
    const got = await ask(prompt);
    assert.equal(got.choices[0].message.content, text);
    assert.equal(got.choices[0].finish_reason, "stop");
    let streamed = "";
    let usage = null;
    for await (const chunk of await ask(prompt, { stream: true, stream_options: { include_usage: true } })) {
        streamed += chunk.choices[0]?.delta?.content ?? "";
        usage = chunk.usage ?? usage;
    }
    assert.equal(streamed, text);
    assert.deepEqual(usage.completion_tokens, got.usage.completion_tokens);
}
const all = await Promise.all(Object.keys(given.right).map((prompt) => ask(prompt)));
assert.deepEqual(all.map((got) => got.choices[0].message.content), Object.values(given.right));
const names = [];
for await (const model of client.models.list()) names.push(model.id);
assert.deepEqual(names, ["demo"]);
await assert.rejects(
    client.chat.completions.create({ model: "any", messages: [{ role: "user", content: "Hi" }] }),
    (error) => error instanceof OpenAI.BadRequestError && error.param === "messages",
);
const stranger = new OpenAI({ ...options, apiKey: "wrong-key" });
await assert.rejects(stranger.models.list(), (error) => error instanceof OpenAI.AuthenticationError);
