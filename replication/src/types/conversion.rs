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
    /// `oid`, `xid` and `cid`.
    UInt32,
    /// `xid8`.
    UInt64,
    /// `float4`.
    Float32,
    /// `float8`.
    Float64,
    /// `numeric` of bounded precision, or one that the user chose.
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
    /// `jsonb` and other types whose binary form is a version, 1, and the text form.
    Jsonb,
    /// `uuid`.
    Uuid,
    /// `date`.
    Date,
    /// `timestamp` and `timestamptz`, in microseconds.
    Timestamp,
    /// A type whose text form we can write from its binary form.
    Rendered(Rendered),
    /// Any other type, by its text form. Its binary form is not understood.
    TextForm,
    /// A one-dimensional array whose elements are separated by a comma.
    Array(Box<Conversion>),
    /// Any other array.
    Nested {
        /// What the innermost elements are.
        element: Box<Conversion>,
        /// Dimensions of every value but the empty one, 1 to [`DIMENSIONS_MAX`].
        depth: u8,
        /// What separates the elements in the text form.
        delimiter: char,
    },
    /// A vector of pgvector: an array of numbers.
    Vector(Vector),
    /// A value that cannot be held becomes NULL, an array the empty one (`on_unrepresentable: null`).
    OrNull(Box<Conversion>),
    /// An integer of another width, chosen by the user.
    Integer {
        /// What the source has.
        from: IntegerSource,
        /// 8, 16, 32, 64, 128 or 256.
        bits: u16,
        /// Whether it has a sign.
        signed: bool,
    },
    /// `date` as the 16-bit `Date`, chosen by the user.
    NarrowDate,
    /// `timestamp[tz]` with another precision than microseconds, chosen by the user.
    ScaledTimestamp {
        /// Digits of the second, 0 to 9. A value with more is not cut, it is refused.
        scale: u8,
    },
    /// `timestamp[tz]` as the 32-bit `DateTime`, chosen by the user.
    Seconds,
    /// `time` as `Time64`, chosen by the user.
    Time64 {
        /// Digits of the second, 0 to 9.
        scale: u8,
    },
    /// `inet` that is a host's address of the fourth version of the protocol, chosen by the user.
    Ipv4,
    /// `inet` that is a host's address of the sixth version of the protocol, chosen by the user.
    Ipv6,
}

/// Most dimensions of a PostgreSQL array (PostgreSQL source, `MAXDIM`).
pub const DIMENSIONS_MAX: u8 = 6;

/// Types that ClickHouse holds as PostgreSQL's text, and whose binary form we read too: one column
/// that we do not read makes a whole stream use text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rendered {
    /// `"char"`.
    Char,
    /// `time`.
    Time,
    /// `timetz`.
    TimeTz,
    /// `inet`, `cidr`.
    Inet,
    /// `macaddr`, `macaddr8`.
    MacAddress,
    /// `bit`, `varbit`.
    Bits,
    /// `hstore`.
    Hstore,
}

/// The vectors of pgvector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Vector {
    /// `vector`.
    Single,
    /// `halfvec`.
    Half,
    /// `sparsevec`, whose zeros are written out.
    Sparse,
}

/// What an integer is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IntegerSource {
    /// `int2`, `int4` or `int8`.
    Integer,
    /// `numeric` without digits after the point.
    Numeric,
}

/// What happens to a value that the ClickHouse type cannot hold. Columns of the key always follow
/// `Error`: distinct keys would become one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnUnrepresentable {
    /// The table goes to ERROR.
    #[default]
    Error,
    /// NULL is written, and counted.
    Null,
    /// Columns of such types are made as String.
    String,
}

