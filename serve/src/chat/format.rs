//! The form in which a client wants the answer: as the model says it, or as JSON.

use palmtop::Grammar;
use palmtop::model::Model;
use palmtop_present::json::Edges;
use serde_json::{Map, Value, json};

use super::rule;
use super::schema::{Schema, Shape, properties, short};
use crate::answer;
use crate::app::App;
use crate::engine::{Finished, Stop};
use crate::problem::Problem;

/// How the content of an answer is made.
#[derive(Clone, Debug)]
pub(crate) enum Format {
    /// The model's own text.
    Plain,
    /// `{"objects": […]}`, as far as the schema names it.
    Boxes(Schema),
    /// One of these values, chosen by their texts; under the name of a property if there is one.
    Choice { property: Option<String>, choices: Vec<(String, Value)> },
    /// The model's text as JSON; under the name of a property if there is one.
    Text { property: Option<String> },
}

const NUMBER: Shape = Shape::Number { most: None };
const BOX: Shape =
    Shape::Object(&[("x_min", NUMBER), ("y_min", NUMBER), ("x_max", NUMBER), ("y_max", NUMBER)]);
const OBJECT: Shape =
    Shape::Object(&[("label", Shape::Text), ("score", Shape::Number { most: Some(1.0) }), ("box", BOX)]);
/// What `detect` and `segment` are answered with.
const BOXES: Shape = Shape::Object(&[("objects", Shape::Array(&OBJECT))]);

/// The name of the only property where a client wants JSON, whatever it be.
const ANSWER: &str = "answer";
/// As many choices as a schema may have.
const CHOICES_MAX: usize = 1024;

impl Format {
    /// JSON, whatever its schema.
    pub fn any_json(prompt: &str) -> Self {
        match rule::locates(prompt) {
            true => Self::Boxes(Schema(json!({}))),
            false => Self::Text { property: Some(ANSWER.to_owned()) },
        }
    }

    /// JSON of a schema.
    ///
    /// # Errors
    /// If an answer to this prompt may not be of this schema.
    pub fn of_schema(schema: Value, prompt: &str, field: &'static str) -> Result<Self, Problem> {
        let schema = Schema(schema);
        Self::read(&schema, prompt).map_err(|why| {
            let message = format!(
                "the answer cannot be of this schema: {why}. It can choose from an enum, say one text, or list what \
                 detect and segment locate: see \"Answers as JSON\" in docs/serve.md"
            );
            Problem::bad(message).at(field)
        })
    }

    fn read(schema: &Schema, prompt: &str) -> Result<Self, String> {
        let root = schema.root()?;
        if let Some(choices) = choices(schema, root)? {
            return Ok(Self::Choice { property: None, choices });
        }
        if let Some((name, property)) = only_property(root) {
            let property = schema.resolve(property)?;
            if let Some(choices) = choices(schema, property)? {
                return Ok(Self::Choice { property: Some(name.to_owned()), choices });
            }
            if !rule::locates(prompt) && Schema(property.clone()).fits(&Shape::Text).is_ok() {
                return Ok(Self::Text { property: Some(name.to_owned()) });
            }
        }
        if rule::locates(prompt) {
            schema.fits(&BOXES)?;
            return Ok(Self::Boxes(schema.clone()));
        }
        match root.get("type").is_some_and(|one| one == "string") {
            true => Schema(root.clone()).fits(&Shape::Text).map(|()| Self::Text { property: None }),
            false => Err("the prompt is answered with one text".to_owned()),
        }
    }

    /// True if the content is what the model says, and can be given as it comes.
    pub fn is_plain(&self) -> bool {
        matches!(self, Self::Plain)
    }

    /// What the answer may be.
    ///
    /// # Errors
    /// If a choice cannot be made of tokens.
    pub fn grammar(&self, app: &App) -> Result<Option<Grammar>, Problem> {
        let Self::Choice { choices, .. } = self else { return Ok(None) };
        let texts: Vec<String> = choices.iter().map(|(text, _)| text.clone()).collect();
        app.choices(&texts).map(Some)
    }

