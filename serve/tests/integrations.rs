//! What Frigate, Home Assistant and LLM Vision send, byte for byte, is answered as they read it. The bodies are in
//! `data/integrations.json`, each with the source that makes it; `data/integrations.py` writes them.

mod common;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use common::{Got, Running, demo, events, options, right_answers};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Sent {
    name: String,
    path: String,
    status: u16,
    body: String,
}

fn all() -> Vec<Sent> {
    serde_json::from_str(include_str!("data/integrations.json")).unwrap()
}

fn send(running: &Running, sent: &Sent) -> Got {
    let body = sent.body.replace("PICTURE", &BASE64_STANDARD.encode(demo("scene.png")));
    let got = running.post(&sent.path, &[("content-type", "application/json")], body.as_bytes());
    assert_eq!(got.status, sent.status, "{}: {}", sent.name, got.body);
    got
}

#[test]
fn each_is_answered_or_told_why_not() {
    let running = Running::start(options());
    for sent in all() {
        let got = send(&running, &sent);
        let openai = || {
            let message = &got.json()["choices"][0]["message"];
            message["content"].as_str().unwrap_or_else(|| panic!("{}: {}", sent.name, got.body)).to_owned()
        };
        match sent.name.as_str() {
            "frigate-openai-object" => {
                let right = right_answers(&demo("scene.png"), &["answer en What does the person do?"]);
                assert_eq!(openai(), right[0].text);
            }
            // Their temperature is 0.5, so what is said is drawn.
            "llmvision-openai-vision" | "llmvision-localai-vision" => assert!(!openai().is_empty()),
            "frigate-openai-chat" => {
                assert_eq!(got.header("warning"), Some("199 palmtop \"ignored: system text, tools\""));
                let chunks: Vec<String> = events(&got.body).into_iter().map(|(_, data)| data).collect();
                let usage: Value = serde_json::from_str(&chunks[chunks.len() - 2]).unwrap();
                assert!(usage["usage"]["prompt_tokens"].as_u64().unwrap() > 0, "{usage}");
            }
            "frigate-ollama-object" => {
                let value = got.json();
                assert!(!value["response"].as_str().unwrap().is_empty());
                assert_eq!((&value["done"], value["eval_count"].is_u64()), (&json!(true), true));
            }
            // It asks whether the model is there, and can think.
            "frigate-ollama-show" => {
                let value = got.json();
                assert!(value["error"].is_null());
                assert!(!value["capabilities"].as_array().unwrap().contains(&json!("thinking")));
            }
            "llmvision-ollama-vision" => {
                assert!(!got.json()["message"]["content"].as_str().unwrap().is_empty());
            }
            "homeassistant-ollama-task" => {
                let lines: Vec<Value> =
                    got.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
                let text: String =
                    lines.iter().map(|line| line["message"]["content"].as_str().unwrap()).collect();
                let people: Value = serde_json::from_str(&text).unwrap();
                assert!(people["people"].is_u64(), "{people}");
            }
            "frigate-openai-review" => {
                assert!(got.json()["error"]["message"].as_str().unwrap().contains("schema"))
            }
            "llmvision-openai-title" | "llmvision-openai-validate" => {
                assert!(got.json()["error"]["message"].as_str().unwrap().contains("pictures"));
            }
            "homeassistant-openai-task" => assert!(got.json()["error"]["message"].is_string()),
            other => panic!("{other} is not looked at"),
        }
    }
}

#[test]
fn what_they_ask_beforehand_is_answered() {
    let running = Running::start(options());
    // Frigate takes a model's context from here; LLM Vision and Home Assistant look whether Ollama is there.
    let models = running.get("/v1/models").json();
    assert!(models["data"][0]["max_model_len"].is_u64(), "{models}");
    let tags = running.get("/api/tags");
    assert_eq!((tags.status, &tags.json()["models"][0]["model"]), (200, &json!("demo:latest")));
}
