//! What is written into the audit log, and when: around every call that changes something, in one place.

use std::sync::Arc;

use millrace_catalog as catalog;
use millrace_terms::Code;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::roles::{self, Effect, Object};
use super::{Caller, permit};
use crate::control::Control;
use crate::convert::{access, view};
use crate::fault::Answer;

/// Fields of requests that hold secrets, whatever message they are in. A document of `apply` may hold any.
const SECRET_FIELDS: [&str; 4] = ["password", "key", "document", "secret"];
/// Fields by which a request asks what would happen, and changes nothing.
const TRIAL_FIELDS: [&str; 2] = ["validate_only", "dry_run"];
/// Bytes of each of request, before and after at most. A mirror of some hundred tables fits; of a larger one is
/// only said how large it was.
const DOCUMENT_BYTES_MAX: usize = 64 << 10;
/// Characters of a subject at most: names are shorter, and refused requests may hold any.
const SUBJECT_CHARS_MAX: usize = 200;

/// Who asks for what.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) caller: Caller,
    pub(crate) method: &'static str,
    pub(crate) request_id: String,
}

/// Carries a call out, if its caller's role allows it, and writes it down if it changes something. `told` makes
/// of the answer what was changed, for methods that change several objects.
pub(crate) async fn carry_out<M, T, W>(
    control: Arc<Control>,
    asked: Asked,
    message: M,
    work: impl FnOnce(Arc<Control>, Caller, M) -> W,
    told: impl FnOnce(&T) -> Value,
) -> Answer<T>
where
    M: Serialize,
    W: Future<Output = Answer<T>>,
{
    let permitted = permit(&asked.caller, asked.method);
    let Effect::Changes(object) = roles::effect(asked.method) else {
        permitted?;
        return work(control, asked.caller, message).await;
    };
    let request = plain(serde_json::to_value(&message).unwrap_or_default());
    if TRIAL_FIELDS.iter().any(|field| request.get(field) == Some(&Value::Bool(true))) {
        permitted?;
        return work(control, asked.caller, message).await;
    }
    let name = name_of(object, &request);
    let (answer, before) = match permitted {
        Err(refused) => (Err(refused.into()), None),
        Ok(()) => {
            let before = look(&control, object, &name).await;
            (work(control.clone(), asked.caller.clone(), message).await, before)
        }
    };
    let after = match &answer {
        Ok(answer) if object == Object::Several => Some(plain(told(answer))),
        Ok(_) => look(&control, object, &name).await,
        Err(_) => before.clone(),
    };
    let code = answer.as_ref().err().map_or("OK", |fault| fault.error.code().as_str());
    let call = catalog::audit::Call {
        caller: asked.caller.name,
        role: asked.caller.role,
        method: asked.method.to_owned(),
        subject: subject(object, &name, &request),
        request_id: asked.request_id,
        code: code.to_owned(),
        request: bounded(request),
        before: before.map(bounded),
        after: after.map(bounded),
    };
    write(&control, &call).await;
    answer
}

/// The call is over, so its answer stays what it is; what could not be written down is in the log of the server.
async fn write(control: &Control, call: &catalog::audit::Call) {
    let catalog::audit::Call { caller, method, subject, request_id, code, .. } = call;
    tracing::info!(caller, method, subject, request_id, outcome = code, "a change was asked for");
    if let Err(error) = control.catalog.add_audit_entry(call).await {
        tracing::error!(caller, method, subject, request_id, code = %error.code(), message = error.message(), "the audit entry is lost");
    }
}

/// The object as it is now, without secrets; none if there is none, or if it cannot be looked at.
async fn look(control: &Control, object: Object, name: &str) -> Option<Value> {
    let catalog = &control.catalog;
    let seen = match object {
        Object::Several => return None,
        Object::Peer => catalog.get_peer(name).await.map(|peer| plain(value(&view::peer(&peer)))),
        Object::Token => catalog.get_token(name).await.map(|token| plain(value(&access::token(&token)))),
        Object::Mirror | Object::Table => catalog.get_mirror(name).await.map(|mirror| {
            let tables = mirror.tables.iter().map(|table| {
                plain(json!({
                    "source": table.source.to_string(),
                    "destination": table.destination,
                    "state": table.state,
                    "copy_cancelled": table.copy_cancelled,
                }))
            });
            let tables: Value = tables.collect();
            json!({"desired_state": mirror.desired, "state": mirror.state, "spec": mirror.spec, "tables": tables})
        }),
    };
    match seen {
        Ok(seen) => Some(seen),
        Err(error) => {
            if !matches!(error.code(), Code::PeerNotFound | Code::MirrorNotFound | Code::TokenNotFound) {
                tracing::warn!(code = %error.code(), message = error.message(), "the audit log lacks an object");
            }
            None
        }
    }
}

fn value(message: &impl Serialize) -> Value {
    serde_json::to_value(message).unwrap_or_default()
}