    /// The content of a whole answer.
    ///
    /// # Errors
    /// If the objects of an answer cannot be read.
    pub fn content(&self, model: &Model, finished: &Finished) -> Result<String, Problem> {
        let under = |property: &Option<String>, value: Value| match property {
            Some(name) => Value::Object(Map::from_iter([(name.clone(), value)])),
            None => value,
        };
        let text = finished.text.as_str();
        let value = match self {
            Self::Plain => return Ok(text.to_owned()),
            Self::Boxes(schema) => schema.prune(boxes(model, finished)?),
            Self::Choice { property, choices } => match choices.iter().find(|(choice, _)| choice == text) {
                Some((_, value)) => under(property, value.clone()),
                // Cut short, by a deadline: JSON that looks like a choice would lie.
                None => return Ok(text.to_owned()),
            },
            Self::Text { property } => under(property, text.into()),
        };
        Ok(value.to_string())
    }
}

/// The objects of an answer, in pixels of the first picture.
fn boxes(model: &Model, finished: &Finished) -> Result<Value, Problem> {
    let found = answer::found(model, finished, false)?;
    let object = |found: &palmtop_present::Found| {
        let object = &found.detection;
        json!({
            "label": object.label,
            "score": object.score.unwrap_or(0.0),
            "box": Edges::from(&object.bounding_box),
        })
    };
    Ok(json!({"objects": found.iter().map(object).collect::<Vec<_>>()}))
}

/// The only property of an object.
fn only_property(node: &Value) -> Option<(&str, &Value)> {
    let fields = node.as_object()?;
    let mut properties = properties(fields)?.iter();
    let (name, property) = properties.next()?;
    let is_all = properties.next().is_none() && node.get("type").is_none_or(|one| one == "object");
    let required = fields.get("required").and_then(Value::as_array);
    let is_enough = required.is_none_or(|required| required.iter().all(|one| one == name.as_str()));
    (is_all && is_enough).then_some((name.as_str(), property))
}

/// The values that a schema lets choose from, if it names them all, each with the text that stands for it.
fn choices(schema: &Schema, node: &Value) -> Result<Option<Vec<(String, Value)>>, String> {
    let several = ["anyOf", "oneOf"].iter().find_map(|name| node.get(name)?.as_array());
    let values: Vec<Value> = if let Some(values) = node.get("enum").and_then(Value::as_array) {
        values.clone()
    } else if let Some(value) = node.get("const") {
        vec![value.clone()]
    } else if node.get("type").is_some_and(|one| one == "boolean") {
        vec![true.into(), false.into()]
    } else if node.get("type").is_some_and(|one| one == "integer" || one == "number") {
        whole_numbers(node)?
    } else if let Some(several) = several {
        let of = |one: &Value| schema.resolve(one).ok()?.get("const").cloned();
        match several.iter().map(of).collect() {
            Some(values) => values,
            None => return Ok(None),
        }
    } else {
        return Ok(None);
    };
    if values.is_empty() || values.len() > CHOICES_MAX {
        return Err(format!("it has {} choices; 1 to {CHOICES_MAX} can be chosen from", values.len()));
    }
    let texts = values.into_iter().map(|value| {
        let text = match &value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            // As the model answers questions.
            Value::Bool(true) => "yes".to_owned(),
            Value::Bool(false) => "no".to_owned(),
            other => {
                return Err(format!("{} cannot be chosen; texts, numbers and booleans can", short(other)));
            }
        };
        Ok((text, value))
    });
    texts.collect::<Result<Vec<_>, _>>().map(Some)
}

/// What an unlimited number is chosen from.
const NUMBERS: (i64, i64) = (0, 100);

/// The whole numbers of a schema: what counting questions are answered with.
fn whole_numbers(node: &Value) -> Result<Vec<Value>, String> {
    const KNOWN: [&str; 6] = ["type", "minimum", "maximum", "title", "description", "default"];
    if let Some((name, _)) =
        node.as_object().into_iter().flatten().find(|(name, _)| !KNOWN.contains(&name.as_str()))
    {
        return Err(format!("numbers can have a minimum and a maximum, not {name:?}"));
    }
    let limit = |name: &str| node.get(name).and_then(Value::as_f64);
    // Beyond these a range is too long anyway.
    let whole = |limit: f64| limit.clamp(-1e9, 1e9) as i64;
    let least = limit("minimum").map(|least| whole(least.ceil()));
    let most = limit("maximum").map(|most| whole(most.floor()));
    let (least, most) = match (least, most) {
        (Some(least), None) => (least, NUMBERS.1.max(least)),
        (None, Some(most)) => (NUMBERS.0.min(most), most),
        (least, most) => (least.unwrap_or(NUMBERS.0), most.unwrap_or(NUMBERS.1)),
    };
    if most.saturating_sub(least) >= CHOICES_MAX as i64 {
        return Err(format!("{least} to {most} are too many numbers to choose from"));
    }
    Ok((least..=most).map(Value::from).collect())
}

