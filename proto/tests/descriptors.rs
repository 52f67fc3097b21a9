//! The API as a whole, held to its rules by its descriptors: the wire format does not change by
//! accident, everything is documented, and names and standard fields are what users of such APIs expect.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::path::PathBuf;

use millrace_proto::descriptors::{self, Comments, PACKAGE, bindings, methods};
use prost_reflect::{
    DescriptorPool, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor,
};

/// How the golden file is written anew.
const UPDATE: &str = "`UPDATE_DOCS=1 cargo test -p millrace-proto`";

fn pool() -> DescriptorPool {
    descriptors::pool().unwrap()
}

fn messages(pool: &DescriptorPool) -> Vec<MessageDescriptor> {
    let ours = |message: &MessageDescriptor| message.package_name() == PACKAGE && !message.is_map_entry();
    pool.all_messages().filter(ours).collect()
}

fn enums(pool: &DescriptorPool) -> Vec<EnumDescriptor> {
    pool.all_enums().filter(|kind| kind.package_name() == PACKAGE).collect()
}

fn short(name: &str) -> &str {
    name.strip_prefix("millrace.v1.").unwrap_or(name)
}

/// The type of a field as a `.proto` file writes it.
fn type_name(field: &FieldDescriptor) -> String {
    let kind = |kind: Kind| match kind {
        Kind::Message(message) => short(message.full_name()).to_owned(),
        Kind::Enum(kind) => short(kind.full_name()).to_owned(),
        scalar => format!("{scalar:?}").to_lowercase(),
    };
    match field.kind() {
        Kind::Message(entry) if field.is_map() => {
            let (key, value) = (entry.map_entry_key_field().kind(), entry.map_entry_value_field().kind());
            format!("map<{}, {}>", kind(key), kind(value))
        }
        of if field.is_list() => format!("repeated {}", kind(of)),
        of => match field.containing_oneof() {
            None => kind(of),
            Some(oneof) if oneof.is_synthetic() => format!("optional {}", kind(of)),
            Some(oneof) => format!("oneof {} {}", oneof.name(), kind(of)),
        },
    }
}

/// Everything that a client was compiled against, a line each.
fn wire_format(pool: &DescriptorPool) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for method in methods(pool) {
        let stream = if method.is_server_streaming() { "stream " } else { "" };
        let (service, name) = (short(method.parent_service().full_name()).to_owned(), method.name());
        let (input, output) = (method.input(), method.output());
        let (input, output) = (short(input.full_name()), short(output.full_name()));
        lines.insert(format!("rpc {service}/{name}({input}) returns {stream}{output}"));
        for binding in bindings(&method) {
            let body =
                if binding.body.is_empty() { String::new() } else { format!(" body {}", binding.body) };
            lines.insert(format!("http {service}/{name} {} {}{body}", binding.verb, binding.path));
        }
    }
    for message in messages(pool) {
        let name = short(message.full_name()).to_owned();
        lines.insert(format!("message {name}"));
        for field in message.fields() {
            lines.insert(format!("field {name}.{} = {} {}", field.name(), field.number(), type_name(&field)));
        }
    }
    for kind in enums(pool) {
        for value in kind.values() {
            lines.insert(format!("enum {}.{} = {}", short(kind.full_name()), value.name(), value.number()));
        }
    }
    lines
}

#[test]
fn the_wire_format_is_the_golden_one() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("millrace.v1.golden.txt");
    let found = wire_format(&pool());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let lines: Vec<&str> = found.iter().map(String::as_str).collect();
        std::fs::write(&path, lines.join("\n") + "\n").unwrap();
        return;
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    let golden: BTreeSet<String> = golden.lines().map(str::to_owned).collect();
    let gone: Vec<&String> = golden.difference(&found).collect();
    assert!(gone.is_empty(), "clients break that were made with: {gone:#?}\nIf that is meant: {UPDATE}");
    let new: Vec<&String> = found.difference(&golden).collect();
    assert!(new.is_empty(), "new, and not yet guarded: {new:#?}\n{UPDATE}");
}

#[test]
fn everything_is_documented() {
    let pool = pool();
    let comments = Comments::new(&pool);
    let mut silent = Vec::new();
    let mut look = |file: &str, path: &[i32], name: &str| {
        let comment = comments.of(file, path);
        if !comment.ends_with('.') {
            silent.push(format!("{name}: {comment:?}"));
        }
    };
    for service in pool.services().filter(|service| service.package_name() == PACKAGE) {
        look(service.parent_file().name(), service.path(), service.full_name());
    }
    for method in methods(&pool) {
        look(method.parent_file().name(), method.path(), method.full_name());
    }
    for message in messages(&pool) {
        let file = message.parent_file();
        look(file.name(), message.path(), message.full_name());
        for field in message.fields() {
            look(file.name(), field.path(), field.full_name());
        }
        for oneof in message.oneofs().filter(|oneof| !oneof.is_synthetic()) {
            look(file.name(), oneof.path(), oneof.full_name());
        }
    }
    for kind in enums(&pool) {
        let file = kind.parent_file();
        look(file.name(), kind.path(), kind.full_name());
        for value in kind.values() {
            look(file.name(), value.path(), value.full_name());
        }
    }
    assert!(silent.is_empty(), "without a comment of whole sentences: {silent:#?}");
}

