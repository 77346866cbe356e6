//! Hosts and networks that pictures may come from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// From where pictures may be fetched.
#[derive(Clone, Debug, Default)]
pub struct Allowed {
    hosts: Vec<Host>,
    networks: Vec<IpNet>,
}

#[derive(Clone, Debug)]
enum Host {
    /// This one.
    Named(String),
    /// All below this one.
    Below(String),
}

/// The text names no host and no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no host and no network: give names such as images.example.com or *.example.com, addresses, or networks such as 192.168.1.0/24"
)]
pub struct AllowError(String);

/// What an address is to hosts elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// One of the internet.
    Public,
    /// One of a house or company.
    Private,
    /// This machine.
    Loopback,
    /// Metadata of clouds, all hosts at once, or nothing that a picture comes from.
    Special,
}

impl Allowed {
    /// Adds a host or a network: `images.example.com`, `*.example.com`, `192.168.1.20`, `fd00::/8`.
    ///
    /// # Errors
    /// If the text is none.
    pub fn add(&mut self, text: &str) -> Result<(), AllowError> {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if let Ok(address) = bare.parse::<IpAddr>() {
            self.networks.push(address.to_canonical().into());
            return Ok(());
        }
        if let Ok(network) = text.parse::<IpNet>() {
            self.networks.push(network);
            return Ok(());
        }
        let name = text.to_ascii_lowercase();
        let (host, name) = match name.strip_prefix("*.") {
            Some(rest) => (Host::Below(rest.to_owned()), rest),
            None => (Host::Named(name.clone()), name.as_str()),
        };
        let is_label = |label: &str| {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            !label.is_empty() && label.bytes().all(fits)
        };
        // A name that ends in a number would be read as an address.
        let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
        let is_host = name.split('.').all(is_label) && !name.rsplit('.').next().is_none_or(is_number);
        if !is_host {
            return Err(AllowError(text.to_owned()));
        }
        self.hosts.push(host);
        Ok(())
    }

    /// Whether it may be looked up where a host's name leads to.
    pub(super) fn may_look_up(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        !self.networks.is_empty() || self.is_named(&host) || self.is_below(&host)
    }

    fn is_named(&self, host: &str) -> bool {
        self.hosts.iter().any(|known| matches!(known, Host::Named(name) if name == host))
    }

    fn is_below(&self, host: &str) -> bool {
        self.hosts.iter().any(|known| match known {
            Host::Below(name) => {
                host.strip_suffix(name.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
            Host::Named(_) => false,
        })
    }

    /// Whether a host may be asked at this address, which its name led to.
    pub(super) fn allows(&self, host: &str, address: IpAddr) -> bool {
        // Addresses of IPv4 in the form of IPv6 lead to the same machines.
        let address = address.to_canonical();
        if self.networks.iter().any(|network| network.contains(&address)) {
            return true;
        }
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        match reach(address) {
            Reach::Public => self.is_named(&host) || self.is_below(&host),
            Reach::Private => self.is_named(&host),
            Reach::Loopback => host == "localhost" && self.is_named(&host),
            Reach::Special => false,
        }
    }
}

fn reach(address: IpAddr) -> Reach {
    match address {
        IpAddr::V4(address) => reach_v4(address),
        IpAddr::V6(address) => reach_v6(address),
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length)
}

/// What RFC 6890 and its followers keep from the internet, but for private networks and loopback.
const SPECIAL_V4: [Ipv4Net; 10] = [
    v4(0, 0, 0, 0, 8),
    v4(169, 254, 0, 0, 16),
    v4(192, 0, 0, 0, 24),
    v4(192, 0, 2, 0, 24),
    v4(192, 88, 99, 0, 24),
    v4(198, 18, 0, 0, 15),
    v4(198, 51, 100, 0, 24),
    v4(203, 0, 113, 0, 24),
    v4(224, 0, 0, 0, 4),
    v4(240, 0, 0, 0, 4),
];
/// Networks of a house or company, and those between a provider and its customers.
const PRIVATE_V4: [Ipv4Net; 4] =
    [v4(10, 0, 0, 0, 8), v4(172, 16, 0, 0, 12), v4(192, 168, 0, 0, 16), v4(100, 64, 0, 0, 10)];

fn reach_v4(address: Ipv4Addr) -> Reach {
    if address.is_loopback() {
        Reach::Loopback
    } else if PRIVATE_V4.iter().any(|network| network.contains(&address)) {
        Reach::Private
    } else if SPECIAL_V4.iter().any(|network| network.contains(&address)) {
        Reach::Special
    } else {
        Reach::Public
    }
}

const fn v6(a: u16, b: u16, length: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0), length)
}

