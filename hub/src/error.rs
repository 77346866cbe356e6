//! Why something could not be had from a repository, and what helps.

use std::path::PathBuf;

use palmtop_convert::ConvertError;

/// Why a model could not be pulled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// A name that is none of those that are published.
    #[error("'{name}' is no short name of a model")]
    NoShortName {
        /// The name.
        name: String,
        /// Names that are like it.
        nearest: Vec<String>,
    },
    /// A name that is no repository's.
    #[error("'{name}' is no name of a repository: {what}")]
    Name {
        /// The name.
        name: String,
        /// What it should be.
        what: String,
    },
    /// The repository is not there, or it is private and nobody has said who asks.
    #[error("{host} has no repository {repo}{}", if *known { "" } else { ", or it is private or gated, and no token was sent" })]
    NoRepository {
        /// The repository.
        repo: String,
        /// The hub.
        host: String,
        /// A token went along.
        known: bool,
    },
    /// The repository has no such revision.
    #[error("{repo} has no revision {revision}")]
    NoRevision {
        /// The repository.
        repo: String,
        /// The revision.
        revision: String,
    },
    /// The repository has no such file.
    #[error("{repo} has no file {file}")]
    NoFile {
        /// The repository.
        repo: String,
        /// The file.
        file: String,
    },
    /// Gated, and no token was sent.
    #[error("{repo} is gated, and no token says who asks")]
    NeedsToken {
        /// The repository.
        repo: String,
        /// The page where terms are accepted.
        page: String,
    },
    /// Gated, and the user has not been let in.
    #[error("{repo} is gated, and the account of this token has no access to it")]
    NeedsAccess {
        /// The repository.
        repo: String,
        /// The page where terms are accepted.
        page: String,
    },
    /// The token is none that the hub knows.
    #[error("the token in {origin} is wrong or has expired")]
    Token {
        /// Where it is from.
        origin: String,
    },
    /// The hub refuses it for another reason.
    #[error("{host} refuses {what} ({status}){}", because(message))]
    Refused {
        /// The hub.
        host: String,
        /// What was asked for.
        what: String,
        /// The status of the answer.
        status: u16,
        /// What the hub says.
        message: String,
    },
    /// Too many requests, for longer than it makes sense to wait.
    #[error("{host} has had too many requests from here; it asks to wait {seconds} s")]
    TooMany {
        /// The hub.
        host: String,
        /// How long.
        seconds: u64,
    },
    /// A web page came where something else was to come.
    #[error("{host} answered with a web page instead of {what}")]
    Portal {
        /// Who answered.
        host: String,
        /// What was to come.
        what: String,
    },
    /// The network does not work.
    #[error("cannot reach {host}: {cause}")]
    Unreachable {
        /// The hub.
        host: String,
        /// Why.
        cause: String,
    },
    /// What came is not what was to come.
    #[error("{host}: {what}")]
    Answer {
        /// Who answered.
        host: String,
        /// What is wrong with it.
        what: String,
    },
    /// Asked not to use the network.
    #[error("{repo} is not in the hub's cache ({}), and {variable} forbids to ask for it", cache.display())]
    Offline {
        /// The repository.
        repo: String,
        /// The cache's folder.
        cache: PathBuf,
        /// The variable.
        variable: &'static str,
    },
    /// The repository has nothing to convert.
    #[error("{repo}: {what}")]
    Unusable {
        /// The repository.
        repo: String,
        /// What is wrong with it.
        what: String,
    },
    /// A variable of the environment or a file of settings cannot be used.
    #[error("{name}: {what}")]
    Setting {
        /// The variable or file.
        name: String,
        /// What is wrong with it.
        what: String,
    },
    /// The conversion has failed, or the target cannot be written.
    #[error(transparent)]
    Convert(#[from] ConvertError),
    /// The caller asked to stop; what was fetched stays.
    #[error("interrupted")]
    Cancelled,
}

fn because(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

impl HubError {
    /// What to do about it, in one line.
    pub fn hint(&self) -> Option<String> {
        const TOKEN: &str =
            "make a token with read access at https://huggingface.co/settings/tokens, and set HF_TOKEN";
        match self {
            Self::NeedsToken { page, .. } => {
                Some(format!("visit {page} and accept the terms there; then {TOKEN}"))
            }
            Self::NeedsAccess { page, .. } => Some(format!(
                "visit {page} with that account and accept the terms there; a fine-grained token must also be allowed to \
                 read gated repositories"
            )),
            Self::NoShortName { nearest, .. } => Some(match &nearest[..] {
                [] => "`palmtop models` lists the short names; others are ORG/NAME".to_owned(),
                near => format!("there is {}; models of others are ORG/NAME", near.join(", ")),
            }),
            Self::Token { .. } => Some(TOKEN.to_owned()),
            Self::NoRepository { known: false, .. } => Some(format!(
                "look at the name; `palmtop models` lists what Google has published. If it is private, {TOKEN}"
            )),
            Self::NoRepository { .. } | Self::Name { .. } => {
                Some("a repository is ORG/NAME; `palmtop models` lists what Google has published".to_owned())
            }
            Self::NoRevision { .. } => Some("@ takes a branch, a tag, or a commit".to_owned()),
            Self::Portal { .. } => Some(
                "log in to this network with a browser, then pull again; if it needs a proxy, set HTTPS_PROXY".to_owned(),
            ),
            Self::Unreachable { .. } => {
                Some("pull again once the network works; what has come is kept. HTTPS_PROXY names a proxy".to_owned())
            }
            Self::TooMany { .. } => Some(
                "pull again later; what has come is kept. With HF_TOKEN set, the hub allows more".to_owned(),
            ),
            Self::Offline { .. } => Some("unset it to use the network".to_owned()),
            _ => None,
        }
    }
}
