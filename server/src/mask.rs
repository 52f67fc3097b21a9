//! Field masks (AIP-134): what of a stored message an update replaces.
//!
//! Pure: no I/O.

use millrace_proto::descriptors;
use millrace_terms::{Code, Error};
use pbjson_types::FieldMask;
use prost::Message;
use prost_reflect::{DynamicMessage, FieldDescriptor, MessageDescriptor, ReflectMessage as _, Value};

use crate::fault::{Answer, invalid};

/// Fields that say which object is meant, and are never replaced.
const IDENTITY: [&str; 2] = ["name", "etag"];

/// The stored message of the type `kind` with what the mask names replaced by what `asked` has there.
/// Without a mask, by the fields that `asked` sets.
pub(crate) fn merged<M: Message + Default>(
    kind: &str,
    stored: &M,
    asked: &M,
    mask: Option<&FieldMask>,
) -> Answer<M> {
    let broken = |what: String| Error::new(Code::Internal, format!("{kind} was not merged: {what}"));
    let pool = descriptors::pool().map_err(|error| broken(error.to_string()))?;
    let kind = pool.get_message_by_name(kind).ok_or_else(|| broken("it is unknown".to_owned()))?;
    let dynamic = |message: &M| {
        let mut dynamic = DynamicMessage::new(kind.clone());
        dynamic.transcode_from(message).map(|()| dynamic).map_err(|error| broken(error.to_string()))
    };
    let (mut merged, asked) = (dynamic(stored)?, dynamic(asked)?);
    let paths = match mask {
        Some(mask) if !mask.paths.is_empty() => mask.paths.clone(),
        _ => set_fields(&asked),
    };
    for path in paths.iter().filter(|path| !IDENTITY.contains(&path.as_str())) {
        let names: Vec<String> = match path.as_str() {
            "*" => kind.fields().map(|field| field.name().to_owned()).collect(),
            path => vec![path.to_owned()],
        };
        for name in names.iter().filter(|name| !IDENTITY.contains(&name.as_str())) {
            replace(&mut merged, &asked, name).ok_or_else(|| {
                invalid("update_mask", format!("{path} is no field that an update can set"))
            })?;
        }
    }
    Ok(merged.transcode_to().map_err(|error| broken(error.to_string()))?)
}

/// None if the path leads nowhere.
fn replace(target: &mut DynamicMessage, from: &DynamicMessage, path: &str) -> Option<()> {
    let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
    let field = target.descriptor().get_field_by_name(name)?;
    match rest {
        None if from.has_field(&field) => target.set_field(&field, from.get_field(&field).into_owned()),
        None => target.clear_field(&field),
        Some(rest) => {
            inner(&field)?;
            let from = from.get_field(&field);
            replace(target.get_field_mut(&field).as_message_mut()?, from.as_message()?, rest)?;
        }
    }
    Some(())
}

/// The message that a field is, if a path can go on in it.
fn inner(field: &FieldDescriptor) -> Option<MessageDescriptor> {
    if field.is_list() || field.is_map() {
        return None;
    }
    let message = field.kind().as_message()?.clone();
    (message.package_name() == descriptors::PACKAGE).then_some(message)
}

/// The fields that a message sets, as paths of a mask.
fn set_fields(message: &DynamicMessage) -> Vec<String> {
    let mut paths = Vec::new();
    for (field, value) in message.fields() {
        match (inner(&field), value) {
            (Some(_), Value::Message(inside)) => {
                paths.extend(set_fields(inside).into_iter().map(|path| format!("{}.{path}", field.name())));
            }
            _ => paths.push(field.name().to_owned()),
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use millrace_proto::v1;
    use millrace_proto::v1::peer::Config;

    use super::*;

    fn postgres(host: &str, user: &str) -> v1::PostgresConfig {
        v1::PostgresConfig { host: host.into(), user: user.into(), ..Default::default() }
    }

    fn peer(config: v1::PostgresConfig) -> v1::Peer {
        v1::Peer { name: "pg".into(), config: Some(Config::Postgres(config)), ..Default::default() }
    }

    fn merge(stored: &v1::Peer, asked: &v1::Peer, paths: &[&str]) -> Answer<v1::PostgresConfig> {
        let mask = FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() };
        match merged("millrace.v1.Peer", stored, asked, Some(&mask))?.config {
            Some(Config::Postgres(config)) => Ok(config),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_mask_replaces_what_it_names_and_nothing_else() {
        let stored = peer(v1::PostgresConfig { database: "shop".into(), ..postgres("a", "u") });
        let asked = peer(postgres("b", ""));
        let host = merge(&stored, &asked, &["postgres.host"]).unwrap();
        assert_eq!((host.host.as_str(), host.user.as_str(), host.database.as_str()), ("b", "u", "shop"));
        let without = merge(&stored, &asked, &[]).unwrap();
        assert_eq!(without, host, "without a mask the fields that are set are replaced");
        for whole in ["postgres", "*"] {
            let config = merge(&stored, &asked, &[whole]).unwrap();
            assert_eq!((config.user.as_str(), config.database.as_str()), ("", ""), "{whole}");
        }
        let named = v1::Peer { name: "other".into(), ..asked };
        let kept = merged("millrace.v1.Peer", &stored, &named, None).unwrap();
        assert_eq!(kept.name, "pg");
    }

    #[test]
    fn an_empty_text_that_is_given_is_a_value() {
        let stored = peer(postgres("a", "u"));
        let asked = peer(v1::PostgresConfig { password: Some(String::new()), ..Default::default() });
        let merged = merge(&stored, &asked, &[]).unwrap();
        assert_eq!((merged.password.as_deref(), merged.user.as_str()), (Some(""), "u"));
    }

    #[test]
    fn what_is_no_field_is_refused() {
        let stored = peer(postgres("a", "u"));
        for path in ["postgres.hots", "hots", "postgres.host.x", "create_time.seconds", ""] {
            let fault = merge(&stored, &stored, &[path]).unwrap_err();
            assert_eq!(fault.field_names(), ["update_mask"], "{path}");
        }
    }
}
