//! Ollama's interface: shapes, streams of lines, what clients ask about models, errors.

mod common;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use common::{Got, Running, demo, options, right_answers};
use serde_json::{Value, json};

fn scene() -> String {
    BASE64_STANDARD.encode(demo("scene.png"))
}

fn lines(got: &Got) -> Vec<Value> {
    assert_eq!(got.header("content-type"), Some("application/x-ndjson"), "{}", got.body);
    got.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn answers_are_those_of_a_session_whatever_way_they_come() {
    let running = Running::start(options());
    let prompts = ["caption en", "detect car ; bus ; tree", "answer en what is it?"];
    let right = right_answers(&demo("scene.png"), &prompts);
    for (prompt, right) in prompts.iter().zip(&right) {
        for (path, at) in [("/api/chat", "/message/content"), ("/api/generate", "/response")] {
            let body = match path {
                "/api/chat" => {
                    json!({"messages": [{"role": "user", "content": prompt, "images": [scene()]}]})
                }
                _ => json!({"prompt": prompt, "images": [scene()]}),
            };
            let mut at_once = body.clone();
            at_once["stream"] = false.into();
            let whole = running.post_json(path, &at_once).json();
            assert_eq!(whole.pointer(at), Some(&json!(right.text)), "{whole}");
            assert_eq!((&whole["done"], &whole["done_reason"]), (&json!(true), &json!("stop")));
            assert_eq!(
                (&whole["model"], &whole["eval_count"]),
                (&json!("demo:latest"), &json!(right.tokens.len()))
            );
            for field in ["total_duration", "prompt_eval_count", "prompt_eval_duration"] {
                assert!(whole[field].as_u64().unwrap() > 0, "{field}: {whole}");
            }
            let lines = lines(&running.post_json(path, &body));
            let (last, before) = lines.split_last().unwrap();
            let text: String = lines.iter().map(|line| line.pointer(at).unwrap().as_str().unwrap()).collect();
            assert_eq!((text.as_str(), &last["done"]), (right.text.as_str(), &json!(true)));
            assert!(before.iter().all(|line| line["done"] == false) && last["eval_duration"].is_u64());
        }
    }
}

#[test]
fn prompts_systems_and_options_are_read_as_ollama_does() {
    let running = Running::start(options());
    let right = right_answers(&demo("scene.png"), &["answer en what is it?", "what is it?", "caption en"]);
    let generate = |more: Value| {
        let mut body = json!({"model": "any", "images": [scene()], "stream": false});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        running.post_json("/api/generate", &body)
    };
    let asked = generate(json!({"prompt": "what is it?", "system": "Be brief."}));
    assert_eq!(asked.json()["response"], right[0].text);
    assert_eq!(asked.header("warning"), Some("199 palmtop \"ignored: system text\""));
    assert_eq!(generate(json!({"prompt": "what is it?", "raw": true})).json()["response"], right[1].text);
    let short =
        generate(json!({"prompt": "caption en", "options": {"num_predict": 2, "num_ctx": 4096.0}})).json();
    assert_eq!((&short["done_reason"], &short["eval_count"]), (&json!("length"), &json!(2)));
    for all in [-1, -2, 0, 1_000_000] {
        let whole =
            generate(json!({"prompt": "caption en", "options": {"num_predict": all, "top_k": 40}})).json();
        assert_eq!(whole["response"], right[2].text);
    }
    let stopped = generate(json!({"prompt": "caption en", "options": {"stop": [", "]}})).json();
    assert_eq!(stopped["response"].as_str(), right[2].text.split(", ").next());
    let json_answer = generate(json!({"prompt": "caption en", "format": "json"})).json();
    let answer: Value = serde_json::from_str(json_answer["response"].as_str().unwrap()).unwrap();
    assert_eq!(answer, json!({"answer": right[2].text}));
    let choice =
        json!({"type": "object", "properties": {"it": {"enum": ["a cat", "a tree"]}}, "required": ["it"]});
    let body = json!({"messages": [{"role": "user", "content": "what is it?", "images": [scene()]}], "format": choice});
    let lines = lines(&running.post_json("/api/chat", &body));
    let content: Value = serde_json::from_str(lines[0]["message"]["content"].as_str().unwrap()).unwrap();
    assert!(content["it"] == "a cat" || content["it"] == "a tree", "{content}");
    assert_eq!(lines.len(), 1);
}

#[test]
fn clients_learn_about_the_model() {
    let running = Running::start(options());
    assert!(running.get("/api/version").json()["version"].as_str().unwrap().starts_with("0."));
    // The program `ollama` looks here whether somebody is there.
    assert_eq!(running.agent.head(running.url("/")).call().unwrap().status(), 200);
    let tags = running.get("/api/tags").json();
    let listed = &tags["models"][0];
    assert_eq!((&listed["name"], &listed["model"]), (&json!("demo:latest"), &json!("demo:latest")));
    assert_eq!(listed["size"], json!(demo("demo.palm").len()));
    assert!(listed["details"]["family"].as_str().unwrap().starts_with("paligemma"));
    assert!(listed["expires_at"].is_null());
    let loaded = running.get("/api/ps").json();
    assert!(
        loaded["models"][0]["context_length"].as_u64().unwrap() > 256
            && loaded["models"][0]["expires_at"].is_string()
    );
    for body in [json!({"model": "demo"}), json!({"name": "demo:latest"})] {
        let shown = running.post_json("/api/show", &body).json();
        assert_eq!(shown["capabilities"], json!(["completion", "vision"]), "{shown}");
        assert!(shown["model_info"]["general.parameter_count"].as_u64().unwrap() > 10_000);
    }
    let other = running.post_json("/api/show", &json!({"model": "llava"}));
    assert_eq!(other.status, 404);
    assert!(other.json()["error"].as_str().unwrap().contains("'llava' not found"));
    for (path, body, at) in [
        ("/api/chat", json!({"model": "demo", "messages": []}), "/message/content"),
        ("/api/generate", json!({"model": "demo"}), "/response"),
    ] {
        let loaded = running.post_json(path, &body).json();
        assert_eq!((&loaded["done_reason"], loaded.pointer(at)), (&json!("load"), Some(&json!(""))));
        for zero in [json!(0), json!("0s")] {
            let mut unload = body.clone();
            unload["keep_alive"] = zero;
            assert_eq!(running.post_json(path, &unload).json()["done_reason"], "unload");
        }
    }
}

#[test]
fn what_cannot_be_used_says_why_in_their_shape() {
    let running = Running::start(options());
    let chat = |messages: Value| running.post_json("/api/chat", &json!({"messages": messages}));
    let bad = [
        (chat(json!([{"role": "user", "content": "Hi"}])), 400, "add one"),
        (chat(json!([{"role": "user", "content": "ocr", "images": ["!"]}])), 400, "base64"),
        (chat(json!([{"role": "user", "content": "ocr", "images": [""]}])), 400, "no picture"),
        (chat(json!([{"role": "user", "images": [scene()]}])), 400, "no text"),
        (chat(json!("Hi")), 400, "JSON"),
        (
            running
                .post_json("/api/generate", &json!({"prompt": "ocr", "images": [scene()], "format": "xml"})),
            400,
            "schema",
        ),
        (running.post_json("/api/generate", &json!({"prompt": "ocr", "images": 1})), 400, "JSON"),
        (
            running.post_json(
                "/api/generate",
                &json!({"prompt": "ocr", "images": [scene()], "options": {"temperature": -1}}),
            ),
            400,
            "0 to 2",
        ),
        (running.post_json("/api/pull", &json!({"model": "llava"})), 404, "nothing at this path"),
        (running.get("/api/chat"), 405, "GET"),
    ];
    for (got, status, word) in bad {
        assert_eq!(got.status, status, "{}", got.body);
        let error = got.json()["error"].as_str().unwrap_or_else(|| panic!("{}", got.body)).to_owned();
        assert!(error.contains(word), "{error} has no {word:?}");
    }
}
