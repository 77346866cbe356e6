//! OpenAI's interface: shapes, the rule of prompts, answers as JSON, errors.

mod common;

use common::{Got, Running, data_uri, demo, events, options, right_answers};
use palmtop_serve::access::{Access, ApiKey};
use serde_json::{Value, json};

const PATH: &str = "/v1/chat/completions";

/// A chat of one message about the scene, with more fields.
fn body(prompt: &str, more: Value) -> Value {
    let mut body = json!({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": data_uri(&demo("scene.png")), "detail": "low"}},
        {"type": "text", "text": prompt},
    ]}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn ask(running: &Running, prompt: &str, more: Value) -> Got {
    running.post_json(PATH, &body(prompt, more))
}

fn content(got: &Got) -> String {
    assert_eq!(got.status, 200, "{}", got.body);
    got.json()["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
}

#[test]
fn answers_are_those_of_a_session_whatever_way_they_come() {
    let running = Running::start(options());
    let prompts = ["caption en", "detect car ; bus ; tree", "answer en what is it?"];
    let right = right_answers(&demo("scene.png"), &prompts);
    for (prompt, right) in prompts.iter().zip(&right) {
        let got = ask(&running, prompt, json!({"logprobs": true, "top_logprobs": 3}));
        assert_eq!(content(&got), right.text);
        let value = got.json();
        assert_eq!((&value["object"], &value["model"]), (&json!("chat.completion"), &json!("demo")));
        assert!(value["id"].as_str().unwrap().starts_with("chatcmpl-"));
        assert!(value["system_fingerprint"].as_str().unwrap().starts_with("palmtop-"));
        let choice = &value["choices"][0];
        assert_eq!(
            (&choice["finish_reason"], &choice["message"]["role"]),
            (&json!("stop"), &json!("assistant"))
        );
        assert_eq!(got.header("warning"), None);
        let tokens = choice["logprobs"]["content"].as_array().unwrap();
        let logprobs: Vec<f32> =
            tokens.iter().map(|t| serde_json::from_value(t["logprob"].clone()).unwrap()).collect();
        assert_eq!(logprobs, right.probabilities.iter().map(|p| p.ln()).collect::<Vec<_>>());
        assert_eq!(tokens.iter().map(|t| t["token"].as_str().unwrap()).collect::<String>(), right.text);
        assert!(tokens.iter().all(|token| token["top_logprobs"] == json!([])));
        let usage = &value["usage"];
        assert_eq!(usage["completion_tokens"], json!(right.tokens.len()));
        let sum = usage["prompt_tokens"].as_u64().unwrap() + right.tokens.len() as u64;
        assert_eq!(usage["total_tokens"], json!(sum));

        let got = ask(&running, prompt, json!({"stream": true, "stream_options": {"include_usage": true}}));
        assert_eq!(got.header("content-type"), Some("text/event-stream"));
        let mut chunks: Vec<String> = events(&got.body).into_iter().map(|(_, data)| data).collect();
        assert_eq!(chunks.pop().as_deref(), Some("[DONE]"));
        let chunks: Vec<Value> = chunks.iter().map(|chunk| serde_json::from_str(chunk).unwrap()).collect();
        let (usage, chunks) = chunks.split_last().unwrap();
        assert_eq!((&usage["choices"], &usage["usage"]["total_tokens"]), (&json!([]), &json!(sum)));
        assert!(usage["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap() > 0);
        assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
        let text: String =
            chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
        assert_eq!(text, right.text);
        let (last, before) = chunks.split_last().unwrap();
        assert_eq!(last["choices"][0]["finish_reason"], "stop");
        assert!(before.iter().all(|chunk| chunk["choices"][0]["finish_reason"].is_null()));
        assert!(chunks.iter().all(|chunk| chunk["id"] == usage["id"] && chunk["usage"].is_null()));
    }
    let without = ask(&running, "ocr", json!({"stream": true}));
    assert!(!without.body.contains("usage") && without.body.ends_with("data: [DONE]\n\n"));
}

#[test]
fn a_chat_is_reduced_by_the_rule() {
    let running = Running::start(options());
    let (scene, other) = (demo("scene.png"), demo("menu.png"));
    let right = right_answers(&scene, &["answer en What is it?", "caption en"]);
    let picture = |bytes: &[u8]| json!({"type": "image_url", "image_url": {"url": data_uri(bytes)}});
    let got = running.post_json(PATH, &json!({"messages": [
        {"role": "system", "content": "You are a pirate."},
        {"role": "user", "content": [{"type": "text", "text": "ocr"}, picture(&other)]},
        {"role": "assistant", "content": null, "tool_calls": []},
        {"role": "user", "content": [{"type": "text", "text": "Image 1:"}, {"type": "image_url", "image_url": data_uri(&scene)},
                                     {"type": "text", "text": "caption en"}], "name": "someone"},
        {"role": "assistant", "content": "a scene"},
        {"role": "tool", "content": "{}", "tool_call_id": "1"},
        {"role": "user", "content": "What is\nit?\n"},
    ], "tools": [{"type": "function", "function": {"name": "f"}}], "nothing_known": 1}));
    assert_eq!(content(&got), right[0].text);
    assert_eq!(got.header("warning"), Some("199 palmtop \"ignored: system text, tools\""));
    let two = running.post_json(
        PATH,
        &json!({"messages": [{"role": "user", "content": [
        picture(&scene), picture(&other), {"type": "text", "text": "caption en"}]}]}),
    );
    assert_eq!(two.status, 200, "{}", two.body);
    let raw = running.post_json(PATH, &json!({"messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": data_uri(&scene).split(',').nth(1)}, {"type": "text", "text": "caption en"}]}]}));
    assert_eq!(content(&raw), right[1].text);
}