/// All that is given to the internet.
const GLOBAL_V6: Ipv6Net = v6(0x2000, 0, 3);
const PRIVATE_V6: Ipv6Net = v6(0xfc00, 0, 7);
/// Parts of it for protocols and examples, and those that hold an address of IPv4 (Teredo, 6to4).
const SPECIAL_V6: [Ipv6Net; 4] =
    [v6(0x2001, 0, 23), v6(0x2001, 0x0db8, 32), v6(0x2002, 0, 16), v6(0x3fff, 0, 20)];

fn reach_v6(address: Ipv6Addr) -> Reach {
    if address.is_loopback() {
        Reach::Loopback
    } else if PRIVATE_V6.contains(&address) {
        Reach::Private
    } else if GLOBAL_V6.contains(&address) && !SPECIAL_V6.iter().any(|network| network.contains(&address)) {
        Reach::Public
    } else {
        Reach::Special
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(texts: &[&str]) -> Allowed {
        let mut allowed = Allowed::default();
        texts.iter().for_each(|text| allowed.add(text).unwrap());
        allowed
    }

    fn allows(allowed: &Allowed, host: &str, address: &str) -> bool {
        allowed.allows(host, address.parse().unwrap())
    }

    #[test]
    fn only_named_hosts_at_public_addresses() {
        let some = allowed(&["images.example.com", "*.cdn.example"]);
        for host in ["images.example.com", "IMAGES.example.com.", "a.cdn.example", "a.b.cdn.example"] {
            assert!(allows(&some, host, "93.184.216.34"), "{host}");
            assert!(allows(&some, host, "2606:2800:220:1::1"), "{host}");
        }
        for host in
            ["example.com", "cdn.example", ".cdn.example", "evilcdn.example", "images.example.com.evil", ""]
        {
            assert!(!allows(&some, host, "93.184.216.34"), "{host}");
        }
        for address in [
            "127.0.0.1",
            "::1",
            "0.0.0.0",
            "::",
            "169.254.169.254",
            "fe80::1",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
            "198.18.0.1",
            "192.0.0.8",
            "::ffff:127.0.0.1",
            "::ffff:169.254.1.1",
            "64:ff9b::a00:1",
            "2002:7f00:1::",
            "2001::1",
            "fec0::1",
            "::127.0.0.1",
        ] {
            assert!(!allows(&some, "images.example.com", address), "{address}");
            assert!(!allows(&some, "a.cdn.example", address), "{address}");
        }
        for address in ["10.0.0.1", "192.168.1.1", "172.31.0.1", "100.64.0.1", "fd00::1", "::ffff:10.0.0.1"] {
            assert!(!allows(&some, "a.cdn.example", address), "a pattern does not name it: {address}");
            assert!(allows(&some, "images.example.com", address), "its name was named: {address}");
        }
    }

    #[test]
    fn networks_are_allowed_by_name() {
        let some = allowed(&["192.168.1.0/24", "127.0.0.1", "[fd00::5]", "localhost"]);
        for (host, address) in [
            ("192.168.1.20", "192.168.1.20"),
            ("camera.lan", "::ffff:192.168.1.20"),
            ("any", "127.0.0.1"),
            ("[fd00::5]", "fd00::5"),
            ("localhost", "::1"),
        ] {
            assert!(allows(&some, host, address), "{host}");
        }
        for (host, address) in
            [("192.168.2.1", "192.168.2.1"), ("any", "127.0.0.2"), ("example.com", "1.1.1.1")]
        {
            assert!(!allows(&some, host, address), "{host}");
        }
    }

    #[test]
    fn other_texts_name_nothing() {
        for text in [
            "",
            "*",
            "*.",
            "a/b",
            "http://a",
            "a b",
            "a..b",
            "192.168.1",
            "1.2.3.4/33",
            "a:80",
            "ä.example",
            "*.*.a",
        ] {
            assert!(Allowed::default().add(text).is_err(), "{text}");
        }
    }
}
