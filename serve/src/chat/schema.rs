//! JSON schemas of clients: whether what is answered will be of one, known before anything is computed.
//!
//! Only what is sure is promised. A schema that asks for anything that cannot be, such as texts of a pattern, is
//! refused with the place and the word.

use serde_json::{Map, Value, json};

/// What an answer is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape {
    /// Fields by their names.
    Object(&'static [(&'static str, Shape)]),
    /// Any number of these.
    Array(&'static Shape),
    /// Not below 0, and perhaps not above something.
    Number { most: Option<f64> },
    /// Any text.
    Text,
}

/// A client's schema.
#[derive(Clone, Debug)]
pub(crate) struct Schema(pub Value);

/// What says nothing about values, or is looked at elsewhere.
const NO_LIMITS: [&str; 14] = [
    "$schema",
    "$id",
    "$defs",
    "$comment",
    "definitions",
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "type",
    "properties",
    "required",
    "additionalProperties",
];
/// So deep references are followed, and schemas looked into.
const DEPTH: usize = 16;

impl Schema {
    /// The schema itself.
    pub fn root(&self) -> Result<&Value, String> {
        self.resolve(&self.0)
    }

    /// Follows references (`#/$defs/…`), and takes what is left of a choice between something and nothing.
    pub fn resolve<'a>(&'a self, node: &'a Value) -> Result<&'a Value, String> {
        let mut node = node;
        for _ in 0..DEPTH {
            if let Some(reference) = node.get("$ref") {
                let pointer = reference.as_str().and_then(|text| text.strip_prefix('#'));
                let found = pointer.and_then(|pointer| self.0.pointer(pointer));
                node = found
                    .ok_or_else(|| format!("the schema has nothing at its reference {}", short(reference)))?;
                continue;
            }
            let several = ["anyOf", "oneOf", "allOf"].iter().find_map(|name| node.get(name)?.as_array());
            let mut some =
                several.into_iter().flatten().filter(|one| one.get("type") != Some(&json!("null")));
            match (some.next(), some.next()) {
                (Some(only), None) => node = only,
                _ => return Ok(node),
            }
        }
        Err("the schema's references lead nowhere".to_owned())
    }

    /// Whether all values of the shape are of the schema, once [`Schema::prune`] has been at them. If not, why.
    pub fn fits(&self, shape: &Shape) -> Result<(), String> {
        self.fits_at(&self.0, shape, "the answer", 0)
    }

