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

/// A type without the domains over it.
struct Kind {
    name: String,
    /// `e` for enums.
    category: String,
    typmod: i32,
}

/// A table's columns: name, type, element type if it is an array, dimensions. Domains are followed to
/// the type below them, as ClickHouse knows no others.
const COLUMNS: &str = "
    with recursive bases as (
        select oid as of, oid, -1 as typmod, 0 as dims from pg_type
        union all
        select b.of, t.typbasetype, greatest(t.typtypmod, b.typmod), greatest(t.typndims, b.dims)
        from bases b join pg_type t on t.oid = b.oid where t.typtype = 'd'
    ), kinds as (
        select b.of, t.oid, t.typname::text as name, t.typtype::text as category, b.typmod, b.dims
        from bases b join pg_type t on t.oid = b.oid where t.typtype <> 'd'
    )
    select a.attname::text, k.name, k.category, greatest(a.atttypmod, k.typmod), e.name, e.category,
        greatest(a.atttypmod, k.typmod, e.typmod), greatest(a.attndims::int4, k.dims)
    from pg_attribute a join kinds k on k.of = a.atttypid
    left join (select t.typarray, k.* from pg_type t join kinds k on k.of = t.oid where t.typarray <> 0) e
        on e.typarray = k.oid
    where a.attrelid = $1::text::regclass and a.attnum > 0 and not a.attisdropped order by a.attnum";

/// Compares all columns of `table` (as SQL writes it) with `destination`; `Err` says what differs.
pub async fn compare(
    source: &Client,
    destination: &Clickhouse,
    table: &str,
    destination_table: &str,
) -> Result<u64, String> {
    compare_rows(source, destination, table, &format!("{destination_table} final")).await
}

/// The same of an append-only table: FINAL would hide nothing there.
pub async fn compare_appended(
    source: &Client,
    destination: &Clickhouse,
    table: &str,
    destination_table: &str,
) -> Result<u64, String> {
    compare_rows(source, destination, table, destination_table).await
}

async fn compare_rows(
    source: &Client,
    destination: &Clickhouse,
    table: &str,
    destination_rows: &str,
) -> Result<u64, String> {
    let columns =
        source.query(COLUMNS, &[&table]).await.map_err(|error| format!("columns of {table}: {error}"))?;
    let renderings: Vec<Rendering> = columns
        .iter()
        .map(|row| {
            let kind = Kind { name: row.get(1), category: row.get(2), typmod: row.get(3) };
            let element = row.get::<_, Option<String>>(4).map(|name| Kind {
                name,
                category: row.get(5),
                typmod: row.get(6),
            });
            column(row.get(0), &kind, element.as_ref(), row.get(7))
        })
        .collect();
    let join = |side: fn(&Rendering) -> &String| {
        renderings.iter().map(|r| side(r).as_str()).collect::<Vec<_>>().join(", ")
    };
    // An array, because a function takes a hundred arguments at most.
    let source_rows =
        format!("select concat_ws('|', variadic array[{}]) as line from {table}", join(|r| &r.source));
    let destination_rows = format!(
        "select arrayStringConcat([{}], '|') as line from {destination_rows}",
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
        "select count(*), coalesce(sum(('x' || substr(md5(convert_to(line, 'UTF8')), 1, 15))::bit(60)::bigint::numeric), 0)::text from ({rows}) r"
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
    let differing: Vec<_> = counts.iter().filter(|(_, count)| **count != 0).collect();
    let mut text = String::new();
    for (line, count) in differing.iter().take(DIFFERENCES_SHOWN) {
        let side = if **count > 0 { "only on the source" } else { "only in ClickHouse" };
        // Beside its counterpart, if there is one, a row is told by what differs.
        let twin = differing.iter().find(|(other, n)| (**n > 0) != (**count > 0) && key(other) == key(line));
        let shown = match twin {
            Some((other, _)) => differing_cells(line, other),
            None => (*line).clone(),
        };
        text.push_str(&format!("  {side}: {}\n", shown.chars().take(300).collect::<String>()));
    }
    Ok(text)
}

fn key(line: &str) -> Option<&str> {
    line.split('|').next()
}

fn differing_cells(line: &str, other: &str) -> String {
    let cells = line.split('|').zip(other.split('|')).enumerate();
    let cells = cells.filter(|(at, (one, two))| *at == 0 || one != two);
    cells.map(|(at, (cell, _))| format!("{at}: {cell}")).collect::<Vec<_>>().join(" | ")
}

fn column(name: &str, kind: &Kind, element: Option<&Kind>, dimensions: i32) -> Rendering {
    let quoted = format!("\"{}\"", name.replace('"', "\"\""));
    let ticked = format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"));
    let or_null = |one: &Rendering, source: &str| Rendering {
        // IS NULL also holds for a composite of NULLs.
        source: format!("case when num_nulls({source}) = 1 then '\\N' else {} end", one.source),
        destination: format!("ifNull({}, '\\\\N')", one.destination),
    };
    let Some(element) = element else { return or_null(&scalar(kind, &quoted, &ticked), &quoted) };
    if dimensions > 1 {
        return Rendering {
            source: format!("coalesce(to_json({quoted})::text, '[]')"),
            destination: format!("toJSONString({ticked})"),
        };
    }
    let item = format!("({quoted})[i]");
    let one = or_null(&scalar(element, &item, "e"), &item);
    Rendering {
        source: format!(
            "coalesce((select string_agg({}, ',' order by i) from generate_subscripts({quoted}, 1) i), '')",
            one.source
        ),
        destination: format!("arrayStringConcat(arrayMap(e -> {}, {ticked}), ',')", one.destination),
    }
}

fn scalar(kind: &Kind, source: &str, destination: &str) -> Rendering {
    let pair = |source: String, destination: String| Rendering { source, destination };
    match (kind.name.as_str(), kind.category.as_str()) {
        (_, "e") => pair(format!("{source}::text"), format!("toString({destination})")),
        ("float4", _) => pair(
            format!("encode(float4send({source}), 'hex')"),
            format!("lower(hex(reverse(reinterpretAsFixedString({destination}))))"),
        ),
        ("float8", _) => pair(
            format!("encode(float8send({source}), 'hex')"),
            format!("lower(hex(reverse(reinterpretAsFixedString({destination}))))"),
        ),
        ("numeric", _) if kind.typmod >= 0 => {
            pair(format!("trim_scale({source})::text"), format!("toString({destination})"))
        }
        // A cast to text is not always the type's own text: `bpchar` loses blanks, `inet` gains a mask.
        ("bpchar" | "inet", _) => pair(format!("format('%s', {source})"), format!("toString({destination})")),
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
