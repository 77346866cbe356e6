//! The prompt forms that PaliGemma was trained with, as in Google's page "PaliGemma prompt and system
//! instructions".

use std::fmt;
use std::str::FromStr;

/// What to ask about an image.
///
/// The `mix` checkpoints know every form and answer free questions ([`Task::Raw`]) as well; the `pt` checkpoints
/// are meant for fine-tuning and know fewer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Task {
    /// `cap {lang}`: a raw short caption, as in noisy web data. `pt` checkpoints only.
    Cap {
        /// The language of the caption.
        language: Language,
    },
    /// `caption {lang}`: a short caption in the manner of COCO.
    Caption {
        /// The language of the caption.
        language: Language,
    },
    /// `describe {lang}`: a longer description.
    Describe {
        /// The language of the description.
        language: Language,
    },
    /// `answer {lang} {question}`: a short answer to a question about the image.
    Answer {
        /// The language of question and answer.
        language: Language,
        /// What is asked.
        question: Line,
    },
    /// `question {lang} {answer}`: a question about the image that has this answer.
    Question {
        /// The language of question and answer.
        language: Language,
        /// The answer that the question shall have.
        answer: Line,
    },
    /// `ocr`: the text in the image.
    Ocr,
    /// `detect a ; b`: boxes of the objects named.
    Detect {
        /// What to look for.
        labels: Vec<Label>,
    },
    /// `segment a ; b`: boxes and masks of the objects named.
    Segment {
        /// What to look for.
        labels: Vec<Label>,
    },
    /// Any text, passed on as it is.
    Raw(String),
}

impl Task {
    /// `cap {lang}`. Fails if `language` is not a language code.
    pub fn cap(language: &str) -> Result<Self, PromptError> {
        Ok(Self::Cap { language: language.parse()? })
    }

    /// `caption {lang}`. Fails if `language` is not a language code.
    pub fn caption(language: &str) -> Result<Self, PromptError> {
        Ok(Self::Caption { language: language.parse()? })
    }

    /// `describe {lang}`. Fails if `language` is not a language code.
    pub fn describe(language: &str) -> Result<Self, PromptError> {
        Ok(Self::Describe { language: language.parse()? })
    }

    /// `answer {lang} {question}`. Fails if `language` is not a language code or `question` not a line of text.
    pub fn answer(language: &str, question: &str) -> Result<Self, PromptError> {
        Ok(Self::Answer { language: language.parse()?, question: question.parse()? })
    }

    /// `question {lang} {answer}`. Fails if `language` is not a language code or `answer` not a line of text.
    pub fn question(language: &str, answer: &str) -> Result<Self, PromptError> {
        Ok(Self::Question { language: language.parse()?, answer: answer.parse()? })
    }

    /// `ocr`.
    pub fn ocr() -> Self {
        Self::Ocr
    }

    /// `detect a ; b`. Fails if there is no label or one of them cannot be a label.
    pub fn detect<S: AsRef<str>>(labels: impl IntoIterator<Item = S>) -> Result<Self, PromptError> {
        Ok(Self::Detect { labels: parse_labels(labels)? })
    }

    /// `segment a ; b`. Fails if there is no label or one of them cannot be a label.
    pub fn segment<S: AsRef<str>>(labels: impl IntoIterator<Item = S>) -> Result<Self, PromptError> {
        Ok(Self::Segment { labels: parse_labels(labels)? })
    }

    /// The text to encode, without the newline that ends every prompt: the session adds it.
    pub fn prompt(&self) -> String {
        self.to_string()
    }

    /// Writes [`Task::prompt`] to `out`. Fails only as `out` does; a `String` never does.
    pub fn write_prompt(&self, out: &mut impl fmt::Write) -> fmt::Result {
        match self {
            Self::Cap { language } => write!(out, "cap {language}"),
            Self::Caption { language } => write!(out, "caption {language}"),
            Self::Describe { language } => write!(out, "describe {language}"),
            Self::Answer { language, question } => write!(out, "answer {language} {question}"),
            Self::Question { language, answer } => write!(out, "question {language} {answer}"),
            Self::Ocr => out.write_str("ocr"),
            Self::Detect { labels } => write_labels(out, "detect", labels),
            Self::Segment { labels } => write_labels(out, "segment", labels),
            Self::Raw(text) => out.write_str(text),
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_prompt(f)
    }
}

fn parse_labels<S: AsRef<str>>(labels: impl IntoIterator<Item = S>) -> Result<Vec<Label>, PromptError> {
    let labels = labels.into_iter().map(|label| label.as_ref().parse()).collect::<Result<Vec<_>, _>>()?;
    if labels.is_empty() { Err(PromptError::NoLabels) } else { Ok(labels) }
}

fn write_labels(out: &mut impl fmt::Write, verb: &str, labels: &[Label]) -> fmt::Result {
    out.write_str(verb)?;
    for (index, label) in labels.iter().enumerate() {
        write!(out, "{}{label}", if index == 0 { " " } else { " ; " })?;
    }
    Ok(())
}

/// A language code such as `en`, `de` or `zh-TW`: two or three ASCII letters, then perhaps a hyphen and up to eight
/// letters or digits. Whether the model knows the language is not checked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Language(String);

impl Language {
    /// The code.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Language {
    type Err = PromptError;

