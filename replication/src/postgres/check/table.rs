//! How a table of a source is judged. Pure.

use millrace_terms::check::{Check, Name, Rule, Verdict};
use millrace_terms::{Code, Error, quote_ident};

use super::Wanted;
use super::facts::TableRights;
use crate::postgres::describe::{TableKind, TableShape};
use crate::table::{ColumnPlan, TablePlan};
use crate::types::Conversion;

/// What is known of a table.
pub(super) struct TableFacts {
    pub(super) shape: TableShape,
    pub(super) wanted: Wanted,
    pub(super) rights: TableRights,
    /// Whether a publication of our own is made for it.
    pub(super) publishes: bool,
}

/// The judgements of a table.
pub(super) const RULES: &[Rule<TableFacts>] = &[
    Rule { name: Name::Table, judge: table },
    Rule { name: Name::Key, judge: key },
    Rule { name: Name::SchemaPrivilege, judge: schema_privilege },
    Rule { name: Name::ReadPrivilege, judge: read_privilege },
    Rule { name: Name::RowSecurity, judge: row_security },
    Rule { name: Name::PublishPrivilege, judge: publish_privilege },
    Rule { name: Name::Inheritance, judge: inheritance },
];

fn refusal(facts: &TableFacts) -> Option<Error> {
    facts.shape.refusal(&facts.wanted.exclude, facts.wanted.append_only)
}

/// A missing key is the next rule's.
fn table(facts: &TableFacts) -> Option<Verdict> {
    Some(match refusal(facts) {
        Some(error) if error.code() != Code::TableWithoutKey => Verdict::Fail(error),
        _ => Verdict::Pass("exists, and can be replicated".into()),
    })
}

fn key(facts: &TableFacts) -> Option<Verdict> {
    match refusal(facts) {
        Some(error) if error.code() == Code::TableWithoutKey => return Some(Verdict::Fail(error)),
        Some(_) => return None,
        None => {}
    }
    if let Some(error) = facts.shape.warning(facts.wanted.append_only) {
        return Some(Verdict::Warn(error));
    }
    let (key, _) = facts.shape.key().ok()?;
    let names: Vec<&str> =
        key.iter().filter_map(|at| facts.shape.columns.get(*at)).map(|c| c.plan.name.as_str()).collect();
    Some(Verdict::Pass(format!("the key is {}", names.join(", "))))
}

fn schema_privilege(facts: &TableFacts) -> Option<Verdict> {
    let TableRights { schema, user, schema_usage, .. } = &facts.rights;
    if *schema_usage {
        return None;
    }
    let remedy = format!("Run `GRANT USAGE ON SCHEMA {} TO {};`.", quote_ident(schema), quote_ident(user));
    Some(Verdict::Fail(denied(facts, format!("{user} may not use the schema {schema}"), remedy)))
}

/// With no right to the table at all, every column counts as unreadable.
fn read_privilege(facts: &TableFacts) -> Option<Verdict> {
    let TableFacts { shape, wanted, rights, .. } = facts;
    let (table, user) = (shape.name.to_sql(), quote_ident(&rights.user));
    let hidden: Vec<&String> =
        shape.unreadable.iter().filter(|column| !wanted.exclude.contains(column)).collect();
    if hidden.is_empty() {
        return Some(Verdict::Pass(match shape.unreadable.is_empty() {
            true => "may be read".into(),
            false => "all but the excluded columns may be read: the table is copied in one piece".into(),
        }));
    }
    let whole = hidden.len() == shape.columns.len();
    let names = hidden.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
    let (why, remedy) = if whole {
        let why = format!("{} may not be read by {}", shape.name, rights.user);
        (why, format!("Run `GRANT SELECT ON {table} TO {user};`."))
    } else {
        let quoted = hidden.iter().map(|name| quote_ident(name)).collect::<Vec<_>>().join(", ");
        let why = format!("{} may not be read by {}: columns {names}", shape.name, rights.user);
        let grant = format!("GRANT SELECT ({quoted}) ON {table} TO {user};");
        (why, format!("Run `{grant}`, or exclude the columns: `exclude: [{names}]`."))
    };
    Some(Verdict::Fail(denied(facts, why, remedy)))
}

fn row_security(facts: &TableFacts) -> Option<Verdict> {
    let TableRights { user, rows_hidden, .. } = &facts.rights;
    if !*rows_hidden {
        return None;
    }
    let why = format!("row security hides rows of {} from {user}: a copy would lack them", facts.shape.name);
    let remedy = format!("Run `ALTER ROLE {} BYPASSRLS;` as a superuser.", quote_ident(user));
    Some(Verdict::Fail(denied(facts, why, remedy)))
}

