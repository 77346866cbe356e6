//! Many clients at once, some of whom behave badly. Each knows the right answer to what it asks.
#![allow(dead_code)]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use palmtop::image::{ImageLimits, decode};
use palmtop::{GenerateOptions, Limits, Model, Session};
use serde_json::{Value, json};

/// A request, and what is right.
pub struct Known {
    pub picture: Vec<u8>,
    pub prompt: &'static str,
    pub text: String,
    pub tokens: Vec<u32>,
}

/// What is asked about each picture.
pub const PROMPTS: [&str; 4] = ["caption en", "detect car ; bus ; tree", "ocr", "answer en what is it?"];

/// What a session of its own answers about these pictures, in so many tokens at most.
pub fn known(model: &Arc<Model>, pictures: &[Vec<u8>], new_tokens: usize) -> Vec<Known> {
    let mut limits = Limits::default();
    limits.new_tokens = new_tokens;
    let mut session = Session::new(model, &limits).unwrap();
    let mut features = session.new_features().unwrap();
    let options = GenerateOptions::default();
    let mut all = Vec::new();
    for picture in pictures {
        let pixels = decode(picture, &ImageLimits::default()).unwrap();
        session.encode(pixels.view(), &mut features, &options).unwrap();
        for prompt in PROMPTS {
            let answers =
                session.answer(&features, &[prompt], &options, &mut |_| ControlFlow::Continue(())).unwrap();
            let (text, tokens) = (answers[0].text.clone(), answers[0].tokens.clone());
            all.push(Known { picture: picture.clone(), prompt, text, tokens });
        }
    }
    all
}

/// Numbers that look random, and are the same each time.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// A picture that no other number gives, as JPEG.
pub fn picture(number: u64) -> Vec<u8> {
    let mut numbers = Numbers(number);
    let mut rgb = image::RgbImage::new(96, 80);
    for _ in 0..12 {
        let [x, y, w, h] = [80, 64, 40, 40].map(|n| numbers.below(n) as u32);
        let color = image::Rgb([0; 3].map(|_: u8| numbers.below(256) as u8));
        for (x, y) in (x..(x + w).min(96)).flat_map(|x| (y..(y + h).min(80)).map(move |y| (x, y))) {
            rgb.put_pixel(x, y, color);
        }
    }
    let mut out = Vec::new();
    image::codecs::jpeg::JpegEncoder::new_with_quality(&mut out, 90).encode_image(&rgb).unwrap();
    out
}

/// What clients saw.
#[derive(Default)]
pub struct Report {
    /// From request to answer, of each that was right.
    pub latencies: Vec<Duration>,
    /// Sent away with 429.
    pub refused: u64,
    /// Requests that were broken, too slow or given up.
    pub odd: u64,
    /// What must not be: answers that are wrong, crossed or lost.
    pub wrong: Vec<String>,
}

impl Report {
    fn add(&mut self, other: Self) {
        self.latencies.extend(other.latencies);
        self.refused += other.refused;
        self.odd += other.odd;
        self.wrong.extend(other.wrong);
    }

    /// Within which so many of 100 were answered.
    pub fn percentile(&self, percent: f64) -> Duration {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let last = sorted.len().saturating_sub(1);
        sorted.get((percent / 100.0 * last as f64).round() as usize).copied().unwrap_or_default()
    }
}

/// Lets so many clients ask for so long. `body_bytes_max` is the server's limit, which some of them do not keep.
pub fn run(
    address: SocketAddr,
    known: &[Known],
    clients: usize,
    time: Duration,
    new_tokens: usize,
    body_bytes_max: usize,
) -> Report {
    let until = Instant::now() + time;
    let mut report = Report::default();
    std::thread::scope(|scope| {
        let client = |n: usize| {
            let mut client = Client::new(address, known, n as u64, new_tokens, body_bytes_max);
            move || {
                while Instant::now() < until {
                    client.step();
                }
                client.report
            }
        };
        let threads: Vec<_> = (0..clients).map(|n| scope.spawn(client(n))).collect();
        threads.into_iter().for_each(|thread| report.add(thread.join().unwrap()));
    });
    report
}

struct Client<'a> {
    address: SocketAddr,
    agent: ureq::Agent,
    known: &'a [Known],
    numbers: Numbers,
    new_tokens: usize,
    body_bytes_max: usize,
    report: Report,
}

/// No answer takes so long.
const LONG: Duration = Duration::from_secs(300);

