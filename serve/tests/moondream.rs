//! Moondream's interface: field names, relative coordinates, streams, errors.

mod common;

use common::{Got, Running, data_uri, demo, events, options, right_answers};
use palmtop_serve::access::{Access, ApiKey};
use serde_json::{Value, json};

fn ask(running: &Running, path: &str, more: Value) -> Got {
    let mut body = json!({"image_url": data_uri(&demo("scene.png"))});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    running.post_json(path, &body)
}

fn chunks(got: &Got) -> Vec<Value> {
    assert_eq!(got.header("content-type"), Some("text/event-stream"), "{}", got.body);
    events(&got.body).into_iter().map(|(_, data)| serde_json::from_str(&data).unwrap()).collect()
}

#[test]
fn texts_are_those_of_a_session() {
    let running = Running::start(options());
    let prompts = ["caption en", "describe en", "answer en what is it?", "ocr"];
    let right: Vec<String> =
        right_answers(&demo("scene.png"), &prompts).into_iter().map(|a| a.text).collect();
    for (path, field, more, right) in [
        ("/v1/caption", "caption", json!({}), &right[0]),
        ("/v1/caption", "caption", json!({"length": "short"}), &right[0]),
        ("/v1/caption", "caption", json!({"length": "normal", "settings": {"temperature": 0}}), &right[0]),
        ("/v1/caption", "caption", json!({"length": "long"}), &right[1]),
        ("/v1/query", "answer", json!({"question": "what is it?"}), &right[2]),
        ("/v1/query", "answer", json!({"question": "ocr", "reasoning": true}), &right[3]),
    ] {
        let got = ask(&running, path, more.clone());
        assert_eq!(&got.json()[field], right, "{}", got.body);
        assert!(got.json()["request_id"].is_string());
        assert_eq!(got.header("warning").is_some(), more["reasoning"] == true);
        let mut streamed = more;
        streamed["stream"] = true.into();
        let chunks = chunks(&ask(&running, path, streamed));
        assert_eq!(&chunks.iter().map(|chunk| chunk["chunk"].as_str().unwrap()).collect::<String>(), right);
        assert_eq!(chunks.last().unwrap()["completed"], true);
        assert!(chunks[..chunks.len() - 1].iter().all(|chunk| chunk["completed"] == false));
    }
    let short = ask(&running, "/v1/caption", json!({"settings": {"max_tokens": 1}})).json();
    assert!(right[0].starts_with(short["caption"].as_str().unwrap()) && short["finish_reason"] == "length");
}

#[test]
fn boxes_and_points_are_those_of_detect_in_parts_of_the_picture() {
    let running = Running::start(options());
    let prompt = "detect panda ; bus";
    let body = json!({"picture": data_uri(&demo("day.png")), "prompts": [prompt]});
    let looks = running.post_json("/v1/looks", &body).json();
    let locations =
        |object: &Value| -> Vec<f64> { serde_json::from_value(object["locations"].clone()).unwrap() };
    let right: Vec<[f64; 4]> = looks["answers"][0]["objects"]
        .as_array()
        .unwrap()
        .iter()
        .map(|object| {
            let [y1, x1, y2, x2] = locations(object).try_into().unwrap();
            [x1, y1, x2, y2].map(|location: f64| location / 1024.0)
        })
        .collect();
    assert!(right.len() > 1, "the scene has some of them");
    let objects = json!({"object": "panda ;bus", "image_url": data_uri(&demo("day.png"))});
    let found = ask(&running, "/v1/detect", objects.clone()).json();
    let as_json = |[x_min, y_min, x_max, y_max]: &[f64; 4]| json!({"x_min": x_min, "y_min": y_min, "x_max": x_max, "y_max": y_max});
    assert_eq!(found["objects"], json!(right.iter().map(as_json).collect::<Vec<_>>()));
    let points = ask(&running, "/v1/point", objects).json();
    let centre = |[x0, y0, x1, y1]: &[f64; 4]| json!({"x": (x0 + x1) / 2.0, "y": (y0 + y1) / 2.0});
    assert_eq!(points["points"], json!(right.iter().map(centre).collect::<Vec<_>>()));
    let one =
        ask(&running, "/v1/detect", json!({"object": "panda ; bus", "image_url": data_uri(&demo("day.png")), "settings": {"max_objects": 1}}))
            .json();
    assert_eq!(one["objects"], json!([as_json(&right[0])]));
}

