//! A small hub of our own: it redirects to a second host as the real one does, knows ranges, gates and tokens, and cuts
//! lines, lies and stalls where a test wants it to.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::json;
use sha2::{Digest, Sha256};

/// A request that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Whether it came to the second host, which has the large files.
    pub is_cdn: bool,
    /// With its query.
    pub path: String,
    /// The first byte that was asked for, and the last one.
    pub range: Option<(u64, u64)>,
    /// What stood in `Authorization`.
    pub authorization: Option<String>,
}

/// What a hub answers instead of what it should.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Answered if the path has this in it …
    pub of: String,
    /// … so many times.
    pub times: usize,
    /// Such as 429.
    pub status: u16,
    /// Lines of the head.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: String,
}

/// A repository.
#[derive(Clone, Debug, Default)]
pub struct Repo {
    /// What `main` stands for: 40 digits.
    pub commit: String,
    /// By path.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Only those with a token have its files.
    pub gated: bool,
    /// Those whose token has no access.
    pub refused: bool,
}

/// Everything about a hub that a test can change.
#[derive(Default)]
pub struct State {
    /// By `ORG/NAME`.
    pub repos: BTreeMap<String, Repo>,
    /// What came, in order.
    pub asked: Vec<Asked>,
    /// The only right token.
    pub token: Option<String>,
    /// Lines that are cut once before this byte of a file.
    pub cuts: Vec<(String, u64)>,
    /// Bytes of files that come changed.
    pub damage: Vec<(String, u64)>,
    /// Nothing comes any more from this byte of a file on.
    pub stalls: Vec<(String, u64)>,
    /// Ranges are not known.
    pub ignores_ranges: bool,
    /// Every answer is a web page.
    pub is_portal: bool,
    /// Answers to give first.
    pub replies: VecDeque<Reply>,
}

/// A hub that runs until the program ends.
pub struct Hub {
    /// Its address.
    pub endpoint: String,
    cdn: String,
    state: Arc<Mutex<State>>,
}

impl Default for Hub {
    fn default() -> Self {
        Self::new()
    }
}

impl Hub {
    /// A hub without repositories.
    pub fn new() -> Self {
        let listen = || TcpListener::bind("127.0.0.1:0").expect("a port");
        let (hub, cdn) = (listen(), listen());
        let address = |of: &TcpListener| format!("http://{}", of.local_addr().expect("an address"));
        let out = Self { endpoint: address(&hub), cdn: address(&cdn), state: Arc::default() };
        for (listener, is_cdn) in [(hub, false), (cdn, true)] {
            let (state, cdn) = (out.state.clone(), out.cdn.clone());
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let (state, cdn) = (state.clone(), cdn.clone());
                    std::thread::spawn(move || answer(&stream, is_cdn, &cdn, &state));
                }
            });
        }
        out
    }

    /// What a test can look at and change.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Adds a repository with the files of a folder; its commit is that digit, forty times.
    pub fn add(&self, id: &str, folder: &Path, digit: char) {
        let mut repo = Repo { commit: digit.to_string().repeat(40), ..Repo::default() };
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_str().expect("UTF-8").to_owned();
            repo.files.insert(name, std::fs::read(&path).expect("a file"));
        }
        self.state().repos.insert(id.to_owned(), repo);
    }

    /// The requests that came since the last call.
    pub fn take_asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.state().asked)
    }
}

/// True for files that the hub keeps elsewhere, and knows the SHA-256 of.
fn is_large(name: &str) -> bool {
    [".safetensors", ".palm", ".model", "tokenizer.json"].iter().any(|end| name.ends_with(end))
}

