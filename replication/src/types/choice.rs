//! A ClickHouse type that the user chose for a column. Pure.
//!
//! A pair is allowed if nothing is lost silently: the ClickHouse type holds every value of the source's,
//! or the transcoder refuses the values that it does not hold, or the server does, loudly (`CAST` of
//! ClickHouse wraps integers around, so these never leave it to the server).

use super::catalog::array_of;
use super::conversion::{IntegerSource, Rendered};
use super::{Conversion, OnUnrepresentable};

/// Most characters of a type that is asked for: more is no type.
const TYPE_CHARS_MAX: usize = 256;
/// How deep `Array`, `Nullable` and `LowCardinality` may nest in one.
const NESTING_MAX: usize = 10;

/// What is chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    /// As DDL writes it.
    pub(crate) clickhouse_type: String,
    /// How the values are transcoded.
    pub(crate) conversion: Conversion,
}

/// A ClickHouse type taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked<'a> {
    name: &'a str,
    /// What stands in its parentheses, parted by commas.
    arguments: Vec<&'a str>,
}

impl<'a> Asked<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let text = text.trim();
        let is_name =
            |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        let Some((name, rest)) = text.split_once('(') else {
            return is_name(text).then(|| Self { name: text, arguments: Vec::new() });
        };
        let name = name.trim();
        let inside = rest.strip_suffix(')')?;
        let arguments = top_level(inside)?;
        is_name(name).then_some(Self { name, arguments })
    }

    fn inner(&self) -> Option<Asked<'a>> {
        match self.arguments.as_slice() {
            [inner] => Asked::parse(inner),
            _ => None,
        }
    }

    fn numbers(&self) -> Option<Vec<u8>> {
        self.arguments.iter().map(|argument| argument.parse().ok()).collect()
    }
}

/// The parts between the commas that stand in no parentheses of their own.
fn top_level(text: &str) -> Option<Vec<&str>> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0usize, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.checked_sub(1)?,
            ',' if depth == 0 => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    (depth == 0).then_some(parts)
}

/// Chooses a type for a column that is replicated by `default` otherwise. `None` if the pair is not
/// possible: [`possible`] says what is.
///
/// A type is made `Nullable` where the column is, without being asked for. The policy `string` gives
/// way to the choice.
pub(crate) fn choose(
    default: &Conversion,
    asked: &str,
    nullable: bool,
    key: bool,
    policy: OnUnrepresentable,
) -> Option<Choice> {
    if asked.len() > TYPE_CHARS_MAX || asked.matches('(').count() > NESTING_MAX {
        return None;
    }
    let asked = Asked::parse(asked)?;
    let (asked, nullable) = match asked.name {
        "Nullable" if !key => (asked.inner()?, true),
        _ => (asked, nullable),
    };
    let (conversion, innermost) = chosen(default, &asked)?;
    if key && innermost == "JSON" {
        return None;
    }
    let conversion = match policy {
        OnUnrepresentable::Null if !key => conversion.under(policy),
        _ => conversion,
    };
    Some(Choice { clickhouse_type: conversion.spelled(&innermost, nullable), conversion })
}

/// The conversion, and the innermost type as DDL writes it.
fn chosen(default: &Conversion, asked: &Asked<'_>) -> Option<(Conversion, String)> {
    match default {
        Conversion::Array(_) | Conversion::Nested { .. } | Conversion::Vector(_)
            if asked.name == "String" =>
        {
            Some((Conversion::TextForm, "String".to_owned()))
        }
        Conversion::Array(element) => chosen_array(element, ',', asked),
        Conversion::Nested { element, delimiter, .. } => chosen_array(element, *delimiter, asked),
        Conversion::Vector(_) => {
            let number = asked.inner().filter(|inner| asked.name == "Array" && inner.arguments.is_empty())?;
            matches!(number.name, "Float32" | "Float64").then(|| (default.clone(), number.name.to_owned()))
        }
        scalar => chosen_scalar(scalar, asked),
    }
}

/// The user may say how deep the arrays are; their elements are always Nullable.
fn chosen_array(element: &Conversion, delimiter: char, asked: &Asked<'_>) -> Option<(Conversion, String)> {
    let mut inner = asked.clone();
    let mut depth = 0;
    while inner.name == "Array" && !(depth > 0 && element.is_array()) {
        inner = inner.inner()?;
        depth += 1;
    }
    if !(1..=super::conversion::DIMENSIONS_MAX).contains(&depth) {
        return None;
    }
    if inner.name == "Nullable" && !element.is_array() {
        inner = inner.inner()?;
    }
    let (conversion, innermost) = chosen(element, &inner)?;
    // A dictionary of nullable text is asked for as one inside an array.
    (conversion.is_array() == element.is_array()).then(|| (array_of(conversion, depth, delimiter), innermost))
}

