//! Tokens and audit entries: the API's form and the catalog's.

use catalog::audit::Entry;
use catalog::tokens::{Role, Token};
use jiff::Timestamp;
use millrace_catalog as catalog;
use millrace_proto::v1;
use serde_json::Value;

use super::view::time;
use crate::fault::{Answer, invalid};

/// A token, without its text.
pub(crate) fn token(token: &Token) -> v1::Token {
    v1::Token {
        name: token.name.clone(),
        role: role(token.role).into(),
        expire_time: token.expires_at.map(time),
        id: token.id.clone(),
        created_by: token.created_by.clone(),
        create_time: Some(time(token.created_at)),
        last_use_time: token.last_used_at.map(time),
    }
}

/// A call that was written down.
pub(crate) fn audit_entry(entry: Entry) -> v1::AuditEntry {
    let call = entry.call;
    v1::AuditEntry {
        id: entry.id,
        time: Some(time(entry.at)),
        caller: call.caller,
        role: role(call.role).into(),
        method: call.method,
        subject: call.subject,
        request_id: call.request_id,
        code: call.code,
        request: object(call.request),
        before: call.before.and_then(object),
        after: call.after.and_then(object),
    }
}

/// A role that a token may be made with.
pub(crate) fn to_role(role: v1::token::Role) -> Answer<Role> {
    match role {
        v1::token::Role::Unspecified => Err(invalid("token.role", "must be VIEWER, OPERATOR or ADMIN")),
        v1::token::Role::Viewer => Ok(Role::Viewer),
        v1::token::Role::Operator => Ok(Role::Operator),
        v1::token::Role::Admin => Ok(Role::Admin),
    }
}

/// The end of a token that is to be made; it lies ahead.
pub(crate) fn to_end(end: Option<&millrace_proto::Timestamp>, now: Timestamp) -> Answer<Option<Timestamp>> {
    let Some(end) = end else { return Ok(None) };
    let end =
        Timestamp::new(end.seconds, end.nanos).map_err(|_| invalid("token.expire_time", "is no time"))?;
    if end <= now {
        return Err(invalid("token.expire_time", format!("{end} is over")));
    }
    Ok(Some(end))
}

fn role(role: Role) -> v1::token::Role {
    match role {
        Role::Viewer => v1::token::Role::Viewer,
        Role::Operator => v1::token::Role::Operator,
        Role::Admin => v1::token::Role::Admin,
    }
}

fn object(value: Value) -> Option<pbjson_types::Struct> {
    serde_json::from_value(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_that_is_over_is_refused() {
        let now = Timestamp::new(1_000, 0).unwrap();
        let end = |seconds| Some(millrace_proto::Timestamp { seconds, nanos: 0 });
        assert_eq!(to_end(end(2_000).as_ref(), now).unwrap(), Some(Timestamp::new(2_000, 0).unwrap()));
        assert_eq!(to_end(None, now).unwrap(), None);
        assert_eq!(to_end(end(1_000).as_ref(), now).unwrap_err().field_names(), ["token.expire_time"]);
        assert_eq!(to_role(v1::token::Role::Unspecified).unwrap_err().field_names(), ["token.role"]);
    }

    #[test]
    fn documents_become_structs() {
        let value =
            serde_json::json!({"name": "shop", "tables": [{"state": "STREAMING"}], "n": 1, "none": null});
        let made = object(value.clone()).unwrap();
        assert_eq!(serde_json::to_value(made).unwrap()["tables"], value["tables"]);
    }
}