    fn from_str(code: &str) -> Result<Self, PromptError> {
        let (language, region) = match code.split_once('-') {
            Some((language, region)) => (language, Some(region)),
            None => (code, None),
        };
        let language_fits =
            (2..=3).contains(&language.len()) && language.bytes().all(|byte| byte.is_ascii_alphabetic());
        let region_fits = region.is_none_or(|region| {
            (1..=8).contains(&region.len()) && region.bytes().all(|byte| byte.is_ascii_alphanumeric())
        });
        if language_fits && region_fits {
            Ok(Self(code.to_owned()))
        } else {
            Err(PromptError::InvalidLanguage(code.to_owned()))
        }
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of an object in a `detect` or `segment` prompt, without surrounding white space: not empty, without
/// line breaks, and without `;` and `<`, which end a label in prompts and answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Label(String);

impl Label {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Label {
    type Err = PromptError;

    fn from_str(text: &str) -> Result<Self, PromptError> {
        let label = text.trim();
        if label.is_empty() {
            return Err(PromptError::EmptyLabel);
        }
        match label.chars().find(|character| matches!(character, ';' | '<' | '\n' | '\r')) {
            Some(character) => Err(PromptError::InvalidLabel { label: label.to_owned(), character }),
            None => Ok(Self(label.to_owned())),
        }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A question or an answer: one line of text, not empty, without surrounding white space. A line break would end
/// the prompt for the model; [`Task::Raw`] can carry one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Line(String);

impl Line {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Line {
    type Err = PromptError;

    fn from_str(text: &str) -> Result<Self, PromptError> {
        let line = text.trim();
        if line.is_empty() {
            return Err(PromptError::EmptyLine);
        }
        if line.contains(['\n', '\r']) {
            return Err(PromptError::LineBreak);
        }
        Ok(Self(line.to_owned()))
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text cannot be part of a prompt. The caller's to mend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PromptError {
    /// Not a language code.
    #[error("{0:?} is not a language code; give one such as \"en\" or \"zh-TW\"")]
    InvalidLanguage(String),
    /// `detect` or `segment` of nothing.
    #[error("there is no label; name at least one object to look for")]
    NoLabels,
    /// A label without a visible character.
    #[error("a label is empty; name the object to look for")]
    EmptyLabel,
    /// A label with a character that would end it.
    #[error("the label {label:?} contains {character:?}, which ends a label; give several labels one by one")]
    InvalidLabel {
        /// The label.
        label: String,
        /// The first character that it must not contain.
        character: char,
    },
    /// A question or answer without a visible character.
    #[error("the question or answer is empty")]
    EmptyLine,
    /// A question or answer of several lines.
    #[error(
        "the question or answer has more than one line; put it on one, or give the whole prompt as raw text"
    )]
    LineBreak,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_has_its_official_form() {
        let cases = [
            (Task::cap("en"), "cap en"),
            (Task::caption("de"), "caption de"),
            (Task::describe("zh-TW"), "describe zh-TW"),
            (Task::answer("en", " where is the cow standing? "), "answer en where is the cow standing?"),
            (Task::question("en", "on the beach"), "question en on the beach"),
            (Ok(Task::ocr()), "ocr"),
            (Task::detect(["cat"]), "detect cat"),
            (Task::detect(["cat", " traffic light "]), "detect cat ; traffic light"),
            (Task::segment(vec![String::from("Größe 猫")]), "segment Größe 猫"),
            (Ok(Task::Raw(" any\n<loc0001> ;".into())), " any\n<loc0001> ;"),
        ];
        for (task, text) in cases {
            let task = task.unwrap();
            assert_eq!(task.prompt(), text);
            let mut written = String::from("> ");
            task.write_prompt(&mut written).unwrap();
            assert_eq!(written, format!("> {text}"));
        }
    }

    #[test]
    fn language_codes_are_checked() {
        for code in ["en", "fil", "pt-BR", "zh-Hant"] {
            assert_eq!(code.parse::<Language>().unwrap().as_str(), code);
        }
        for code in ["", "e", "english", "en ", "e1", "en-", "en-a b", "en\n", "日本", "en-verylongregion"]
        {
            assert_eq!(Task::caption(code), Err(PromptError::InvalidLanguage(code.to_owned())));
        }
    }

    #[test]
    fn labels_that_would_not_read_back_are_refused() {
        assert_eq!(Task::detect::<&str>([]), Err(PromptError::NoLabels));
        assert_eq!(Task::detect(["cat", " "]), Err(PromptError::EmptyLabel));
        for (label, character) in [("a;b", ';'), ("a\nb", '\n'), ("a\rb", '\r'), ("a<loc0001>", '<')] {
            let refused = PromptError::InvalidLabel { label: label.to_owned(), character };
            assert_eq!(Task::segment([label]), Err(refused));
        }
    }

    #[test]
    fn questions_are_one_line() {
        assert_eq!(Task::answer("en", "\t "), Err(PromptError::EmptyLine));
        assert_eq!(Task::question("en", "a\nb"), Err(PromptError::LineBreak));
    }
}
