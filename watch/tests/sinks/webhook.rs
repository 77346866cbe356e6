use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use base64::Engine as _;
use palmtop_watch::config::Config;
use palmtop_watch::period::Period;
use palmtop_watch::record::{Phase, Record};
use palmtop_watch::setup::Setup;
use palmtop_watch::sink::end::End;
use palmtop_watch::sink::interest::{Kinds, Picture};
use palmtop_watch::sink::receivers::Receivers;
use palmtop_watch::sink::webhook::{Webhook, WebhookOptions};
use palmtop_watch::sink::{Message, Sink, Versioned};
use serde_json::Value;

use crate::given::{LONG, error, event, keep_log, logged, message, objects, picture};

/// What a receiver got.
#[derive(Debug)]
struct Request {
    /// The first line, and each header with its name in lower case.
    head: Vec<String>,
    body: Vec<u8>,
}

impl Request {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    fn read(from: &mut BufReader<TcpStream>) -> Option<Self> {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if from.read_line(&mut line).ok()? == 0 {
                return None;
            }
            match line.trim_end() {
                "" => break,
                line => head.push(match line.split_once(": ") {
                    Some((name, value)) => format!("{}: {value}", name.to_ascii_lowercase()),
                    None => line.to_owned(),
                }),
            }
        }
        let mut request = Self { head, body: Vec::new() };
        let length: usize = request.header("content-length")?.parse().unwrap();
        request.body = vec![0; length];
        from.read_exact(&mut request.body).ok()?;
        Some(request)
    }
}

/// A web server that answers each request by the next of these, and is gone then. An empty answer closes the
/// connection.
fn serve(answers: Vec<Vec<u8>>) -> (String, Receiver<Request>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("127.0.0.1:{}", listener.local_addr().unwrap().port());
    let (tell, requests) = channel();
    std::thread::spawn(move || {
        let mut answers = answers.into_iter().peekable();
        while answers.peek().is_some() {
            let Ok((stream, _)) = listener.accept() else { return };
            let mut reader = BufReader::new(stream);
            while answers.peek().is_some() {
                let Some(request) = Request::read(&mut reader) else { break };
                let _ = tell.send(request);
                let answer = answers.next().unwrap();
                if answer.is_empty() || reader.get_mut().write_all(&answer).is_err() {
                    break;
                }
            }
        }
    });
    (address, requests)
}

fn status(status: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nok").into_bytes()
}

fn options(url: &str) -> WebhookOptions {
    WebhookOptions {
        url: url.into(),
        retry_pause: Period(Duration::from_millis(1)),
        ..WebhookOptions::default()
    }
}

fn an_event() -> Message {
    message(Record::Event(event("someone", "id-1", Phase::Begin)))
}

#[test]
fn a_record_is_posted_as_json() {
    let (address, requests) = serve(vec![status("200 OK"), status("204 No Content")]);
    let mut options = options(&format!("http://{address}/api/webhook/abc?key=1"));
    options.headers = [("X-Room".to_owned(), "hall".into())].into();
    let mut sink = Webhook::new(options).unwrap();
    sink.send(&an_event()).unwrap();
    let request = requests.recv().unwrap();
    assert_eq!(request.head[0], "POST /api/webhook/abc?key=1 HTTP/1.1");
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(request.header("x-room"), Some("hall"));
    assert_eq!(request.header("user-agent"), Some(concat!("palmtop/", env!("CARGO_PKG_VERSION"))));
    assert_eq!(request.header("authorization"), None);
    let json = request.json();
    assert_eq!(json, serde_json::to_value(Versioned::from(&an_event().record)).unwrap());
    assert_eq!((&json["version"], &json["record"]), (&1.into(), &"event".into()));
    sink.send(&an_event()).unwrap();
    requests.recv().unwrap();
}

#[test]
fn the_end_of_all_receivers_can_become_a_sooner_one() {
    // Connections are accepted by the system, and nobody answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, requests) = serve(vec![status("200 OK")]);
    let config = Config {
        webhooks: vec![
            options(&format!("http://{}", silent.local_addr().unwrap())),
            options(&format!("http://{address}")),
        ],
        ..Config::default()
    };
    let setup = Setup { model: "demo".into(), cameras: Vec::new(), questions: Vec::new() };
    let receivers = Receivers::start(&config, &setup, &channel().0).unwrap();
    receivers.offer(&Arc::new(an_event()));
    requests.recv_timeout(LONG).unwrap();
    // Without the sooner one this would take an hour.
    let hour = Instant::now() + Duration::from_secs(3600);
    let lost = receivers.finish(hour, &mut || Some(Instant::now() + Duration::from_millis(50)));
    assert_eq!(lost.iter().map(|(_, lost)| *lost).collect::<Vec<_>>(), [1]);
}