impl<'a> Client<'a> {
    fn new(
        address: SocketAddr,
        known: &'a [Known],
        seed: u64,
        new_tokens: usize,
        body_bytes_max: usize,
    ) -> Self {
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(LONG));
        let agent = config.build().new_agent();
        Self {
            address,
            agent,
            known,
            numbers: Numbers(seed),
            new_tokens,
            body_bytes_max,
            report: Report::default(),
        }
    }

    fn step(&mut self) {
        match self.numbers.below(16) {
            0 => self.goes_away_in_the_middle(),
            1 => self.goes_away_before_the_answer(),
            2 => self.sends_slowly(),
            3 => self.sends_too_much(),
            4 => self.sends_what_is_broken(),
            n => self.asks(n % 2 == 0),
        }
    }

    fn one(&mut self) -> &'a Known {
        &self.known[self.numbers.below(self.known.len())]
    }

    fn url(&self, known: &Known) -> String {
        let prompt =
            form_urlencoded::Serializer::new(String::new()).append_pair("prompt", known.prompt).finish();
        format!("http://{}/v1/looks?max_new_tokens={}&{prompt}", self.address, self.new_tokens)
    }

    /// As it should be.
    fn asks(&mut self, as_stream: bool) {
        let known = self.one();
        let start = Instant::now();
        let mut request = self.agent.post(self.url(known)).header("content-type", "image/jpeg");
        if as_stream {
            request = request.header("accept", "text/event-stream");
        }
        let answer =
            request.send(&known.picture[..]).map_err(|error| error.to_string()).and_then(|mut answer| {
                let body = answer.body_mut().read_to_string().map_err(|error| error.to_string())?;
                Ok((answer.status().as_u16(), body))
            });
        match answer {
            Ok((429, _)) => {
                self.report.refused += 1;
                std::thread::sleep(Duration::from_millis(20 + self.numbers.below(50) as u64));
            }
            Ok((200, body)) => match is_right(&body, as_stream, known) {
                Ok(()) => self.report.latencies.push(start.elapsed()),
                Err(why) => self.report.wrong.push(why),
            },
            Ok((status, body)) => self.report.wrong.push(format!("{status}: {body}")),
            Err(error) => self.report.wrong.push(error),
        }
    }

    fn connect(&self, known: &Known, length: usize) -> std::io::Result<TcpStream> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(LONG))?;
        let path =
            self.url(known).split_once("/v1").map(|(_, path)| format!("/v1{path}")).unwrap_or_default();
        write!(stream, "POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n")?;
        Ok(stream)
    }

    fn goes_away_in_the_middle(&mut self) {
        self.report.odd += 1;
        let known = self.one();
        let some = self.numbers.below(known.picture.len());
        // The server may be quicker to close.
        if let Ok(mut stream) = self.connect(known, known.picture.len()) {
            let _ = stream.write_all(&known.picture[..some]);
        }
    }

    fn goes_away_before_the_answer(&mut self) {
        self.report.odd += 1;
        let known = self.one();
        if let Ok(mut stream) = self.connect(known, known.picture.len()) {
            let _ = stream.write_all(&known.picture);
            std::thread::sleep(Duration::from_millis(self.numbers.below(20) as u64));
        }
    }

    fn sends_slowly(&mut self) {
        self.report.odd += 1;
        let known = self.one();
        let Ok(mut stream) = self.connect(known, known.picture.len()) else { return };
        for piece in known.picture.chunks(known.picture.len() / 20 + 1) {
            if stream.write_all(piece).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        // It shut one direction down, as some clients do who wait for the answer still: either is right.
        if answer.starts_with("HTTP/1.1 200") && !answer.contains(&json!(known.text).to_string()) {
            self.report.wrong.push(answer);
        }
    }

    fn sends_too_much(&mut self) {
        self.report.odd += 1;
        let known = self.one();
        let body = vec![0; self.body_bytes_max + 1];
        let answer = self.agent.post(self.url(known)).send(&body[..]);
        self.expect(answer, 413);
    }

    fn sends_what_is_broken(&mut self) {
        self.report.odd += 1;
        let known = self.one();
        let half = &known.picture[..known.picture.len() / 2];
        let answer = match self.numbers.below(3) {
            0 => self.agent.post(self.url(known)).send(half),
            1 => self
                .agent
                .post(self.url(known))
                .header("content-type", "application/json")
                .send("{\"prompts\""),
            _ => {
                let form = "multipart/form-data; boundary=X";
                self.agent.post(self.url(known)).header("content-type", form).send(half)
            }
        };
        self.expect(answer, 400);
    }

    fn expect(&mut self, answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>, status: u16) {
        match answer.map(|answer| answer.status().as_u16()) {
            Ok(429) => self.report.refused += 1,
            Ok(got) if got == status => {}
            Ok(got) => self.report.wrong.push(format!("{got} instead of {status}")),
            // The server closes when it has heard enough.
            Err(_) if status == 413 => {}
            Err(error) => self.report.wrong.push(format!("{error} instead of {status}")),
        }
    }
}

fn is_right(body: &str, as_stream: bool, known: &Known) -> Result<(), String> {
    let wrong = |what: &str| format!("{what} for {:?}, {:?} is right: {body}", known.prompt, known.text);
    let answer: Value = match as_stream {
        false => serde_json::from_str(body).map_err(|_| wrong("no JSON"))?,
        true => {
            let last = body.split("\n\n").find(|event| event.starts_with("event: answer"));
            let data = last.and_then(|event| event.split_once("data: ")).ok_or_else(|| wrong("no answer"))?.1;
            serde_json::from_str(data).map_err(|_| wrong("no JSON"))?
        }
    };
    let answer = if as_stream { &answer["answer"] } else { &answer["answers"][0] };
    match answer["text"] == known.text && answer["tokens"] == json!(known.tokens) {
        true => Ok(()),
        false => Err(wrong("another answer")),
    }
}

/// What the process has: bytes in memory, threads and open files. Zeros where the system does not say.
pub fn process() -> (u64, usize, usize) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
        rest.split_whitespace().next()?.parse::<u64>().ok()
    };
    let files = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    (field("VmRSS:").unwrap_or(0) * 1024, field("Threads:").unwrap_or(0) as usize, files)
}