#[test]
fn limits_stop_texts_and_seeds_are_kept() {
    let running = Running::start(options());
    let whole = content(&ask(&running, "caption en", json!({})));
    for name in ["max_tokens", "max_completion_tokens"] {
        let short = ask(&running, "caption en", json!({(name): 2.0, "stop": null}));
        assert_eq!(short.json()["choices"][0]["finish_reason"], "length");
        assert_eq!(short.json()["usage"]["completion_tokens"], 2);
        assert!(whole.starts_with(&content(&short)));
        assert_eq!(
            content(&ask(&running, "caption en", json!({(name): 1_000_000}))),
            whole,
            "as much as there is"
        );
    }
    for stop in [json!(", "), json!(["never", ", "])] {
        let stopped = ask(&running, "caption en", json!({"stop": stop}));
        assert_eq!(content(&stopped), whole.split(", ").next().unwrap());
        assert_eq!(stopped.json()["choices"][0]["finish_reason"], "stop");
    }
    let drawn = |seed: i64| {
        content(&ask(&running, "caption en", json!({"temperature": 2, "top_p": 0.99, "seed": seed})))
    };
    assert_eq!(drawn(7), drawn(7));
    assert_eq!(drawn(-7), drawn(-7));
}

#[test]
fn answers_are_of_the_schema_that_is_asked_for() {
    let running = Running::start(options());
    let as_json = |prompt: &str, format: Value| -> Value {
        let plain = content(&ask(&running, prompt, json!({"response_format": format})));
        let streamed = ask(&running, prompt, json!({"response_format": format, "stream": true}));
        let chunks = events(&streamed.body)
            .into_iter()
            .filter_map(|(_, data)| serde_json::from_str::<Value>(&data).ok());
        let text: String = chunks
            .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().map(str::to_owned))
            .collect();
        assert_eq!(text, plain);
        serde_json::from_str(&plain).unwrap_or_else(|error| panic!("{error}: {plain}"))
    };
    let schema = |schema: Value| json!({"type": "json_schema", "json_schema": {"name": "a", "strict": true, "schema": schema}});
    let picture = demo("scene.png");
    let prompt = "detect car ; bus ; tree";
    let looks =
        running.post_json("/v1/looks", &json!({"picture": data_uri(&picture), "prompts": [prompt]})).json();
    let right: Vec<Value> = looks["answers"][0]["objects"]
        .as_array()
        .unwrap()
        .iter()
        .map(|object| json!({"label": object["label"], "score": object["score"], "box": object["box"]}))
        .collect();
    assert!(!right.is_empty(), "the scene has some of them");
    assert_eq!(as_json(prompt, json!({"type": "json_object"})), json!({"objects": right}));
    let labels = schema(
        json!({"type": "object", "additionalProperties": false, "required": ["objects"], "properties": {
        "objects": {"type": "array", "items": {"$ref": "#/$defs/Thing"}}},
        "$defs": {"Thing": {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]}}}),
    );
    let only: Vec<Value> = right.iter().map(|object| json!({"label": object["label"]})).collect();
    assert_eq!(as_json(prompt, labels), json!({"objects": only}));
    let day = as_json("Is it day?", schema(json!({"type": "string", "enum": ["day", "night"]})));
    assert!(day == "day" || day == "night");
    let is_it = as_json(
        "Is it?",
        schema(json!({"type": "object", "properties": {"it": {"type": "boolean"}}, "required": ["it"]})),
    );
    assert!(is_it["it"].is_boolean(), "{is_it}");
    let caption = right_answers(&picture, &["caption en"])[0].text.clone();
    assert_eq!(as_json("caption en", json!({"type": "json_object"})), json!({"answer": caption}));
    let title =
        schema(json!({"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]}));
    assert_eq!(as_json("caption en", title), json!({"title": caption}));
    let plain = ask(&running, "caption en", json!({"response_format": {"type": "text"}}));
    assert_eq!(content(&plain), caption);
}

#[test]
fn models_are_listed() {
    let running = Running::start(options());
    let list = running.get("/v1/models").json();
    assert_eq!((&list["object"], &list["data"][0]["id"]), (&json!("list"), &json!("demo")));
    let model = running.get("/v1/models/demo").json();
    assert_eq!(model, list["data"][0]);
    assert!(
        model["created"].as_u64().unwrap() > 1_700_000_000 && model["max_model_len"].as_u64().unwrap() > 256
    );
    let other = running.get("/v1/models/gpt-4o");
    assert_eq!((other.status, &other.json()["error"]["code"]), (404, &json!("model_not_found")));
}

#[test]
fn what_cannot_be_used_says_why_in_their_shape() {
    let running = Running::start(options());
    let text_only = json!({"messages": [{"role": "user", "content": "Hi"}]});
    let by_address = json!({"messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "https://images.example.com/a.jpg"}}, {"type": "text", "text": "ocr"}]}]});
    let audio =
        json!({"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]});
    let three = {
        let picture = json!({"type": "image_url", "image_url": data_uri(&demo("scene.png"))});
        json!({"messages": [{"role": "user", "content": [picture, picture, picture, {"type": "text", "text": "ocr"}]}]})
    };
    let free = json!({"type": "json_schema", "json_schema": {"schema": {"type": "object", "properties": {
        "title": {"type": "string"}, "confidence": {"type": "number"}}}}});
    let bad: [(Value, Value, &str); 17] = [
        (text_only, json!("messages"), "add one"),
        (by_address, json!(null), "--allow-fetch"),
        (audio, json!("messages"), "input_audio"),
        (three, json!("messages"), "--pictures"),
        (json!({"messages": []}), json!("messages"), "no text"),
        (json!({"messages": "Hi"}), json!(null), "JSON"),
        (json!([]), json!(null), "JSON"),
        (json!({}), json!(null), "messages"),
        (body("ocr", json!({"n": 2})), json!("n"), "n can only be 1"),
        (body("ocr", json!({"max_tokens": 0})), json!("max_tokens"), "1 or more"),
        (body("ocr", json!({"max_tokens": -1})), json!("max_tokens"), "1 or more"),
        (body("ocr", json!({"max_tokens": 1.5})), json!(null), "1.5"),
        (body("ocr", json!({"temperature": 3})), json!("temperature"), "0 to 2"),
        (body("ocr", json!({"top_logprobs": 99})), json!("top_logprobs"), "20"),
        (body("ocr", json!({"response_format": {"type": "xml"}})), json!("response_format"), "json_schema"),
        (body("caption en", json!({"response_format": free})), json!("response_format"), "one text"),
        (body("<image>", json!({})), json!(null), "image"),
    ];
    for (body, field, word) in bad {
        let got = running.post_json(PATH, &body);
        assert_eq!(got.status, 400, "{word}: {}", got.body);
        let error = &got.json()["error"];
        assert!(error["message"].as_str().unwrap().contains(word), "{error} has no {word:?}");
        assert_eq!((&error["type"], &error["param"]), (&json!("invalid_request_error"), &field), "{word}");
    }
    let got = running.get(PATH);
    assert_eq!((got.status, &got.json()["error"]["code"]), (405, &json!("method_not_allowed")));
    let got = running.post_json("/v1/embeddings", &json!({}));
    assert_eq!((got.status, &got.json()["error"]["type"]), (404, &json!("invalid_request_error")));
    let got = running.post(PATH, &[], &vec![b' '; (4 << 20) + 1]);
    assert_eq!((got.status, &got.json()["error"]["code"]), (413, &json!("body_too_large")));
}

#[test]
fn keys_and_places_are_refused_in_their_shape() {
    let mut options = options();
    options.access = Access { key: Some(ApiKey::new("secret-key").unwrap()), ..Access::default() };
    options.engine.waiting_max = 0;
    options.engine.limits.batch = 1;
    let running = Running::start(options);
    let got = ask(&running, "ocr", json!({}));
    assert_eq!((got.status, got.header("www-authenticate")), (401, Some("Bearer")));
    let error = &got.json()["error"];
    assert_eq!(
        (&error["type"], &error["code"]),
        (&json!("invalid_request_error"), &json!("invalid_api_key"))
    );
    let place = running.server().app().engine.enter(1).unwrap();
    let headers = [("authorization", "Bearer secret-key"), ("content-type", "application/json")];
    let body = body("ocr", json!({})).to_string();
    let busy = running.post(PATH, &headers, body.as_bytes());
    assert_eq!((busy.status, &busy.json()["error"]["code"]), (429, &json!("rate_limit_exceeded")));
    assert!(busy.header("retry-after").is_some());
    drop(place);
    assert_eq!(running.post(PATH, &headers, body.as_bytes()).status, 200);
}