#[test]
fn outlines_are_of_the_mask() {
    let running = Running::start(options());
    let picture = demo("scene.png");
    let body = json!({"picture": data_uri(&picture), "prompts": ["segment strawberry"]});
    let looks = running.post_json("/v1/looks", &body).json();
    assert!(looks["answers"][0]["objects"][0]["mask"]["area"].as_u64().unwrap() > 0);
    let got = ask(&running, "/v1/segment", json!({"object": "strawberry"})).json();
    let path = got["path"].as_str().unwrap();
    let sides = &looks["answers"][0]["image"];
    let side = |name: &str| sides[name].as_f64().unwrap();
    let edge = |name: &str| got["bbox"][name].as_f64().unwrap();
    // The area within the path, in pixels: the mask's, to the rounding of the path.
    let area: f64 = path
        .split('Z')
        .filter(|part| !part.is_empty())
        .map(|part| {
            let points: Vec<(f64, f64)> = part[1..]
                .split('L')
                .map(|point| {
                    let (x, y) = point.split_once(',').unwrap();
                    (x.parse().unwrap(), y.parse().unwrap())
                })
                .collect();
            let next = points.iter().cycle().skip(1);
            points.iter().zip(next).map(|((x0, y0), (x1, y1))| (x0 * y1 - x1 * y0) / 2.0).sum::<f64>()
        })
        .sum();
    let pixels =
        (edge("x_max") - edge("x_min")) * side("width") * (edge("y_max") - edge("y_min")) * side("height");
    let right = looks["answers"][0]["objects"][0]["mask"]["area"].as_f64().unwrap();
    assert!((area * pixels - right).abs() < 0.01 * right, "{} and {right}", area * pixels);
    let streamed = chunks(&ask(&running, "/v1/segment", json!({"object": "strawberry", "stream": true})));
    let kinds: Vec<&str> = streamed.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["bbox", "path_delta", "final"]);
    assert_eq!((&streamed[2]["path"], &streamed[0]["bbox"]), (&got["path"], &got["bbox"]));
}

#[test]
fn what_cannot_be_used_says_why() {
    let mut options = options();
    options.access = Access { key: Some(ApiKey::new("secret-key").unwrap()), ..Access::default() };
    let running = Running::start(options);
    let post = |path: &str, body: Value| {
        let headers = [("content-type", "application/json"), ("x-moondream-auth", "secret-key")];
        running.post(path, &headers, body.to_string().as_bytes())
    };
    let picture = data_uri(&demo("scene.png"));
    for (path, body, status, word) in [
        ("/v1/caption", json!({}), 400, "image_url"),
        ("/v1/caption", json!({"image_url": picture, "length": "tiny"}), 400, "short, normal or long"),
        ("/v1/query", json!({"question": "ocr"}), 400, "add image_url"),
        ("/v1/query", json!({"question": " ", "image_url": picture}), 400, "empty"),
        ("/v1/detect", json!({"object": "a ; ", "image_url": picture}), 400, "empty"),
        ("/v1/point", json!({"object": "a<loc0001>", "image_url": picture}), 400, "<"),
        ("/v1/segment", json!({"object": 3, "image_url": picture}), 400, "string"),
        ("/v1/detect", json!({"object": "a", "image_url": "https://a/b"}), 400, "--allow-fetch"),
        (
            "/v1/detect",
            json!({"object": "a", "image_url": picture, "settings": {"max_objects": 0}}),
            400,
            "1 or more",
        ),
    ] {
        let got = post(path, body);
        assert_eq!(got.status, status, "{}", got.body);
        let message = got.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains(word), "{message} has no {word:?}");
    }
    assert_eq!(post("/v1/caption", json!({"image_url": picture})).status, 200);
    assert_eq!(running.post_json("/v1/caption", &json!({"image_url": picture})).status, 401);
}
