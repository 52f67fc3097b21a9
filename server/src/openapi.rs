//! The OpenAPI document of REST, made of the descriptors and their comments.
//!
//! Pure: no I/O.

mod schema;

use millrace_proto::descriptors::{self, Binding, Comments, bindings};
use millrace_terms::{Code, Error, Result};
use prost_reflect::{DescriptorPool, FieldDescriptor, Kind, MethodDescriptor};
use serde_json::{Map, Value, json};

use schema::Schemas;

/// The version of OpenAPI that the document follows.
const OPENAPI: &str = "3.1.0";

/// What stands at the top of the document.
const DESCRIPTION: &str = "\
The control plane of Millrace, which replicates PostgreSQL into ClickHouse. Every method is the one of the same \
name in gRPC (package `millrace.v1`).

JSON is that of proto3 with the fields' names as they are here: answers hold every field, 64-bit numbers are text, \
and enum values are names. What is called \"output only\" is ignored in requests. Fields that are not known are \
refused.

Lists come in one order, that which their method names: there is no `order_by`; nor is there a `read_mask`. Creations \
and changes take a `request_id`, by which a repeated one is done once; a deletion is repeated with `allow_missing`.

A failed call answers with a `Status`: `code` is that of gRPC, and in `details` the `ErrorInfo` has the stable \
error code as `reason`, and the remedy in its `metadata`.";

