//! Between rows and Rust: running statements, reading columns, and the wire forms of log positions
//! and 128-bit versions, each in one place.

use std::error::Error as StdError;
use std::str::FromStr;

use bytes::{BufMut, BytesMut};
use deadpool_postgres::GenericClient;
use jiff::Timestamp;
use millrace_terms::{Code, Error, Lsn, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, IsNull, Json, PgLsn, ToSql, Type, to_sql_checked};

use crate::errors;

/// Parameters of a statement.
pub(crate) type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

/// Runs a statement and gives its rows. It is prepared once for a connection.
pub(crate) async fn rows(client: &impl GenericClient, sql: &str, params: Params<'_>) -> Result<Vec<Row>> {
    let statement = client.prepare_cached(sql).await.map_err(errors::database)?;
    client.query(&statement, params).await.map_err(errors::database)
}

/// Runs a statement that gives one row or none.
pub(crate) async fn row(client: &impl GenericClient, sql: &str, params: Params<'_>) -> Result<Option<Row>> {
    let statement = client.prepare_cached(sql).await.map_err(errors::database)?;
    client.query_opt(&statement, params).await.map_err(errors::database)
}

/// Runs a statement that gives exactly one row, such as an aggregate.
pub(crate) async fn one(client: &impl GenericClient, sql: &str, params: Params<'_>) -> Result<Row> {
    row(client, sql, params).await?.ok_or_else(|| errors::internal("a statement gave no row"))
}

/// Runs a statement and gives the number of rows that it changed.
pub(crate) async fn execute(client: &impl GenericClient, sql: &str, params: Params<'_>) -> Result<u64> {
    let statement = client.prepare_cached(sql).await.map_err(errors::database)?;
    client.execute(&statement, params).await.map_err(errors::database)
}

/// Reads the columns of a row by name. A value that this release does not understand is an error,
/// never a panic: a newer release may have written it.
#[derive(Clone, Copy)]
pub(crate) struct Columns<'a>(pub &'a Row);

impl<'a> Columns<'a> {
    /// A value that has a Rust type of its own.
    pub(crate) fn get<T: FromSql<'a>>(self, name: &str) -> Result<T> {
        self.0.try_get(name).map_err(errors::database)
    }

    /// Text.
    pub(crate) fn text(self, name: &str) -> Result<String> {
        self.get(name)
    }

    /// A number of an `integer` column that is never negative.
    pub(crate) fn number(self, name: &str) -> Result<u32> {
        let number: i32 = self.get(name)?;
        u32::try_from(number).map_err(|_| unreadable(name, number))
    }

    /// A number of a `bigint` column that is never negative.
    pub(crate) fn count(self, name: &str) -> Result<u64> {
        let number: i64 = self.get(name)?;
        u64::try_from(number).map_err(|_| unreadable(name, number))
    }

    /// A number of a `bigint` column that is never negative, or NULL.
    pub(crate) fn count_opt(self, name: &str) -> Result<Option<u64>> {
        let number: Option<i64> = self.get(name)?;
        number.map(|n| u64::try_from(n).map_err(|_| unreadable(name, n))).transpose()
    }

    /// A position of the log.
    pub(crate) fn lsn(self, name: &str) -> Result<Lsn> {
        Ok(from_pg_lsn(self.get(name)?))
    }

    /// A position of the log, or NULL.
    pub(crate) fn lsn_opt(self, name: &str) -> Result<Option<Lsn>> {
        Ok(self.get::<Option<PgLsn>>(name)?.map(from_pg_lsn))
    }

    /// A version: up to 128 unsigned bits.
    pub(crate) fn version(self, name: &str) -> Result<u128> {
        Ok(self.get::<Numeric>(name)?.0)
    }

    /// A point in time.
    pub(crate) fn time(self, name: &str) -> Result<Timestamp> {
        self.get(name)
    }

    /// A point in time, or NULL.
    pub(crate) fn time_opt(self, name: &str) -> Result<Option<Timestamp>> {
        self.get(name)
    }

    /// A JSON document.
    pub(crate) fn json<T: DeserializeOwned>(self, name: &str) -> Result<T> {
        Ok(self.get::<Json<T>>(name)?.0)
    }

    /// A JSON document, or NULL.
    pub(crate) fn json_opt<T: DeserializeOwned>(self, name: &str) -> Result<Option<T>> {
        Ok(self.get::<Option<Json<T>>>(name)?.map(|json| json.0))
    }

    /// A word of a closed list, such as a state.
    pub(crate) fn word<T: FromStr>(self, name: &str) -> Result<T> {
        let text: &str = self.get(name)?;
        text.parse().map_err(|_| unreadable(name, text))
    }

    /// A word of a closed list, or NULL.
    pub(crate) fn word_opt<T: FromStr>(self, name: &str) -> Result<Option<T>> {
        let text: Option<&str> = self.get(name)?;
        text.map(|text| text.parse().map_err(|_| unreadable(name, text))).transpose()
    }
}

