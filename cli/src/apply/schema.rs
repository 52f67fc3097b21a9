//! `millrace schema`: the JSON Schema of the file, for editors.
//!
//! Pure, but for the output.

use std::process::ExitCode;

use clap::Args;

use crate::client::output;

/// The schema; a test holds it to the specifications.
const SCHEMA: &str = include_str!("schema.json");

/// Arguments of `millrace schema`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  millrace schema > millrace.schema.json

Editors with the YAML language server take it by a first line in the file of
  # yaml-language-server: $schema=millrace.schema.json")]
pub struct SchemaArguments {}

/// Prints the schema.
///
/// # Errors
/// If stdout fails.
pub fn run(_arguments: SchemaArguments) -> anyhow::Result<ExitCode> {
    output::write(SCHEMA)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use millrace_catalog::spec::{ClickhousePeer, ColumnSpec, MirrorSpec, PostgresPeer, Settings, TableSpec};
    use serde_json::Value;

    use super::*;

    /// Holds the properties of a part of the schema to the keys of a value, and its defaults to those.
    fn compare(schema: &Value, part: &Value, value: &Value, path: &str) {
        let part = match part["$ref"].as_str() {
            Some(reference) => &schema["$defs"][reference.trim_start_matches("#/$defs/")],
            None => part,
        };
        let (Some(properties), Some(fields)) = (part["properties"].as_object(), value.as_object()) else {
            if let Some(default) = part.get("default") {
                assert_eq!(default, value, "{path}");
            }
            return;
        };
        let names = |map: &serde_json::Map<String, Value>| map.keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(names(properties), names(fields), "{path}");
        for (name, field) in fields {
            compare(schema, &properties[name], field, &format!("{path}.{name}"));
        }
    }

    #[test]
    fn the_schema_has_the_keys_and_the_defaults_of_the_specifications() {
        let schema: Value = serde_json::from_str(SCHEMA).unwrap();
        let mirror = MirrorSpec {
            name: String::new(),
            source: String::new(),
            destination: String::new(),
            mode: Default::default(),
            tables: Vec::new(),
            settings: Settings::default(),
        };
        let parts = [
            ("postgres", serde_json::to_value(PostgresPeer::default()).unwrap()),
            ("clickhouse", serde_json::to_value(ClickhousePeer::default()).unwrap()),
            ("mirror", serde_json::to_value(mirror).unwrap()),
            ("table", serde_json::to_value(TableSpec::new("")).unwrap()),
            ("column", serde_json::to_value(ColumnSpec::default()).unwrap()),
        ];
        for (name, value) in parts {
            compare(&schema, &schema["$defs"][name], &value, name);
        }
    }
}
