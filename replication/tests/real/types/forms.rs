//! The forms that PostgreSQL tells a table in.

use futures::TryStreamExt;
use millrace_replication::copy::Reader;
use millrace_replication::postgres::Session;
use millrace_replication::table::TablePlan;
use millrace_replication::types::Field;
use tokio_postgres::SimpleQueryMessage;

/// Rows of values; `None` is NULL.
pub type Rows = Vec<Vec<Option<Vec<u8>>>>;

/// As COPY writes them in its binary format: the types that are understood in their binary form, the
/// others in their text form.
pub async fn binary(source: &Session, plan: &TablePlan) -> Rows {
    let columns: Vec<String> = plan
        .columns
        .iter()
        .map(|column| match column.conversion.binary_known() {
            true => quoted(&column.name),
            false => format!("case when num_nulls({0}) = 0 then format('%s', {0}) end", quoted(&column.name)),
        })
        .collect();
    let sql = format!(
        "copy (select {} from {} order by 1) to stdout (format binary)",
        columns.join(", "),
        plan.source.to_sql()
    );
    let chunks: Vec<_> = source.copy_out(&sql).await.unwrap().try_collect().await.unwrap();
    let mut reader = Reader::new(columns.len());
    let mut rows = Vec::new();
    for chunk in chunks {
        let each = |row: millrace_replication::copy::Row<'_>| {
            rows.push(row.fields().map(|field| field.map(<[u8]>::to_vec)).collect());
            Ok(())
        };
        reader.feed(&chunk, each).unwrap();
    }
    reader.finish().unwrap();
    rows
}

/// As COPY writes them in its text format.
pub async fn text(source: &Session, plan: &TablePlan) -> Rows {
    let columns: Vec<String> = plan.columns.iter().map(|column| quoted(&column.name)).collect();
    let sql = format!(
        "copy (select {} from {} order by 1) to stdout (format text)",
        columns.join(", "),
        plan.source.to_sql()
    );
    let chunks: Vec<_> = source.copy_out(&sql).await.unwrap().try_collect().await.unwrap();
    let whole = chunks.concat();
    whole
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| line.split(|byte| *byte == b'\t').map(unescaped).collect())
        .collect()
}

/// Backslashes of COPY's text format.
fn unescaped(field: &[u8]) -> Option<Vec<u8>> {
    if field == b"\\N" {
        return None;
    }
    let mut out = Vec::new();
    let mut bytes = field.iter();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'\\' => match bytes.next().unwrap() {
                b'b' => 8,
                b'f' => 12,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'v' => 11,
                other => *other,
            },
            other => *other,
        });
    }
    Some(out)
}

/// As PostgreSQL's output functions write them.
pub async fn rendered(source: &Session, plan: &TablePlan) -> Vec<Vec<Option<String>>> {
    let columns: Vec<String> = plan.columns.iter().map(|column| quoted(&column.name)).collect();
    let sql = format!("select {} from {} order by 1", columns.join(", "), plan.source.to_sql());
    let messages = source.simple_query(&sql).await.unwrap();
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    rows.map(|row| (0..columns.len()).map(|at| row.get(at).map(str::to_owned)).collect()).collect()
}

/// The fields of a row in the form that they were read in.
pub fn fields<'a>(plan: &TablePlan, row: &'a [Option<Vec<u8>>], is_binary: bool) -> Vec<Field<'a>> {
    let field = |(value, known): (&'a Option<Vec<u8>>, bool)| match value {
        None => Field::Null,
        Some(bytes) if is_binary && known => Field::Binary(bytes),
        Some(bytes) => Field::Text(bytes),
    };
    let known = plan.columns.iter().map(|column| column.conversion.binary_known());
    row.iter().zip(known).map(field).collect()
}

fn quoted(name: &str) -> String {
    millrace_terms::quote_ident(name)
}
