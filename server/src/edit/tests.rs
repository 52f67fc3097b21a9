use millrace_catalog::spec::{Mode, OnUnrepresentable, Settings};

use super::*;

fn stored() -> MirrorSpec {
    let table = |source: &str, destination: &str| TableSpec {
        destination: destination.into(),
        ..TableSpec::new(source)
    };
    MirrorSpec {
        name: "shop".into(),
        source: "pg".into(),
        destination: "ch".into(),
        mode: Mode::default(),
        tables: vec![table("public.a", "a"), table("public.b", "bee")],
        settings: Settings::default(),
    }
}

fn message(tables: &[&str]) -> v1::Mirror {
    let table = |source: &&str| v1::Table { source: (*source).to_owned(), ..Default::default() };
    v1::Mirror { name: "shop".into(), tables: tables.iter().map(table).collect(), ..Default::default() }
}

fn flush(max_rows: u64) -> Option<v1::Settings> {
    let flush = v1::FlushSettings { max_rows: Some(max_rows), ..Default::default() };
    Some(v1::Settings { flush: Some(flush), ..Default::default() })
}

fn mask(paths: &[&str]) -> Option<FieldMask> {
    Some(FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() })
}

#[test]
fn without_a_mask_the_fields_that_are_set_are_replaced() {
    let mut before = stored();
    before.settings.flush.max_in_flight = 7;
    let asked = v1::Mirror { settings: flush(5), ..message(&[]) };
    let after = masked(&before, &asked, None).unwrap();
    assert_eq!((after.settings.flush.max_rows, after.settings.flush.max_in_flight), (5, 7));
    assert_eq!(after.tables, before.tables);
    let after = masked(&before, &message(&["public.c"]), None).unwrap();
    assert_eq!((after.tables.len(), after.settings), (1, before.settings));
}

#[test]
fn a_mask_replaces_what_it_names_and_nothing_else() {
    let mut before = stored();
    before.settings.flush.max_in_flight = 7;
    let asked = v1::Mirror { settings: flush(5), ..message(&["public.c"]) };
    let after = masked(&before, &asked, mask(&["settings.flush.max_rows"]).as_ref()).unwrap();
    assert_eq!((after.settings.flush.max_rows, after.settings.flush.max_in_flight), (5, 7));
    assert_eq!(after.tables, before.tables);
    // A whole message is replaced with its defaults.
    let after = masked(&before, &asked, mask(&["settings.flush"]).as_ref()).unwrap();
    assert_eq!(after.settings.flush.max_in_flight, 2);
    let whole = v1::Mirror { source: "pg".into(), destination: "ch".into(), ..asked.clone() };
    let after = masked(&before, &whole, mask(&["*"]).as_ref()).unwrap();
    assert_eq!((after.tables.len(), after.settings.flush.max_rows), (1, 5));
    for unknown in ["settings.flush.max_row", "state", "tables.0", "tables.0.source", ""] {
        let fault = masked(&before, &asked, mask(&[unknown]).as_ref()).unwrap_err();
        assert_eq!(fault.field_names()[0], "update_mask", "{unknown}");
    }
}

#[test]
fn tables_come_and_go_and_those_that_stay_keep_their_destinations() {
    let before = stored();
    let asked = masked(&before, &message(&["public.b", "other.a", "other.c"]), None).unwrap();
    let after = tables::resolve_again(&asked, &[], &before.tables).unwrap();
    let names: Vec<(&str, &str)> =
        after.tables.iter().map(|table| (table.source.as_str(), table.destination.as_str())).collect();
    assert_eq!(names, [("public.b", "bee"), ("other.a", "a"), ("other.c", "c")]);
    let edit = decide(&before, &after).unwrap();
    assert_eq!(
        edit.added.iter().map(|table| table.source.as_str()).collect::<Vec<_>>(),
        ["other.a", "other.c"]
    );
    assert_eq!((edit.removed, edit.restart), (BTreeSet::from(["public.a".to_owned()]), false));
    assert_eq!(edit.changes.len(), 3);
    assert_eq!(decide(&before, &before).unwrap().changes, []);
}

#[test]
fn a_default_name_that_is_taken_by_a_table_of_the_mirror_is_another() {
    let before = stored();
    let asked = masked(&before, &message(&["public.a", "public.b", "other.a"]), None).unwrap();
    let after = tables::resolve_again(&asked, &[], &before.tables).unwrap();
    assert_eq!(
        (after.tables[0].destination.as_str(), after.tables[2].destination.as_str()),
        ("a", "other_a")
    );
}

#[test]
fn what_may_change_changes_and_the_rest_is_refused_by_name_with_the_reason() {
    let before = stored();
    type Case = (fn(&mut MirrorSpec), &'static str, bool);
    let live: [Case; 3] = [
        (|m| m.settings.flush.max_rows = 5, "settings.flush.max_rows", true),
        (|m| m.settings.snapshot.parallel_tables = 5, "settings.snapshot.parallel_tables", false),
        (|m| m.settings.snapshot.partition_bytes = 1 << 21, "settings.snapshot.partition_bytes", false),
    ];
    for (change, field, restart) in live {
        let mut after = before.clone();
        change(&mut after);
        let edit = decide(&before, &after).unwrap();
        assert_eq!((edit.changes[0].field.as_str(), edit.restart), (field, restart));
    }
    type Fixed = (fn(&mut MirrorSpec), &'static str);
    let fixed: [Fixed; 8] = [
        (|m| m.source = "other".into(), "mirror.source"),
        (|m| m.destination = "other".into(), "mirror.destination"),
        (|m| m.mode = Mode::Stream, "mirror.mode"),
        (|m| m.tables[0].exclude = vec!["x".into()], "mirror.tables.public.a.exclude"),
        (|m| m.tables[0].destination = "x".into(), "mirror.tables.public.a.destination"),
        (|m| m.settings.slot = "s".into(), "mirror.settings.slot"),
        (|m| m.settings.on_unrepresentable = OnUnrepresentable::Null, "mirror.settings.on_unrepresentable"),
        (|m| m.settings.columns.version = "v".into(), "mirror.settings.columns.version"),
    ];
    for (change, field) in fixed {
        let mut after = before.clone();
        change(&mut after);
        let fault = decide(&before, &after).unwrap_err();
        assert_eq!((fault.error.code(), fault.field_names()[0]), (Code::InvalidArgument, field));
        assert!(!fault.error.message().ends_with(": "), "{}: no reason", fault.error.message());
    }
}

#[test]
fn a_pattern_stands_for_the_tables_that_the_mirror_has_until_it_is_asked() {
    let before = stored();
    let asked = |tables: &[&str]| masked(&before, &message(tables), None).unwrap();
    assert_eq!(preview(&before, &asked(&["public.*"])).unwrap(), []);
    let changes = preview(&before, &asked(&["public.*", "new.*"])).unwrap();
    assert_eq!(changes.iter().map(ToString::to_string).collect::<Vec<_>>(), ["tables (none) -> new.*"]);
    assert_eq!(unknown_schemas(&before, &asked(&["public.*", "new.*"])), BTreeSet::from(["new".to_owned()]));
    // A table of the pattern that is there already keeps its own definition.
    let listing: Vec<TableName> =
        ["public.a", "public.b", "public.c"].iter().map(|name| name.parse().unwrap()).collect();
    let after = tables::resolve_again(&asked(&["public.*"]), &listing, &before.tables).unwrap();
    assert_eq!(after.tables[1], before.tables[1]);
    assert_eq!(decide(&before, &after).unwrap().added[0].source, "public.c");
}
