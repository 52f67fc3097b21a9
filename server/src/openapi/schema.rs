//! Messages as JSON schemas.
//!
//! Pure: no I/O.

use millrace_proto::descriptors::{Comments, PACKAGE};
use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

/// What comments on fields begin with that no request sets.
const OUTPUT_ONLY: &str = "Output only.";
/// Names of peers and mirrors.
const NAME: &str = "^[a-z][a-z0-9-]{0,39}$";
/// What comments on fields begin with that no answer holds.
const INPUT_ONLY: &str = "Input only.";

/// The schemas that were used so far, by their names.
pub(super) struct Schemas<'a> {
    comments: &'a Comments,
    all: Map<String, Value>,
}

impl<'a> Schemas<'a> {
    pub(super) fn new(comments: &'a Comments) -> Self {
        Self { comments, all: Map::new() }
    }

    pub(super) fn into_value(self) -> Value {
        Value::Object(self.all)
    }

    /// What a field means.
    pub(super) fn comment(&self, field: &FieldDescriptor) -> String {
        self.comments.of(field.parent_message().parent_file().name(), field.path()).to_owned()
    }

    /// A message, by reference.
    pub(super) fn of_message(&mut self, message: &MessageDescriptor) -> Value {
        if let Some(schema) = well_known(message.full_name()) {
            return schema;
        }
        let name = name(message.full_name());
        if !self.all.contains_key(&name) {
            // Its place is taken first: a message may hold itself.
            self.all.insert(name.clone(), Value::Null);
            let schema = self.of_fields(message, &[]);
            self.all.insert(name.clone(), schema);
        }
        reference(&name)
    }

    /// A message, without these fields.
    pub(super) fn of_fields(&mut self, message: &MessageDescriptor, without: &[&str]) -> Value {
        let mut properties = Map::new();
        for field in message.fields().filter(|field| !without.contains(&field.name())) {
            properties.insert(field.name().to_owned(), self.of_field(&field));
        }
        let mut description = self.comments.of(message.parent_file().name(), message.path()).to_owned();
        for oneof in message.oneofs().filter(|oneof| !oneof.is_synthetic()) {
            let names: Vec<String> = oneof.fields().map(|field| format!("`{}`", field.name())).collect();
            description.push_str(&format!("\n\nAt most one of {} is set.", names.join(", ")));
        }
        json!({
            "type": "object",
            "description": description,
            "properties": properties,
            "additionalProperties": false,
        })
    }

    /// A field with its comment.
    pub(super) fn of_field(&mut self, field: &FieldDescriptor) -> Value {
        let mut schema = self.bare(field);
        let description = self.comment(field);
        if let Some(schema) = schema.as_object_mut() {
            if description.starts_with(OUTPUT_ONLY) {
                schema.insert("readOnly".to_owned(), Value::Bool(true));
            }
            if description.starts_with(INPUT_ONLY) {
                schema.insert("writeOnly".to_owned(), Value::Bool(true));
            }
            schema.insert("description".to_owned(), Value::from(description));
        }
        schema
    }

    /// A field without its comment, as a parameter in a path or a query has it.
    pub(super) fn of_text(&mut self, field: &FieldDescriptor) -> Value {
        self.bare(field)
    }

    fn bare(&mut self, field: &FieldDescriptor) -> Value {
        match field.kind() {
            Kind::String if field.name() == "request_id" => json!({"type": "string", "format": "uuid"}),
            Kind::String if is_name(field) => json!({"type": "string", "pattern": NAME}),
            Kind::Message(entry) if field.is_map() => {
                let value = self.of_kind(&entry.map_entry_value_field().kind());
                json!({"type": "object", "additionalProperties": value})
            }
            kind if field.is_list() => json!({"type": "array", "items": self.of_kind(&kind)}),
            kind => self.of_kind(&kind),
        }
    }

    fn of_kind(&mut self, kind: &Kind) -> Value {
        let whole =
            |format: &str, pattern: &str| json!({"type": "string", "format": format, "pattern": pattern});
        match kind {
            Kind::Message(message) => self.of_message(message),
            Kind::Enum(kind) => self.of_enum(kind),
            Kind::Bool => json!({"type": "boolean"}),
            Kind::String => json!({"type": "string"}),
            Kind::Bytes => json!({"type": "string", "contentEncoding": "base64"}),
            Kind::Double | Kind::Float => json!({"type": "number"}),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
                json!({"type": "integer", "minimum": i32::MIN, "maximum": i32::MAX})
            }
            Kind::Uint32 | Kind::Fixed32 => json!({"type": "integer", "minimum": 0, "maximum": u32::MAX}),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => whole("int64", "^-?[0-9]{1,19}$"),
            Kind::Uint64 | Kind::Fixed64 => whole("uint64", "^[0-9]{1,20}$"),
        }
    }

    fn of_enum(&mut self, kind: &EnumDescriptor) -> Value {
        let name = name(kind.full_name());
        if !self.all.contains_key(&name) {
            let file = kind.parent_file();
            let mut description = self.comments.of(file.name(), kind.path()).to_owned();
            for value in kind.values() {
                let comment = self.comments.of(file.name(), value.path());
                description.push_str(&format!("\n- `{}`: {comment}", value.name()));
            }
            let values: Vec<String> = kind.values().map(|value| value.name().to_owned()).collect();
            self.all
                .insert(name.clone(), json!({"type": "string", "enum": values, "description": description}));
        }
        reference(&name)
    }

    /// What a failed call answers: `google.rpc.Status`.
    pub(super) fn add_status(&mut self) {
        let detail = json!({
            "type": "object",
            "description": "`google.rpc.ErrorInfo` (`reason`, `domain`, `metadata` with `remedy`), `BadRequest` (`field_violations`), `PreconditionFailure` (`violations`) or `LocalizedMessage`, told apart by `@type`.",
            "properties": {"@type": {"type": "string"}},
            "required": ["@type"],
        });
        let status = json!({
            "type": "object",
            "description": "Why a call failed.",
            "properties": {
                "code": {"type": "integer", "description": "Code of gRPC, such as 5 for NOT_FOUND."},
                "message": {"type": "string", "description": "What was seen. Never holds a secret or a row's value."},
                "details": {"type": "array", "items": detail},
            },
            "required": ["code", "message", "details"],
        });
        self.all.insert("Status".to_owned(), status);
    }
}

/// Whether a field is the name of a peer or a mirror: that of a request about one, or its own.
fn is_name(field: &FieldDescriptor) -> bool {
    let message = field.parent_message();
    let has_name = message.name().ends_with("Request") || ["Mirror", "Peer"].contains(&message.name());
    field.name() == "name" && has_name
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// `millrace.v1.Mirror.State` is `Mirror.State`.
fn name(full: &str) -> String {
    full.strip_prefix(PACKAGE).map_or(full, |rest| rest.trim_start_matches('.')).to_owned()
}

/// Messages of protobuf's own whose JSON is not an object of their fields.
pub(super) fn well_known(message: &str) -> Option<Value> {
    Some(match message {
        "google.protobuf.Timestamp" => json!({"type": "string", "format": "date-time"}),
        "google.protobuf.Duration" => {
            json!({"type": "string", "pattern": "^-?[0-9]{1,12}(\\.[0-9]{1,9})?s$", "examples": ["0.050s"]})
        }
        "google.protobuf.FieldMask" => {
            json!({"type": "string", "description": "Paths of fields, with commas between.", "examples": ["tables,settings.flush"]})
        }
        "google.protobuf.Struct" => json!({"type": "object", "additionalProperties": true}),
        _ => return None,
    })
}
