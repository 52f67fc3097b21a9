//! Which method a path means, from the `google.api.http` of the descriptors.
//!
//! Pure: no I/O.

use std::sync::Arc;

use axum::http::Method as Verb;
use millrace_proto::descriptors::{self, Binding, bindings};
use millrace_proto::json::Codec;
use millrace_terms::{Code, Error};
use percent_encoding::percent_decode_str;
use prost_reflect::{MessageDescriptor, MethodDescriptor};

use crate::fault::{Answer, invalid};

/// A method of the API.
#[derive(Debug)]
pub(super) struct Method {
    /// Path of the method in gRPC, such as `/millrace.v1.MirrorService/GetMirror`.
    pub(super) path: String,
    /// What it takes.
    pub(super) input: MessageDescriptor,
    /// JSON form of what it takes.
    pub(super) request: Codec,
    /// JSON form of what it gives.
    pub(super) response: Codec,
    /// Whether it gives more than one answer.
    pub(super) is_stream: bool,
}

/// Where the body of a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Body {
    /// There must be none.
    None,
    /// It is the method's message.
    Whole,
    /// It is this field of it.
    Field(String),
}

/// One way to call a method.
#[derive(Debug)]
pub(super) struct Route {
    verb: Verb,
    segments: Vec<Segment>,
    action: Option<String>,
    pub(super) body: Body,
    pub(super) method: Arc<Method>,
}

#[derive(Debug, PartialEq, Eq)]
enum Segment {
    Literal(String),
    /// The field that takes the segment.
    Variable(String),
}

/// The fields that a path sets, with their values.
pub(super) type Variables = Vec<(String, String)>;

/// What a path means.
#[derive(Debug)]
pub(super) enum Found<'a> {
    /// This method; an error if a segment is no text.
    Route(&'a Route, Answer<Variables>),
    /// Something, but not with this verb.
    OtherVerbs(Vec<Verb>),
    /// Nothing.
    Nothing,
}

/// All routes.
#[derive(Debug, Clone)]
pub(super) struct Table(Arc<Vec<Route>>);

impl Table {
    /// Every binding of every method.
    pub(super) fn new() -> Result<Self, Error> {
        let broken = |what: String| Error::new(Code::Internal, format!("the API's descriptors: {what}"));
        let pool = descriptors::pool().map_err(|error| broken(error.to_string()))?;
        let mut routes = Vec::new();
        for method in descriptors::methods(&pool) {
            let shared = Arc::new(
                self::method(&method).ok_or_else(|| broken(format!("{} has no JSON", method.full_name())))?,
            );
            for binding in bindings(&method) {
                let route = route(&binding, shared.clone());
                routes.push(route.ok_or_else(|| broken(format!("{} cannot be routed", binding.path)))?);
            }
        }
        Ok(Self(Arc::new(routes)))
    }

    /// The method that a verb and a raw path mean. A last segment such as `shop:pause` is an action on `shop`,
    /// unless no method has such an action; a `:` that is part of a name is percent-encoded.
    pub(super) fn find(&self, verb: &Verb, path: &str) -> Found<'_> {
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        if let Some((last, rest)) = segments.split_last()
            && let Some((name, action)) = last.rsplit_once(':')
        {
            let named: Vec<&str> = rest.iter().copied().chain([name]).collect();
            match self.find_exact(verb, &named, Some(action)) {
                Found::Nothing => {}
                found => return found,
            }
        }
        self.find_exact(verb, &segments, None)
    }

    fn find_exact(&self, verb: &Verb, segments: &[&str], action: Option<&str>) -> Found<'_> {
        let mut others = Vec::new();
        for route in self.0.iter().filter(|route| route.action.as_deref() == action) {
            if let Some(variables) = route.matched(segments) {
                if route.verb == *verb {
                    return Found::Route(route, variables);
                }
                others.push(route.verb.clone());
            }
        }
        if others.is_empty() { Found::Nothing } else { Found::OtherVerbs(others) }
    }
}

impl Route {
    fn matched(&self, path: &[&str]) -> Option<Answer<Variables>> {
        if path.len() != self.segments.len() {
            return None;
        }
        let mut variables = Ok(Vec::new());
        for (segment, found) in self.segments.iter().zip(path) {
            match segment {
                Segment::Literal(literal) if literal == found => {}
                Segment::Variable(field) if !found.is_empty() => {
                    match (percent_decode_str(found).decode_utf8(), &mut variables) {
                        (Ok(value), Ok(variables)) => variables.push((field.clone(), value.into_owned())),
                        (Err(_), Ok(_)) => variables = Err(invalid(field, "is not UTF-8")),
                        (_, Err(_)) => {}
                    }
                }
                _ => return None,
            }
        }
        Some(variables)
    }
}

