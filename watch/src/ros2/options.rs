//! Settings of a node, and what the environment says where they do not.

use std::net::{IpAddr, Ipv4Addr};

use serde::Deserialize;

use super::names;

/// How palmtop takes part in ROS 2.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ros2Options {
    /// The domain, 0 to 232; without one that of `ROS_DOMAIN_ID`, or else 0.
    pub domain: Option<u16>,
    /// What all topics begin with, and where the node is.
    pub namespace: String,
    /// The node's name.
    pub node: String,
    /// Addresses of the network interfaces to use; without any all of them, or with `ROS_LOCALHOST_ONLY=1` or
    /// `ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST` only loopback.
    pub interfaces: Vec<IpAddr>,
    /// The distribution of the other nodes, such as `humble`; without one `ROS_DISTRO`. Only the announcement of the
    /// node's name depends on it.
    pub distribution: Option<String>,
    /// Whether annotated pictures are published. They are only made while somebody subscribes.
    pub annotated: bool,
}

impl Default for Ros2Options {
    /// The domain and the interfaces that the environment names, and the node `/palmtop/watch`.
    fn default() -> Self {
        Self {
            domain: None,
            namespace: "/palmtop".into(),
            node: "watch".into(),
            interfaces: Vec::new(),
            distribution: None,
            annotated: true,
        }
    }
}

/// Why there is no node.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Ros2Error {
    /// A domain that has no ports.
    #[error("{given} is no domain of ROS 2; use a number from 0 to {DOMAIN_MAX}")]
    Domain {
        /// The setting, or the variable.
        given: String,
    },
    /// A name with other characters than ROS allows.
    #[error(
        "'{given}' is no {what} of ROS 2: use letters, digits and underscores, none of them a digit at the beginning"
    )]
    Name {
        /// What it is meant to be.
        what: &'static str,
        /// The name.
        given: String,
    },
    /// The feature `ros2` is off.
    #[error(
        "this palmtop was built without ROS 2; build it with `cargo build --release -p palmtop-cli --features ros2`"
    )]
    NotBuilt,
    /// Sockets or threads are missing.
    #[error("ROS 2 cannot be joined: {why}")]
    Dds {
        /// What the DDS library says.
        why: String,
    },
}

/// The highest domain whose ports exist: they begin at 7400 + 250 · domain.
const DOMAIN_MAX: u16 = 232;

/// Settings with the environment's part filled in.
#[cfg_attr(
    not(feature = "ros2"),
    allow(dead_code, reason = "only a node asks for more than whether it is sound")
)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settled {
    pub domain: u16,
    /// Without a slash at the end: empty for the root.
    pub namespace: String,
    pub node: String,
    /// Empty for all.
    pub interfaces: Vec<IpAddr>,
    /// Whether nodes are announced as up to Humble, with 24 bytes for each identifier.
    pub has_long_ids: bool,
}

