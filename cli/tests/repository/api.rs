//! The page about the API is what its OpenAPI document says.

use std::fmt::Write as _;

use millrace_server::openapi;
use serde_json::{Map, Value};

use crate::documentation::{GENERATED, check};

/// What no descriptor says.
const INTRODUCTION: &str = r#"The same methods by gRPC, by gRPC-Web and as JSON over HTTP. `http://127.0.0.1:8113/docs` shows what stands below, of the server that you ask; `/openapi.json` is the document for programs (OpenAPI 3.1).

Every call shows a token, over gRPC as well as HTTP: `authorization: Bearer TOKEN` ([secure an installation](../how-to/secure.md)). Servers that run with `--insecure-no-auth`, such as that of `millrace dev`, ask for none.

## gRPC

Port 8112, package `millrace.v1`, defined in [proto/millrace/v1](../../proto/millrace/v1). The standard health service and reflection (`v1` and `v1alpha`) are on, so a generic client needs no files:

```console
$ grpcurl -plaintext 127.0.0.1:8112 list
$ grpcurl -plaintext -d '{"name": "shop"}' 127.0.0.1:8112 millrace.v1.MirrorService/GetMirror
```

gRPC-Web is on the same port. Web pages of other origins may ask, here and over REST, only if `MILLRACE_CORS_ORIGINS` names theirs.

## REST

Port 8113. [Use the API with curl](../how-to/use-the-api-with-curl.md) walks through a mirror's life.

- A body is `application/json`. Creates and updates take the resource as the body, and everything else (`validate_only`, `update_mask`) as query parameters; actions take their fields as the body, which may be left out.
- JSON is that of proto3 with the fields' names as in the `.proto` files (`snake_case`): all fields present, enum values as names, 64-bit integers as strings. `millrace -o json` prints the same.
- Names in paths are percent-encoded: `public."Odd: Name"` is `public.%22Odd%3A%20Name%22`.
- A watch answers a line of JSON for every change, or server-sent events to `accept: text/event-stream`. A stream that fails ends with `{"error": ...}`.

## What all methods share

- **Repeating**: creates and updates take a `request_id`, a UUID of yours; the same request again succeeds again. `allow_existing` takes an object that is there already with the same content, `allow_missing` one that is gone.
- **Trying**: `validate_only` looks at everything, the databases included, and changes nothing.
- **Concurrent changes**: an `etag` that is given must still be the object's, or the call fails with `EDIT_CONFLICT` (ABORTED, HTTP 409).
- **Updates** replace what `update_mask` names; without it, the fields that are set.
- **Lists** come in pages of `page_size`; `next_page_token` leads on, and is empty at the end.
- **Secrets** are input only: they are never sent back; `password_set` says whether there is one.

## Errors

A failed call carries a `google.rpc.Status`; over REST it is the answer, `{"code", "message", "details"}`. In its details:

- `ErrorInfo`: `reason` is the stable [error code](errors.md), `domain` is `millrace.dev`, `metadata` names the objects at fault, and under `remedy` what to do;
- `BadRequest`: every wrong field of the request;
- `PreconditionFailure`: every object that is not as it must be, such as each table without a key.

The HTTP status is that of the gRPC code, but for two: a user's database that cannot be reached or refuses its password is 424, because neither is the server down (503) nor has the caller no rights (401, 403); what is not built is 400.
"#;

#[test]
fn methods_and_messages() {
    let document = openapi::document().unwrap();
    let mut page = format!("# API\n\n{GENERATED}\n\n{INTRODUCTION}\n## Methods\n");
    for tag in document["tags"].as_array().unwrap() {
        write!(page, "\n### {}\n\n{}\n\n", text(&tag["name"]), text(&tag["description"])).unwrap();
        page.push_str("| Method | HTTP | What it does |\n|---|---|---|\n");
        for (path, verbs) in object(&document["paths"]) {
            for (verb, method) in object(verbs).iter().filter(|(_, m)| m["tags"][0] == tag["name"]) {
                let (name, words) = (text(&method["operationId"]), cell(&method["description"]));
                writeln!(page, "| `{name}` | `{} {path}` | {words} |", verb.to_uppercase()).unwrap();
            }
        }
    }
    page.push_str("\n## Messages\n");
    for (name, schema) in object(&document["components"]["schemas"]) {
        write!(page, "\n### {name}\n\n{}\n", text(&schema["description"]).trim()).unwrap();
        if let Some(fields) = schema["properties"].as_object().filter(|fields| !fields.is_empty()) {
            page.push_str("\n| Field | Type | Meaning |\n|---|---|---|\n");
            for (field, schema) in fields {
                let meaning = cell(&schema["description"]);
                writeln!(page, "| `{field}` | {} | {meaning} |", kind(schema)).unwrap();
            }
        }
    }
    check("docs/reference/api.md", &page);
}

fn object(value: &Value) -> &Map<String, Value> {
    value.as_object().unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn cell(value: &Value) -> String {
    text(value).replace("\n\n", "<br>").replace('\n', " ").replace('|', "\\|")
}

fn kind(schema: &Value) -> String {
    if let Some(name) = text(&schema["$ref"]).rsplit('/').next().filter(|name| !name.is_empty()) {
        return format!("[{name}](#{})", name.to_lowercase().replace('.', ""));
    }
    match text(&schema["type"]) {
        "array" => format!("list of {}", kind(&schema["items"])),
        "object" if schema["additionalProperties"].is_object() => {
            format!("map to {}", kind(&schema["additionalProperties"]))
        }
        plain => schema["format"].as_str().unwrap_or(plain).to_owned(),
    }
}
