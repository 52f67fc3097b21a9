//! Messages between their wire form and their JSON, by name: for who knows a method by its descriptor
//! only, as REST does. The JSON is that of the messages' `serde`.
//!
//! Pure: no I/O.

use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::v1;

include!(concat!(env!("OUT_DIR"), "/millrace.v1.codecs.rs"));

/// How one message is read from JSON and written as JSON.
#[derive(Debug, Clone, Copy)]
pub struct Codec {
    to_wire: fn(Value) -> Result<Vec<u8>, Malformed>,
    to_json: fn(&[u8]) -> Result<Vec<u8>, String>,
}

/// Why a JSON value is no such message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    /// The field at fault, such as `mirror.tables[0].source`; `.` for the value as a whole.
    pub field: String,
    /// What is wrong with it, without the value that was found: it may be a secret.
    pub what: String,
}

impl Codec {
    /// The JSON form of the message of this full name, such as `millrace.v1.Mirror`: there is one for
    /// every message that a method takes or gives.
    pub fn find(message: &str) -> Option<Self> {
        find(message)
    }

    const fn of<M: Message + Default + Serialize + DeserializeOwned>() -> Self {
        Self { to_wire: to_wire::<M>, to_json: to_json::<M> }
    }

    /// Encodes a JSON value.
    ///
    /// # Errors
    /// The value is no such message: a field is not known, or of another type.
    pub fn to_wire(&self, value: Value) -> Result<Vec<u8>, Malformed> {
        (self.to_wire)(value)
    }

    /// Writes an encoded message as JSON text.
    ///
    /// # Errors
    /// The bytes are no such message, or hold what JSON cannot.
    pub fn to_json(&self, wire: &[u8]) -> Result<Vec<u8>, String> {
        (self.to_json)(wire)
    }
}

fn to_wire<M: Message + DeserializeOwned>(value: Value) -> Result<Vec<u8>, Malformed> {
    match serde_path_to_error::deserialize::<_, M>(value) {
        Ok(message) => Ok(message.encode_to_vec()),
        Err(error) => {
            let field = error.path().to_string();
            Err(Malformed { field, what: without_value(&error.into_inner().to_string()) })
        }
    }
}

fn to_json<M: Message + Default + Serialize>(wire: &[u8]) -> Result<Vec<u8>, String> {
    let message = M::decode(wire).map_err(|error| error.to_string())?;
    serde_json::to_vec(&message).map_err(|error| error.to_string())
}

/// serde's words, without the value that they quote.
fn without_value(words: &str) -> String {
    for kind in ["invalid type", "invalid value"] {
        if let Some(rest) = words.strip_prefix(kind) {
            return match rest.rsplit_once(", expected ") {
                Some((_, expected)) => format!("{kind}, expected {expected}"),
                None => kind.to_owned(),
            };
        }
    }
    words.to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_message_goes_there_and_back() {
        let codec = Codec::find("millrace.v1.CreateMirrorRequest").unwrap();
        let request =
            json!({"mirror": {"name": "shop", "tables": [{"source": "public.a"}]}, "validate_only": true});
        let wire = codec.to_wire(request).unwrap();
        let decoded = v1::CreateMirrorRequest::decode(&*wire).unwrap();
        assert_eq!(decoded.mirror.unwrap().tables[0].source, "public.a");
        let back: Value = serde_json::from_slice(&codec.to_json(&wire).unwrap()).unwrap();
        assert_eq!((&back["validate_only"], &back["mirror"]["name"]), (&true.into(), &"shop".into()));
        assert!(Codec::find("millrace.v1.Settings").is_none(), "no method takes or gives it");
    }

    #[test]
    fn what_is_wrong_is_named_by_its_field_and_never_quoted() {
        let codec = Codec::find("millrace.v1.CreatePeerRequest").unwrap();
        let wrong = |value| codec.to_wire(value).unwrap_err();
        let unknown = wrong(json!({"peer": {"postgres": {"hots": "h"}}}));
        assert_eq!(unknown.field, "peer.postgres.hots");
        assert!(unknown.what.starts_with("unknown field `hots`"), "{unknown:?}");
        let secret = wrong(json!({"peer": {"postgres": {"password": ["hunter2"]}}}));
        assert_eq!(secret.field, "peer.postgres.password");
        assert!(!secret.what.contains("hunter2"), "{secret:?}");
        let secret = wrong(json!({"peer": {"postgres": {"port": "hunter2, expected u32"}}}));
        assert!(!secret.what.contains("hunter2"), "{secret:?}");
    }
}
