//! Names looked up for the HTTP client: only addresses that are allowed come out.

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use super::allow::Allowed;

/// Looks names up, and checks what they lead to.
#[derive(Debug)]
pub(super) struct Checked {
    allowed: Allowed,
    inner: DefaultResolver,
}

/// The host, or all that its name leads to, is not allowed.
#[derive(Debug, thiserror::Error)]
#[error("this server fetches nothing from {host}: start it with --allow-fetch {host} if it should{more}")]
pub(super) struct NotAllowed {
    host: String,
    more: &'static str,
}

impl Checked {
    pub fn new(allowed: Allowed) -> Self {
        Self { allowed, inner: DefaultResolver::default() }
    }
}

impl Resolver for Checked {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().unwrap_or("").to_owned();
        let refuse = |more| Err(ureq::Error::Other(Box::new(NotAllowed { host: host.clone(), more })));
        // Names that nobody allows are not even looked up: that would tell their servers that somebody asks.
        if !self.allowed.may_look_up(&host) {
            return refuse("");
        }
        let found = self.inner.resolve(uri, config, timeout)?;
        let mut kept = self.empty();
        for address in found.iter().filter(|address| self.allowed.allows(&host, address.ip())) {
            kept.push(*address);
        }
        if kept.is_empty() {
            return refuse(
                " (its name leads to no address that may be asked; private ones are named one by one)",
            );
        }
        Ok(kept)
    }
}