#[test]
fn the_picture_goes_with_it_if_wanted() {
    let (address, requests) = serve(vec![status("200 OK"); 2]);
    let snapshot = picture(objects(&["cat"]));
    let with_picture = Message { picture: Some(Arc::clone(&snapshot)), ..an_event() };
    for (which, jpeg) in [(Picture::Plain, Some(snapshot.jpeg().unwrap())), (Picture::None, None)] {
        let mut sink =
            Webhook::new(WebhookOptions { picture: which, ..options(&format!("http://{address}")) }).unwrap();
        assert_eq!(sink.interest().in_picture(&with_picture.record), jpeg.is_some());
        sink.send(&with_picture).unwrap();
        let json = requests.recv().unwrap().json();
        let decode =
            |text: &Value| base64::engine::general_purpose::STANDARD.decode(text.as_str().unwrap()).unwrap();
        assert_eq!(json.get("picture_jpeg_base64").map(decode).as_deref(), jpeg);
    }
}

#[test]
fn what_may_pass_is_tried_again() {
    let answers = vec![status("500 Oops"), Vec::new(), status("429 Slower"), status("201 Created")];
    let (address, requests) = serve(answers);
    let mut sink = Webhook::new(options(&format!("http://{address}"))).unwrap();
    sink.send(&an_event()).unwrap();
    assert_eq!(requests.iter().map(|request| request.json()["id"].clone()).collect::<Vec<_>>(), ["id-1"; 4]);
}

#[test]
fn attempts_are_bounded() {
    let (address, requests) = serve(vec![status("503 Busy"); 3]);
    let mut sink =
        Webhook::new(WebhookOptions { retries: 2, ..options(&format!("http://{address}")) }).unwrap();
    assert_eq!(error(&mut sink, &an_event()), "it answers 503 Service Unavailable (3 attempts)");
    assert_eq!(requests.iter().count(), 3);
}

#[test]
fn what_is_wrong_with_the_request_is_not_tried_again() {
    let (address, requests) = serve(vec![status("404 Not Found"), status("401 Who"), status("200 OK")]);
    let mut sink = Webhook::new(options(&format!("http://{address}"))).unwrap();
    assert_eq!(error(&mut sink, &an_event()), "it answers 404 Not Found");
    assert_eq!(error(&mut sink, &an_event()), "it answers 401 Unauthorized");
    sink.send(&an_event()).unwrap();
    assert_eq!(requests.iter().count(), 3);
}

#[test]
fn redirects_are_not_followed() {
    let (elsewhere, visits) = serve(vec![status("200 OK")]);
    let redirect = |status: &str| {
        format!("HTTP/1.1 {status}\r\nlocation: http://{elsewhere}/\r\ncontent-length: 0\r\n\r\n")
            .into_bytes()
    };
    let (address, _requests) = serve(vec![redirect("307 Elsewhere"), redirect("302 Found")]);
    let mut sink = Webhook::new(options(&format!("http://{address}"))).unwrap();
    for status in ["307", "302"] {
        let text = error(&mut sink, &an_event());
        assert!(text.contains(status) && text.contains("redirects are not followed"), "{text}");
    }
    assert!(visits.try_recv().is_err());
}

#[test]
fn a_receiver_that_asks_for_a_pause_gets_one_up_to_a_limit() {
    let busy = |after: &str| {
        format!("HTTP/1.1 429 Slower\r\nretry-after: {after}\r\ncontent-length: 0\r\n\r\n").into_bytes()
    };
    // An hour, in seconds and as a date; and what nobody understands.
    let hours = [busy("3600"), busy("Fri, 01 Jan 2100 00:00:00 GMT"), busy("soon"), status("200 OK")];
    let (address, requests) = serve(hours.to_vec());
    let limited = WebhookOptions {
        retry_after_max: Period(Duration::from_millis(150)),
        ..options(&format!("http://{address}"))
    };
    let begun = Instant::now();
    Webhook::new(limited).unwrap().send(&an_event()).unwrap();
    // Twice the limit: it is heeded, and it is a limit.
    assert!(begun.elapsed() >= Duration::from_millis(300) && begun.elapsed() < LONG);
    assert_eq!(requests.iter().count(), 4);
}

#[test]
fn a_receiver_that_is_gone_or_never_answers_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://127.0.0.1:{}", listener.local_addr().unwrap().port());
    // Connections are taken by the system, and nobody answers.
    let slow = WebhookOptions { timeout: Period(Duration::from_millis(50)), retries: 1, ..options(&address) };
    assert_eq!(
        error(&mut Webhook::new(slow).unwrap(), &an_event()),
        "it does not answer in time (2 attempts)"
    );
    drop(listener);
    let mut sink = Webhook::new(WebhookOptions { retries: 0, ..options(&address) }).unwrap();
    let text = error(&mut sink, &an_event());
    assert!(text.contains("refused") && text.ends_with("(1 attempt)"), "{text}");
    let (address, _requests) = serve(vec![b"220 mail.example ready\r\n".to_vec()]);
    let mut sink =
        Webhook::new(WebhookOptions { retries: 0, ..options(&format!("http://{address}")) }).unwrap();
    let text = error(&mut sink, &an_event());
    assert!(text.contains("no HTTP"), "{text}");
}

