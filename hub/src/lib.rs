//! Repositories of models, and how a model of one comes here.
//!
//! [`pull`] fetches a `.palm` file, or converts a checkpoint as it comes; [`Settings`] say where the hub is and who
//! asks, by the variables and files that huggingface_hub knows. [`published`] lists what Google has published, and
//! [`Library`] is the folder in which models live.

mod cache;
mod client;
mod error;
mod library;
mod naming;
pub mod published;
mod pull;
mod reader;
mod repository;
mod settings;
mod whole;

pub use cache::{Cached, find as find_in_cache};
pub use client::Cancelled;
pub use error::HubError;
pub use library::{Installed, Library, LibraryError, Unfinished, makes_vectors, nearest};
pub use naming::model_name;
pub use pull::{AdapterSource, Follower, Pulled, Wanted, pull, short};
pub use repository::{Repository, RepositoryFile, RepositoryName};
pub use settings::{Settings, Token};