fn publish_privilege(facts: &TableFacts) -> Option<Verdict> {
    let TableRights { user, owner, owned, .. } = &facts.rights;
    if !facts.publishes {
        return None;
    }
    if *owned {
        return Some(Verdict::Pass("may be published".into()));
    }
    let why = format!("only the owner of {}, {owner}, may publish it", facts.shape.name);
    let remedy = format!(
        "Run `GRANT {} TO {};`, or let the owner create a publication and name it in the mirror's settings.",
        quote_ident(owner),
        quote_ident(user)
    );
    Some(Verdict::Fail(denied(facts, why, remedy)))
}

fn inheritance(facts: &TableFacts) -> Option<Verdict> {
    let TableFacts { shape, wanted, .. } = facts;
    let heirs = match wanted.merges_heirs {
        true => shape.leaves.iter().filter(|leaf| leaf.oid != shape.oid).count(),
        false => shape.heirs.leaves.len(),
    };
    if shape.kind != TableKind::Ordinary || heirs == 0 {
        return None;
    }
    let (why, remedy) = match wanted.merges_heirs {
        true => (
            format!(
                "rows of one key in {} and in the {heirs} tables that inherit from it would be one row: PostgreSQL keeps keys apart in each table only",
                shape.name
            ),
            "See that keys do not repeat, such as by one sequence for all of them.",
        ),
        false => (
            format!("{} has {heirs} tables that inherit from it: their rows are not its own", shape.name),
            "Set `with_children: true` for the table, and their rows go where its own go; or name the inheriting tables, and each is replicated as a table of its own.",
        ),
    };
    Some(Verdict::Warn(Error::new(Code::TableUnsupported, why).with_remedy(remedy)))
}

fn denied(facts: &TableFacts, why: String, remedy: String) -> Error {
    Error::new(Code::SourcePermission, why).with("table", facts.shape.name.to_string()).with_remedy(remedy)
}

/// What the planned columns lose, or hold as text.
pub fn columns(plan: &TablePlan) -> Check {
    let named = |is: &dyn Fn(&&ColumnPlan) -> bool| {
        plan.columns.iter().filter(is).map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ")
    };
    let nulls = named(&|column| column.nullable && column.conversion.is_array());
    let nulled = named(&|column| matches!(column.conversion, Conversion::OrNull(_)));
    let lossy = [
        (nulls, "a NULL array becomes the empty one in"),
        (nulled, "what ClickHouse cannot hold becomes NULL (on_unrepresentable) in"),
    ];
    let lossy: Vec<String> = lossy
        .into_iter()
        .filter(|(names, _)| !names.is_empty())
        .map(|(names, what)| format!("{what} {names}"))
        .collect();
    let check = if lossy.is_empty() {
        let as_text = named(&|column| column.conversion == Conversion::TextForm);
        Check::pass(
            Name::Columns,
            match as_text.is_empty() {
                true => format!("{} columns keep their values", plan.columns.len()),
                false => format!("held as PostgreSQL writes them, as String: {as_text}"),
            },
        )
    } else {
        let error = Error::new(Code::ValueUnrepresentable, lossy.join("; ")).with_remedy(
            "If that matters, choose String for the columns, such as `columns: {NAME: {type: String}}`.",
        );
        Check::new(Name::Columns, Verdict::Warn(error))
    };
    check.on(plan.source.to_string())
}

#[cfg(test)]
mod tests {
    use millrace_terms::TableName;
    use millrace_terms::check::{Status, judge};

    use super::*;
    use crate::postgres::describe::{Heirs, Leaf, SourceIdentity, UniqueIndex};
    use crate::types::{SourceColumn, TypeCatalog};

