//! How the values of a column are transcoded. Pure.

use serde::{Deserialize, Serialize};

/// How a value's wire bytes become those of the ClickHouse column. Frozen in the catalog with the
/// table's plan: variants are added, never changed.
///
/// It names what is *sent*: the column in ClickHouse may have a type that the server converts it to
/// (`LowCardinality(String)` of an enum, or a type that the user chose).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Conversion {
    /// `bool`.
    Bool,
    /// `int2`.
    Int16,
    /// `int4`.
    Int32,
    /// `int8`.
    Int64,
    /// `float4`.
    Float32,
    /// `float8`.
    Float64,
    /// `numeric` of bounded precision.
    Decimal {
        /// Digits altogether, 1 to 76.
        precision: u8,
        /// Digits after the point, at most `precision`.
        scale: u8,
    },
    /// `numeric` without bounds, as PostgreSQL writes it.
    NumericText,
    /// The text family and enums: the same bytes in both forms.
    Text,
    /// `bytea`: the raw bytes.
    Bytes,
    /// `jsonb`: its text; the binary form has a version in front.
    Jsonb,
    /// `uuid`.
    Uuid,
    /// `date`.
    Date,
    /// `timestamp` and `timestamptz`, in microseconds.
    Timestamp,
    /// Any other type, by its text form. Its binary form is not understood.
    TextForm,
    /// A one-dimensional array.
    Array(Box<Conversion>),
}

impl Conversion {
    /// Whether the binary form of the column's type is understood. If not, the source must be asked
    /// for text.
    pub fn binary_known(&self) -> bool {
        match self {
            Conversion::TextForm => false,
            Conversion::Array(element) => element.binary_known(),
            _ => true,
        }
    }

    /// The ClickHouse type of what is sent, without `Nullable` around a scalar.
    pub fn wire_type(&self) -> String {
        match self {
            Conversion::Bool => "Bool".to_owned(),
            Conversion::Int16 => "Int16".to_owned(),
            Conversion::Int32 => "Int32".to_owned(),
            Conversion::Int64 => "Int64".to_owned(),
            Conversion::Float32 => "Float32".to_owned(),
            Conversion::Float64 => "Float64".to_owned(),
            Conversion::Decimal { precision, scale } => format!("Decimal({precision}, {scale})"),
            Conversion::NumericText
            | Conversion::Text
            | Conversion::Bytes
            | Conversion::Jsonb
            | Conversion::TextForm => "String".to_owned(),
            Conversion::Uuid => "UUID".to_owned(),
            Conversion::Date => "Date32".to_owned(),
            Conversion::Timestamp => "DateTime64(6, 'UTC')".to_owned(),
            Conversion::Array(element) => match element.as_ref() {
                Conversion::Array(_) => format!("Array({})", element.wire_type()),
                scalar => format!("Array(Nullable({}))", scalar.wire_type()),
            },
        }
    }

    /// Bytes of one value in a column of fixed width; `None` for strings and arrays.
    pub(crate) fn width(&self) -> Option<usize> {
        match self {
            Conversion::Bool => Some(1),
            Conversion::Int16 => Some(2),
            Conversion::Int32 | Conversion::Float32 | Conversion::Date => Some(4),
            Conversion::Int64 | Conversion::Float64 | Conversion::Timestamp => Some(8),
            Conversion::Uuid => Some(16),
            Conversion::Decimal { precision, .. } => Some(decimal_width(*precision)),
            Conversion::NumericText
            | Conversion::Text
            | Conversion::Bytes
            | Conversion::Jsonb
            | Conversion::TextForm
            | Conversion::Array(_) => None,
        }
    }
}

/// Bytes of a `Decimal` of this precision (ClickHouse documentation, Decimal).
pub(crate) const fn decimal_width(precision: u8) -> usize {
    match precision {
        0..=9 => 4,
        10..=18 => 8,
        19..=38 => 16,
        _ => 32,
    }
}
