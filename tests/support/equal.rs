//! Whether a destination table, read with FINAL, is exactly the source table.
//!
//! An oracle of its own: both databases render every value as text by their own means, and share no
//! code with the product. Rows are compared as digests, and named only when they differ.

use std::collections::BTreeMap;

use tokio_postgres::Client;

use super::clickhouse::Clickhouse;

/// How many differing rows a failure names.
const DIFFERENCES_SHOWN: usize = 10;

/// A pair of expressions that render one column alike on both sides.
struct Rendering {
    source: String,
    destination: String,
}

/// Compares all columns of `table` (as SQL writes it) with `destination`; `Err` says what differs.
pub async fn compare(
    source: &Client,
    destination: &Clickhouse,
    table: &str,
    destination_table: &str,
) -> Result<u64, String> {
    let columns = source
        .query(
            "select a.attname::text, t.typname::text, t.typtype::text, coalesce(e.typname, '')::text,
                    coalesce(e.typtype, ' ')::text, a.atttypmod
             from pg_attribute a join pg_type t on t.oid = a.atttypid
             left join pg_type e on e.oid = t.typelem and t.typcategory = 'A'
             where a.attrelid = $1::text::regclass and a.attnum > 0 and not a.attisdropped order by a.attnum",
            &[&table],
        )
        .await
        .map_err(|error| format!("columns of {table}: {error}"))?;
    let renderings: Vec<Rendering> = columns
        .iter()
        .map(|row| {
            let (name, kind, category): (String, String, String) = (row.get(0), row.get(1), row.get(2));
            let (element, element_category): (String, String) = (row.get(3), row.get(4));
            column(&name, &kind, &category, &element, &element_category, row.get(5))
        })
        .collect();
    let join = |side: fn(&Rendering) -> &String| {
        renderings.iter().map(|r| side(r).as_str()).collect::<Vec<_>>().join(", ")
    };
    let source_rows = format!("select concat_ws('|', {}) as line from {table}", join(|r| &r.source));
    let destination_rows = format!(
        "select arrayStringConcat([{}], '|') as line from {destination_table} final",
        join(|r| &r.destination)
    );
    let (rows, digest) = source_digest(source, &source_rows).await?;
    let found = destination_digest(destination, &destination_rows).await?;
    if (rows, &digest) == (found.0, &found.1) {
        return Ok(rows);
    }
    let differences = differences(source, &source_rows, destination, &destination_rows).await?;
    Err(format!("{table}: {rows} rows on the source, {} in ClickHouse\n{differences}", found.0))
}

async fn source_digest(source: &Client, rows: &str) -> Result<(u64, String), String> {
    let sql = format!(
        "select count(*), coalesce(sum(('x' || substr(md5(line), 1, 15))::bit(60)::bigint::numeric), 0)::text from ({rows}) r"
    );
    let row = source.query_one(&sql, &[]).await.map_err(|error| format!("{sql}: {error:?}"))?;
    Ok((row.get::<_, i64>(0).unsigned_abs(), row.get(1)))
}

async fn destination_digest(destination: &Clickhouse, rows: &str) -> Result<(u64, String), String> {
    let sql = format!(
        "select count(), toString(sum(toInt128(reinterpretAsUInt64(reverse(unhex(concat('0', substring(lower(hex(MD5(line))), 1, 15)))))))) from ({rows})"
    );
    let answer = destination.query(&sql).await?;
    let (count, sum) = answer.trim_end().split_once('\t').ok_or_else(|| format!("{sql}: {answer}"))?;
    Ok((count.parse().map_err(|error| format!("{answer}: {error}"))?, sum.to_owned()))
}

async fn differences(
    source: &Client,
    source_rows: &str,
    destination: &Clickhouse,
    destination_rows: &str,
) -> Result<String, String> {
    let mut counts: BTreeMap<String, i64> = BTreeMap::new();
    for row in source.query(source_rows, &[]).await.map_err(|error| error.to_string())? {
        *counts.entry(row.get::<_, String>(0)).or_default() += 1;
    }
    for line in destination.query_lines(destination_rows).await? {
        *counts.entry(line).or_default() -= 1;
    }
    let mut text = String::new();
    let differing = counts.iter().filter(|(_, count)| **count != 0);
    for (line, count) in differing.take(DIFFERENCES_SHOWN) {
        let side = if *count > 0 { "only on the source" } else { "only in ClickHouse" };
        text.push_str(&format!("  {side}: {}\n", line.chars().take(300).collect::<String>()));
    }
    Ok(text)
}

fn column(
    name: &str,
    kind: &str,
    category: &str,
    element: &str,
    element_category: &str,
    typmod: i32,
) -> Rendering {
    let quoted = format!("\"{}\"", name.replace('"', "\"\""));
    let ticked = format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"));
    if element.is_empty() {
        let one = scalar(kind, category, typmod, &quoted, &ticked);
        return Rendering {
            source: format!("case when {quoted} is null then '\\N' else {} end", one.source),
            destination: format!("ifNull({}, '\\\\N')", one.destination),
        };
    }
    let one = scalar(element, element_category, typmod, "e", "e");
    Rendering {
        source: format!(
            "coalesce((select string_agg(coalesce({}, '\\N'), ',' order by i) from unnest({quoted}) with ordinality as u(e, i)), '')",
            one.source
        ),
        destination: format!(
            "arrayStringConcat(arrayMap(e -> ifNull({}, '\\\\N'), {ticked}), ',')",
            one.destination
        ),
    }
}

fn scalar(kind: &str, category: &str, typmod: i32, source: &str, destination: &str) -> Rendering {
    let pair = |source: String, destination: String| Rendering { source, destination };
    match (kind, category) {
        (_, "e") => pair(format!("{source}::text"), format!("toString({destination})")),
        ("float4", _) => pair(
            format!("encode(float4send({source}), 'hex')"),
            format!("lower(hex(reverse(reinterpretAsFixedString({destination}))))"),
        ),
        ("float8", _) => pair(
            format!("encode(float8send({source}), 'hex')"),
            format!("lower(hex(reverse(reinterpretAsFixedString({destination}))))"),
        ),
        ("numeric", _) if typmod >= 0 => {
            pair(format!("trim_scale({source})::text"), format!("toString({destination})"))
        }
        // A cast to text cuts the blanks off; the type's own text form has them.
        ("bpchar", _) => pair(format!("format('%s', {source})"), format!("toString({destination})")),
        ("bytea", _) => pair(format!("encode({source}, 'hex')"), format!("lower(hex({destination}))")),
        ("timestamp", _) => {
            pair(format!("to_char({source}, 'YYYY-MM-DD HH24:MI:SS.US')"), format!("toString({destination})"))
        }
        ("timestamptz", _) => pair(
            format!("to_char({source} at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')"),
            format!("toString({destination}, 'UTC')"),
        ),
        _ => pair(format!("{source}::text"), format!("toString({destination})")),
    }
}
