//! What clients of the server send.

use std::sync::OnceLock;
use std::time::Duration;

use palmtop::Limits;
use palmtop_serve::app::AppOptions;
use palmtop_serve::cameras::Cameras;
use palmtop_serve::engine::EngineOptions;
use palmtop_serve::in_process::InProcess;
use palmtop_serve::listen::ConnectionOptions;
use palmtop_serve::server::ServerOptions;

use super::texts::model;

fn server() -> &'static InProcess {
    static SERVER: OnceLock<InProcess> = OnceLock::new();
    SERVER.get_or_init(|| {
        let mut limits = Limits::default();
        limits.threads = Some(1);
        let second = Duration::from_secs(1);
        let options = ServerOptions {
            engine: EngineOptions { limits, waiting_max: 4, features_bytes: 0 },
            app: AppOptions {
                model_name: "tiny".into(),
                is_demo: true,
                decode: Default::default(),
                body_bytes_max: 1 << 16,
                bodies_bytes: 1 << 20,
                send_timeout: second,
                answer_timeout: second,
            },
            access: Default::default(),
            connections: ConnectionOptions { connections_max: 1, head_timeout: second, finish: second },
            fetch: None,
            cameras: Cameras::default(),
        };
        InProcess::new(model(), options).expect("a server")
    })
}

/// A request as it is sent: a line with method and address, headers, an empty line and the body.
pub fn requests(bytes: &[u8]) {
    let mut rest = bytes;
    let mut line = || {
        let end = rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
        let line = rest[..end].trim_ascii();
        rest = rest.get(end + 1..).unwrap_or_default();
        line
    };
    let Ok(first) = std::str::from_utf8(line()) else { return };
    let mut words = first.split_ascii_whitespace();
    let (Some(method), Some(address)) = (words.next(), words.next()) else { return };
    let mut headers = Vec::new();
    loop {
        let header = line();
        let Some(colon) = header.iter().position(|&byte| byte == b':').filter(|_| headers.len() < 32) else {
            break;
        };
        let Ok(name) = std::str::from_utf8(&header[..colon]) else { return };
        headers.push((name, header[colon + 1..].trim_ascii()));
    }
    let Some((status, answer)) = server().ask(method, address, &headers, rest.to_vec()) else { return };
    // Nothing is asked of the engine, so nothing but the request can be wrong.
    assert_ne!(status, 500, "{}", String::from_utf8_lossy(&answer));
}