fn answer(stream: &TcpStream, is_cdn: bool, cdn: &str, state: &Mutex<State>) -> Option<()> {
    let mut lines = BufReader::new(stream).lines();
    let path = lines.next()?.ok()?.split(' ').nth(1)?.to_owned();
    let mut headers = BTreeMap::new();
    for line in lines.map_while(Result::ok).take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':')?;
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let range = headers.get("range").and_then(|range| {
        let (start, end) = range.strip_prefix("bytes=")?.split_once('-')?;
        Some((start.parse().ok()?, end.parse().ok()?))
    });
    let authorization = headers.get("authorization").cloned();
    let mut state = state.lock().unwrap_or_else(|e| e.into_inner());
    state.asked.push(Asked { is_cdn, path: path.clone(), range, authorization: authorization.clone() });
    if state.is_portal {
        return send(stream, 200, &[("content-type", "text/html; charset=utf-8")], b"<html>Welcome!</html>");
    }
    if let Some(at) = state.replies.iter().position(|reply| reply.times > 0 && path.contains(&reply.of)) {
        state.replies[at].times -= 1;
        let reply = state.replies[at].clone();
        let headers: Vec<(&str, &str)> = reply.headers.iter().map(|(n, v)| (*n, &**v)).collect();
        return send(stream, reply.status, &headers, reply.body.as_bytes());
    }
    let error = |status: u16, code: &str, message: &str| {
        send(stream, status, &[("x-error-code", code), ("x-error-message", message)], message.as_bytes())
    };
    if let Some(id) = path.strip_prefix("/api/models/") {
        let (id, rest) = id.split_once("/revision/")?;
        let revision = rest.split('?').next()?;
        let Some(repo) = state.repos.get(id) else {
            return match authorization {
                Some(_) => error(404, "RepoNotFound", "Repository not found"),
                None => error(401, "", "Invalid username or password."),
            };
        };
        if revision != "main" && revision != repo.commit {
            return error(404, "RevisionNotFound", "Invalid rev id");
        }
        let siblings: Vec<_> = repo.files.iter().map(|(name, bytes)| sibling(name, bytes)).collect();
        let info = json!({"id": id, "sha": repo.commit, "siblings": siblings, "tags": ["license:gemma"]});
        return send(stream, 200, &[("content-type", "application/json")], info.to_string().as_bytes());
    }
    // `/ORG/NAME/resolve/COMMIT/FILE`, here and there.
    let (id, rest) = path.strip_prefix('/')?.split_once("/resolve/")?;
    let (commit, file) = rest.split_once('/')?;
    let file = file.split('?').next()?.to_owned();
    let repo = state.repos.get(id)?;
    if !is_cdn {
        let is_right = state.token.as_ref().is_some_and(|token| {
            authorization.as_deref().and_then(|a| a.strip_prefix("Bearer ")) == Some(token)
        });
        if authorization.is_some() && !is_right {
            return error(401, "", "Invalid credentials in Authorization header");
        }
        if repo.gated && authorization.is_none() {
            return error(401, "GatedRepo", "Access to this model is restricted.");
        }
        if repo.gated && repo.refused {
            return error(403, "GatedRepo", "You are not in the authorized list.");
        }
    }
    let Some(bytes) = repo.files.get(&file).filter(|_| commit == repo.commit).cloned() else {
        return error(404, "EntryNotFound", "Entry not found");
    };
    if !is_cdn && is_large(&file) {
        let to = format!("{cdn}{path}?signed=1");
        let etag = format!("\"{}\"", digits(&Sha256::digest(&bytes)));
        return send(stream, 302, &[("location", &to), ("x-linked-etag", &etag)], b"");
    }
    send_file(stream, state, &file, bytes, range)
}

fn sibling(name: &str, bytes: &[u8]) -> serde_json::Value {
    match is_large(name) {
        false => json!({"rfilename": name, "size": bytes.len(), "blobId": "0"}),
        true => {
            let hash = digits(&Sha256::digest(bytes));
            let lfs = json!({"sha256": hash, "size": bytes.len(), "pointerSize": 134});
            json!({"rfilename": name, "size": bytes.len(), "blobId": "0", "lfs": lfs})
        }
    }
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, b| {
        let _ = write!(text, "{b:02x}");
        text
    })
}