fn method(descriptor: &MethodDescriptor) -> Option<Method> {
    let (service, name) = (descriptor.parent_service().full_name().to_owned(), descriptor.name());
    Some(Method {
        path: format!("/{service}/{name}"),
        request: Codec::find(descriptor.input().full_name())?,
        response: Codec::find(descriptor.output().full_name())?,
        input: descriptor.input(),
        is_stream: descriptor.is_server_streaming(),
    })
}

/// None if the path has something that we do not take: one variable is one whole segment.
fn route(binding: &Binding, method: Arc<Method>) -> Option<Route> {
    let path = binding.path.strip_prefix('/')?;
    // A `:` inside of a variable would begin its pattern, which we have none of.
    let (path, action) = match path.rsplit_once(':') {
        Some((path, action)) => (path, Some(action.to_owned())),
        None => (path, None),
    };
    let segment = |text: &str| match text.strip_prefix('{') {
        Some(rest) => Some(Segment::Variable(rest.strip_suffix('}')?.to_owned())),
        None if text.contains(['{', '}', '*']) || text.is_empty() => None,
        None => Some(Segment::Literal(text.to_owned())),
    };
    Some(Route {
        verb: binding.verb.parse().ok()?,
        segments: path.split('/').map(segment).collect::<Option<_>>()?,
        action,
        body: match binding.body.as_str() {
            "" => Body::None,
            "*" => Body::Whole,
            field => Body::Field(field.to_owned()),
        },
        method,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(verb: Verb, path: &str) -> (String, Variables) {
        match Table::new().unwrap().find(&verb, path) {
            Found::Route(route, variables) => (route.method.path.clone(), variables.unwrap()),
            other => panic!("{path}: {other:?}"),
        }
    }

    fn variables(all: &[(&str, &str)]) -> Variables {
        all.iter().map(|(field, value)| ((*field).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn paths_mean_methods() {
        let table = [
            (Verb::GET, "/v1/mirrors", "ListMirrors", variables(&[])),
            (Verb::GET, "/v1/mirrors/shop", "GetMirror", variables(&[("name", "shop")])),
            (Verb::PATCH, "/v1/mirrors/shop", "UpdateMirror", variables(&[("mirror.name", "shop")])),
            (Verb::POST, "/v1/mirrors:validate", "ValidateMirror", variables(&[])),
            (Verb::POST, "/v1/mirrors/shop:pause", "PauseMirror", variables(&[("name", "shop")])),
            (
                Verb::POST,
                "/v1/mirrors/shop/tables/public.orders:resync",
                "ResyncTable",
                variables(&[("name", "shop"), ("table", "public.orders")]),
            ),
            (
                Verb::POST,
                "/v1/mirrors/shop/tables/public.%22Odd%2F%3Aresync%20%C3%A4%22:resync",
                "ResyncTable",
                variables(&[("name", "shop"), ("table", "public.\"Odd/:resync ä\"")]),
            ),
            (
                Verb::DELETE,
                "/v1/mirrors/shop/tables/public.a:b",
                "DropTable",
                variables(&[("name", "shop"), ("table", "public.a:b")]),
            ),
        ];
        for (verb, path, method, expected) in table {
            let (found, given) = found(verb, path);
            assert!(found.ends_with(&format!("/{method}")), "{path}: {found}");
            assert_eq!(given, expected, "{path}");
        }
    }

    #[test]
    fn what_is_no_path_is_told_from_what_is_no_verb() {
        let table = Table::new().unwrap();
        for path in
            ["/", "/v1", "/v1/mirrors/", "/v1/mirrors//tables/a", "/v2/mirrors", "/v1/mirrors/a/b/c/d"]
        {
            assert!(matches!(table.find(&Verb::GET, path), Found::Nothing), "{path}");
        }
        let Found::OtherVerbs(verbs) = table.find(&Verb::GET, "/v1/mirrors/shop:pause") else {
            panic!("found")
        };
        assert_eq!(verbs, [Verb::POST]);
        let Found::Route(_, variables) = table.find(&Verb::GET, "/v1/mirrors/%FF") else { panic!("nothing") };
        assert_eq!(variables.unwrap_err().field_names(), ["name"]);
    }
}
