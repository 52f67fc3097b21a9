//! What the descriptors say beyond messages and methods: HTTP bindings and comments.
//!
//! Pure: no I/O.

use std::collections::BTreeMap;

use prost_reflect::{DescriptorError, DescriptorPool, DynamicMessage, MethodDescriptor, Value};

/// The API's package: what else is in the pool is imported.
pub const PACKAGE: &str = "millrace.v1";

/// HTTP verbs that a binding may name, as fields of `google.api.HttpRule`.
const VERBS: [&str; 5] = ["get", "put", "post", "delete", "patch"];

/// The descriptors of the API and of what it imports.
///
/// # Errors
/// They do not fit together: a defect of the build.
pub fn pool() -> Result<DescriptorPool, DescriptorError> {
    DescriptorPool::decode(crate::DESCRIPTORS)
}

/// The methods of the API, service by service.
pub fn methods(pool: &DescriptorPool) -> Vec<MethodDescriptor> {
    let services = pool.services().filter(|service| service.package_name() == PACKAGE);
    services.flat_map(|service| service.methods().collect::<Vec<_>>()).collect()
}

/// One way to call a method over HTTP: its `google.api.http`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The HTTP method, such as `GET`.
    pub verb: String,
    /// The path, such as `/v1/mirrors/{name}:pause`. A variable stands for one segment.
    pub path: String,
    /// Where the body goes: `*` into the request itself, a name into that field of it, empty for no body.
    pub body: String,
}

/// The bindings of a method; the first one is what its documentation shows.
pub fn bindings(method: &MethodDescriptor) -> Vec<Binding> {
    let pool = method.parent_pool();
    let Some(extension) = pool.get_extension_by_name("google.api.http") else { return Vec::new() };
    let options = method.options();
    if !options.has_extension(&extension) {
        return Vec::new();
    }
    match options.get_extension(&extension).as_ref() {
        Value::Message(rule) => rule_bindings(rule),
        _ => Vec::new(),
    }
}

fn rule_bindings(rule: &DynamicMessage) -> Vec<Binding> {
    let text = |field: &str| -> Option<String> {
        rule.get_field_by_name(field)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let own = VERBS.iter().find_map(|verb| {
        let body = text("body").unwrap_or_default();
        Some(Binding { verb: verb.to_uppercase(), path: text(verb)?, body })
    });
    let more = rule.get_field_by_name("additional_bindings");
    let more = more.as_ref().and_then(|rules| rules.as_list()).unwrap_or_default();
    let more = more.iter().filter_map(Value::as_message).flat_map(rule_bindings);
    own.into_iter().chain(more).collect()
}

/// The comments that lead what is declared, by the file's name and the path inside of it.
#[derive(Debug, Clone)]
pub struct Comments(BTreeMap<(String, Vec<i32>), String>);

impl Comments {
    /// Every comment of the pool.
    pub fn new(pool: &DescriptorPool) -> Self {
        let mut comments = BTreeMap::new();
        for file in pool.files() {
            let info = file.file_descriptor_proto().source_code_info.as_ref();
            for location in info.map(|info| info.location.as_slice()).unwrap_or_default() {
                if let Some(comment) = &location.leading_comments {
                    let key = (file.name().to_owned(), location.path.clone());
                    comments.insert(key, flowing(comment));
                }
            }
        }
        Self(comments)
    }

    /// The comment on what stands in the file under the path; empty if there is none.
    pub fn of(&self, file: &str, path: &[i32]) -> &str {
        self.0.get(&(file.to_owned(), path.to_vec())).map_or("", String::as_str)
    }
}

/// The comment's lines as paragraphs: only an empty line ends one.
fn flowing(comment: &str) -> String {
    let lines: Vec<&str> = comment.lines().map(str::trim).collect();
    let paragraphs = lines.split(|line| line.is_empty()).filter(|lines| !lines.is_empty());
    paragraphs.map(|lines| lines.join(" ")).collect::<Vec<_>>().join("\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bindings_and_comments_are_in_the_descriptors() {
        let pool = pool().unwrap();
        let comments = Comments::new(&pool);
        let methods = methods(&pool);
        let find = |name: &str| methods.iter().find(|method| method.name() == name).unwrap();
        let binding = |verb: &str, path: &str, body: &str| Binding {
            verb: verb.into(),
            path: path.into(),
            body: body.into(),
        };
        assert_eq!(bindings(find("CreateMirror")), [binding("POST", "/v1/mirrors", "mirror")]);
        assert_eq!(
            bindings(find("DropTable")),
            [
                binding("DELETE", "/v1/mirrors/{name}/tables/{table}", ""),
                binding("POST", "/v1/mirrors/{name}/tables/{table}:drop", "*")
            ]
        );
        let get = find("GetMirror");
        let comment = comments.of(get.parent_file().name(), get.path());
        assert_eq!(comment, "Returns a mirror with its tables, their states and progress.");
        assert_eq!(flowing(" a\n b\n\n c\n"), "a b\n\nc");
    }
}
