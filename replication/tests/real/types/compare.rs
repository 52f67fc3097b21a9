//! Random tables: text form = binary form = what ClickHouse stores = what PostgreSQL renders.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_replication::block::{Block, Operation, Stamp};
use millrace_replication::clickhouse::{Clickhouse, InsertId};
use millrace_replication::postgres::Session;
use millrace_replication::postgres::describe::describe;
use millrace_replication::postgres::plan::{Options, plan};
use millrace_replication::table::{OwnColumns, TablePlan};
use millrace_replication::types::OnUnrepresentable;
use millrace_terms::TableName;

use super::forms::{self, Rows};
use super::kinds::{Class, KINDS, Kind};
use super::literal::Tree;
use super::pair::Pair;
use super::random::Random;

/// How long random tables are made if `MILLRACE_TEST_SECONDS` does not say.
const SECONDS: u64 = 5;

/// A column under test.
pub struct Sample {
    pub kind: &'static Kind,
    /// Dimensions that the column declares on top of its type's.
    pub depth: usize,
    pub not_null: bool,
}

impl Sample {
    fn random(random: &mut Random) -> Self {
        let kind = &KINDS[random.below(KINDS.len() as u64) as usize];
        // PostgreSQL has no type for these arrays, or they are nested by other rules.
        let plain = kind.depth > 0 || kind.name.ends_with("vector") && kind.name != "tsvector";
        let depth = if plain { 0 } else { [0, 0, 0, 1, 1, 2, 3][random.below(7) as usize] };
        Self { kind, depth, not_null: random.below(3) == 0 }
    }

    /// Dimensions of a value.
    fn dimensions(&self) -> usize {
        self.depth + self.kind.depth
    }

    fn declaration(&self) -> String {
        let not_null = if self.not_null { " not null" } else { "" };
        format!("{}{}{not_null}", self.kind.name, "[]".repeat(self.depth))
    }

    fn literal(&self, random: &mut Random) -> String {
        if !self.not_null && random.below(6) == 0 {
            return "null".to_owned();
        }
        let text = match self.dimensions() {
            0 => (self.kind.value)(random),
            depth => {
                let tree = random.array(depth, self.kind.value);
                let bounds = if random.below(4) == 0 { bounds(&tree) } else { String::new() };
                bounds + &tree.literal(self.kind.delimiter)
            }
        };
        format!("'{}'", text.replace('\'', "''"))
    }

    /// An expression of ClickHouse for what it stores.
    fn expression(&self, name: &str) -> String {
        let leaf = |x: &str| match self.kind.class {
            Class::Text | Class::Bytes => format!("hex({x})"),
            _ => format!("toString({x})"),
        };
        let depth = self.dimensions();
        if depth == 0 {
            return format!("toNullable({})", leaf(name));
        }
        let inside = (0..depth).rev().fold(leaf(&format!("x{depth}")), |inside, level| {
            let of = if level == 0 { name.to_owned() } else { format!("x{level}") };
            format!("arrayMap(x{} -> {inside}, {of})", level + 1)
        });
        format!("toNullable(toJSONString({inside}))")
    }

    /// Compares PostgreSQL's text with what [`Sample::expression`] said.
    fn assert_same(&self, rendered: Option<&str>, stored: Option<&str>) {
        if self.dimensions() == 0 {
            assert_eq!(rendered.is_some(), stored.is_some(), "{rendered:?} {stored:?}");
            if let (Some(rendered), Some(stored)) = (rendered, stored) {
                assert_leaf(self.kind.class, rendered, stored);
            }
            return;
        }
        let stored: serde_json::Value = serde_json::from_str(stored.unwrap()).unwrap();
        match rendered {
            None => assert_eq!(stored, serde_json::json!([]), "a NULL array is the empty one"),
            Some(rendered) => {
                assert_tree(self.kind.class, &Tree::parse(rendered, self.kind.delimiter), &stored);
            }
        }
    }
}

fn bounds(tree: &Tree) -> String {
    let lengths = tree.lengths();
    if lengths.contains(&0) {
        return String::new();
    }
    let bounds: Vec<_> = lengths.iter().map(|length| format!("[-1:{}]", *length as i64 - 2)).collect();
    bounds.concat() + "="
}

