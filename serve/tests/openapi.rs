//! `/openapi.json` says what there is, and nothing else.

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::mpsc::channel;

use common::{Running, options};
use palmtop::image::DecodeOptions;
use palmtop_watch::setup::Setup;
use serde_json::Value;

/// The paths that are no part of it: the document itself, and the page.
const OTHERS: [&str; 2] = ["/openapi.json", "/"];

fn document() -> (Running, Value) {
    let options = options();
    let setup = Setup { cameras: vec!["door".into()], ..Setup::default() };
    options.cameras.begin(&setup, 32, DecodeOptions::default(), channel().0);
    let running = Running::start(options);
    let document = running.get("/openapi.json").json();
    (running, document)
}

/// All operations: path, method, and what is said of them.
fn operations(document: &Value) -> Vec<(&str, &str, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    paths
        .iter()
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap();
            methods.iter().map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
        })
        .collect()
}

#[test]
fn all_that_it_names_is_there() {
    let (running, document) = document();
    let operations = operations(&document);
    assert!(operations.len() > 8, "{}", operations.len());
    for (path, method, operation) in operations {
        assert!(operation["responses"].as_object().is_some_and(|all| !all.is_empty()), "{method} {path}");
        // Live streams do not end: what is asked for cannot be had.
        let asked = match path {
            "/v1/cameras/{name}/stream" => "/v1/cameras/door/stream?fps=0".to_owned(),
            "/v1/events" => "/v1/events?all=maybe".to_owned(),
            _ => path.replace("{name}", "door").replace("{id}", "demo"),
        };
        assert!(!asked.contains('{'), "{path}: say here what stands for its parameters");
        // Nothing is asked that has an answer, but for what exists only by its name.
        let body: &[u8] = if path == "/api/show" { br#"{"model": "demo"}"# } else { b"{}" };
        let got = match method {
            "get" => running.get(&asked),
            "post" => running.post(&asked, &[("content-type", "application/json")], body),
            other => panic!("{path}: say here how to ask with {other}"),
        };
        // What is named in a request may not be there; the path itself is.
        let exists = got.status != 405 && !got.body.contains("there is nothing at this path");
        assert!(exists && got.status != 500, "{method} {path}: {} {}", got.status, got.body);
        let told = operation["responses"].as_object().unwrap();
        assert!(
            told.contains_key(&got.status.to_string()),
            "{method} {path} gives {}, of which the document says nothing: {}",
            got.status,
            got.body
        );
    }
}

#[test]
fn every_route_is_in_it() {
    let (_running, document) = document();
    let named: BTreeSet<&str> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    let mut sources = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut seen = 0;
    while let Some(path) = sources.pop() {
        if path.is_dir() {
            sources.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let Ok(source) = std::fs::read_to_string(&path) else { continue };
        // Routes that say nothing to the document, and those that do.
        for (open, close) in [(".route(\"", '"'), ("path = \"", '"')] {
            for rest in source.split(open).skip(1) {
                let route = rest.split(close).next().unwrap();
                seen += 1;
                assert!(
                    named.contains(route) || OTHERS.contains(&route),
                    "{}: {route} is not in /openapi.json",
                    path.display()
                );
            }
        }
    }
    assert!(seen > 8);
}

#[test]
fn its_references_lead_somewhere() {
    fn walk<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|value| walk(value, found));
            }
            Value::Array(values) => values.iter().for_each(|value| walk(value, found)),
            _ => {}
        }
    }
    let (_running, document) = document();
    let mut found = Vec::new();
    walk(&document, &mut found);
    assert!(found.len() > 5);
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap_or_else(|| panic!("{reference}"));
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

#[test]
fn each_interface_has_bodies_of_its_own() {
    let (_running, document) = document();
    for (path, fields) in [
        ("/v1/looks", &["picture", "prompts"][..]),
        ("/v1/chat/completions", &["messages", "logprobs", "response_format"]),
        ("/api/chat", &["messages", "options", "keep_alive"]),
        ("/api/generate", &["prompt", "images", "options"]),
        ("/v1/segment", &["image_url", "object", "settings"]),
    ] {
        let schema = &document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"];
        let pointer = schema["$ref"].as_str().unwrap_or_else(|| panic!("{path}: {schema}"));
        let text = resolved(&document, document.pointer(&pointer[1..]).unwrap(), 0).to_string();
        for field in fields {
            assert!(text.contains(&format!("\"{field}\":")), "{path} has no {field}: {text}");
        }
    }
}

/// A schema with those of its parts that it takes whole.
fn resolved(document: &Value, schema: &Value, depth: usize) -> Value {
    let parts = schema["allOf"].as_array().into_iter().flatten();
    let parts = parts.map(|part| match part["$ref"].as_str() {
        Some(pointer) if depth < 4 => resolved(document, document.pointer(&pointer[1..]).unwrap(), depth + 1),
        _ => part.clone(),
    });
    let parts: Vec<Value> = parts.collect();
    if parts.is_empty() { schema["properties"].clone() } else { Value::Array(parts) }
}
