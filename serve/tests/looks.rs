//! palmtop's own interface, and what all interfaces share.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use common::{LONG, Running, demo, events, options, right_answers};
use palmtop_serve::access::{Access, ApiKey};
use serde_json::{Value, json};

const PROMPTS: [&str; 4] = ["caption en", "detect car ; bus ; tree", "ocr", "segment strawberry"];

fn as_right(answer: &Value, right: &palmtop::Answer) {
    assert_eq!(answer["text"], right.text);
    assert_eq!(answer["tokens"], json!(right.tokens));
    let probabilities: Vec<f32> = serde_json::from_value(answer["probabilities"].clone()).unwrap();
    assert_eq!(probabilities, right.probabilities, "the bits of a session of its own");
    assert_eq!(answer["stop"], "eos");
}

#[test]
fn json_form_and_bytes_give_the_answers_of_a_session() {
    let running = Running::start(options());
    let picture = demo("scene.png");
    let right = right_answers(&picture, &PROMPTS);
    let as_json = json!({"picture": BASE64_STANDARD.encode(&picture), "prompts": PROMPTS});
    let first = running.post_json("/v1/looks", &as_json);
    let uri = format!("data:image/png;base64,{}", BASE64_STANDARD.encode(&picture));
    let second = running.post_json("/v1/looks", &json!({"picture": uri, "prompts": PROMPTS}));
    let query: String = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(PROMPTS.map(|prompt| ("prompt", prompt)))
        .finish();
    let third = running.post(&format!("/v1/looks?{query}"), &[("content-type", "image/png")], &picture);
    let mut form = Vec::new();
    for prompt in PROMPTS {
        write!(form, "--XX\r\ncontent-disposition: form-data; name=\"prompt\"\r\n\r\n{prompt}\r\n").unwrap();
    }
    form.extend(b"--XX\r\ncontent-disposition: form-data; name=\"picture\"; filename=\"a.png\"\r\n\r\n");
    form.extend(&picture);
    form.extend(b"\r\n--XX--\r\n");
    let fourth = running.post("/v1/looks", &[("content-type", "multipart/form-data; boundary=XX")], &form);
    for got in [first, second, third, fourth] {
        assert_eq!(got.status, 200, "{}", got.body);
        let body = got.json();
        assert_eq!(body["model"], "demo");
        let answers = body["answers"].as_array().unwrap();
        assert_eq!(answers.len(), PROMPTS.len());
        answers.iter().zip(&right).for_each(|(answer, right)| as_right(answer, right));
        assert_eq!(answers[0]["task"], "caption");
        assert!(!answers[1]["objects"].as_array().unwrap().is_empty() || answers[1]["text"] == "");
        let mask = &answers[3]["objects"][0]["mask"];
        assert!(mask["area"].as_u64().unwrap() > 0, "{mask}");
    }
    // Four requests, sixteen prompts, one picture.
    let counts = running.server().app().engine.counts().clone();
    assert_eq!((counts.pictures_encoded.get(), counts.pictures_cached.get()), (1, 15));
    assert_eq!(counts.answered.get(), 16);
    let metrics = running.get("/metrics");
    assert!(metrics.body.contains("palmtop_pictures_cached_total 15\n"), "{}", metrics.body);
    assert!(metrics.body.contains(r#"palmtop_http_answers_total{path="/v1/looks",status="200"} 4"#));
}

#[test]
fn streams_tell_what_the_answer_will_be() {
    let running = Running::start(options());
    let picture = demo("scene.png");
    let right = right_answers(&picture, &PROMPTS);
    let body = json!({"picture": BASE64_STANDARD.encode(&picture), "prompts": PROMPTS, "masks": false});
    let headers = [("content-type", "application/json"), ("accept", "text/event-stream")];
    let got = running.post("/v1/looks", &headers, body.to_string().as_bytes());
    assert_eq!(got.header("content-type"), Some("text/event-stream"));
    let mut texts = vec![String::new(); PROMPTS.len()];
    let (mut begun, mut done) = (0, 0);
    for (name, data) in events(&got.body) {
        let data: Value = serde_json::from_str(&data).unwrap();
        let index = data["prompt"].as_u64().unwrap() as usize;
        match name.as_str() {
            "begun" => begun += 1,
            "text" => texts[index] += data["text"].as_str().unwrap(),
            "answer" => {
                as_right(&data["answer"], &right[index]);
                assert_eq!(data["answer"]["text"], texts[index]);
                done += 1;
            }
            other => panic!("{other}: {data}"),
        }
    }
    assert_eq!((begun, done), (PROMPTS.len(), PROMPTS.len()));
}

#[test]
fn choices_limits_and_stop_texts_are_kept() {
    let running = Running::start(options());
    let picture = BASE64_STANDARD.encode(demo("scene.png"));
    let ask = |more: Value| {
        let mut body = json!({"picture": picture, "prompts": ["caption en"]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        running.post_json("/v1/looks", &body).json()["answers"][0].clone()
    };
    let whole = ask(json!({}));
    let chosen = ask(json!({"choose": ["a cat", "a tree"]}));
    assert!(["a cat", "a tree"].contains(&chosen["text"].as_str().unwrap()));
    assert!(chosen["score"].as_f64().unwrap() > 0.5);
    assert!(whole["score"].is_null());
    let short = ask(json!({"max_new_tokens": 2}));
    assert_eq!((&short["stop"], short["tokens"].as_array().unwrap().len()), (&json!("limit"), 2));
    let text = whole["text"].as_str().unwrap();
    let stopped = ask(json!({"stop": ["never", ", "]}));
    assert_eq!((&stopped["stop"], stopped["text"].as_str()), (&json!("stop"), text.split(", ").next()));
    let late = running
        .post_json("/v1/looks", &json!({"picture": picture, "prompts": ["caption en"], "timeout_ms": 0}));
    assert_eq!((late.status, late.json()["error"]["code"].as_str()), (504, Some("deadline")));
}

#[test]
fn what_cannot_be_used_says_why_and_names_nothing_of_the_server() {
    let mut options = options();
    options.app.body_bytes_max = 1 << 20;
    options.app.decode.limits.side_max = 3000;
    let running = Running::start(options);
    let looks = |body: Value| running.post_json("/v1/looks", &body);
    let png = BASE64_STANDARD.encode(demo("scene.png"));
    let wide = {
        let mut bytes = Vec::new();
        let encoder = image::codecs::png::PngEncoder::new(&mut bytes);
        image::ImageEncoder::write_image(encoder, &[0; 3001], 3001, 1, image::ExtendedColorType::L8).unwrap();
        BASE64_STANDARD.encode(bytes)
    };
    let bad = [
        (looks(json!({"prompts": ["caption en"]})), 400, "there is no picture"),
        (looks(json!({"picture": "!!", "prompts": ["caption en"]})), 400, "base64"),
        (looks(json!({"picture": "data:image/png,abc", "prompts": ["a"]})), 400, "base64"),
        (looks(json!({"picture": "aGVsbG8=", "prompts": ["caption en"]})), 400, "not a JPEG"),
        (looks(json!({"picture": wide, "prompts": ["caption en"]})), 413, "3000"),
        (looks(json!({"picture": png, "prompts": []})), 400, "0 prompts"),
        (looks(json!({"picture": png, "prompts": vec!["ocr"; 65]})), 400, "65 prompts"),
        (looks(json!({"picture": png, "prompts": ["a ".repeat(300)]})), 400, "tokens"),
        (looks(json!({"picture": png, "prompts": ["<image>"], "choose": [""]})), 400, "empty"),
        (looks(json!({"picture": png, "prompts": ["ocr"], "max_new_tokens": 1_000_000})), 400, "new tokens"),
        (looks(json!({"picture": png, "prompts": ["ocr"], "pikture": 1})), 400, "pikture"),
        (running.post("/v1/looks", &[("content-type", "application/json")], b"{"), 400, "JSON"),
        (running.post("/v1/looks?prompt=ocr", &[], b""), 400, "empty"),
        (running.post("/v1/looks?seed=x", &[], b"1"), 400, "seed"),
        (running.post("/v1/looks", &[("content-type", "multipart/form-data")], b"1"), 400, "form"),
        (running.post("/v1/looks?prompt=ocr", &[], &vec![0; (1 << 20) + 1]), 413, "longer than"),
        (running.get("/v1/looks"), 405, "GET"),
        (running.get("/v1/nothing"), 404, "openapi"),
    ];
    for (got, status, word) in bad {
        assert_eq!(got.status, status, "{}", got.body);
        let error = &got.json()["error"];
        assert!(error["message"].as_str().unwrap().contains(word), "{error} has no {word:?}");
        assert!(!got.body.contains("demo.palm") && !got.body.contains(env!("CARGO_MANIFEST_DIR")));
    }
    assert_eq!(looks(json!({"picture": png, "prompts": ["ocr"]})).status, 200, "and it goes on");
}

#[test]
fn a_full_queue_sends_away_and_a_closed_connection_makes_room() {
    let mut options = options();
    options.engine.limits.batch = 1;
    options.engine.waiting_max = 1;
    let running = Running::start(options);
    let picture = demo("scene.png");
    // Holds the engine, so that nothing moves meanwhile.
    let app = running.server().app().clone();
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let (began, begin) = std::sync::mpsc::channel();
    let turn = app.engine.turn().clone();
    let holder = std::thread::spawn(move || {
        turn.take(|| {
            began.send(()).unwrap();
            let _ = held.recv();
        });
    });
    begin.recv().unwrap();
    let send = || {
        let mut stream = TcpStream::connect(running.address).unwrap();
        let head = format!(
            "POST /v1/looks?prompt=caption+en HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n",
            picture.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&picture).unwrap();
        stream
    };
    let wait_for = |what: &str, is_so: &dyn Fn() -> bool| {
        let until = Instant::now() + LONG;
        while !is_so() {
            assert!(Instant::now() < until, "{what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let engine = &app.engine;
    let first = send();
    // The engine takes it out of the queue, and waits for its turn.
    wait_for("the first is taken", &|| engine.counts().waiting.get() == 0 && engine.pending() == 1);
    std::thread::sleep(Duration::from_millis(200));
    let second = send();
    wait_for("the second waits", &|| engine.counts().waiting.get() == 1);
    let third = running.post("/v1/looks?prompt=caption+en", &[], &picture);
    assert_eq!((third.status, third.json()["error"]["code"].as_str()), (429, Some("busy")));
    assert!(third.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    // Nobody waits for these any more.
    drop((first, second));
    let fourth = std::thread::scope(|scope| {
        let fourth = scope.spawn(|| {
            let until = Instant::now() + LONG;
            loop {
                let got = running.post("/v1/looks?prompt=caption+en", &[], &picture);
                if got.status != 429 || Instant::now() > until {
                    return got;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        wait_for("the fourth waits in the place of the second", &|| {
            engine.counts().refused.get() >= 1 && engine.counts().waiting.get() == 1
        });
        std::thread::sleep(Duration::from_millis(300));
        hold.send(()).unwrap();
        fourth.join().unwrap()
    });
    holder.join().unwrap();
    assert_eq!(fourth.status, 200, "{}", fourth.body);
    // Only it was answered.
    assert_eq!(engine.counts().answered.get(), 1);
}

#[test]
fn slow_and_broken_senders_hold_nobody_up() {
    let mut options = options();
    options.app.send_timeout = Duration::from_millis(300);
    options.connections.head_timeout = Duration::from_millis(300);
    let running = Running::start(options);
    let mut slow = TcpStream::connect(running.address).unwrap();
    slow.write_all(b"POST /v1/looks?prompt=ocr HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\nabc")
        .unwrap();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("too_slow"), "{answer}");
    let mut half = TcpStream::connect(running.address).unwrap();
    half.write_all(b"POST /v1/looks HTT").unwrap();
    half.set_read_timeout(Some(LONG)).unwrap();
    let mut rest = Vec::new();
    let _ = half.read_to_end(&mut rest);
    let mut long_head = TcpStream::connect(running.address).unwrap();
    let _ = long_head
        .write_all(format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(1 << 20)).as_bytes());
    let _ = long_head.read_to_end(&mut rest);
    assert_eq!(running.get("/health").json()["status"], "ok");
}

#[test]
fn the_end_lets_answers_be_finished_and_takes_no_more() {
    let mut running = Running::start(options());
    let (url, picture) = (running.url("/v1/looks?prompt=caption+en"), demo("scene.png"));
    let engine = running.server().app().engine.clone();
    let asking = std::thread::spawn(move || ureq::post(url).send(&picture[..]).unwrap().status().as_u16());
    let until = Instant::now() + LONG;
    while engine.counts().waiting.get() + engine.counts().running.get() == 0
        && engine.counts().answered.get() == 0
    {
        assert!(Instant::now() < until);
        std::thread::yield_now();
    }
    running.end();
    assert_eq!(asking.join().unwrap(), 200);
    assert!(!engine.is_ready());
    assert!(TcpStream::connect(running.address).is_err());
}

#[test]
fn keys_names_and_pages_of_other_sites_are_checked() {
    let mut options = options();
    options.access = Access {
        key: Some(ApiKey::new("0123456789").unwrap()),
        origins: vec!["https://house.example".to_owned()],
        hosts: vec!["127.0.0.1".to_owned()],
    };
    let running = Running::start(options);
    assert_eq!(running.get("/health").status, 200);
    let refused = running.get("/metrics");
    assert_eq!((refused.status, refused.header("www-authenticate")), (401, Some("Bearer")));
    let call = |headers: &[(&str, &str)]| running.post("/v1/looks?prompt=ocr", headers, &demo("scene.png"));
    let key = ("authorization", "Bearer 0123456789");
    let good = call(&[key, ("origin", "https://house.example")]);
    assert_eq!(good.status, 200, "{}", good.body);
    assert_eq!(good.header("access-control-allow-origin"), Some("https://house.example"));
    assert_eq!(call(&[("authorization", "Bearer 0123456780")]).status, 401);
    assert_eq!(call(&[key, ("origin", "https://evil.example")]).status, 403);
    assert_eq!(call(&[key, ("host", "evil.example")]).status, 421);
}