fn assert_tree(class: Class, tree: &Tree, stored: &serde_json::Value) {
    match (tree, stored) {
        (Tree::Null, serde_json::Value::Null) => {}
        (Tree::Leaf(rendered), serde_json::Value::String(stored)) => assert_leaf(class, rendered, stored),
        (Tree::Array(rendered), serde_json::Value::Array(stored)) => {
            assert_eq!(rendered.len(), stored.len(), "{rendered:?} {stored:?}");
            rendered.iter().zip(stored).for_each(|(tree, stored)| assert_tree(class, tree, stored));
        }
        _ => panic!("{tree:?} is stored as {stored}"),
    }
}

fn assert_leaf(class: Class, rendered: &str, stored: &str) {
    let without_zeros = |text: &str| match text.split_once('.') {
        Some((whole, fraction)) => {
            format!("{whole}.{}", fraction.trim_end_matches('0')).trim_end_matches('.').to_owned()
        }
        None => text.to_owned(),
    };
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02X}")).collect::<String>();
    match class {
        Class::Text => assert_eq!(hex(rendered.as_bytes()), stored, "{rendered:?}"),
        Class::Bytes => assert_eq!(rendered.strip_prefix("\\x").unwrap().to_uppercase(), stored),
        Class::Bool => assert_eq!(if rendered == "t" { "true" } else { "false" }, stored),
        Class::Number => assert_eq!(without_zeros(rendered), without_zeros(stored)),
        Class::Float32 => {
            let (a, b): (f32, f32) = (rendered.parse().unwrap(), stored.parse().unwrap());
            assert!(a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan(), "{rendered} {stored}");
        }
        Class::Float64 => {
            let (a, b): (f64, f64) = (rendered.parse().unwrap(), stored.parse().unwrap());
            assert!(a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan(), "{rendered} {stored}");
        }
        Class::Moment => {
            assert_eq!(
                without_zeros(rendered.strip_suffix("+00").unwrap_or(rendered)),
                without_zeros(stored)
            );
        }
        Class::Same => assert_eq!(rendered, stored),
    }
}

/// Options that ask for nothing.
pub fn options(on_unrepresentable: OnUnrepresentable) -> Options {
    Options {
        append_only: false,
        merges_heirs: false,
        destination: "t".to_owned(),
        exclude: Vec::new(),
        columns: Default::default(),
        order_by: Vec::new(),
        partition_by: String::new(),
        on_unrepresentable,
        own: OwnColumns {
            version: "_version".to_owned(),
            is_deleted: "_is_deleted".to_owned(),
            synced_at: "_synced_at".to_owned(),
            source: None,
            audit: None,
        },
    }
}

/// Plans a table of the source and makes its destination.
pub async fn planned(pair: &Pair, name: &str, options: Options) -> Arc<TablePlan> {
    let shape = describe(&pair.source, &[TableName::new("public", name)]).await.unwrap().remove(0);
    let plan = plan(&shape, &Options { destination: name.to_owned(), ..options }).unwrap();
    pair.sink.create_table(&plan, "").await.unwrap();
    Arc::new(plan)
}

/// Transcodes both forms, which must be the same bytes, and inserts them. Returns how many values became
/// NULL.
pub async fn replicate(pair: &Pair, plan: &Arc<TablePlan>) -> usize {
    let (binary, text) = (forms::binary(&pair.source, plan).await, forms::text(&pair.source, plan).await);
    let (binary, text) = (block(pair, plan, &binary, true), block(pair, plan, &text, false));
    let encoded = |block: &Block| {
        let mut out = Vec::new();
        block.encode_native(0, &mut out).unwrap();
        out
    };
    let data = encoded(&binary);
    assert!(data == encoded(&text), "the two forms differ");
    assert_eq!(binary.nulled(), text.nulled());
    let id = InsertId { mirror: "m".into(), attempt: "0.1".into(), table: "t".into(), position: "0".into() };
    pair.sink.insert(plan, data.into(), &id, || true).await.unwrap();
    binary.nulled()
}

pub fn block(pair: &Pair, plan: &Arc<TablePlan>, rows: &Rows, is_binary: bool) -> Block {
    let mut block = Block::new(plan.clone(), pair.sink.time_range());
    for row in rows {
        for (column, field) in forms::fields(plan, row, is_binary).into_iter().enumerate() {
            block.push_field(column, field).unwrap();
        }
        block.finish_row(Stamp { version: 1, operation: Operation::Insert, at: 0 }).unwrap();
    }
    block
}