    fn shape() -> TableShape {
        let name = TableName::new("public", "t");
        let column = |attnum, name: &str| {
            let source = SourceColumn {
                name: name.into(),
                attnum,
                type_oid: 23,
                typmod: -1,
                dimensions: 0,
                nullable: false,
            };
            crate::postgres::describe::ShapeColumn {
                plan: TypeCatalog::default().plan_column(source),
                type_name: "integer".into(),
                generated: crate::postgres::describe::Generated::Never,
                binary_known: true,
            }
        };
        let index = UniqueIndex {
            oid: 8,
            name: "t_pkey".into(),
            primary: true,
            marked: false,
            immediate: true,
            valid: true,
            partial: false,
            attnums: vec![1],
        };
        let key = Some(["id".to_owned()].into());
        TableShape {
            name: name.clone(),
            oid: 7,
            kind: TableKind::Ordinary,
            logged: true,
            unreadable: Vec::new(),
            identity: SourceIdentity::Default,
            columns: vec![column(1, "id"), column(2, "pay")],
            indexes: vec![index],
            leaves: vec![Leaf { oid: 7, name, key, local: true, file: 1 }],
            heirs: Heirs::default(),
            rows_estimated: 0,
            bytes: 0,
        }
    }

    fn rights() -> TableRights {
        TableRights {
            schema: "public".into(),
            user: "repl".into(),
            owner: "shop".into(),
            schema_usage: true,
            owned: true,
            rows_hidden: false,
        }
    }

    fn judged(shape: &TableShape, rights: TableRights, exclude: &[&str]) -> Vec<Check> {
        let exclude = exclude.iter().map(|name| (*name).to_owned()).collect();
        let wanted = Wanted { name: shape.name.clone(), exclude, append_only: false, merges_heirs: false };
        judge(RULES, &TableFacts { shape: shape.clone(), wanted, rights, publishes: true })
    }

    fn failed(checks: &[Check]) -> Vec<(&str, &str)> {
        let failed = checks.iter().filter(|check| check.status != Status::Pass);
        failed.map(|check| (check.name.as_str(), check.remedy.as_str())).collect()
    }

    #[test]
    fn a_good_table_passes() {
        let checks = judged(&shape(), rights(), &[]);
        assert_eq!(failed(&checks), []);
        assert!(checks.iter().any(|check| check.message == "the key is id"), "{checks:?}");
    }

    #[test]
    fn each_missing_right_is_told_with_its_grant() {
        let cases = [
            (
                TableRights { schema_usage: false, ..rights() },
                "schema_privilege",
                "GRANT USAGE ON SCHEMA \"public\" TO \"repl\";",
            ),
            (TableRights { rows_hidden: true, ..rights() }, "row_security", "ALTER ROLE \"repl\" BYPASSRLS;"),
            (TableRights { owned: false, ..rights() }, "publish_privilege", "GRANT \"shop\" TO \"repl\";"),
        ];
        for (rights, name, remedy) in cases {
            let checks = judged(&shape(), rights, &[]);
            let failed = failed(&checks);
            assert_eq!(failed.len(), 1, "{checks:?}");
            assert!(failed[0].0 == name && failed[0].1.contains(remedy), "{failed:?}");
        }
    }

    #[test]
    fn unreadable_columns_are_granted_or_excluded() {
        let hidden = |columns: &[&str]| TableShape {
            unreadable: columns.iter().map(|name| (*name).to_owned()).collect(),
            ..shape()
        };
        let one = judged(&hidden(&["pay"]), rights(), &[]);
        let told = failed(&one);
        assert!(told[0].1.contains("GRANT SELECT (\"pay\") ON \"public\".\"t\" TO \"repl\";"), "{told:?}");
        assert!(told[0].1.contains("exclude: [pay]"), "{told:?}");
        assert_eq!(failed(&judged(&hidden(&["pay"]), rights(), &["pay"])), []);
        let all = judged(&hidden(&["id", "pay"]), rights(), &[]);
        assert_eq!(
            failed(&all),
            [("read_privilege", "Run `GRANT SELECT ON \"public\".\"t\" TO \"repl\";`.")]
        );
    }

    #[test]
    fn a_table_without_key_fails_as_such_and_heirs_are_a_warning() {
        let keyless = TableShape { indexes: Vec::new(), ..shape() };
        let checks = judged(&keyless, rights(), &[]);
        assert_eq!(failed(&checks).len(), 1, "{checks:?}");
        assert_eq!(failed(&checks)[0].0, "key");
        let heir = Leaf { oid: 8, ..shape().leaves.remove(0) };
        let heirs = Heirs { leaves: vec![heir], ..Heirs::default() };
        let parent = TableShape { heirs, ..shape() };
        let checks = judged(&parent, rights(), &[]);
        assert_eq!(failed(&checks)[0].0, "inheritance");
        let view = TableShape { kind: TableKind::Other, ..shape() };
        assert_eq!(failed(&judged(&view, rights(), &[]))[0].0, "table");
    }
}
