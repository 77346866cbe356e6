//! What a configuration says about a broker, and what becomes of it.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::super::SinkError;
use super::super::interest::Picture;
use super::super::secret::{Place, Secret};
use super::tls;
use super::topics::level;
use crate::period::Period;

/// The table `[mqtt]` of a configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MqttOptions {
    /// The broker: `mqtt://host:1883`, or `mqtts://host:8883` with TLS.
    pub broker: String,
    /// The user.
    pub user: Option<String>,
    /// A file that holds the user's password.
    pub password_file: Option<PathBuf>,
    /// An environment variable that holds the user's password.
    pub password_env: Option<String>,
    /// Certificates (PEM) to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// The client's own certificate (PEM), for brokers that ask for one.
    pub certificate_file: Option<PathBuf>,
    /// Its key (PEM).
    pub key_file: Option<PathBuf>,
    /// The client's identity; `palmtop-NODE` if absent. No two clients of a broker may have the same.
    pub client_id: Option<String>,
    /// The protocol: 5, or 3 for 3.1.1.
    pub version: Version,
    /// The name of this machine in topics; its host name if absent.
    pub node: Option<String>,
    /// What all topics begin with.
    pub prefix: String,
    /// What the topics of Home Assistant's discovery begin with; `false` turns discovery off.
    #[serde(deserialize_with = "discovery")]
    pub discovery: Option<String>,
    /// Whether states are kept by the broker for those who come later.
    pub retain: bool,
    /// Which picture is published.
    pub picture: Picture,
    /// Whether attributes and pictures are those of every answer, instead of those that change something.
    pub every_answer: bool,
    /// Events that wait for the broker at most.
    pub events: usize,
    /// How often a quiet connection is tried.
    pub keep_alive: Period,
    /// The pause before the second attempt to connect; each further one is twice as long, up to a minute.
    pub reconnect_pause: Period,
}

impl Default for MqttOptions {
    fn default() -> Self {
        Self {
            broker: String::new(),
            user: None,
            password_file: None,
            password_env: None,
            ca_file: None,
            certificate_file: None,
            key_file: None,
            client_id: None,
            version: Version::V5,
            node: None,
            prefix: "palmtop".into(),
            discovery: Some(DISCOVERY.into()),
            retain: true,
            picture: Picture::Annotated,
            every_answer: false,
            events: 1000,
            keep_alive: Period(Duration::from_secs(30)),
            reconnect_pause: Period(Duration::from_secs(1)),
        }
    }
}

/// Where Home Assistant looks, unless it is told otherwise.
const DISCOVERY: &str = "homeassistant";
/// The keep-alive time is a number of seconds in 16 bits; below five the client would do little else.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(65_535));

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u8")]
pub enum Version {
    /// MQTT 3.1.1
    V3,
    /// MQTT 5
    V5,
}

impl TryFrom<u8> for Version {
    type Error = &'static str;

    fn try_from(number: u8) -> Result<Self, Self::Error> {
        match number {
            3 => Ok(Self::V3),
            5 => Ok(Self::V5),
            _ => Err("the version of MQTT is 5, or 3 for 3.1.1"),
        }
    }
}

/// A text, or `false`.
fn discovery<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Choice {
        Whether(bool),
        Prefix(String),
    }
    Ok(match Choice::deserialize(from)? {
        Choice::Whether(false) => None,
        Choice::Whether(true) => Some(DISCOVERY.into()),
        Choice::Prefix(prefix) => Some(prefix),
    })
}

/// How to reach a broker: everything has been read and checked.
pub struct Broker {
    pub version: Version,
    pub host: String,
    pub port: u16,
    pub tls: Option<tls::Config>,
    pub client_id: String,
    pub login: Option<(String, Secret)>,
    pub keep_alive: Duration,
    pub reconnect_pause: Duration,
}

impl Broker {
    /// As notes call it.
    pub fn name(&self) -> String {
        let scheme = if self.tls.is_some() { "mqtts" } else { "mqtt" };
        format!("{scheme}://{}:{}", self.host, self.port)
    }
}

impl MqttOptions {
    /// Those of a broker, otherwise as the defaults are.
    pub fn new(broker: impl Into<String>) -> Self {
        Self { broker: broker.into(), ..Self::default() }
    }

    /// The name of this machine.
    pub(super) fn node(&self) -> String {
        self.node.clone().unwrap_or_else(host_name)
    }

    /// Reads files and variables, and checks the rest.
    pub(super) fn broker(&self) -> Result<Broker, SinkError> {
        let (is_secure, host, port) = address(&self.broker)?;
        let files = (&self.ca_file, &self.certificate_file, &self.key_file);
        let tls = match (is_secure, files) {
            (true, _) => Some(tls::config(self)?),
            (false, (None, None, None)) => None,
            (false, _) => {
                return Err(SinkError("certificates are for mqtts://, and the broker is mqtt://".into()));
            }
        };
        let password =
            Place { name: "password", file: &self.password_file, variable: &self.password_env }.read()?;
        let login = match (&self.user, password) {
            (Some(user), password) => Some((user.clone(), password.unwrap_or_default())),
            (None, None) => None,
            (None, Some(_)) => return Err(SinkError("the broker has a password, but no `user`".into())),
        };
        let keep_alive = self.keep_alive.0;
        if keep_alive < KEEP_ALIVE.0 || keep_alive > KEEP_ALIVE.1 {
            return Err(SinkError("keep_alive of mqtt must be within 5s and 18h".into()));
        }
        if self.events == 0 {
            return Err(SinkError("events of mqtt must be 1 at least".into()));
        }
        let client_id = self.client_id.clone().unwrap_or_else(|| format!("palmtop-{}", level(&self.node())));
        if client_id.is_empty()
            || client_id.contains(char::is_control)
            || client_id.len() > usize::from(u16::MAX)
        {
            return Err(SinkError("client_id of mqtt must be a short line of text".into()));
        }
        let reconnect_pause = self.reconnect_pause.0.max(Duration::from_millis(1));
        Ok(Broker { version: self.version, host, port, tls, client_id, login, keep_alive, reconnect_pause })
    }
}