impl Conversion {
    /// Whether the binary form of the column's type is understood. If not, the source must be asked
    /// for text.
    pub fn binary_known(&self) -> bool {
        match self {
            Conversion::TextForm => false,
            Conversion::Array(inner) | Conversion::OrNull(inner) => inner.binary_known(),
            Conversion::Nested { element, .. } => element.binary_known(),
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
            Conversion::UInt32 => "UInt32".to_owned(),
            Conversion::UInt64 => "UInt64".to_owned(),
            Conversion::Integer { bits, signed, .. } => {
                format!("{}{bits}", if *signed { "Int" } else { "UInt" })
            }
            Conversion::Float32 => "Float32".to_owned(),
            Conversion::Float64 => "Float64".to_owned(),
            Conversion::Decimal { precision, scale } => format!("Decimal({precision}, {scale})"),
            Conversion::NumericText
            | Conversion::Text
            | Conversion::Bytes
            | Conversion::Jsonb
            | Conversion::Rendered(_)
            | Conversion::TextForm => "String".to_owned(),
            Conversion::Uuid => "UUID".to_owned(),
            Conversion::Date => "Date32".to_owned(),
            Conversion::NarrowDate => "Date".to_owned(),
            Conversion::Timestamp => "DateTime64(6, 'UTC')".to_owned(),
            Conversion::ScaledTimestamp { scale } => format!("DateTime64({scale}, 'UTC')"),
            Conversion::Seconds => "DateTime('UTC')".to_owned(),
            Conversion::Time64 { scale } => format!("Time64({scale})"),
            Conversion::Ipv4 => "IPv4".to_owned(),
            Conversion::Ipv6 => "IPv6".to_owned(),
            Conversion::OrNull(inner) => inner.wire_type(),
            Conversion::Array(_) | Conversion::Nested { .. } | Conversion::Vector(_) => {
                self.spelled(&self.innermost().wire_type(), false)
            }
        }
    }

    /// What the innermost elements of an array are, or the conversion itself.
    pub(crate) fn innermost(&self) -> Conversion {
        match self.element() {
            Some(element) => element.conversion.innermost(),
            None => match self {
                Conversion::OrNull(inner) => inner.innermost(),
                scalar => scalar.clone(),
            },
        }
    }

    /// A ClickHouse type as DDL writes it: the innermost one is given, arrays and `Nullable` go around.
    pub(crate) fn spelled(&self, innermost: &str, nullable: bool) -> String {
        if let Some(element) = self.element() {
            return format!("Array({})", element.conversion.spelled(innermost, element.nullable));
        }
        if !nullable && !matches!(self, Conversion::OrNull(_)) {
            return innermost.to_owned();
        }
        match innermost.strip_prefix("LowCardinality(").and_then(|inner| inner.strip_suffix(')')) {
            Some(inner) => format!("LowCardinality(Nullable({inner}))"),
            None => format!("Nullable({innermost})"),
        }
    }

    /// What the arrays of a column are made of: of a two-dimensional one, one-dimensional arrays.
    pub(crate) fn element(&self) -> Option<Element> {
        let of = |conversion: Conversion| {
            // ClickHouse's arrays are never Nullable.
            let nullable = !conversion.is_array();
            Some(Element { conversion, nullable })
        };
        match self {
            Conversion::Array(element) => of((**element).clone()),
            Conversion::Nested { element, depth: ..=1, .. } => of((**element).clone()),
            Conversion::Nested { element, depth, delimiter } => {
                of(Conversion::Nested { element: element.clone(), depth: depth - 1, delimiter: *delimiter })
            }
            Conversion::Vector(_) => Some(Element { conversion: Conversion::Float32, nullable: false }),
            Conversion::OrNull(inner) => inner.element(),
            _ => None,
        }
    }

    /// Whether the ClickHouse type is an array.
    pub(crate) fn is_array(&self) -> bool {
        match self {
            Conversion::Array(_) | Conversion::Nested { .. } | Conversion::Vector(_) => true,
            Conversion::OrNull(inner) => inner.is_array(),
            _ => false,
        }
    }

    /// Bytes of one value in a column of fixed width; `None` for strings and arrays.
    pub(crate) fn width(&self) -> Option<usize> {
        match self {
            Conversion::Bool => Some(1),
            Conversion::Int16 | Conversion::NarrowDate => Some(2),
            Conversion::Int32
            | Conversion::UInt32
            | Conversion::Float32
            | Conversion::Date
            | Conversion::Seconds
            | Conversion::Ipv4 => Some(4),
            Conversion::Int64
            | Conversion::UInt64
            | Conversion::Float64
            | Conversion::Timestamp
            | Conversion::ScaledTimestamp { .. }
            | Conversion::Time64 { .. } => Some(8),
            Conversion::Uuid | Conversion::Ipv6 => Some(16),
            Conversion::Decimal { precision, .. } => Some(decimal_width(*precision)),
            Conversion::Integer { bits, .. } => Some(usize::from(bits / 8)),
            Conversion::OrNull(inner) => inner.width(),
            Conversion::NumericText
            | Conversion::Text
            | Conversion::Bytes
            | Conversion::Jsonb
            | Conversion::Rendered(_)
            | Conversion::TextForm
            | Conversion::Array(_)
            | Conversion::Nested { .. }
            | Conversion::Vector(_) => None,
        }
    }
}

/// What an array is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) conversion: Conversion,
    pub(crate) nullable: bool,
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