#[test]
fn a_huge_answer_is_not_read() {
    let (address, requests) = serve(vec![
        b"HTTP/1.1 200 OK\r\ncontent-length: 100000000000\r\n\r\nxxxx".to_vec(),
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffff\r\nxxxx".to_vec(),
    ]);
    let mut sink = Webhook::new(options(&format!("http://{address}"))).unwrap();
    for _ in 0..2 {
        sink.send(&an_event()).unwrap();
        requests.recv().unwrap();
    }
    let (address, _requests) = serve(vec![[&b"HTTP/1.1 200 OK\r\nx: "[..], &[b'x'; 1 << 20]].concat()]);
    let mut sink =
        Webhook::new(WebhookOptions { retries: 0, ..options(&format!("http://{address}")) }).unwrap();
    let text = error(&mut sink, &an_event());
    assert!(text.contains("headers of its answer are too long"), "{text}");
}

#[test]
fn the_end_of_the_watch_ends_the_pauses() {
    let (address, _requests) = serve(vec![status("500 Oops")]);
    let patient = WebhookOptions { retry_pause: Period(LONG * 60), ..options(&format!("http://{address}")) };
    let mut sink = Webhook::new(patient).unwrap();
    let end = Arc::new(End::new());
    sink.attach(Arc::clone(&end));
    end.set(Instant::now() + LONG);
    assert_eq!(error(&mut sink, &an_event()), "it answers 500 Internal Server Error (1 attempt)");
}

#[test]
fn tokens_and_addresses_are_never_shown() {
    keep_log();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "hidden-token\n").unwrap();
    let (address, requests) = serve(vec![status("500 Oops"), status("200 OK"), status("200 OK")]);
    let mut options = options(&format!("http://{address}/hidden-path?key=hidden-query"));
    options.headers = [("x-key".to_owned(), "hidden-header".into())].into();
    options.token_file = Some(file.clone());
    assert!(!format!("{options:?}").contains("hidden"), "{options:?}");
    let mut sink = Webhook::new(options.clone()).unwrap();
    assert_eq!(sink.name(), format!("webhook http://{address}"));
    sink.send(&an_event()).unwrap();
    let request = requests.recv().unwrap();
    assert_eq!(request.header("authorization"), Some("Bearer hidden-token"));
    assert_eq!(request.header("x-key"), Some("hidden-header"));
    requests.recv().unwrap();
    // The server has one connection at a time.
    drop(sink);

    (options.token_file, options.user, options.password_file) = (None, Some("me".into()), Some(file));
    Webhook::new(options.clone()).unwrap().send(&an_event()).unwrap();
    // base64 of me:hidden-token
    assert_eq!(requests.recv().unwrap().header("authorization"), Some("Basic bWU6aGlkZGVuLXRva2Vu"));
    options.token_env = Some("PATH".into());
    let text = Webhook::new(options).err().unwrap().to_string();
    assert!(text.contains("give one of them"), "{text}");
    // The client does log, and what it logs is checked.
    assert!(!logged(&address).is_empty());
    assert_eq!(logged("hidden-"), Vec::<String>::new());
    assert_eq!(logged("bWU6"), Vec::<String>::new());
}

#[test]
fn what_is_no_address_is_refused_without_showing_it() {
    for url in [
        "",
        "hidden",
        "ftp://host/hidden",
        "http:///hidden",
        "http://me:hidden@host/",
        "http://host/hidden path",
        "https://[::1/hidden",
    ] {
        let text = Webhook::new(options(url)).err().unwrap_or_else(|| panic!("{url}")).to_string();
        assert!(text.contains("url") && !text.contains("hidden"), "{url}: {text}");
    }
    let headers = |name: &str, value: &str| {
        let headers = [(name.to_owned(), value.into())].into();
        Webhook::new(WebhookOptions { headers, ..options("http://host") }).err().unwrap().to_string()
    };
    assert!(headers("a b", "x").contains("'a b' is no name of a header"));
    let text = headers("a", "hidden\r\nb: c");
    assert!(text.contains("value of the header 'a'") && !text.contains("hidden"), "{text}");
    let ca_file = Some("/dev/null".into());
    let text = Webhook::new(WebhookOptions { ca_file, ..options("https://host") }).err().unwrap().to_string();
    assert_eq!(text, "ca_file /dev/null: there is no certificate in it");
}

#[test]
fn options_are_a_table() {
    let table = "url = \"https://example.org/x\"\nrecords = [\"changes\"]\ntimeout = \"2s\"\nretry_after_max = \"5m\"\n\
                 [headers]\nx-key = \"abc\"";
    let options: WebhookOptions = toml::from_str(table).unwrap();
    assert_eq!((options.records, options.timeout), (Kinds::CHANGES, Period(Duration::from_secs(2))));
    assert_eq!((options.retries, options.retry_after_max), (3, Period(Duration::from_secs(300))));
    assert!(toml::from_str::<WebhookOptions>("url = \"x\"\ntoken = \"abc\"").is_err());
}