/// Whether it is secure, the host and the port.
fn address(broker: &str) -> Result<(bool, String, u16), SinkError> {
    if broker.is_empty() {
        return Err(SinkError("mqtt needs `broker`, such as \"mqtt://192.168.1.2:1883\"".into()));
    }
    let wrong = |why: &str| SinkError(format!("the address of the broker {why}"));
    let (is_secure, rest) = match broker.split_once("://") {
        Some(("mqtt", rest)) => (false, rest),
        Some(("mqtts", rest)) => (true, rest),
        _ => return Err(wrong("must begin with mqtt:// or mqtts://")),
    };
    if rest.contains('@') {
        return Err(wrong("has a user in it; give `user`, and `password_file` or `password_env`"));
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains(|c: char| c == '/' || c == '?' || c == '#' || c.is_whitespace() || c.is_control()) {
        return Err(wrong("is more than a host and a port"));
    }
    let standard_port = if is_secure { 8883 } else { 1883 };
    // The port is behind the last colon, unless that is within an IPv6 address.
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            (host, port.parse().ok().filter(|&port| port != 0).ok_or_else(|| wrong("has no such port"))?)
        }
        _ => (rest, standard_port),
    };
    let is_bracketed = host.starts_with('[') && host.ends_with(']') && host.len() > 2;
    if host.is_empty() || (host.contains([':', '[', ']']) && !is_bracketed) {
        return Err(wrong("names no host; an IPv6 address stands in brackets"));
    }
    if is_secure && is_bracketed {
        return Err(wrong("with TLS must be a name or an IPv4 address"));
    }
    Ok((is_secure, host.to_owned(), port))
}

#[cfg(unix)]
fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "palmtop".into() } else { name }
}

#[cfg(not(unix))]
fn host_name() -> String {
    std::env::var("COMPUTERNAME").ok().filter(|name| !name.is_empty()).unwrap_or_else(|| "palmtop".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_have_a_scheme_a_host_and_a_port() {
        for (broker, want) in [
            ("mqtt://host", (false, "host", 1883)),
            ("mqtt://192.168.1.2:2883/", (false, "192.168.1.2", 2883)),
            ("mqtts://host", (true, "host", 8883)),
            ("mqtt://[::1]:1884", (false, "[::1]", 1884)),
            ("mqtt://[fe80::1]", (false, "[fe80::1]", 1883)),
        ] {
            let (is_secure, host, port) = address(broker).unwrap();
            assert_eq!((is_secure, host.as_str(), port), want, "{broker}");
        }
        for broker in [
            "",
            "host",
            "tcp://host",
            "mqtt://",
            "mqtt://:1883",
            "mqtt://me:hidden@host",
            "mqtt://host:0",
            "mqtt://host:x",
            "mqtt://host:70000",
            "mqtt://host/topic",
            "mqtt://host?x=1",
            "mqtt://::1",
            "mqtt://[]:1",
            "mqtt://a b",
            "mqtts://[::1]",
        ] {
            let error = address(broker).unwrap_err().to_string();
            assert!(error.contains("broker") && !error.contains("hidden"), "{broker}: {error}");
        }
    }

    #[test]
    fn options_are_a_table() {
        let of = |table: &str| toml::from_str::<MqttOptions>(table);
        let options =
            of("broker = \"mqtt://host\"\nversion = 3\ndiscovery = false\nkeep_alive = \"1m\"").unwrap();
        assert_eq!((options.version, options.discovery), (Version::V3, None));
        assert_eq!(options.keep_alive, Period(Duration::from_secs(60)));
        assert_eq!(of("discovery = true").unwrap().discovery.as_deref(), Some("homeassistant"));
        assert_eq!(of("discovery = \"ha\"").unwrap().discovery.as_deref(), Some("ha"));
        for wrong in ["version = 4", "password = \"x\"", "discovery = 1", "retain = 1"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let refused = |change: fn(&mut MqttOptions)| {
            let mut options = MqttOptions::new("mqtt://host");
            change(&mut options);
            options.broker().err().expect("it is refused").to_string()
        };
        assert!(refused(|o| o.ca_file = Some("/x".into())).contains("certificates are for mqtts://"));
        assert!(refused(|o| o.keep_alive = Period(Duration::from_secs(4))).contains("keep_alive"));
        assert!(refused(|o| o.client_id = Some(String::new())).contains("client_id"));
        assert!(refused(|o| o.events = 0).contains("events"));
        assert!(refused(|o| o.password_env = Some("PATH".into())).contains("no `user`"));
        let mut options = MqttOptions::new("mqtt://host");
        options.node = Some("living room/1".into());
        let broker = options.broker().unwrap();
        assert_eq!(
            (broker.name().as_str(), broker.client_id.as_str()),
            ("mqtt://host:1883", "palmtop-living_room_1")
        );
    }
}
