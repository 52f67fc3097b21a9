//! From the parts of an HTTP request to the JSON value of a method's message (AIP-127).
//!
//! Pure: no I/O.

use axum::http::StatusCode;
use millrace_proto::json::Malformed;
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};
use url::form_urlencoded;

use super::reply::Refusal;
use super::route::{Body, Route, Variables};
use crate::fault::{Answer, invalid};

/// The message of a request, as JSON.
pub(super) fn value(route: &Route, variables: Variables, query: Option<&str>, body: &[u8]) -> Answer<Value> {
    let mut message = from_body(&route.body, body)?;
    for (key, text) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        add_parameter(&mut message, route, &key, &text)?;
    }
    for (field, text) in variables {
        let place = place(&mut message, &field)
            .ok_or_else(|| invalid(&field, "stands in the path: what holds it must be an object"))?;
        match place {
            Value::Null => *place = Value::String(text),
            Value::String(given) if *given == text => {}
            _ => return Err(invalid(&field, "is another one in the path")),
        }
    }
    Ok(message)
}

/// The refusal of a value that is no such message.
pub(super) fn malformed(error: Malformed) -> Refusal {
    let field = if error.field == "." { "body".to_owned() } else { error.field };
    Refusal::new(StatusCode::BAD_REQUEST, invalid(&field, error.what))
}

fn from_body(place: &Body, body: &[u8]) -> Answer<Value> {
    let empty = || Value::Object(Map::new());
    let parsed = match body.trim_ascii() {
        [] => empty(),
        // The parser's words say line and column; they quote nothing.
        text => {
            serde_json::from_slice(text).map_err(|error| invalid("body", format!("is no JSON: {error}")))?
        }
    };
    match place {
        Body::None if parsed == empty() => Ok(empty()),
        Body::None => Err(invalid("body", "must be empty: what this method takes stands in path and query")),
        Body::Whole if parsed.is_object() => Ok(parsed),
        Body::Whole => Err(invalid("body", "must be an object")),
        Body::Field(field) => Ok(json!({ field: parsed })),
    }
}

/// The value of a field inside of a message, made if it is not there.
fn place<'a>(message: &'a mut Value, path: &str) -> Option<&'a mut Value> {
    path.split('.').try_fold(message, |value, name| {
        if value.is_null() {
            *value = Value::Object(Map::new());
        }
        Some(value.as_object_mut()?.entry(name.to_owned()).or_insert(Value::Null))
    })
}

fn add_parameter(message: &mut Value, route: &Route, key: &str, text: &str) -> Answer<()> {
    let unknown = || invalid(key, "is no parameter of this method");
    let top = key.split('.').next().unwrap_or_default();
    let is_elsewhere = match &route.body {
        Body::None => false,
        Body::Whole => true,
        Body::Field(field) => field == top,
    };
    let field = field(&route.method.input, key).filter(|_| !is_elsewhere).ok_or_else(unknown)?;
    let value = parameter(&field, text).ok_or_else(|| invalid(key, "is not of the parameter's type"))?;
    let place = place(message, key).ok_or_else(unknown)?;
    match place {
        Value::Null if field.is_list() => *place = Value::Array(vec![value]),
        Value::Null => *place = value,
        Value::Array(values) if field.is_list() => values.push(value),
        _ => return Err(invalid(key, "is given twice")),
    }
    Ok(())
}

/// The field of that path: every part but the last one is a single message.
fn field(message: &MessageDescriptor, path: &str) -> Option<FieldDescriptor> {
    match path.split_once('.') {
        None => message.get_field_by_name(path),
        Some((first, rest)) => {
            let outer =
                message.get_field_by_name(first).filter(|field| !field.is_list() && !field.is_map())?;
            field(outer.kind().as_message()?, rest)
        }
    }
}

/// A parameter's text as JSON has it; none if no text can be such a field.
fn parameter(field: &FieldDescriptor, text: &str) -> Option<Value> {
    Some(match field.kind() {
        _ if field.is_map() => return None,
        Kind::Bool => Value::Bool(text.parse().ok()?),
        Kind::Enum(_) => text.parse::<i32>().map_or_else(|_| Value::from(text), Value::from),
        Kind::Message(message) => match message.full_name() {
            "google.protobuf.FieldMask" => {
                let paths: Vec<&str> =
                    text.split(',').map(str::trim).filter(|path| !path.is_empty()).collect();
                json!({ "paths": paths })
            }
            "google.protobuf.Timestamp" | "google.protobuf.Duration" => Value::from(text),
            _ => return None,
        },
        // Numbers may be text in a message's JSON, and are checked there.
        _ => Value::from(text),
    })
}

#[cfg(test)]
mod tests {
    use axum::http::Method as Verb;

    use super::super::route::{Found, Table};
    use super::*;

    fn read(verb: Verb, target: &str, body: &str) -> Answer<Value> {
        let table = Table::new().unwrap();
        let (path, query) =
            target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        match table.find(&verb, path) {
            Found::Route(route, variables) => value(route, variables?, query, body.as_bytes()),
            other => panic!("{target}: {other:?}"),
        }
    }

    #[test]
    fn path_query_and_body_become_one_message() {
        let patch = "/v1/mirrors/shop?update_mask=tables,settings.flush.max_rows&validate_only=true";
        assert_eq!(
            read(Verb::PATCH, patch, r#"{"tables": []}"#),
            Ok(json!({
                "mirror": {"name": "shop", "tables": []},
                "update_mask": {"paths": ["tables", "settings.flush.max_rows"]},
                "validate_only": true
            }))
        );
        assert_eq!(
            read(Verb::GET, "/v1/mirrors/shop/events?page_size=7&page_token=a%2Bb+c", ""),
            Ok(json!({"name": "shop", "page_size": "7", "page_token": "a+b c"}))
        );
        assert_eq!(read(Verb::POST, "/v1/mirrors/shop:pause", ""), Ok(json!({"name": "shop"})));
        assert_eq!(read(Verb::DELETE, "/v1/mirrors/shop", "{}"), Ok(json!({"name": "shop"})));
        assert_eq!(
            read(Verb::POST, "/v1/mirrors/shop:pause", r#"{"name": "shop"}"#),
            Ok(json!({"name": "shop"}))
        );
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let wrong = [
            (Verb::GET, "/v1/mirrors?colour=red", "", "colour"),
            (Verb::GET, "/v1/mirrors?page_size=1&page_size=2", "", "page_size"),
            (Verb::GET, "/v1/mirrors/shop?name=other", "", "name"),
            (Verb::DELETE, "/v1/mirrors/shop?allow_missing=maybe", "", "allow_missing"),
            (Verb::DELETE, "/v1/mirrors/shop", "[]", "body"),
            (Verb::POST, "/v1/mirrors/shop:pause", "[]", "body"),
            (Verb::POST, "/v1/mirrors/shop:pause", "{", "body"),
            (Verb::POST, "/v1/mirrors/shop:pause?request_id=x", "", "request_id"),
            (Verb::POST, "/v1/mirrors/shop:pause", r#"{"name": "other"}"#, "name"),
            (Verb::POST, "/v1/mirrors?mirror.name=x", "{}", "mirror.name"),
            (Verb::PATCH, "/v1/mirrors/shop", "7", "mirror.name"),
        ];
        for (verb, target, body, field) in wrong {
            assert_eq!(read(verb, target, body).unwrap_err().field_names(), [field], "{target} {body}");
        }
    }
}
