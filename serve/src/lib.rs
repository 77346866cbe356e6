//! An HTTP server around one engine: the interfaces that clients already know, and a page with a camera.
//!
//! | part | what it does |
//! | --- | --- |
//! | [`engine`] | a thread with a session: requests join a running batch, pictures are encoded once |
//! | [`cameras`] | what the loop of cameras beside the engine tells and shows |
//! | [`app`], [`received`], [`access`], [`fetch`] | what routes share: state, bounded bodies, who may ask, pictures by address |
//! | [`problem`], `shape`, [`answer`] | errors, in the shape of each interface, and answers, as JSON |
//! | `chat` | a chat reduced to PaliGemma's prompt, and answers as JSON |
//! | `routes` | the interfaces, a file or folder each |
//! | [`listen`], [`server`] | sockets, TLS, limits, start and end |
//! | [`in_process`] | the routes without a network |
//!
//! Nothing here reads arguments or prints: the program `palmtop` and tests start a [`server::Server`].

pub mod access;
pub mod answer;
pub mod app;
pub mod cameras;
mod chat;
pub mod counts;
pub mod engine;
pub mod fetch;
pub mod in_process;
pub mod listen;
mod log;
pub mod problem;
pub mod received;
mod routes;
pub mod server;
mod shape;
