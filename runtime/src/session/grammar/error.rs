//! Why a grammar cannot be made, or not be followed.

use crate::tokenizer::TokenizerError;

/// Why a grammar cannot be made or used. The caller's to mend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GrammarError {
    /// A set of no tokens.
    #[error("the set of allowed tokens is empty: name at least one, or answer without a grammar")]
    NoTokens,
    /// An id beyond the vocabulary.
    #[error("there is no token {token}: the model's tokens are 0 to {}", vocab - 1)]
    NoSuchToken {
        /// The id.
        token: u32,
        /// Tokens that the model has.
        vocab: usize,
    },
    /// A list of no choices.
    #[error("there is no choice: give at least one")]
    NoChoices,
    /// A choice of no tokens.
    #[error("choice {choice} is empty: give it a text, or leave it out")]
    EmptyChoice {
        /// Which one, from 1 on.
        choice: usize,
    },
    /// A text that is too long to be an answer.
    #[error("choice {choice} has {bytes} bytes, the limit is {bytes_max}: shorten it")]
    ChoiceTooLong {
        /// Which one, from 1 on.
        choice: usize,
        /// Length of the text.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// A choice with a token that frames answers and prompts, such as `<eos>` or `<image>`.
    #[error("choice {choice} has the control token {token} in it, which no answer contains: leave it out")]
    ControlToken {
        /// Which one, from 1 on.
        choice: usize,
        /// The token.
        token: u32,
    },
    /// A text that its tokens do not spell.
    #[error(
        "choice {choice}, {text:?}, would be answered as {spelled:?}: the vocabulary spells it no other way"
    )]
    Unspellable {
        /// Which one, from 1 on.
        choice: usize,
        /// The text.
        text: String,
        /// What its tokens spell.
        spelled: String,
    },
    /// More choices than a grammar can hold.
    #[error("the choices have more than {tokens_max} tokens together: give fewer")]
    TooManyTokens {
        /// The limit.
        tokens_max: usize,
    },
    /// A choice that an answer has no room for.
    #[error(
        "the longest choice has {tokens} tokens, an answer at most {tokens_max}: shorten it, or allow more new tokens"
    )]
    LongerThanAnswers {
        /// Tokens of the longest choice.
        tokens: usize,
        /// Tokens of an answer.
        tokens_max: usize,
    },
    /// A grammar of another model.
    #[error("the grammar was made for another model: make it from this model")]
    OtherModel,
    /// A model without tokens for places, or for masks.
    #[error("the model has no <loc> tokens, or for masks no <seg> tokens: it cannot find objects")]
    NoLocations,
    /// The tokenizer table of the model file is broken.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}