/// Sends a file, or the range of it, up to where the line is cut.
fn send_file(
    mut stream: &TcpStream,
    mut state: MutexGuard<'_, State>,
    file: &str,
    mut bytes: Vec<u8>,
    range: Option<(u64, u64)>,
) -> Option<()> {
    let total = bytes.len() as u64;
    let (start, end) = range.filter(|_| !state.ignores_ranges).map_or((0, total), |(s, e)| (s, e + 1));
    let end = end.min(total);
    if start >= end {
        return send(stream, 416, &[("content-range", &format!("bytes */{total}"))], b"");
    }
    for (_, at) in state.damage.iter().filter(|(name, _)| name == file) {
        bytes[*at as usize] ^= 1;
    }
    let inside = |(name, at): &(String, u64)| name == file && (start..end).contains(at);
    let cut = state.cuts.iter().position(inside).map(|at| state.cuts.remove(at).1);
    let stall = state.stalls.iter().find(|stall| inside(stall)).map(|stall| stall.1);
    let is_whole = state.ignores_ranges || range.is_none();
    drop(state);
    let to = cut.or(stall).unwrap_or(end);
    let mut head = match is_whole {
        true => "HTTP/1.1 200 OK\r\n".to_owned(),
        false => {
            format!("HTTP/1.1 206 Partial Content\r\ncontent-range: bytes {start}-{}/{total}\r\n", end - 1)
        }
    };
    let _ = write!(head, "content-length: {}\r\netag: \"x\"\r\nconnection: close\r\n\r\n", end - start);
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(&bytes[start as usize..to as usize]).ok()?;
    if stall.is_some() && cut.is_none() {
        // Until the other side has gone.
        let _ = std::io::Read::read(&mut stream, &mut [0]);
    }
    Some(())
}

fn send(mut stream: &TcpStream, status: u16, headers: &[(&str, &str)], body: &[u8]) -> Option<()> {
    let mut head =
        format!("HTTP/1.1 {status} Status\r\ncontent-length: {}\r\nconnection: close\r\n", body.len());
    for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).ok()?;
    stream.write_all(body).ok()
}

/// A proxy, and the hosts that it was asked for. It alone knows that `name` is the hub.
pub struct Proxy {
    /// Its address.
    pub address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// One that runs until the program ends.
    pub fn new(name: &str, hub: &Hub) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let (name, hub, hosts) = (name.to_owned(), hub.endpoint.clone(), asked.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (name, hub, hosts) = (name.clone(), hub.clone(), hosts.clone());
                std::thread::spawn(move || pass_on(&stream, &name, &hub, &hosts));
            }
        });
        Self { address, asked }
    }

    /// The hosts that it was asked for, in order.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }
}

fn pass_on(mut stream: &TcpStream, name: &str, hub: &str, asked: &Mutex<Vec<String>>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        (reader.read_line(&mut head).ok()? > 0).then_some(())?;
    }
    let (method, rest) = head.split_once(' ')?;
    let (target, rest) = rest.split_once(' ')?;
    let target = target.strip_prefix("http://").unwrap_or(target);
    let (host, path) = target.split_once('/').unwrap_or((target, ""));
    asked.lock().unwrap_or_else(|e| e.into_inner()).push(host.to_owned());
    let to = if host.split(':').next() == Some(name) { hub.strip_prefix("http://")? } else { host };
    let mut other = TcpStream::connect(to).ok()?;
    match method {
        "CONNECT" => stream.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").ok()?,
        _ => other.write_all(format!("{method} /{path} {rest}").as_bytes()).ok()?,
    }
    let mut back = other.try_clone().ok()?;
    let mut down = stream.try_clone().ok()?;
    let up = std::thread::spawn(move || std::io::copy(&mut reader, &mut other));
    std::io::copy(&mut back, &mut down).ok()?;
    let _ = stream.shutdown(std::net::Shutdown::Both);
    let _ = up.join();
    Some(())
}
