//! Passwords in addresses, and texts without them.

/// Keys of an address's query whose values are not shown, by a part of their names.
const SECRET_KEYS: [&str; 6] = ["pass", "pwd", "token", "secret", "auth", "key"];
const HIDDEN: &str = "***";
/// Shorter passwords are hidden only where the address itself is said: they may be a part of any word.
#[cfg(feature = "sources")]
const WORD_BYTES_MIN: usize = 4;

/// An address taken apart: the host with what is around it, and who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Login {
    /// As written in the address, without percent signs' codes.
    pub user: String,
    pub password: String,
}

/// An address without its user and password, and these.
pub(super) fn split_login(url: &str) -> (String, Option<Login>) {
    let Some((scheme, rest)) = url.split_once("://") else { return (url.to_owned(), None) };
    let host_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (host, path) = rest.split_at(host_end);
    let Some((login, host)) = host.rsplit_once('@') else { return (url.to_owned(), None) };
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let text = |coded: &str| percent_encoding::percent_decode_str(coded).decode_utf8_lossy().into_owned();
    (format!("{scheme}://{host}{path}"), Some(Login { user: text(user), password: text(password) }))
}

/// An address as it is shown, logged and sent: without user and password, and without the values of the query's keys
/// that look like secrets.
pub(super) fn shown(url: &str) -> String {
    let (url, _) = split_login(url);
    let Some((path, query)) = url.split_once('?') else { return url };
    let parts: Vec<String> = query
        .split('&')
        .map(|part| match part.split_once('=') {
            Some((key, _)) if is_secret(key) => format!("{key}={HIDDEN}"),
            _ => part.to_owned(),
        })
        .collect();
    format!("{path}?{}", parts.join("&"))
}

fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    SECRET_KEYS.iter().any(|part| key.contains(part))
}

/// What must not be told of an address.
#[cfg(feature = "sources")]
#[derive(Clone, Debug, Default)]
pub(super) struct Secrets {
    /// Longest first: one may be a part of another.
    texts: Vec<(String, String)>,
}

#[cfg(feature = "sources")]
impl Secrets {
    /// Those of an address.
    pub fn of(url: &str) -> Self {
        let mut texts = vec![(url.to_owned(), shown(url))];
        let (without, login) = split_login(url);
        if let Some(login) = login {
            texts.push((without, shown(url)));
            // As it is written in the address, whole and without the user.
            let rest = url.split_once("://").map_or("", |(_, rest)| rest);
            let host = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
            let coded = host.rsplit_once('@').map_or("", |(login, _)| login);
            let coded_password = coded.split_once(':').map_or("", |(_, password)| password);
            let pair = format!("{}:{}", login.user, login.password);
            let all = [coded, coded_password, &pair, &login.password];
            texts.extend(all.map(|text| (text.to_owned(), HIDDEN.to_owned())));
        }
        let query = url.split_once('?').map_or("", |(_, query)| query);
        let values = query.split('&').filter_map(|part| part.split_once('='));
        texts
            .extend(values.filter(|(key, _)| is_secret(key)).map(|(_, value)| (value.into(), HIDDEN.into())));
        texts.retain(|(text, _)| text.len() >= WORD_BYTES_MIN);
        texts.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
        Self { texts }
    }

    /// A text without them.
    pub fn hidden_in(&self, text: &str) -> String {
        self.texts.iter().fold(text.to_owned(), |text, (secret, shown)| text.replace(secret, shown))
    }
}

#[cfg(all(test, feature = "sources"))]
mod tests {
    use super::*;

    #[test]
    fn logins_are_taken_out_of_addresses_and_decoded() {
        let login = |user: &str, password: &str| Some(Login { user: user.into(), password: password.into() });
        for (url, without, who) in [
            ("http://me:se%40cret@cam:80/x?y=a@b", "http://cam:80/x?y=a@b", login("me", "se@cret")),
            ("http://me@cam", "http://cam", login("me", "")),
            ("http://a:b@c:d@cam/", "http://cam/", login("a", "b@c:d")),
            ("http://cam/x@y", "http://cam/x@y", None),
            ("no address", "no address", None),
        ] {
            assert_eq!(split_login(url), (without.to_owned(), who), "{url}");
        }
    }

    #[test]
    fn nothing_of_a_secret_is_told() {
        for url in [
            "rtsp://admin:hunter%2B22@10.0.0.2:554/live?channel=1",
            "http://10.0.0.2/cgi?usr=admin&pwd=hunter%2B22&x=1",
            "rtsp://hunter%2B22@10.0.0.2/",
        ] {
            let secrets = Secrets::of(url);
            for said in [
                format!("{url}: 401 Unauthorized"),
                format!("Connection to tcp://10.0.0.2 failed, password hunter%2B22 in '{url}'"),
            ] {
                let told = secrets.hidden_in(&said);
                assert!(!told.contains("hunter") && told.contains("10.0.0.2"), "{told}");
            }
            assert!(!shown(url).contains("hunter"), "{}", shown(url));
        }
        assert_eq!(
            Secrets::of("rtsp://u:ab@cam/x").hidden_in("table of rtsp://u:ab@cam/x"),
            "table of rtsp://cam/x"
        );
        assert_eq!(shown("http://c/s?Token=1&b=2"), "http://c/s?Token=***&b=2");
        assert_eq!(shown("http://c/s?b"), "http://c/s?b");
    }
}
