//! What becomes of values that a ClickHouse type cannot hold (`on_unrepresentable`). Pure.
//!
//! The policy is decided when the table is made: it is a part of the column's [`Conversion`]. Columns
//! of the key are left alone, so that such a value stops the table: NULL in place of two different keys
//! would make one of them.

use super::conversion::Vector;
use super::{Conversion, OnUnrepresentable};

impl Conversion {
    /// Whether a value of the source's type may be one that the ClickHouse type cannot hold. Any array
    /// may have other dimensions than were declared.
    pub(crate) fn may_refuse(&self) -> bool {
        match self {
            Conversion::Decimal { .. }
            | Conversion::Date
            | Conversion::Timestamp
            | Conversion::Vector(Vector::Sparse)
            | Conversion::Array(_)
            | Conversion::Nested { .. }
            | Conversion::Integer { .. }
            | Conversion::NarrowDate
            | Conversion::ScaledTimestamp { .. }
            | Conversion::Seconds
            | Conversion::Time64 { .. }
            | Conversion::Ipv4
            | Conversion::Ipv6 => true,
            Conversion::Bool
            | Conversion::Int16
            | Conversion::Int32
            | Conversion::Int64
            | Conversion::UInt32
            | Conversion::UInt64
            | Conversion::Float32
            | Conversion::Float64
            | Conversion::NumericText
            | Conversion::Text
            | Conversion::Bytes
            | Conversion::Jsonb
            | Conversion::Uuid
            | Conversion::Rendered(_)
            | Conversion::TextForm
            | Conversion::Vector(Vector::Single | Vector::Half)
            | Conversion::OrNull(_) => false,
        }
    }

    /// The conversion under a policy.
    ///
    /// `null`: an element of an array becomes NULL by itself; an array of other dimensions than declared
    /// becomes the empty one, which a NULL array is. `string`: the elements of an array become text, and
    /// the array stays one, so that other dimensions than declared are still refused.
    pub(crate) fn under(self, policy: OnUnrepresentable) -> Conversion {
        match policy {
            OnUnrepresentable::Error => self,
            OnUnrepresentable::Null => self.or_null(),
            OnUnrepresentable::String => self.or_text(),
        }
    }

    fn or_null(self) -> Conversion {
        let inside = self.map_element(Conversion::or_null_element);
        if inside.may_refuse() { Conversion::OrNull(Box::new(inside)) } else { inside }
    }

    /// An array inside an array is not made NULL by itself: the whole value is.
    fn or_null_element(self) -> Conversion {
        if self.is_array() { self.map_element(Conversion::or_null_element) } else { self.or_null() }
    }

    fn or_text(self) -> Conversion {
        match self {
            Conversion::Array(_) | Conversion::Nested { .. } => self.map_element(Conversion::or_text),
            refusing if refusing.may_refuse() => refusing.as_text(),
            other => other,
        }
    }

    fn map_element(self, map: impl Fn(Conversion) -> Conversion) -> Conversion {
        match self {
            Conversion::Array(element) => Conversion::Array(Box::new(map(*element))),
            Conversion::Nested { element, depth, delimiter } => {
                Conversion::Nested { element: Box::new(map(*element)), depth, delimiter }
            }
            scalar => scalar,
        }
    }

    /// How the text of the value is had: `String` holds anything.
    pub(crate) fn as_text(&self) -> Conversion {
        match self {
            Conversion::Decimal { .. } | Conversion::NumericText => Conversion::NumericText,
            Conversion::Text | Conversion::Bytes | Conversion::Jsonb | Conversion::Rendered(_) => {
                self.clone()
            }
            _ => Conversion::TextForm,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(element: Conversion) -> Conversion {
        Conversion::Array(Box::new(element))
    }

    fn or_null(inner: Conversion) -> Conversion {
        Conversion::OrNull(Box::new(inner))
    }

    fn nested(element: Conversion) -> Conversion {
        Conversion::Nested { element: Box::new(element), depth: 2, delimiter: ',' }
    }

    #[test]
    fn only_types_that_need_it_follow_the_policy() {
        let decimal = Conversion::Decimal { precision: 5, scale: 2 };
        for (of, null, string) in [
            (Conversion::Int32, Conversion::Int32, Conversion::Int32),
            (Conversion::Float64, Conversion::Float64, Conversion::Float64),
            (Conversion::Date, or_null(Conversion::Date), Conversion::TextForm),
            (decimal.clone(), or_null(decimal), Conversion::NumericText),
            (
                array(Conversion::Timestamp),
                or_null(array(or_null(Conversion::Timestamp))),
                array(Conversion::TextForm),
            ),
            (nested(Conversion::Text), or_null(nested(Conversion::Text)), nested(Conversion::Text)),
            (
                array(array(Conversion::Date)),
                or_null(array(array(or_null(Conversion::Date)))),
                array(array(Conversion::TextForm)),
            ),
            (
                Conversion::Vector(Vector::Sparse),
                or_null(Conversion::Vector(Vector::Sparse)),
                Conversion::TextForm,
            ),
        ] {
            assert_eq!(of.clone().under(OnUnrepresentable::Error), of);
            assert_eq!(of.clone().under(OnUnrepresentable::Null), null);
            assert_eq!(of.under(OnUnrepresentable::String), string);
        }
    }

    #[test]
    fn columns_become_nullable_or_string() {
        let spelled = |conversion: Conversion, policy| {
            let conversion = conversion.under(policy);
            conversion.spelled(&conversion.innermost().wire_type(), false)
        };
        assert_eq!(spelled(Conversion::Date, OnUnrepresentable::Error), "Date32");
        assert_eq!(spelled(Conversion::Date, OnUnrepresentable::Null), "Nullable(Date32)");
        assert_eq!(spelled(Conversion::Date, OnUnrepresentable::String), "String");
        let dates = array(Conversion::Date);
        assert_eq!(spelled(dates.clone(), OnUnrepresentable::Null), "Array(Nullable(Date32))");
        assert_eq!(spelled(dates, OnUnrepresentable::String), "Array(Nullable(String))");
    }
}
