//! From a chat to an answer that is on its way.

use bytes::Bytes;
use palmtop::Sampling;

use super::format::Format;
use super::{Chat, Source};
use crate::app::App;
use crate::engine::{Answering, Ask, AskError, Event, Finished};
use crate::fetch::Room;
use crate::problem::Problem;
use crate::routes::from_base64;

/// A chat, and how it is to be answered.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub chat: Chat,
    pub format: Format,
    pub sampling: Sampling,
    /// More than the server gives is as much as it gives.
    pub max_new_tokens: Option<usize>,
    pub stop: Vec<String>,
}

/// An answer whose prompt is computed.
pub(crate) struct Begun {
    /// Rows of pictures and tokens of the prompt.
    pub prompt_tokens: usize,
    /// As many of them did not have to be computed by the image encoder, since the picture had come before.
    pub cached_tokens: usize,
    /// What comes next.
    pub answering: Answering,
    _room: Option<Room>,
}

/// Takes the pictures in, asks, and waits until the answer begins: so whatever is wrong can still be said as a status.
pub(crate) async fn start(app: &App, wanted: &mut Wanted) -> Result<Begun, Problem> {
    let grammar = wanted.format.grammar(app)?;
    let limits = app.engine.limits();
    let sources = std::mem::take(&mut wanted.chat.pictures);
    if sources.len() > limits.pictures {
        let message = format!(
            "{} pictures: this server takes {} in a request; it can be started with --pictures for more",
            sources.len(),
            limits.pictures
        );
        return Err(Problem::bad(message).at("messages"));
    }
    let place = app.engine.enter(1)?;
    let (bytes, room) = bytes(app, sources).await?;
    let pictures = app.pictures.take_all(bytes).await?;
    let mut ask = Ask::new(pictures, &wanted.chat.prompt);
    ask.max_new_tokens = wanted.max_new_tokens.map(|tokens| tokens.min(limits.new_tokens));
    ask.sampling = wanted.sampling;
    ask.grammar = grammar;
    ask.stop = std::mem::take(&mut wanted.stop);
    ask.deadline = Some(app.deadline(None));
    let mut answering = app.engine.ask(place, ask)?;
    let Event::Begun { prompt_tokens, cached_pictures } = answering.next().await? else {
        return Err(AskError::Broken("an answer came before it began".to_owned()).into());
    };
    let cached_tokens = cached_pictures * app.model().config().image_rows();
    Ok(Begun { prompt_tokens, cached_tokens, answering, _room: room })
}

/// The pictures' files, and room for those that are fetched.
async fn bytes(app: &App, sources: Vec<Source>) -> Result<(Vec<Bytes>, Option<Room>), Problem> {
    let fetched = sources.iter().filter(|source| matches!(source, Source::Address(_))).count();
    let mut room = None;
    if fetched > 0 {
        let fetch = app.fetch.as_ref().ok_or_else(crate::fetch::not_allowed)?;
        room = Some(fetch.room(fetched).await?);
    }
    let mut files = Vec::with_capacity(sources.len());
    for source in sources {
        files.push(match (source, &app.fetch, &room) {
            (Source::Encoded(text), ..) => from_base64(&text)?,
            (Source::Address(address), Some(fetch), Some(room)) => fetch.get(address, room.clone()).await?,
            (Source::Address(_), ..) => return Err(crate::fetch::not_allowed()),
        });
    }
    Ok((files, room))
}

impl Begun {
    /// What comes next.
    pub async fn next(&mut self) -> Result<Event, AskError> {
        self.answering.next().await
    }

    /// Waits for the whole answer.
    pub async fn finish(self) -> Result<Finished, AskError> {
        self.answering.finish().await
    }
}
