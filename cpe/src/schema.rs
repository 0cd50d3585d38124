//! `cpe schema`: JSON Schemas of definitions and of cpe.toml, for editors (draft 7, which taplo knows). Which keys a table has is what the
//! parser knows (`SCHEMAS` of `cpe_proto`); what a key holds stands in `schema/shapes.rs`, and a test holds the two together. A schema
//! says what is well-formed; what fits together (`cpe check`) it does not.

mod shapes;

use cpe_proto::document::Schema;
use cpe_proto::{config, definition};
use serde_json::{Map, Value, json};

use shapes::{CONFIGURATION, DEFINITION, Shape, Tables};

/// What a schema is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Of {
    /// A definition: /etc/cpe/deployables/*.toml
    Definition,
    /// The configuration: /etc/cpe/cpe.toml
    Config,
}

/// The schema as text, ending with a newline.
#[must_use]
pub fn text(of: Of) -> String {
    format!("{:#}\n", schema(of))
}

fn schema(of: Of) -> Value {
    let (title, tables, known): (_, &Tables, &[&Schema]) = match of {
        Of::Definition => ("A deployable of cpe", DEFINITION, &definition::SCHEMAS),
        Of::Config => ("The configuration of cpe", CONFIGURATION, &config::SCHEMAS),
    };
    let mut definitions = Map::new();
    for (name, keys) in tables {
        definitions.insert(slug(name), table(name, keys, known));
    }
    let root = tables.first().map_or_else(String::new, |(name, _)| slug(name));
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": title,
        "$ref": format!("#/definitions/{root}"),
        "definitions": definitions,
    })
}

/// A name that may stand in a reference.
fn slug(name: &str) -> String {
    let words = name.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-")
}

/// One kind of table. What the parser does not know any more is no property.
fn table(name: &str, keys: &[(&str, Shape)], known: &[&Schema]) -> Value {
    let own: Vec<&str> = known
        .iter()
        .filter(|schema| shapes::name_of(schema) == name)
        .flat_map(|it| it.keys)
        .copied()
        .collect();
    let mut properties = Map::new();
    for (key, shape) in keys.iter().filter(|(key, _)| own.contains(key)) {
        properties.insert((*key).to_owned(), value(shape));
    }
    let mut table = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    let required = shapes::required(name);
    if !required.is_empty() {
        table["required"] = json!(required);
    }
    let one = shapes::one_of(name);
    if !one.is_empty() {
        let mut ways: Vec<Value> = one.iter().map(|key| json!({ "required": [key] })).collect();
        // Or it has that from a template.
        ways.push(json!({ "not": { "anyOf": ways.clone() } }));
        table["oneOf"] = ways.into();
    }
    table
}

fn value(shape: &Shape) -> Value {
    let reference = |name: &str| json!({ "$ref": format!("#/definitions/{}", slug(name)) });
    match shape {
        Shape::Text => json!({ "type": "string" }),
        Shape::Duration => {
            json!({ "type": "string", "pattern": "^[0-9]", "examples": ["500ms", "3s", "1h 30m"] })
        }
        Shape::Number(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Shape::Flag => json!({ "type": "boolean" }),
        Shape::Words(words) => json!({ "enum": words }),
        Shape::Texts => json!({ "type": "array", "items": { "type": "string" } }),
        Shape::TextTable => json!({ "type": "object", "additionalProperties": { "type": "string" } }),
        Shape::Table(name) => reference(name),
        Shape::Tables(name) => json!({
            "type": "object",
            "propertyNames": { "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$" },
            "additionalProperties": reference(name),
        }),
        Shape::Values(shape) => json!({ "type": "object", "additionalProperties": value(shape) }),
        Shape::List(name) => json!({ "type": "array", "items": reference(name) }),
        Shape::Any(shapes) => json!({ "anyOf": shapes.iter().map(value).collect::<Vec<_>>() }),
    }
}

#[cfg(test)]
mod tests;