/// True if the answer came to its end.
pub(crate) fn is_whole(finished: &Finished) -> bool {
    matches!(finished.stop, Stop::End | Stop::Text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(schema: Value, prompt: &str) -> Result<Format, String> {
        Format::of_schema(schema, prompt, "format").map_err(|problem| problem.message)
    }

    #[test]
    fn enums_are_chosen_from() {
        let texts = |schema: Value| match read(schema, "detect cat") {
            Ok(Format::Choice { property, choices }) => {
                (property, choices.into_iter().map(|(text, _)| text).collect::<Vec<_>>())
            }
            other => panic!("{other:?}"),
        };
        let day = json!({"type": "string", "enum": ["day", "night"]});
        assert_eq!(texts(day.clone()), (None, vec!["day".into(), "night".into()]));
        let object =
            |property: Value| json!({"type": "object", "properties": {"it": property}, "required": ["it"]});
        assert_eq!(texts(object(day)).0.as_deref(), Some("it"));
        assert_eq!(texts(object(json!({"type": "boolean"}))).1, ["yes", "no"]);
        assert_eq!(texts(object(json!({"enum": [1, 2]}))).1, ["1", "2"]);
        assert_eq!(texts(object(json!({"anyOf": [{"const": "a"}, {"const": "b"}]}))).1, ["a", "b"]);
        assert_eq!(
            texts(object(json!({"type": "integer", "minimum": 1, "maximum": 3.5}))).1,
            ["1", "2", "3"]
        );
        let all = texts(json!({"type": "number"})).1;
        assert_eq!((all.len(), all[0].as_str(), all[100].as_str()), (101, "0", "100"));
        for odd in
            [json!({"type": "integer", "minimum": 1e300}), json!({"type": "integer", "maximum": 1e300})]
        {
            let _ = read(odd, "ocr");
        }
        assert!(read(json!({"type": "integer", "multipleOf": 2}), "ocr").unwrap_err().contains("multipleOf"));
        assert!(
            read(json!({"type": "integer", "minimum": 2, "maximum": 1}), "ocr")
                .unwrap_err()
                .contains("0 choices")
        );
        assert!(read(json!({"enum": []}), "ocr").unwrap_err().contains("0 choices"));
        assert!(read(json!({"enum": [[]]}), "ocr").unwrap_err().contains("cannot be chosen"));
    }

    #[test]
    fn boxes_and_texts_fit_their_schemas() {
        let boxes = json!({"type": "object", "required": ["objects"], "properties": {"objects": {"type": "array",
            "items": {"type": "object", "properties": {"label": {"type": "string"}}}}}});
        assert!(matches!(read(boxes.clone(), "detect cat"), Ok(Format::Boxes(_))));
        assert!(read(boxes, "caption en").unwrap_err().contains("one text"));
        let text = json!({"type": "object", "properties": {"title": {"type": "string"}}});
        assert!(
            matches!(read(text.clone(), "ocr"), Ok(Format::Text { property: Some(name) }) if name == "title")
        );
        assert!(matches!(read(json!({"type": "string"}), "ocr"), Ok(Format::Text { property: None })));
        let two = json!({"type": "object", "properties": {"title": {"type": "string"}, "text": {"type": "string"}}});
        assert!(read(two, "ocr").is_err());
        let missing =
            json!({"type": "object", "properties": {"title": {"type": "string"}}, "required": ["b"]});
        assert!(read(missing, "ocr").is_err());
        assert!(read(json!({"type": "string", "pattern": "a"}), "ocr").unwrap_err().contains("pattern"));
        for odd in [json!(null), json!(3), json!([]), json!("a"), json!({"enum": 3}), json!({"$ref": 1})] {
            assert!(read(odd.clone(), "ocr").is_err(), "{odd}");
        }
    }
}
