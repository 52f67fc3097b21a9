//! What is decided for a message, by what the plan and the source have.

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace_terms::TableName;

use super::*;
use crate::pgoutput::Column;
use crate::postgres::present::PresentColumn;
use crate::stream::toast::Value;
use crate::table::{ColumnPlan, OwnColumns, Seen};
use crate::types::{OnUnrepresentable, SourceColumn, TypeCatalog};

const INT8: u32 = 20;
const INT4: u32 = 23;
const TEXT: u32 = 25;

fn column(attnum: i16, name: &str, type_oid: u32) -> ColumnPlan {
    let source =
        SourceColumn { name: name.into(), attnum, type_oid, typmod: -1, dimensions: 0, nullable: attnum > 1 };
    TypeCatalog::default().plan_column(source)
}

fn own() -> OwnColumns {
    OwnColumns {
        version: "_version".into(),
        is_deleted: "_is_deleted".into(),
        synced_at: "_synced_at".into(),
        source: None,
        audit: None,
    }
}

/// `id` (1), `a` (2, text), `b` (3, int4); file 1.
fn plan() -> TablePlan {
    TablePlan {
        source: TableName::new("public", "t"),
        oid: 16,
        destination: "t".into(),
        columns: vec![column(1, "id", INT8), column(2, "a", TEXT), column(3, "b", INT4)],
        excluded: vec!["excluded".into()],
        key: vec![0],
        identity: Identity::Default,
        order_by: vec![0],
        partition_by: String::new(),
        append_only: false,
        merges_heirs: false,
        own: own(),
        seen: Seen { files: vec![(16, 1)], ..Seen::default() },
    }
}

/// Rules of a table without further wishes.
pub(in crate::stream) fn rules(on_column_dropped: OnColumnDropped) -> Rules {
    let options = Options {
        destination: "t".into(),
        exclude: vec!["excluded".into()],
        columns: BTreeMap::new(),
        order_by: Vec::new(),
        partition_by: String::new(),
        append_only: false,
        merges_heirs: false,
        on_unrepresentable: OnUnrepresentable::Error,
        own: own(),
    };
    Rules { options, on_rewrite: OnRewrite::Resync, on_column_dropped }
}

/// The message: names and types; `id` is the identity.
fn relation(columns: &[(&str, u32)]) -> Relation {
    let column = |(name, type_oid): &(&str, u32)| Column {
        identity: *name == "id",
        name: (*name).into(),
        type_oid: *type_oid,
        typmod: -1,
    };
    let columns = columns.iter().map(column).collect();
    Relation { oid: 16, schema: "public".into(), name: "t".into(), identity: b'd', columns }
}

/// The source: numbers, names and types; in file 1.
fn present(columns: &[(i16, &str, u32)]) -> Present {
    let column = |(attnum, name, type_oid): &(i16, &str, u32)| PresentColumn {
        plan: column(*attnum, name, *type_oid),
        missing: None,
        is_virtual: false,
    };
    let columns = columns.iter().map(column).collect();
    Present { name: TableName::new("public", "t"), columns, files: vec![(16, 1)] }
}

fn decision(plan: &TablePlan, relation: &Relation, present: &Present) -> Decision {
    let rules = rules(OnColumnDropped::Keep);
    let subject = Subject { table: 7, plan, rules: &rules, range: TimeRange::WIDE };
    decide(subject, relation, Some(present))
}

fn follow(relation: &[(&str, u32)], now: &[(i16, &str, u32)]) -> Follow {
    match decision(&plan(), &self::relation(relation), &present(now)) {
        Decision::Follow(follow) => *follow,
        other => panic!("{other:?}"),
    }
}

fn misfit(relation: &[(&str, u32)], now: &[(i16, &str, u32)]) -> (String, bool) {
    match decision(&plan(), &self::relation(relation), &present(now)) {
        Decision::Misfits(misfit) => (misfit.error.message().to_owned(), misfit.resync),
        other => panic!("{other:?}"),
    }
}

const ID: (&str, u32) = ("id", INT8);
const A: (&str, u32) = ("a", TEXT);
const B: (&str, u32) = ("b", INT4);
const ID_NOW: (i16, &str, u32) = (1, "id", INT8);
const A_NOW: (i16, &str, u32) = (2, "a", TEXT);
const B_NOW: (i16, &str, u32) = (3, "b", INT4);

