//! Which records a sink gets, and of which it gets the picture.

use serde::Deserialize;

use crate::record::Record;

/// A kind of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Beginnings and ends of events.
    Events,
    /// Answers that change what is believed.
    Changes,
    /// All answers.
    Answers,
    /// How cameras are.
    Cameras,
}

/// Kinds of records. In a configuration, a list: `["events", "changes"]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "Vec<Kind>")]
pub struct Kinds(u8);

impl Kinds {
    /// None of them.
    pub const NONE: Self = Self(0);
    /// Beginnings and ends of events.
    pub const EVENTS: Self = Self(1 << Kind::Events as u8);
    /// Answers that change what is believed.
    pub const CHANGES: Self = Self(1 << Kind::Changes as u8);
    /// All answers.
    pub const ANSWERS: Self = Self(1 << Kind::Answers as u8);
    /// How cameras are.
    pub const CAMERAS: Self = Self(1 << Kind::Cameras as u8);
    /// All of them.
    pub const ALL: Self = Self::EVENTS.and(Self::ANSWERS).and(Self::CAMERAS);

    /// Both.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether answers that change nothing are among them.
    pub fn have_every_answer(self) -> bool {
        self.0 & Self::ANSWERS.0 != 0
    }

    /// Whether this record is of one of these kinds.
    pub fn has(self, record: &Record) -> bool {
        let kinds = match record {
            Record::Event(_) => Self::EVENTS,
            Record::Answer(answer) if answer.changed => Self::CHANGES.and(Self::ANSWERS),
            Record::Answer(_) => Self::ANSWERS,
            Record::Camera(_) => Self::CAMERAS,
        };
        self.0 & kinds.0 != 0
    }
}

impl From<Vec<Kind>> for Kinds {
    fn from(kinds: Vec<Kind>) -> Self {
        kinds.into_iter().fold(Self::NONE, |all, kind| all.and(Self(1 << kind as u8)))
    }
}

/// What a sink wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest {
    /// The records that it gets.
    pub records: Kinds,
    /// Those of them whose pictures it gets, too, if there are pictures.
    pub pictures: Kinds,
}

impl Interest {
    /// Whether it wants the picture of this record.
    pub fn in_picture(self, record: &Record) -> bool {
        self.records.has(record) && self.pictures.has(record)
    }
}

/// Which picture, where there is a choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Picture {
    /// None.
    None,
    /// As the camera gave it.
    Plain,
    /// With boxes, labels and masks drawn.
    #[default]
    Annotated,
}