    fn fits_at(&self, node: &Value, shape: &Shape, place: &str, depth: usize) -> Result<(), String> {
        let node = self.resolve(node)?;
        let fields = match node {
            Value::Bool(true) => return Ok(()),
            Value::Object(fields) if depth < DEPTH => fields,
            _ => return Err(format!("{place} cannot be {}", short(node))),
        };
        let names: &[&str] = match shape {
            Shape::Object(_) => &["object"],
            Shape::Array(_) => &["array"],
            Shape::Number { .. } => &["number"],
            Shape::Text => &["string"],
        };
        let is_type = |one: &Value| one.as_str().is_some_and(|one| names.contains(&one));
        let has_type = fields.get("type").is_none_or(|types| match types {
            Value::Array(types) => types.iter().any(is_type),
            one => is_type(one),
        });
        if !has_type {
            return Err(format!("{place} is of the type {}, not {}", names[0], short(&fields["type"])));
        }
        if let Some((name, value)) = fields.iter().find(|(name, value)| !holds(shape, name, value)) {
            return Err(format!("nobody can promise {name:?}: {} for {place}", short(value)));
        }
        match shape {
            Shape::Object(known) => self.fits_object(fields, known, place, depth),
            Shape::Array(of) => match fields.get("items") {
                Some(items) => self.fits_at(items, of, &format!("an item of {place}"), depth + 1),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn fits_object(
        &self,
        fields: &Map<String, Value>,
        known: &[(&str, Shape)],
        place: &str,
        depth: usize,
    ) -> Result<(), String> {
        let properties = properties(fields);
        for (name, property) in properties.into_iter().flatten() {
            if let Some((_, shape)) = known.iter().find(|(known, _)| known == name) {
                self.fits_at(property, shape, name, depth + 1)?;
            }
        }
        for name in fields.get("required").and_then(Value::as_array).into_iter().flatten() {
            let name = name.as_str().unwrap_or("");
            if !known.iter().any(|(known, _)| *known == name) {
                let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
                return Err(format!("{place} has no {name:?}, only {}", names.join(", ")));
            }
        }
        Ok(())
    }

    /// Leaves out what the schema does not name.
    pub fn prune(&self, value: Value) -> Value {
        self.prune_at(&self.0, value)
    }

    fn prune_at(&self, node: &Value, value: Value) -> Value {
        let Ok(Value::Object(fields)) = self.resolve(node) else { return value };
        match value {
            Value::Object(object) => match properties(fields) {
                Some(properties) => {
                    let kept = object.into_iter().filter_map(|(name, value)| {
                        let property = properties.get(&name)?;
                        Some((name, self.prune_at(property, value)))
                    });
                    Value::Object(kept.collect())
                }
                None => Value::Object(object),
            },
            Value::Array(items) => match fields.get("items") {
                Some(of) => Value::Array(items.into_iter().map(|item| self.prune_at(of, item)).collect()),
                None => Value::Array(items),
            },
            other => other,
        }
    }
}

/// A value as a message can show it.
pub(crate) fn short(value: &Value) -> String {
    const CHARS: usize = 80;
    let text = value.to_string();
    match text.char_indices().nth(CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// The properties that an object names, if it names any.
pub(crate) fn properties(fields: &Map<String, Value>) -> Option<&Map<String, Value>> {
    fields.get("properties").and_then(Value::as_object)
}

/// Whether a word of a schema is true of all values of a shape.
fn holds(shape: &Shape, name: &str, value: &Value) -> bool {
    match (name, shape) {
        ("minItems", Shape::Array(_)) | ("minLength", Shape::Text) | ("minProperties", Shape::Object(_)) => {
            value.as_u64() == Some(0)
        }
        ("minimum", Shape::Number { .. }) => value.as_f64().is_some_and(|least| least <= 0.0),
        ("exclusiveMinimum", Shape::Number { .. }) => value.as_f64().is_some_and(|least| least < 0.0),
        ("maximum", Shape::Number { most: Some(most) }) => value.as_f64().is_some_and(|limit| limit >= *most),
        ("items", Shape::Array(_)) => true,
        ("format", Shape::Number { .. }) => true,
        _ => NO_LIMITS.contains(&name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Shape = Shape::Object(&[("x", Shape::Number { most: Some(1.0) }), ("name", Shape::Text)]);
    const PLACES: Shape = Shape::Object(&[("places", Shape::Array(&PLACE))]);

    fn places(item: Value) -> Schema {
        Schema(json!({"type": "object", "properties": {"places": {"type": "array", "items": item}}}))
    }

    #[test]
    fn what_fits_is_pruned_to_what_is_named() {
        let value = json!({"places": [{"x": 0.5, "name": "a"}], "more": 1});
        let by_reference = Schema(json!({
            "$defs": {"Place": {"type": "object", "title": "Place", "additionalProperties": false, "required": ["x"],
                                "properties": {"x": {"anyOf": [{"type": "number", "maximum": 1}, {"type": "null"}]}}}},
            "type": "object", "properties": {"places": {"items": {"$ref": "#/$defs/Place"}, "type": "array"}},
            "required": ["places"]
        }));
        assert_eq!(by_reference.fits(&PLACES), Ok(()));
        assert_eq!(by_reference.prune(value.clone()), json!({"places": [{"x": 0.5}]}));
        let all = Schema(json!({"type": "object"}));
        assert_eq!(all.fits(&PLACES), Ok(()));
        assert_eq!(all.prune(value.clone()), value);
        let any =
            places(json!({"properties": {"name": {"type": ["string", "null"]}, "x": true, "other": {}}}));
        assert_eq!(any.fits(&PLACES), Ok(()));
    }

    #[test]
    fn what_cannot_be_promised_is_named() {
        for (schema, word) in [
            (places(json!({"required": ["y"]})), "\"y\""),
            (places(json!({"type": "string"})), "string"),
            (places(json!({"properties": {"name": {"pattern": "^a"}}})), "pattern"),
            (places(json!({"properties": {"name": {"enum": ["a"]}}})), "enum"),
            (places(json!({"properties": {"x": {"type": "integer"}}})), "integer"),
            (places(json!({"properties": {"x": {"minimum": 0.1}}})), "minimum"),
            (places(json!({"properties": {"x": {"maximum": 0.9}}})), "maximum"),
            (places(json!(false)), "false"),
            (Schema(json!({"properties": {"places": {"type": "array", "minItems": 1}}})), "minItems"),
            (Schema(json!({"$ref": "#/$defs/none"})), "reference"),
            (Schema(json!({"$ref": "#"})), "nowhere"),
            (Schema(json!([])), "[]"),
            (Schema(json!({"anyOf": [{"type": "object"}, {"type": "array"}]})), "anyOf"),
        ] {
            let why = schema.fits(&PLACES).unwrap_err();
            assert!(why.contains(word), "{why} has no {word:?}");
        }
    }

    #[test]
    fn schemas_that_contain_themselves_end() {
        let schema = Schema(json!({"type": "object", "properties": {"places": {"$ref": "#"}}}));
        assert!(schema.fits(&PLACES).is_err());
        let _ = schema.prune(json!({"places": {"places": {"places": 1}}}));
    }
}