#[test]
fn columns_are_found_in_any_order_and_excluded_ones_left_out() {
    let partition = Relation { oid: 17, ..relation(&[B, ("excluded", TEXT), ID, A]) };
    let now = present(&[ID_NOW, A_NOW, B_NOW, (4, "excluded", TEXT)]);
    let Decision::Fits(layout) = decision(&plan(), &partition, &now) else { panic!() };
    assert_eq!(layout.columns, [Some(2), None, Some(0), Some(1)]);
    assert_eq!(layout.table, 7);
}

#[test]
fn a_message_from_before_a_change_changes_nothing() {
    for now in [
        present(&[ID_NOW, A_NOW]),
        present(&[ID_NOW, (2, "renamed", TEXT), B_NOW]),
        present(&[ID_NOW, A_NOW, B_NOW, (4, "new", TEXT)]),
        present(&[ID_NOW, A_NOW, (3, "b", INT8)]),
        present(&[ID_NOW, (3, "a", INT4), (4, "b", TEXT)]),
    ] {
        let rewritten = Present { files: vec![(16, 2)], ..now };
        let decision = decision(&plan(), &relation(&[ID, A, B]), &rewritten);
        assert!(matches!(decision, Decision::Fits(_)), "{decision:?}");
    }
}

#[test]
fn columns_follow_their_numbers() {
    let renamed = follow(&[ID, ("x", TEXT), B], &[ID_NOW, (2, "x", TEXT), B_NOW]);
    assert_eq!(renamed.alters, [Alter::Rename { from: "a".into(), to: "x".into() }]);
    assert_eq!(renamed.plan.columns[1].past.names, ["a"]);
    // Renamed away, and another took the name.
    let chain = follow(&[ID, ("c", TEXT), ("a", INT4)], &[ID_NOW, (2, "c", TEXT), (3, "a", INT4)]);
    let rename = |from: &str, to: &str| Alter::Rename { from: from.into(), to: to.into() };
    assert_eq!(chain.alters, [rename("a", "c"), rename("b", "a")]);
    let (why, resync) = misfit(&[ID, ("b", TEXT), ("a", INT4)], &[ID_NOW, (2, "b", TEXT), (3, "a", INT4)]);
    assert!(resync && why.contains("exchange"), "{why}");
}

#[test]
fn dropped_columns_stay_until_their_name_is_needed() {
    let dropped = follow(&[ID, B], &[ID_NOW, B_NOW]);
    let keep = Alter::Keep { name: "a".into(), kind: "Nullable(String)".into() };
    assert_eq!((&dropped.alters[..], dropped.plan.columns.len()), (&[keep][..], 2));
    let again = [ID_NOW, B_NOW, (4, "a", INT4)];
    let told = relation(&[ID, B, ("a", INT4)]);
    let Decision::Follow(added) = decision(&dropped.plan, &told, &present(&again)) else { panic!() };
    assert_eq!(added.alters[0], Alter::Drop { name: "a".into(), pending: None });
    assert!(matches!(&added.alters[1], Alter::Add { name, .. } if name == "a"));
    assert_eq!(added.plan.seen.dropped[0].kept, None);
    // The log of before the drop, read again.
    let Decision::Fits(old) = decision(&added.plan, &relation(&[ID, A, B]), &present(&again)) else {
        panic!()
    };
    assert_eq!(old.columns, [Some(0), None, Some(1)]);
    assert_eq!(old.filled, [(2, Value::Null)]);
}

#[test]
fn what_the_log_does_not_tell_apart_is_copied_again() {
    // `b` was dropped and added again, of the same type, at the end.
    let now = [ID_NOW, A_NOW, (4, "b", INT4)];
    assert!(misfit(&[ID, A, B], &now).1);
    // A name between two others, which nobody knows any more.
    assert!(misfit(&[ID, ("x", TEXT), B], &[ID_NOW, (2, "y", TEXT), B_NOW]).1);
    assert!(misfit(&[ID, A, B, ("x", INT4)], &[ID_NOW, A_NOW, B_NOW, (4, "y", INT4)]).1);
    // One that came and went is none of ours.
    let gone = decision(&plan(), &relation(&[ID, A, B, ("x", INT4)]), &present(&[ID_NOW, A_NOW, B_NOW]));
    assert!(matches!(gone, Decision::Fits(_)), "{gone:?}");
}

