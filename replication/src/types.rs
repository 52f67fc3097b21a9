//! Placeholder replaced by the type table.
pub use serde_json::Value as Conversion;
