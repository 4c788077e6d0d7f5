//! The fields of the JSON lines as the book lists them: from the schema's definitions.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::cell;
use crate::cli::lines::SCHEMA;

/// A section for each type of line, then one for each definition that they share.
pub fn sections() -> String {
    let lines: Vec<&str> = list(&SCHEMA["oneOf"]).map(target).collect();
    let shared = definitions().keys().map(String::as_str);
    let shared = shared.filter(|name| !lines.contains(name) && *name != "line" && is_object(&definitions()[*name]));
    let mut out = String::new();
    for name in lines.iter().copied().chain(shared) {
        let definition = &definitions()[name];
        let _ = writeln!(out, "## {name}\n\n{}\n", about(definition));
        let also: Vec<String> = list(&definition["allOf"]).map(target).filter(|of| *of != "line").map(link).collect();
        if !also.is_empty() {
            let _ = writeln!(
                out,
                "It has the fields of {}{}\n",
                also.join(", "),
                if has_own(definition) { ", and" } else { "." }
            );
        }
        let mut rows = Vec::new();
        fields(definition, "", &mut rows);
        if !rows.is_empty() {
            let _ = writeln!(out, "| field | value | meaning |\n|--|--|--|\n{}\n", rows.join("\n"));
        }
    }
    out.truncate(out.trim_end().len() + 1);
    out
}

/// A row for each field, and for the fields of objects that have no definition of their own.
fn fields(schema: &Value, within: &str, rows: &mut Vec<String>) {
    let Some(properties) = schema["properties"].as_object() else { return };
    let required: Vec<&str> = list(&schema["required"]).filter_map(Value::as_str).collect();
    let sure = required.iter().copied().filter(|name| properties.contains_key(*name));
    // A definition may narrow a field of another, which says whether it may be absent.
    let narrowed = |name: &str| list(&schema["allOf"]).any(|of| is_required(&definitions()[target(of)], name));
    let others = properties.keys().map(String::as_str).filter(|name| !required.contains(name));
    for name in sure.chain(others).filter(|name| !is_of_every_line(schema, name)) {
        let field = &properties[name];
        let path = format!("{within}{name}");
        let absent = if required.contains(&name) || narrowed(name) { "" } else { "; may be absent" };
        rows.push(format!("| `{path}` | {}{absent} | {} |", kind(field), cell(&about(field))));
        let (inline, mark) = match field {
            _ if field.get("items").is_some() => (&field["items"], "[]."),
            _ if field.get("anyOf").is_some() => (&field["anyOf"][0], "."),
            _ => (field, "."),
        };
        fields(inline, &format!("{path}{mark}"), rows);
    }
}

/// What a value may be.
fn kind(schema: &Value) -> String {
    let joined = |all: Vec<String>| all.join(" or ");
    let word = |name: &str| match name {
        "array" => format!("list of {}", plural(&schema["items"])),
        "object" => match &schema["additionalProperties"] {
            to @ Value::Object(_) => format!("object by name: {}", kind(to)),
            _ => "object".to_owned(),
        },
        name => name.to_owned(),
    };
    match (&schema["$ref"], &schema["const"], &schema["type"]) {
        (Value::String(_), ..) => match is_object(&definitions()[target(schema)]) {
            true => link(target(schema)),
            false => kind(&definitions()[target(schema)]),
        },
        (_, value, _) if !value.is_null() => format!("`{value}`"),
        (_, _, Value::String(name)) => word(name),
        (_, _, Value::Array(names)) => joined(names.iter().filter_map(Value::as_str).map(word).collect()),
        _ if schema.get("enum").is_some() => {
            let code = |value: &Value| format!("`{}`", value.as_str().map_or_else(|| value.to_string(), str::to_owned));
            list(&schema["enum"]).map(code).collect::<Vec<_>>().join(", ")
        }
        _ => joined(list(&schema["anyOf"]).chain(list(&schema["allOf"])).map(kind).collect()),
    }
}

/// Of the entries of a list.
fn plural(items: &Value) -> String {
    match kind(items).as_str() {
        "string" => "strings".to_owned(),
        "object" => "objects".to_owned(),
        other => other.to_owned(),
    }
}

/// What it means: said where it is used, or where it is defined.
fn about(schema: &Value) -> String {
    let own = schema["description"].as_str();
    let defined = || definitions().get(target(schema)).and_then(|of| of["description"].as_str());
    own.or_else(defined).unwrap_or_default().to_owned()
}

fn definitions() -> &'static Map<String, Value> {
    SCHEMA["$defs"].as_object().expect("definitions")
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The definition that a `$ref` names.
fn target(schema: &Value) -> &str {
    schema["$ref"].as_str().and_then(|name| name.strip_prefix("#/$defs/")).unwrap_or_default()
}

fn link(name: &str) -> String {
    format!("[{name}](#{name})")
}

/// Whether it has a section.
fn is_object(definition: &Value) -> bool {
    definition.get("properties").is_some()
}

fn has_own(definition: &Value) -> bool {
    let properties = definition["properties"].as_object();
    properties.into_iter().flatten().any(|(name, _)| !is_of_every_line(definition, name))
}

/// `version` and `type` are said once, above.
fn is_of_every_line(schema: &Value, name: &str) -> bool {
    name == "type" && list(&schema["allOf"]).any(|of| target(of) == "line")
}

fn is_required(definition: &Value, name: &str) -> bool {
    list(&definition["required"]).any(|one| one == name)
        || list(&definition["allOf"]).any(|of| is_required(&definitions()[target(of)], name))
}