fn chosen_scalar(default: &Conversion, asked: &Asked<'_>) -> Option<(Conversion, String)> {
    use Conversion::{
        Bool, Date, Decimal, Float32, Int16, Int32, Int64, Jsonb, NumericText, Text, UInt32, UInt64,
    };
    let own = |conversion: Conversion| {
        let name = conversion.wire_type();
        Some((conversion, name))
    };
    // The server makes it of what is sent.
    let converted = |name: &str| Some((default.clone(), name.to_owned()));
    match (asked.name, asked.arguments.as_slice(), default) {
        ("String", [], _) => Some((default.as_text(), "String".to_owned())),
        ("LowCardinality", ["String" | "Nullable(String)"], _) => {
            Some((default.as_text(), "LowCardinality(String)".to_owned()))
        }
        ("JSON", [], Text | Jsonb) => converted("JSON"),
        ("UInt8", [], Bool) => converted("UInt8"),
        ("Float32", [], Float32 | Int16) => converted("Float32"),
        ("Float64", [], Conversion::Float64 | Float32 | Int16 | Int32) => converted("Float64"),
        ("UInt64", [], UInt32) => converted("UInt64"),
        ("UInt128" | "UInt256", [], UInt32 | UInt64) => converted(asked.name),
        ("Date", [], Date) => own(Conversion::NarrowDate),
        ("DateTime" | "DateTime64", ..) => chosen_moment(default, asked).and_then(own),
        ("Time64", ..) => chosen_time(default, asked).and_then(own),
        ("IPv4", [], Conversion::Rendered(Rendered::Inet)) => own(Conversion::Ipv4),
        ("IPv6", [], Conversion::Rendered(Rendered::Inet)) => own(Conversion::Ipv6),
        (name, _, Decimal { .. } | NumericText | Int16 | Int32 | Int64) if name.starts_with("Decimal") => {
            chosen_decimal(default, asked)
        }
        (name, [], _) if name == default.wire_type() => own(default.clone()),
        (_, [], _) => chosen_integer(default, asked.name).and_then(own),
        _ => None,
    }
}

fn chosen_integer(default: &Conversion, name: &str) -> Option<Conversion> {
    let from = match default {
        Conversion::Int16 | Conversion::Int32 | Conversion::Int64 => IntegerSource::Integer,
        Conversion::NumericText | Conversion::Decimal { .. } => IntegerSource::Numeric,
        _ => return None,
    };
    let (signed, bits) = match name.strip_prefix("UInt") {
        Some(bits) => (false, bits),
        None => (true, name.strip_prefix("Int")?),
    };
    let bits = bits.parse().ok().filter(|bits| [8, 16, 32, 64, 128, 256].contains(bits))?;
    Some(Conversion::Integer { from, bits, signed })
}

fn chosen_decimal(default: &Conversion, asked: &Asked<'_>) -> Option<(Conversion, String)> {
    let (precision, scale) = match (asked.name, asked.numbers()?.as_slice()) {
        ("Decimal", [precision, scale]) => (*precision, *scale),
        ("Decimal", [precision]) => (*precision, 0),
        ("Decimal32", [scale]) => (9, *scale),
        ("Decimal64", [scale]) => (18, *scale),
        ("Decimal128", [scale]) => (38, *scale),
        ("Decimal256", [scale]) => (76, *scale),
        _ => return None,
    };
    if !(1..=76).contains(&precision) || scale > precision {
        return None;
    }
    let decimal = Conversion::Decimal { precision, scale };
    let name = decimal.wire_type();
    // Digits of the widest integer: the server converts, and must never overflow.
    let digits = match default {
        Conversion::Int16 => 5,
        Conversion::Int32 => 10,
        Conversion::Int64 => 19,
        _ => return Some((decimal, name)),
    };
    (precision - scale >= digits).then(|| (default.clone(), name))
}

/// The zone is always UTC: in another one the digits of a `timestamp` would not be the source's.
fn chosen_moment(default: &Conversion, asked: &Asked<'_>) -> Option<Conversion> {
    if *default != Conversion::Timestamp {
        return None;
    }
    match (asked.name, asked.arguments.as_slice()) {
        ("DateTime", [] | ["'UTC'"]) => Some(Conversion::Seconds),
        ("DateTime64", [scale] | [scale, "'UTC'"]) => match scale.parse().ok()? {
            6 => Some(Conversion::Timestamp),
            scale @ 0..=9 => Some(Conversion::ScaledTimestamp { scale }),
            _ => None,
        },
        _ => None,
    }
}