fn unreadable(name: &str, value: impl std::fmt::Display) -> Error {
    Error::new(Code::CatalogVersion, format!("{name} {value} is not known to this release"))
}

/// A JSON document as a parameter.
pub(crate) fn json<T: Serialize + std::fmt::Debug + Sync>(value: &T) -> Json<&T> {
    Json(value)
}

/// A number as a parameter of type `bigint`. Counts of rows and bytes do not reach 2^63.
pub(crate) fn bigint(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number as a parameter of type `integer`. Numbers of streams, copies and partitions do not reach 2^31.
pub(crate) fn integer(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// A position as a parameter of type `pg_lsn`.
pub(crate) fn pg_lsn(lsn: Lsn) -> PgLsn {
    PgLsn::from(lsn.0)
}

fn from_pg_lsn(lsn: PgLsn) -> Lsn {
    Lsn(u64::from(lsn))
}

/// An unsigned number as `numeric`, which PostgreSQL's integers are too small for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Numeric(pub u128);

/// The digits of a `numeric` on the wire are of this base (PostgreSQL, src/backend/utils/adt/numeric.c).
const NBASE: u128 = 10_000;

impl ToSql for Numeric {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        let mut digits = Vec::new();
        let mut rest = self.0;
        while rest > 0 {
            digits.push(u16::try_from(rest % NBASE)?);
            rest /= NBASE;
        }
        out.put_u16(u16::try_from(digits.len())?);
        out.put_i16(i16::try_from(digits.len())? - 1); // weight of the first digit
        out.put_u16(0); // positive
        out.put_u16(0); // no decimals
        digits.iter().rev().for_each(|digit| out.put_u16(*digit));
        Ok(IsNull::No)
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::NUMERIC
    }

    to_sql_checked!();
}

impl FromSql<'_> for Numeric {
    fn from_sql(_: &Type, raw: &[u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        let word = |i: usize| {
            raw.get(2 * i..2 * i + 2).map(|b| u16::from_be_bytes([b[0], b[1]])).ok_or("a numeric is cut off")
        };
        let (digits, weight, sign, decimals) = (word(0)?, word(1)?, word(2)?, word(3)?);
        if sign != 0 || decimals != 0 {
            return Err("a numeric is not a natural number".into());
        }
        let mut number = 0_u128;
        // Zeros at the end are not sent: the weight says how many there are.
        let places = if digits == 0 { 0 } else { usize::from(weight) + 1 };
        for place in 0..places {
            let digit = if place < usize::from(digits) { word(4 + place)? } else { 0 };
            number = number
                .checked_mul(NBASE)
                .and_then(|n| n.checked_add(digit.into()))
                .ok_or("a numeric exceeds 128 bits")?;
        }
        Ok(Self(number))
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::NUMERIC
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numerics_are_read_back() {
        for number in [0, 1, 9_999, 10_000, 100_000_000, u128::from(u64::MAX), u128::MAX] {
            let mut raw = BytesMut::new();
            Numeric(number).to_sql(&Type::NUMERIC, &mut raw).unwrap();
            assert_eq!(Numeric::from_sql(&Type::NUMERIC, &raw).unwrap(), Numeric(number));
        }
        // 10000 as the server sends it: one digit of weight 1.
        let raw = [0, 1, 0, 1, 0, 0, 0, 0, 0, 1];
        assert_eq!(Numeric::from_sql(&Type::NUMERIC, &raw).unwrap(), Numeric(10_000));
        assert!(Numeric::from_sql(&Type::NUMERIC, &raw[..9]).is_err());
    }
}