/// What ClickHouse stores: by expression, in the order of the key.
pub async fn stored(sink: &Clickhouse, table: &str, expressions: &[String]) -> Vec<Vec<Option<String>>> {
    let sql = format!(
        "select toJSONString([{}]) from {} order by id",
        expressions.join(", "),
        sink.qualified(table)
    );
    let rows: Vec<String> = sink.query(&sql).await.unwrap();
    rows.iter().map(|row| serde_json::from_str(row).unwrap()).collect()
}

/// The statement that makes a table of these columns.
pub fn create_table(name: &str, samples: &[Sample]) -> String {
    let columns: Vec<_> =
        samples.iter().enumerate().map(|(at, sample)| format!("c{at} {}", sample.declaration())).collect();
    format!("create table {name} (id int primary key, {})", columns.join(", "))
}

/// The statement that fills it.
pub fn insert(name: &str, samples: &[Sample], rows: usize, random: &mut Random) -> String {
    let rows: Vec<String> = (0..rows)
        .map(|id| {
            let values: Vec<_> = samples.iter().map(|sample| sample.literal(random)).collect();
            format!("({id}, {})", values.join(", "))
        })
        .collect();
    format!("insert into {name} values {}", rows.join(", "))
}

/// Compares what ClickHouse stores with what PostgreSQL renders.
pub async fn assert_stored(source: &Session, sink: &Clickhouse, plan: &TablePlan, samples: &[Sample]) {
    let expressions: Vec<_> =
        samples.iter().enumerate().map(|(at, sample)| sample.expression(&format!("c{at}"))).collect();
    let stored = stored(sink, &plan.destination, &expressions).await;
    let rendered = forms::rendered(source, plan).await;
    assert_eq!(rendered.len(), stored.len());
    for (rendered, stored) in rendered.iter().zip(&stored) {
        for ((at, sample), (rendered, stored)) in
            samples.iter().enumerate().zip(rendered[1..].iter().zip(stored))
        {
            println!("c{at} {}", sample.declaration());
            sample.assert_same(rendered.as_deref(), stored.as_deref());
        }
    }
}

/// Every kind, in arrays of so many dimensions.
pub fn every_kind(depth: usize) -> Vec<Sample> {
    let allowed =
        |kind: &&Kind| depth == 0 || kind.depth == 0 && !matches!(kind.name, "int2vector" | "oidvector");
    KINDS.iter().filter(allowed).map(|kind| Sample { kind, depth, not_null: false }).collect()
}

/// One random table, or a given one.
async fn check(pair: &Pair, name: &str, samples: &[Sample], rows: usize, random: &mut Random) {
    pair.source.batch_execute(&create_table(name, samples)).await.unwrap();
    let insert = insert(name, samples, rows, random);
    pair.source.batch_execute(&insert).await.unwrap_or_else(|error| panic!("{error:?} in {insert}"));

    let plan = planned(pair, name, options(OnUnrepresentable::Error)).await;
    let nulled = replicate(pair, &plan).await;
    assert_eq!(nulled, 0);
    assert_stored(&pair.source, &pair.sink, &plan, samples).await;
    pair.sink.drop_table(name, "").await.unwrap();
}

#[tokio::test]
async fn every_type_arrives_as_it_is_rendered() {
    let pair = Pair::new().await;
    let mut random = Random::new(seed());
    for depth in 0..=2 {
        check(&pair, &format!("every_{depth}"), &every_kind(depth), 40, &mut random).await;
    }
}

#[tokio::test]
async fn random_tables_arrive_as_they_are_rendered() {
    let pair = Pair::new().await;
    let seconds = std::env::var("MILLRACE_TEST_SECONDS").ok().and_then(|text| text.parse().ok());
    let end = Instant::now() + Duration::from_secs(seconds.unwrap_or(SECONDS));
    let mut random = Random::new(seed());
    let mut tables = 0;
    while Instant::now() < end {
        let samples: Vec<_> = (0..1 + random.below(8)).map(|_| Sample::random(&mut random)).collect();
        let rows = 1 + random.below(60) as usize;
        check(&pair, &format!("random_{tables}"), &samples, rows, &mut random).await;
        tables += 1;
    }
    println!("{tables} tables");
}

/// From `MILLRACE_TEST_SEED`, or from the clock; printed, so that a failure can be repeated.
pub fn seed() -> u64 {
    let seed = std::env::var("MILLRACE_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seed = seed.unwrap_or(now.as_nanos() as u64);
    println!("MILLRACE_TEST_SEED={seed}");
    seed
}