/// The name in a request: of what is to be made, or of what is there.
fn name_of(object: Object, request: &Value) -> String {
    let made = match object {
        Object::Peer => request.get("peer"),
        Object::Mirror => request.get("mirror"),
        Object::Token => request.get("token"),
        Object::Table | Object::Several => None,
    };
    let name = made.and_then(|made| made.get("name")).or_else(|| request.get("name"));
    name.and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// What the audit log calls an object.
fn subject(object: Object, name: &str, request: &Value) -> String {
    let table = || request.get("table").and_then(Value::as_str).unwrap_or_default();
    let subject = match object {
        Object::Several => String::new(),
        Object::Peer => format!("peers/{name}"),
        Object::Mirror => format!("mirrors/{name}"),
        Object::Table => format!("mirrors/{name}/tables/{}", table()),
        Object::Token => format!("tokens/{name}"),
    };
    subject.chars().take(SUBJECT_CHARS_MAX).collect()
}

/// A message without its secrets and without fields at their defaults, as PostgreSQL can store it.
fn plain(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.into_iter().filter(|(name, _)| !SECRET_FIELDS.contains(&name.as_str()));
            let kept = kept.map(|(name, value)| (storable(&name), plain(value)));
            Value::Object(kept.filter(|(_, value)| !is_default(value)).collect::<Map<_, _>>())
        }
        Value::Array(items) => items.into_iter().map(plain).collect(),
        Value::String(text) => Value::String(storable(&without_userinfo(&text))),
        other => other,
    }
}

/// A URL without the user and the password that somebody wrote into it, though no URL of ours takes any.
fn without_userinfo(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    // A password may hold any character, so what counts is the last of these.
    match rest.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://{host}"),
        None => text.to_owned(),
    }
}

/// PostgreSQL's texts hold no NUL.
fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

fn is_default(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        // 64-bit numbers are texts in proto3's JSON.
        Value::String(text) => text.is_empty() || text == "0" || text.ends_with("_UNSPECIFIED"),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

fn bounded(value: Value) -> Value {
    match value.to_string().len() {
        bytes if bytes > DOCUMENT_BYTES_MAX => json!({"left_out": format!("{bytes} bytes")}),
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use millrace_proto::v1;

    use super::*;

    #[test]
    fn no_secret_of_a_request_is_written_down() {
        let tls = v1::TlsConfig { cert: "public".into(), key: Some("hunter2".into()), ..Default::default() };
        let config = v1::PostgresConfig {
            host: "db".into(),
            password: Some("hunter2".into()),
            tls: Some(tls),
            ..Default::default()
        };
        let peer = v1::Peer {
            name: "pg".into(),
            config: Some(v1::peer::Config::Postgres(config)),
            ..Default::default()
        };
        let request = v1::CreatePeerRequest { peer: Some(peer), ..Default::default() };
        let written = plain(value(&request));
        assert_eq!(
            written,
            json!({"peer": {"name": "pg", "postgres": {"host": "db", "tls": {"cert": "public"}}}})
        );
        assert_eq!(
            (name_of(Object::Peer, &written), subject(Object::Peer, "pg", &written)),
            ("pg".into(), "peers/pg".into())
        );
        let apply =
            v1::ApplyRequest { document: "password: hunter2".into(), prune: true, ..Default::default() };
        assert_eq!(plain(value(&apply)), json!({"prune": true}));
    }

    /// A field that is only ever sent to us is a secret: the API's own words say so.
    #[test]
    fn every_field_that_is_never_answered_is_known_as_a_secret() {
        let pool = prost_reflect::DescriptorPool::decode(millrace_proto::DESCRIPTORS).unwrap();
        let mut seen = 0;
        for file in pool.files().filter(|file| file.package_name() == "millrace.v1") {
            let source = file.file_descriptor_proto().source_code_info.clone().unwrap_or_default();
            for message in file.messages() {
                for field in message.fields() {
                    let path = field.path();
                    let location = source.location.iter().find(|location| location.path == path);
                    let words =
                        location.map(|location| location.leading_comments().trim_start()).unwrap_or_default();
                    if words.starts_with("Input only.") {
                        seen += 1;
                        assert!(SECRET_FIELDS.contains(&field.name()), "{}", field.full_name());
                    }
                }
            }
        }
        assert!(seen >= 3, "passwords and keys were not found");
    }

    #[test]
    fn no_password_in_a_url_is_written_down() {
        let written = plain(json!({"url": "https://u:hunter2/x@y@ch:8443/path", "host": "a@b"}));
        assert_eq!(written, json!({"url": "https://ch:8443/path", "host": "a@b"}));
    }

    #[test]
    fn subjects_name_the_object_and_stay_short() {
        let request = json!({"name": "shop", "table": "public.orders"});
        assert_eq!(subject(Object::Table, "shop", &request), "mirrors/shop/tables/public.orders");
        assert_eq!(subject(Object::Peer, &"x".repeat(1 << 20), &request).len(), SUBJECT_CHARS_MAX);
        assert_eq!(plain(json!({"name": "a\0b"})), json!({"name": "a\u{fffd}b"}));
        assert_eq!(bounded(json!("x".repeat(DOCUMENT_BYTES_MAX)))["left_out"], "65538 bytes");
    }
}
