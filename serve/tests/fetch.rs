//! Pictures by address: from whom they are fetched, and within which limits.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{Got, Running, demo, options, right_answers};
use palmtop_serve::fetch::{Allowed, Fetch, FetchOptions};
use serde_json::json;

/// A server of pictures and of what else is found on the web. Counts who comes.
fn elsewhere() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let came = Arc::new(AtomicUsize::new(0));
    let count = came.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            count.fetch_add(1, Ordering::SeqCst);
            std::thread::spawn(move || serve(stream.unwrap(), address));
        }
    });
    (address, came)
}

fn serve(mut stream: TcpStream, address: SocketAddr) {
    let mut line = String::new();
    let mut lines = BufReader::new(stream.try_clone().unwrap());
    lines.read_line(&mut line).unwrap();
    let path = line.split(' ').nth(1).unwrap_or("").to_owned();
    while lines.read_line(&mut line).is_ok_and(|length| length > 2) {}
    let answer = |stream: &mut TcpStream, status: &str, headers: &str, body: &[u8]| {
        let length = body.len();
        let head =
            format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n");
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    };
    let port = address.port();
    match path.as_str() {
        "/scene.png" => answer(&mut stream, "200 OK", "content-type: image/png\r\n", &demo("scene.png")),
        "/there" => answer(&mut stream, "302 Found", "location: /scene.png\r\n", b""),
        "/around" => answer(&mut stream, "302 Found", "location: /around\r\n", b""),
        "/inside" => {
            let location = format!("location: http://127.0.0.2:{port}/scene.png\r\n");
            answer(&mut stream, "302 Found", &location, b"");
        }
        "/page" => answer(&mut stream, "200 OK", "content-type: text/html\r\n", b"<html>secret</html>"),
        "/text" => answer(&mut stream, "200 OK", "content-type: image/png\r\n", b"secret text"),
        "/large" => answer(&mut stream, "200 OK", "content-type: image/png\r\n", &vec![0; 2 << 20]),
        "/slow" => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n");
            std::thread::sleep(Duration::from_secs(30));
        }
        _ => answer(&mut stream, "404 Not Found", "", b"secret"),
    }
}

fn running(allow: &[&str]) -> Running {
    let mut allowed = Allowed::default();
    allow.iter().for_each(|text| allowed.add(text).unwrap());
    let mut options = options();
    options.fetch =
        Some(Fetch::new(FetchOptions { allowed, bytes_max: 1 << 20, timeout: Duration::from_secs(2) }));
    Running::start(options)
}

fn ask(running: &Running, url: &str) -> Got {
    let picture = json!({"type": "image_url", "image_url": {"url": url}});
    let content = json!([picture, {"type": "text", "text": "caption en"}]);
    running.post_json("/v1/chat/completions", &json!({"messages": [{"role": "user", "content": content}]}))
}

#[test]
fn pictures_come_from_where_they_may_and_within_limits() {
    let (address, _) = elsewhere();
    let running = running(&["127.0.0.1", "localhost"]);
    let right = &right_answers(&demo("scene.png"), &["caption en"])[0];
    let port = address.port();
    for url in [
        format!("http://{address}/scene.png"),
        format!("HTTP://{address}/there"),
        format!("http://localhost:{port}/scene.png"),
    ] {
        let got = ask(&running, &url);
        assert_eq!(got.status, 200, "{url}: {}", got.body);
        assert_eq!(got.json()["choices"][0]["message"]["content"], right.text);
    }
    let moondream =
        running.post_json("/v1/caption", &json!({"image_url": format!("http://{address}/scene.png")}));
    assert_eq!(moondream.json()["caption"], right.text, "{}", moondream.body);
    for (path, status, word) in [
        ("/around", 400, "redirects"),
        ("/inside", 400, "--allow-fetch 127.0.0.2"),
        ("/page", 400, "media type"),
        ("/text", 400, "not a JPEG"),
        ("/large", 413, "1048576"),
        ("/slow", 400, "2 s"),
        ("/nothing", 400, "404"),
    ] {
        let got = ask(&running, &format!("http://{address}{path}"));
        assert_eq!(got.status, status, "{path}: {}", got.body);
        let message = got.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains(word) && !message.contains("secret"), "{path}: {message}");
    }
    for url in ["http://", "http:///a", "http://[::1", "http://a b/", "https://127.0.0.1:1/a"] {
        let got = ask(&running, url);
        assert_eq!(got.status, 400, "{url}: {}", got.body);
    }
    assert_eq!(ask(&running, &format!("http://{address}/scene.png")).status, 200, "and it goes on");
}

#[test]
fn nobody_else_is_asked() {
    let (address, came) = elsewhere();
    let port = address.port();
    let running = running(&["images.example.com", "*.example.org", "192.168.77.0/24"]);
    for host in [
        "127.0.0.1",
        "localhost",
        "0.0.0.0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "2130706433",
        "0x7f000001",
        "127.1",
    ] {
        let got = ask(&running, &format!("http://{host}:{port}/scene.png"));
        assert_eq!(got.status, 400, "{host}: {}", got.body);
    }
    let got = ask(&running, &format!("http://images.example.com@127.0.0.1:{port}/scene.png"));
    assert_eq!(got.status, 400, "{}", got.body);
    assert_eq!(came.load(Ordering::SeqCst), 0);
}