impl Ros2Options {
    /// Settings, or else variables of this environment.
    #[cfg_attr(not(feature = "sinks"), allow(dead_code, reason = "nobody opens a node there"))]
    pub(crate) fn settle(&self, variable: impl Fn(&str) -> Option<String>) -> Result<Settled, Ros2Error> {
        let variable = |name| variable(name).filter(|value| !value.is_empty());
        let domain = match (self.domain, variable("ROS_DOMAIN_ID")) {
            (Some(domain), _) => Some(domain).filter(|d| *d <= DOMAIN_MAX).ok_or_else(|| domain.to_string()),
            (None, Some(text)) => {
                let domain = text.trim().parse().ok().filter(|d| *d <= DOMAIN_MAX);
                domain.ok_or_else(|| format!("ROS_DOMAIN_ID={text}"))
            }
            (None, None) => Ok(0),
        };
        let domain = domain.map_err(|given| Ros2Error::Domain { given })?;

        let namespace = self.namespace.trim_end_matches('/');
        if !namespace.is_empty() && !names::is_topic(namespace) {
            return Err(Ros2Error::Name { what: "namespace", given: self.namespace.clone() });
        }
        if !names::is_token(&self.node) {
            return Err(Ros2Error::Name { what: "node", given: self.node.clone() });
        }

        let is_local = variable("ROS_LOCALHOST_ONLY").as_deref() == Some("1")
            || variable("ROS_AUTOMATIC_DISCOVERY_RANGE").as_deref() == Some("LOCALHOST");
        let mut interfaces = self.interfaces.clone();
        if interfaces.is_empty() && is_local {
            interfaces.push(Ipv4Addr::LOCALHOST.into());
        }

        let distribution = self.distribution.clone().or_else(|| variable("ROS_DISTRO"));
        let has_long_ids = matches!(distribution.as_deref(), Some("foxy" | "galactic" | "humble"));
        Ok(Settled { domain, namespace: namespace.into(), node: self.node.clone(), interfaces, has_long_ids })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none(_: &str) -> Option<String> {
        None
    }

    /// An environment of one variable.
    fn only<'a>(name: &'a str, value: &'a str) -> impl Fn(&str) -> Option<String> + 'a {
        move |asked| (asked == name).then(|| value.to_owned())
    }

    #[test]
    fn settings_win_over_the_environment_and_that_over_defaults() {
        let plain = Ros2Options::default();
        let settled = plain.settle(none).unwrap();
        assert_eq!((settled.domain, settled.namespace.as_str()), (0, "/palmtop"));
        assert!(settled.interfaces.is_empty() && !settled.has_long_ids);
        assert_eq!(plain.settle(only("ROS_DOMAIN_ID", "7")).unwrap().domain, 7);
        assert_eq!(plain.settle(only("ROS_DOMAIN_ID", "")).unwrap().domain, 0);
        let given = Ros2Options { domain: Some(9), ..plain.clone() };
        assert_eq!(given.settle(only("ROS_DOMAIN_ID", "7")).unwrap().domain, 9);

        let loopback: IpAddr = Ipv4Addr::LOCALHOST.into();
        for (name, value, is_local) in [
            ("ROS_LOCALHOST_ONLY", "1", true),
            ("ROS_LOCALHOST_ONLY", "0", false),
            ("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST", true),
            ("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET", false),
        ] {
            let interfaces = plain.settle(only(name, value)).unwrap().interfaces;
            assert_eq!(interfaces, if is_local { vec![loopback] } else { vec![] }, "{name}={value}");
        }
        assert!(plain.settle(only("ROS_DISTRO", "humble")).unwrap().has_long_ids);
        assert!(!plain.settle(only("ROS_DISTRO", "jazzy")).unwrap().has_long_ids);
        let given = Ros2Options { distribution: Some("iron".into()), ..plain };
        assert!(!given.settle(only("ROS_DISTRO", "humble")).unwrap().has_long_ids);
    }

    #[test]
    fn the_root_is_a_namespace() {
        for (given, settled) in [("", ""), ("/", ""), ("/a/b/", "/a/b")] {
            let options = Ros2Options { namespace: given.into(), ..Ros2Options::default() };
            assert_eq!(options.settle(none).unwrap().namespace, settled);
        }
    }

    #[test]
    fn what_ros_does_not_allow_is_refused() {
        let with = |change: fn(&mut Ros2Options)| {
            let mut options = Ros2Options::default();
            change(&mut options);
            options.settle(none).unwrap_err().to_string()
        };
        assert!(with(|o| o.domain = Some(233)).contains("233 is no domain of ROS 2"));
        assert!(with(|o| o.namespace = "palmtop".into()).contains("'palmtop' is no namespace"));
        assert!(with(|o| o.namespace = "/a b".into()).contains("'/a b' is no namespace"));
        assert!(with(|o| o.node = "7up".into()).contains("'7up' is no node"));
        for value in ["233", "-1", "seven"] {
            let error = Ros2Options::default().settle(only("ROS_DOMAIN_ID", value)).unwrap_err().to_string();
            assert!(error.contains(&format!("ROS_DOMAIN_ID={value} is no domain")), "{error}");
        }
        let unknown = toml::from_str::<Ros2Options>("domian = 1").unwrap_err().to_string();
        assert!(unknown.contains("domian"), "{unknown}");
    }
}
