//! A mosquitto of the test's own, and somebody who listens to it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use rumqttc::{Event, MqttOptions, Packet, QoS};
use serde_json::Value;

use crate::given::until;
use crate::skip;

/// The program; none, and a line that says so, if it is not here.
pub fn mosquitto() -> Option<PathBuf> {
    let found = ["mosquitto", "/usr/sbin/mosquitto"].into_iter().find(|program| {
        // It knows no option that does nothing; this one prints its usage.
        Command::new(program).arg("-h").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    });
    if found.is_none() {
        skip::missing("MQTT", "there is no mosquitto");
    }
    found.map(PathBuf::from)
}

/// True if the program can be run; else a line says what is not tested.
pub fn has(program: &str, argument: &str, what: &str) -> bool {
    let has =
        Command::new(program).arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !has {
        skip::missing(what, format_args!("there is no {program}"));
    }
    has
}

/// A broker. It ends with this.
pub struct Broker {
    program: PathBuf,
    dir: tempfile::TempDir,
    pub port: u16,
    running: Option<Child>,
}

impl Broker {
    /// For everybody.
    pub fn open(extra: &str) -> Option<Self> {
        Self::start(|_| format!("allow_anonymous true\n{extra}"))
    }

    /// With this in its configuration, made of its folder.
    pub fn start(configure: impl Fn(&Path) -> String) -> Option<Self> {
        let program = mosquitto()?;
        let mut dir = tempfile::tempdir().unwrap();
        let rest = configure(dir.path());
        // Between the look for a free port and its use another test may take it.
        for _ in 0..20 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let user = Command::new("id").arg("-un").output().unwrap().stdout;
            let mut config = format!("listener {port} 127.0.0.1\npersistence false\n{rest}\n");
            // Started by root it would become somebody else, who cannot read our files.
            write!(config, "user {}", String::from_utf8(user).unwrap()).unwrap();
            fs::write(dir.path().join("mosquitto.conf"), config).unwrap();
            let mut broker = Self { program: program.clone(), dir, port, running: None };
            if broker.run() {
                return Some(broker);
            }
            dir = std::mem::replace(&mut broker.dir, tempfile::tempdir().unwrap());
        }
        panic!(
            "mosquitto does not start: {}",
            fs::read_to_string(dir.path().join("log")).unwrap_or_default()
        );
    }

    /// Starts it, and waits until it listens. False if it ends at once.
    fn run(&mut self) -> bool {
        let log = fs::File::options().create(true).append(true).open(self.dir.path().join("log")).unwrap();
        let mut command = Command::new(&self.program);
        command.arg("-c").arg(self.dir.path().join("mosquitto.conf"));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let running = self.running.insert(command.spawn().unwrap());
        let mut has_ended = false;
        until("mosquitto listens", || {
            has_ended = running.try_wait().unwrap().is_some();
            has_ended || TcpStream::connect(("127.0.0.1", self.port)).is_ok()
        });
        !has_ended
    }

    /// Ends it at once, as a power cut does.
    pub fn stop(&mut self) {
        if let Some(mut running) = self.running.take() {
            let _ = running.kill();
            let _ = running.wait();
        }
    }

    /// Starts it again, at the same port. It remembers nothing.
    pub fn start_again(&mut self) {
        until("the port is free", || self.run());
    }

    pub fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A topic and what was said there.
type Heard = (String, Vec<u8>);

/// What a broker says to everybody, as it comes.
#[derive(Clone)]
pub struct Listener {
    heard: Arc<Mutex<Vec<Heard>>>,
    client: rumqttc::Client,
}

impl Listener {
    pub fn new(broker: &Broker) -> Self {
        Self::with(MqttOptions::new("listener", "127.0.0.1", broker.port))
    }

    /// Hears all topics from when this returns on.
    pub fn with(mut options: MqttOptions) -> Self {
        options.set_max_packet_size(10 << 20, 10 << 20);
        let (client, mut connection) = rumqttc::Client::new(options, 100);
        client.subscribe("#", QoS::AtLeastOnce).unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let is_subscribed = Arc::new(Mutex::new(false));
        let (to, subscribed) = (Arc::clone(&heard), Arc::clone(&is_subscribed));
        std::thread::spawn(move || {
            for event in connection.iter() {
                match event {
                    Ok(Event::Incoming(Packet::Publish(message))) => {
                        to.lock().unwrap().push((message.topic, message.payload.to_vec()));
                    }
                    Ok(Event::Incoming(Packet::SubAck(_))) => *subscribed.lock().unwrap() = true,
                    Ok(_) => {}
                    Err(_) => return,
                }
            }
        });
        until("the listener is there", || *is_subscribed.lock().unwrap());
        Self { heard, client }
    }

    /// All messages on topics that end like this, the oldest first.
    pub fn all(&self, end: &str) -> Vec<Vec<u8>> {
        let heard = self.heard.lock().unwrap();
        heard.iter().filter(|(topic, _)| topic.ends_with(end)).map(|(_, payload)| payload.clone()).collect()
    }

    /// The last message on each topic; without those that were cleared.
    pub fn last(&self) -> BTreeMap<String, Vec<u8>> {
        let mut last: BTreeMap<_, _> = self.heard.lock().unwrap().iter().cloned().collect();
        last.retain(|_, payload| !payload.is_empty());
        last
    }

    /// The last message on this topic as a text; empty if there is none.
    pub fn text(&self, topic: &str) -> String {
        let text = self.last().remove(topic).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Waits until the last message on this topic is this.
    #[track_caller]
    pub fn expect(&self, topic: &str, text: &str) {
        until(&format!("{topic} is {text}"), || self.text(topic) == text);
    }

    /// The last message on this topic as JSON; null if there is none.
    pub fn json(&self, topic: &str) -> Value {
        serde_json::from_str(&self.text(topic)).unwrap_or(Value::Null)
    }

    pub fn publish(&self, topic: &str, payload: &[u8], is_retained: bool) {
        self.client.publish(topic, QoS::AtLeastOnce, is_retained, payload).unwrap();
    }

    /// The topic of the only device that Home Assistant is told of, as soon as it is.
    pub fn discovery(&self) -> String {
        let is_discovery = |topic: &&String| topic.starts_with("homeassistant/device/");
        let topics = || -> Vec<String> { self.last().keys().filter(is_discovery).cloned().collect() };
        until("a device is told of", || !topics().is_empty());
        assert_eq!(topics().len(), 1, "{:?}", topics());
        topics().remove(0)
    }
}