fn is_pascal(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_uppercase()) && name.bytes().all(|b| b.is_ascii_alphanumeric())
}

fn is_snake(name: &str) -> bool {
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    name.starts_with(|c: char| c.is_ascii_lowercase()) && name.bytes().all(good) && !name.contains("__")
}

fn snake(pascal: &str) -> String {
    let mut snake = String::new();
    for c in pascal.chars() {
        if c.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

/// The rules of buf's linter that matter to generated clients, but for one: values of enums bear no
/// prefix, because JSON shows them. Enums are inside of messages, so values do not collide.
#[test]
fn names_follow_the_style_of_protobuf() {
    let pool = pool();
    let mut wrong = Vec::new();
    let mut require = |ok: bool, what: String| {
        if !ok {
            wrong.push(what);
        }
    };
    for file in pool.files().filter(|file| file.package_name() == PACKAGE) {
        let in_folder = file.name().starts_with("millrace/v1/");
        require(in_folder, format!("{} is not in the package's folder", file.name()));
    }
    for method in methods(&pool) {
        let service = method.parent_service().name().to_owned();
        require(service.ends_with("Service"), format!("{service} does not end in Service"));
        require(is_pascal(method.name()), format!("{} is not PascalCase", method.full_name()));
        let request = format!("{}Request", method.name());
        require(method.input().name() == request, format!("{} does not take {request}", method.full_name()));
        let output = method.output();
        let is_response = output.name() == format!("{}Response", method.name());
        require(
            is_response || !output.name().ends_with("Response"),
            format!("{} gives another method's response", method.full_name()),
        );
    }
    for message in messages(&pool) {
        require(is_pascal(message.name()), format!("{} is not PascalCase", message.full_name()));
        for field in message.fields() {
            require(is_snake(field.name()), format!("{} is not snake_case", field.full_name()));
        }
        for oneof in message.oneofs().filter(|oneof| !oneof.is_synthetic()) {
            require(is_snake(oneof.name()), format!("{} is not snake_case", oneof.full_name()));
        }
    }
    for kind in enums(&pool) {
        require(is_pascal(kind.name()), format!("{} is not PascalCase", kind.full_name()));
        require(kind.parent_message().is_some(), format!("{} is not inside a message", kind.full_name()));
        let zero = format!("{}_UNSPECIFIED", snake(kind.name()).to_uppercase());
        let first = kind.default_value();
        require(first.number() == 0 && first.name() == zero, format!("{} lacks {zero}", kind.full_name()));
        for value in kind.values() {
            let is_upper =
                is_snake(&value.name().to_lowercase()) && value.name() == value.name().to_uppercase();
            require(is_upper, format!("{} is not UPPER_SNAKE_CASE", value.full_name()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Fields that methods of these kinds have (AIP-131 to 135, 154, 155, 158, 163).
const STANDARD_FIELDS: &[(&str, &[&str])] =
    &[("Create", &["request_id", "validate_only", "allow_existing"]), ("List", &["page_size", "page_token"])];

/// A token is shown once: a repetition could not give it again.
const NEVER_REPEATED: &[&str] = &["CreateToken"];

#[test]
fn methods_have_the_standard_fields_and_a_place_in_http() {
    let pool = pool();
    let mut wrong = Vec::new();
    let mut taken = BTreeSet::new();
    for method in methods(&pool) {
        let is_standard = |(kind, _): &&(&str, &[&str])| {
            method.name().starts_with(kind) && !NEVER_REPEATED.contains(&method.name())
        };
        for (kind, fields) in STANDARD_FIELDS.iter().filter(is_standard) {
            let lacks = |field: &&&str| method.input().get_field_by_name(field).is_none();
            wrong.extend(
                fields.iter().filter(lacks).map(|field| format!("{kind}: {} lacks {field}", method.name())),
            );
        }
        let is_list = method.name().starts_with("List");
        if is_list && method.output().get_field_by_name("next_page_token").is_none() {
            wrong.push(format!("{} gives no next_page_token", method.name()));
        }
        let bindings = bindings(&method);
        if bindings.is_empty() {
            wrong.push(format!("{} has no google.api.http", method.name()));
        }
        for binding in bindings {
            wrong.extend(
                variables(&binding.path)
                    .filter(|path| !is_text(&method, path))
                    .map(|path| format!("{}: {{{path}}} is no text field of its request", method.name())),
            );
            let shape = binding.path.split('{').map(|part| part.rsplit('}').next().unwrap_or(part));
            let shape = format!("{} {}", binding.verb, shape.collect::<Vec<_>>().join("{}"));
            if !taken.insert(shape.clone()) {
                wrong.push(format!("{}: {shape} is another method's", method.name()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn variables(path: &str) -> impl Iterator<Item = &str> {
    path.split('{').skip(1).filter_map(|rest| rest.split('}').next())
}

fn is_text(method: &MethodDescriptor, path: &str) -> bool {
    let mut message = Some(method.input());
    let mut kind = None;
    for name in path.split('.') {
        kind = message.and_then(|message| message.get_field_by_name(name)).map(|field| field.kind());
        message = kind.as_ref().and_then(Kind::as_message).cloned();
    }
    kind == Some(Kind::String)
}