#[test]
fn types_are_widened_and_narrower_values_of_the_log_with_them() {
    let wider = follow(&[ID, A, ("b", INT8)], &[ID_NOW, A_NOW, (3, "b", INT8)]);
    assert_eq!(wider.alters, [Alter::Modify { name: "b".into(), kind: "Nullable(Int64)".into() }]);
    let now = present(&[ID_NOW, A_NOW, (3, "b", INT8)]);
    let Decision::Fits(old) = decision(&wider.plan, &relation(&[ID, A, B]), &now) else { panic!() };
    assert_eq!(old.widened, [(2, Widening::Integer(8))]);
    let (why, resync) = misfit(&[ID, A, ("b", TEXT)], &[ID_NOW, A_NOW, (3, "b", TEXT)]);
    assert!(resync && why.contains("type of column b"), "{why}");
    let (why, resync) = misfit(&[("id", TEXT), A, B], &[(1, "id", TEXT), A_NOW, B_NOW]);
    assert!(resync && why.contains("sorts its rows"), "{why}");
}

#[test]
fn a_changed_identity_stops_the_table() {
    let without = |columns: &[(&str, u32)], flagged: &[&str]| {
        let mut relation = relation(columns);
        relation.columns.iter_mut().for_each(|c| c.identity = flagged.contains(&c.name.as_str()));
        match decision(&plan(), &relation, &present(&[ID_NOW, A_NOW, B_NOW])) {
            Decision::Misfits(misfit) => (misfit.error.message().to_owned(), misfit.resync),
            other => panic!("{other:?}"),
        }
    };
    let (why, resync) = without(&[ID, A, B], &[]);
    assert!(!resync && why.contains("no primary key"), "{why}");
    let (why, resync) = without(&[ID, A, B], &["id", "b"]);
    assert!(!resync && why.contains("another primary key"), "{why}");
    let full = Relation { identity: b'f', ..relation(&[ID, A, B]) };
    let decision = decision(&plan(), &full, &present(&[ID_NOW, A_NOW, B_NOW]));
    assert!(matches!(decision, Decision::Fits(_)), "FULL flags all");
}

#[test]
fn a_rewritten_table_is_stale_only_if_values_may_be_others() {
    let mut now = present(&[ID_NOW, A_NOW, B_NOW, (4, "c", INT4)]);
    now.files = vec![(16, 2)];
    let told = relation(&[ID, A, B, ("c", INT4)]);
    let stale = |now: &Present, told: &Relation| match decision(&plan(), told, now) {
        Decision::Follow(follow) => follow.stale.is_some(),
        other => panic!("{other:?}"),
    };
    assert!(stale(&now, &told), "a volatile default");
    now.columns[3].missing = Some("5".into());
    assert!(!stale(&now, &told), "a constant one, and a vacuum");
    let mut now = present(&[ID_NOW, A_NOW, B_NOW]);
    now.files = vec![(16, 2)];
    assert!(!stale(&now, &relation(&[ID, A, B])), "a vacuum");
    now.columns[1].plan.past.row = 9;
    assert!(stale(&now, &relation(&[ID, A, B])), "ALTER TYPE ... USING of the same type");
}

#[test]
fn every_code_of_a_change_is_documented() {
    let documented: String = reference().iter().map(|line| line.code).collect();
    for change in [
        SchemaChange::ColumnAdded { column: String::new(), kind: String::new() },
        SchemaChange::ColumnDropped { column: String::new(), kept: true },
        SchemaChange::ColumnRenamed { from: String::new(), to: String::new() },
        SchemaChange::ColumnRetyped { column: String::new(), from: String::new(), to: String::new() },
        SchemaChange::ColumnNullable { column: String::new() },
        SchemaChange::ColumnLeftOut { column: String::new() },
        SchemaChange::TableRenamed { from: TableName::new("a", "b"), to: TableName::new("a", "c") },
    ] {
        assert!(documented.contains(change.code().as_str()), "{change:?}");
    }
}

#[test]
fn a_table_that_is_gone_is_told_of_as_it_was() {
    let rules = Arc::new(rules(OnColumnDropped::Drop));
    let plan = plan();
    let subject = Subject { table: 0, plan: &plan, rules: &rules, range: TimeRange::WIDE };
    assert!(matches!(decide(subject, &relation(&[ID, A, B]), None), Decision::Fits(_)));
    assert!(matches!(decide(subject, &relation(&[ID, A]), None), Decision::Misfits(_)));
}