/// The document.
///
/// # Errors
/// INTERNAL: the descriptors do not fit together, a defect of the build.
pub fn document() -> Result<Value> {
    let pool = descriptors::pool()
        .map_err(|error| Error::new(Code::Internal, format!("the API's descriptors: {error}")))?;
    let comments = Comments::new(&pool);
    let mut schemas = Schemas::new(&comments);
    let mut paths = Map::new();
    for method in descriptors::methods(&pool) {
        for (number, binding) in bindings(&method).iter().enumerate() {
            let place = paths.entry(named(&binding.path)).or_insert_with(|| json!({}));
            place[binding.verb.to_lowercase()] = operation(&method, binding, number, &comments, &mut schemas);
        }
    }
    schemas.add_status();
    Ok(json!({
        "openapi": OPENAPI,
        "info": {
            "title": "Millrace",
            "version": env!("CARGO_PKG_VERSION"),
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": tags(&pool, &comments),
        "paths": paths,
        "components": {
            "schemas": schemas.into_value(),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        // The second says that a server may ask for none.
        "security": [{"token": []}, {}],
    }))
}

fn tags(pool: &DescriptorPool, comments: &Comments) -> Vec<Value> {
    let ours = pool.services().filter(|service| service.package_name() == descriptors::PACKAGE);
    ours.map(|service| {
        let description = comments.of(service.parent_file().name(), service.path());
        json!({"name": service.name(), "description": description})
    })
    .collect()
}

/// The path with its variables named by the last part of their fields, so that the verbs of one object
/// stand together: `{mirror.name}` is `{name}`.
fn named(path: &str) -> String {
    let mut parts = path.split('{');
    let mut named = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (field, rest) = part.split_once('}').unwrap_or((part, ""));
        named.push_str(&format!("{{{}}}{rest}", last(field)));
    }
    named
}

fn last(field: &str) -> &str {
    field.rsplit('.').next().unwrap_or(field)
}

fn variables(path: &str) -> Vec<&str> {
    path.split('{').skip(1).filter_map(|part| Some(part.split_once('}')?.0)).collect()
}

fn operation(
    method: &MethodDescriptor,
    binding: &Binding,
    number: usize,
    comments: &Comments,
    schemas: &mut Schemas<'_>,
) -> Value {
    let description = comments.of(method.parent_file().name(), method.path());
    let summary = description.split(". ").next().unwrap_or_default().trim_end_matches('.');
    let id = match number {
        0 => method.name().to_owned(),
        // Every operation has a name of its own, for generated clients.
        more => format!("{}{}", method.name(), more + 1),
    };
    let mut operation = json!({
        "operationId": id,
        "tags": [method.parent_service().name()],
        "summary": summary,
        "description": description,
        "parameters": parameters(method, binding, schemas),
        "responses": responses(method, schemas),
    });
    if let Some(body) = body(method, binding, schemas) {
        operation["requestBody"] = body;
    }
    operation
}

fn parameters(method: &MethodDescriptor, binding: &Binding, schemas: &mut Schemas<'_>) -> Vec<Value> {
    let in_path = variables(&binding.path);
    let mut parameters: Vec<Value> = in_path
        .iter()
        .filter_map(|path| {
            let field = field(method, path)?;
            let description = schemas.comment(&field);
            let schema = schemas.of_text(&field);
            Some(json!({
                "name": last(path), "in": "path", "required": true, "description": description, "schema": schema,
            }))
        })
        .collect();
    if binding.body == "*" {
        return parameters;
    }
    for field in method.input().fields() {
        let elsewhere = field.name() == binding.body || in_path.contains(&field.name());
        let holds_path = in_path.iter().any(|path| path.split('.').next() == Some(field.name()));
        if !elsewhere && !holds_path && is_parameter(&field) {
            let description = schemas.comment(&field);
            let schema = schemas.of_text(&field);
            parameters.push(json!({
                "name": field.name(), "in": "query", "description": description, "schema": schema,
            }));
        }
    }
    parameters
}

/// Whether a text can be the field.
fn is_parameter(field: &FieldDescriptor) -> bool {
    match field.kind() {
        _ if field.is_map() => false,
        Kind::Message(message) => schema::well_known(message.full_name()).is_some(),
        _ => true,
    }
}

fn field(method: &MethodDescriptor, path: &str) -> Option<FieldDescriptor> {
    let (outer, name) = match path.rsplit_once('.') {
        None => (method.input(), path),
        Some((outer, name)) => {
            let field = field(method, outer)?;
            (field.kind().as_message()?.clone(), name)
        }
    };
    outer.get_field_by_name(name)
}

fn body(method: &MethodDescriptor, binding: &Binding, schemas: &mut Schemas<'_>) -> Option<Value> {
    let in_path = variables(&binding.path);
    let (schema, is_required) = match binding.body.as_str() {
        "" => return None,
        "*" => (schemas.of_fields(&method.input(), &in_path), in_path.is_empty()),
        name => (schemas.of_field(&method.input().get_field_by_name(name)?), true),
    };
    Some(json!({"required": is_required, "content": {"application/json": {"schema": schema}}}))
}

fn responses(method: &MethodDescriptor, schemas: &mut Schemas<'_>) -> Value {
    let schema = schemas.of_message(&method.output());
    let (description, content) = if method.is_server_streaming() {
        let lines = json!({"schema": {"type": "string", "description": "A JSON value in every line, each as below; the last line of a stream that fails is `{\"error\": Status}`."}, "x-item-schema": schema});
        let events = json!({"schema": {"type": "string", "description": "The same as server-sent events, for `accept: text/event-stream`."}, "x-item-schema": schema});
        ("A stream of answers.", json!({"application/x-ndjson": lines, "text/event-stream": events}))
    } else {
        ("Done.", json!({"application/json": {"schema": schema}}))
    };
    let failed = json!({"application/json": {"schema": {"$ref": "#/components/schemas/Status"}}});
    json!({
        "200": {"description": description, "content": content},
        "default": {"description": "It failed.", "content": failed},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_every_method_with_its_words() {
        let document = document().unwrap();
        let pause = &document["paths"]["/v1/mirrors/{name}:pause"]["post"];
        assert_eq!(pause["operationId"], "PauseMirror");
        assert_eq!(pause["parameters"][0]["name"], "name");
        assert_eq!(pause["requestBody"]["required"], false);
        assert!(pause["description"].as_str().unwrap().starts_with("Ends the stream after"));
        let body = &pause["requestBody"]["content"]["application/json"]["schema"]["properties"];
        assert!(body["request_id"].is_object() && body["name"].is_null(), "{body}");
        let update = &document["paths"]["/v1/mirrors/{name}"]["patch"];
        let names: Vec<_> = update["parameters"].as_array().unwrap().iter().map(|p| &p["name"]).collect();
        assert_eq!(names[..2], ["name", "update_mask"]);
        let operations = document["paths"].as_object().unwrap().values();
        let ids: Vec<_> = operations
            .flat_map(|path| path.as_object().unwrap().values().map(|o| o["operationId"].to_string()))
            .collect();
        let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len(), "{ids:?}");
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document().unwrap();
        let text = document.to_string();
        for reference in text.split("\"$ref\":\"#/components/schemas/").skip(1) {
            let name = reference.split('"').next().unwrap();
            assert!(document["components"]["schemas"][name].is_object(), "{name}");
        }
        let mirror = &document["components"]["schemas"]["Mirror"]["properties"];
        assert_eq!(mirror["state"]["readOnly"], true);
        assert_eq!(mirror["tables"]["items"]["$ref"], "#/components/schemas/Table");
        assert_eq!(document["components"]["schemas"]["Table"]["properties"]["rows_copied"]["type"], "string");
        let password = &document["components"]["schemas"]["PostgresConfig"]["properties"]["password"];
        assert_eq!(password["writeOnly"], true);
    }
}