fn chosen_time(default: &Conversion, asked: &Asked<'_>) -> Option<Conversion> {
    let scale = match asked.numbers()?.as_slice() {
        [scale @ 0..=9] => *scale,
        _ => return None,
    };
    (*default == Conversion::Rendered(Rendered::Time)).then_some(Conversion::Time64 { scale })
}

/// What can be chosen for a column that is replicated by `default` otherwise.
pub(crate) fn possible(default: &Conversion) -> Vec<String> {
    let mut list: Vec<String> = match default {
        Conversion::Array(element) | Conversion::Nested { element, .. } => {
            let of = possible(element).into_iter().map(|inner| format!("Array({inner})"));
            return of.chain(["String".to_owned()]).collect();
        }
        Conversion::Vector(_) => {
            return ["Array(Float32)", "Array(Float64)", "String"].map(String::from).into();
        }
        scalar => vec![scalar.wire_type()],
    };
    let more: &[&str] = match default {
        Conversion::Bool => &["UInt8"],
        Conversion::Int16 => {
            &["Int8 to Int256", "UInt8 to UInt256", "Float32", "Float64", "Decimal(P, S) with P - S >= 5"]
        }
        Conversion::Int32 => {
            &["Int8 to Int256", "UInt8 to UInt256", "Float64", "Decimal(P, S) with P - S >= 10"]
        }
        Conversion::Int64 => &["Int8 to Int256", "UInt8 to UInt256", "Decimal(P, S) with P - S >= 19"],
        Conversion::UInt32 => &["UInt64", "UInt128", "UInt256"],
        Conversion::UInt64 => &["UInt128", "UInt256"],
        Conversion::Float32 => &["Float64"],
        Conversion::Decimal { .. } | Conversion::NumericText => {
            &["Decimal(P, S)", "Int8 to Int256", "UInt8 to UInt256"]
        }
        Conversion::Text | Conversion::Jsonb => &["JSON (not in the key)"],
        Conversion::Date => &["Date"],
        Conversion::Timestamp => &["DateTime64(S, 'UTC')", "DateTime('UTC')"],
        Conversion::Rendered(Rendered::Time) => &["Time64(S)"],
        Conversion::Rendered(Rendered::Inet) => &["IPv4", "IPv6"],
        _ => &[],
    };
    list.extend(more.iter().map(|name| (*name).to_owned()));
    list.extend(["String", "LowCardinality(String)"].map(String::from));
    list.dedup();
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(default: &Conversion, asked: &str) -> Option<(String, Conversion)> {
        choose(default, asked, false, false, OnUnrepresentable::Error)
            .map(|choice| (choice.clickhouse_type, choice.conversion))
    }

    fn array(element: Conversion) -> Conversion {
        Conversion::Array(Box::new(element))
    }

    #[test]
    fn what_loses_nothing_can_be_chosen() {
        let inet = Conversion::Rendered(Rendered::Inet);
        let time = Conversion::Rendered(Rendered::Time);
        for (default, asked, spelled) in [
            (Conversion::NumericText, "Decimal(18,4)", "Decimal(18, 4)"),
            (Conversion::NumericText, "Decimal64(4)", "Decimal(18, 4)"),
            (Conversion::NumericText, "UInt256", "UInt256"),
            (Conversion::Decimal { precision: 5, scale: 0 }, "Int32", "Int32"),
            (Conversion::Int64, "UInt64", "UInt64"),
            (Conversion::Int64, "Int64", "Int64"),
            (Conversion::Int32, "Decimal(12, 2)", "Decimal(12, 2)"),
            (Conversion::Int32, " Float64 ", "Float64"),
            (Conversion::Bool, "UInt8", "UInt8"),
            (Conversion::Text, "LowCardinality(String)", "LowCardinality(String)"),
            (Conversion::Text, "JSON", "JSON"),
            (Conversion::Jsonb, "Nullable(JSON)", "Nullable(JSON)"),
            (Conversion::Date, "Date", "Date"),
            (Conversion::Timestamp, "DateTime64(3)", "DateTime64(3, 'UTC')"),
            (Conversion::Timestamp, "DateTime64(6, 'UTC')", "DateTime64(6, 'UTC')"),
            (Conversion::Timestamp, "DateTime", "DateTime('UTC')"),
            (Conversion::Timestamp, "String", "String"),
            (time, "Time64(3)", "Time64(3)"),
            (inet.clone(), "IPv4", "IPv4"),
            (inet, "IPv6", "IPv6"),
            (array(Conversion::Int32), "Array(Int64)", "Array(Nullable(Int64))"),
            (array(Conversion::Int32), "Array(Array(Int32))", "Array(Array(Nullable(Int32)))"),
            (array(Conversion::Int32), "Array(Nullable(UInt8))", "Array(Nullable(UInt8))"),
            (array(Conversion::Int32), "String", "String"),
            (
                array(Conversion::Text),
                "Array(LowCardinality(Nullable(String)))",
                "Array(LowCardinality(Nullable(String)))",
            ),
            (array(array(Conversion::Int32)), "Array(Array(Int64))", "Array(Array(Nullable(Int64)))"),
            (
                Conversion::Vector(super::super::conversion::Vector::Single),
                "Array(Float64)",
                "Array(Float64)",
            ),
        ] {
            let chosen = chosen(&default, asked);
            assert_eq!(
                chosen.map(|(spelled, _)| spelled).as_deref(),
                Some(spelled),
                "{default:?} as {asked}"
            );
        }
    }

    #[test]
    fn what_loses_something_cannot() {
        for (default, asked) in [
            (Conversion::Float64, "Float32"),
            (Conversion::Float64, "Decimal(10, 2)"),
            (Conversion::NumericText, "Float64"),
            (Conversion::Int64, "Float64"),
            (Conversion::Int64, "Decimal(18, 0)"),
            (Conversion::Int64, "Int7"),
            (Conversion::Text, "Int32"),
            (Conversion::Text, "FixedString(3)"),
            (Conversion::Text, "UUID"),
            (Conversion::Text, "Enum8('a' = 1)"),
            (Conversion::Bool, "Int32"),
            (Conversion::Timestamp, "DateTime64(6, 'Europe/Berlin')"),
            (Conversion::Timestamp, "DateTime64(10)"),
            (Conversion::Timestamp, "Date32"),
            (Conversion::Rendered(Rendered::TimeTz), "Time64(6)"),
            (Conversion::NumericText, "Decimal(77, 0)"),
            (Conversion::NumericText, "Decimal(5, 6)"),
            (Conversion::Int32, "Array(Int32)"),
            (array(Conversion::Int32), "Int32"),
            (array(Conversion::Int32), "Array(UUID)"),
            (array(array(Conversion::Int32)), "Array(Int32)"),
            (Conversion::Int32, "Int64) ENGINE = Null --("),
            (Conversion::Int32, "Int64, x String"),
            (Conversion::Int32, "Nullable(Nullable(Int64))"),
            (Conversion::Int32, ""),
            (Conversion::Int32, "(("),
        ] {
            assert_eq!(chosen(&default, asked), None, "{default:?} as {asked}");
        }
        let deep = "Array(".repeat(100_000);
        assert_eq!(chosen(&array(Conversion::Int32), &deep), None);
    }

    #[test]
    fn a_choice_outranks_the_policy_string_and_keys_follow_none() {
        let of = |asked, nullable, key, policy| {
            choose(&Conversion::NumericText, asked, nullable, key, policy)
                .map(|choice| choice.clickhouse_type)
        };
        let decimal = |text: &str| Some(text.to_owned());
        use OnUnrepresentable::{Error, Null, String};
        assert_eq!(of("Decimal(9, 2)", true, false, Error), decimal("Nullable(Decimal(9, 2))"));
        assert_eq!(of("Decimal(9, 2)", false, false, String), decimal("Decimal(9, 2)"));
        assert_eq!(of("Decimal(9, 2)", false, false, Null), decimal("Nullable(Decimal(9, 2))"));
        assert_eq!(of("Decimal(9, 2)", false, true, Null), decimal("Decimal(9, 2)"));
        assert_eq!(of("Nullable(Decimal(9, 2))", false, true, Null), None);
        assert!(choose(&Conversion::Jsonb, "JSON", false, true, Error).is_none());
    }

    #[test]
    fn what_is_said_to_be_possible_is() {
        let timestamps = possible(&Conversion::Timestamp);
        assert_eq!(
            timestamps,
            [
                "DateTime64(6, 'UTC')",
                "DateTime64(S, 'UTC')",
                "DateTime('UTC')",
                "String",
                "LowCardinality(String)"
            ]
        );
        for conversion in [Conversion::Bool, Conversion::Uuid, Conversion::Float32, array(Conversion::Text)] {
            for asked in possible(&conversion).iter().filter(|asked| !asked.contains(" ")) {
                assert!(chosen(&conversion, asked).is_some(), "{conversion:?} as {asked}");
            }
        }
    }
}
