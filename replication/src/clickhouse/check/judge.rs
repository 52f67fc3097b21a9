//! How a destination is judged. Pure.

use millrace_terms::check::{Name, Rule, Skew, Verdict};
use millrace_terms::{Code, Error};

use crate::clickhouse::ddl::quote_ident;

/// A right in the database of the destination, as GRANT names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Right {
    pub(super) name: &'static str,
    pub(super) need: Need,
}

/// What a right is needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Everything.
    Always,
    /// To make the database, where there is none.
    Database,
    /// To follow schema changes of the source.
    Schema,
}

/// What is asked for.
pub(super) const RIGHTS: &[Right] = &[
    Right { name: "SELECT", need: Need::Always },
    Right { name: "INSERT", need: Need::Always },
    Right { name: "CREATE TABLE", need: Need::Always },
    Right { name: "DROP TABLE", need: Need::Always },
    Right { name: "ALTER DELETE", need: Need::Always },
    Right { name: "CREATE DATABASE", need: Need::Database },
    Right { name: "ALTER ADD COLUMN", need: Need::Schema },
    Right { name: "ALTER DROP COLUMN", need: Need::Schema },
    Right { name: "ALTER MODIFY COLUMN", need: Need::Schema },
    Right { name: "ALTER RENAME COLUMN", need: Need::Schema },
];

/// Engines of databases that keep MergeTree tables, and of which nothing is to be said.
const ENGINES: [&str; 3] = ["Atomic", "Replicated", "Shared"];

/// Engines of databases whose tables are elsewhere.
const FOREIGN_ENGINES: [&str; 11] = [
    "MySQL",
    "MaterializedMySQL",
    "PostgreSQL",
    "MaterializedPostgreSQL",
    "SQLite",
    "Filesystem",
    "S3",
    "HDFS",
    "Dictionary",
    "DataLakeCatalog",
    "Backup",
];

/// What is known of a destination.
#[derive(Debug, Clone)]
pub(super) struct DestinationFacts {
    pub(super) database: String,
    pub(super) user: String,
    /// The database's engine; none if there is no such database.
    pub(super) engine: Option<String>,
    /// Whether the user's profile refuses to write.
    pub(super) read_only: bool,
    /// Whether the user has each right; none where that cannot be told.
    pub(super) rights: Vec<(Right, Option<bool>)>,
    pub(super) clock: Skew,
}

/// The judgements of a destination.
pub(super) const RULES: &[Rule<DestinationFacts>] = &[
    Rule { name: Name::DestinationDatabase, judge: database },
    Rule { name: Name::ReadOnly, judge: read_only },
    Rule { name: Name::DestinationPrivilege, judge: privilege },
    Rule { name: Name::AlterPrivilege, judge: alter_privilege },
    Rule {
        name: Name::DestinationClock,
        judge: |facts| Some(Verdict::of_clock("the destination", facts.clock)),
    },
];

fn database(facts: &DestinationFacts) -> Option<Verdict> {
    let name = &facts.database;
    let Some(engine) = facts.engine.as_deref() else {
        return Some(Verdict::Pass(format!("database {name} will be made with the first mirror")));
    };
    let message = format!("database {name} has the engine {engine}");
    let remedy = "Name another database in the peer: one of the engine Atomic, Replicated or Shared.";
    Some(if ENGINES.contains(&engine) {
        Verdict::Pass(message)
    } else if FOREIGN_ENGINES.contains(&engine) {
        let message = format!("{message}, which holds no tables of ours");
        Verdict::Fail(Error::new(Code::InvalidArgument, message).with_remedy(remedy))
    } else {
        let message = format!("{message}, with which Millrace is not tested");
        Verdict::Warn(Error::new(Code::InvalidArgument, message).with_remedy(remedy))
    })
}

fn read_only(facts: &DestinationFacts) -> Option<Verdict> {
    if !facts.read_only {
        return None;
    }
    let why = format!("the settings of {} have readonly: nothing can be written", facts.user);
    let remedy = format!(
        "Run `ALTER USER {} SETTINGS readonly = 0;` as an administrator, or change its profile.",
        quote_ident(&facts.user)
    );
    Some(Verdict::Fail(Error::new(Code::DestinationPermission, why).with_remedy(remedy)))
}

fn privilege(facts: &DestinationFacts) -> Option<Verdict> {
    let needed = |need: Need| need == Need::Always || (need == Need::Database && facts.engine.is_none());
    let passes = "the user may make, write, read and drop tables";
    Some(match lacking(facts, needed) {
        Ok(()) => Verdict::Pass(passes.into()),
        Err(error) => Verdict::Fail(error),
    })
}

fn alter_privilege(facts: &DestinationFacts) -> Option<Verdict> {
    Some(match lacking(facts, |need| need == Need::Schema) {
        Ok(()) => Verdict::Pass("schema changes can be followed".into()),
        Err(error) => Verdict::Warn(error.context("schema changes cannot be followed")),
    })
}

/// What the user is known to lack of the rights that are needed.
fn lacking(facts: &DestinationFacts, is_needed: impl Fn(Need) -> bool) -> Result<(), Error> {
    let lacks = |(right, held): &&(Right, Option<bool>)| is_needed(right.need) && *held == Some(false);
    let missing: Vec<&str> = facts.rights.iter().filter(lacks).map(|(right, _)| right.name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let missing = missing.join(", ");
    let (user, database) = (&facts.user, &facts.database);
    let remedy = format!(
        "Run `GRANT {missing} ON {}.* TO {};` as an administrator.",
        quote_ident(database),
        quote_ident(user)
    );
    let why = format!("{user} lacks {missing} on database {database}");
    Err(Error::new(Code::DestinationPermission, why).with_remedy(remedy))
}

/// Whether the lines of SHOW GRANTS give a right on the database. None if that cannot be told: a role may
/// give it.
pub(super) fn holds(grants: &[String], right: &str, database: &str) -> Option<bool> {
    let gives = |rights: &str, scope: &str| {
        let scope = scope.replace('`', "");
        let is_there = scope == "*.*" || scope.strip_suffix(".*") == Some(database);
        is_there && rights.split(", ").any(|held| covers(held, right))
    };
    // What was granted everywhere may be revoked here; roles could still give it.
    let is_revoked = grants.iter().filter_map(|line| line.strip_prefix("REVOKE ")).any(|line| {
        let (rights, rest) = line.split_once(" ON ").unwrap_or((line, ""));
        gives(rights, rest.split(" FROM ").next().unwrap_or(rest))
    });
    let mut has_roles = grants.is_empty();
    for line in grants.iter().filter_map(|line| line.strip_prefix("GRANT ")) {
        match line.split_once(" ON ") {
            None => has_roles = true,
            Some((rights, rest))
                if gives(rights, rest.split(" TO ").next().unwrap_or(rest)) && !is_revoked =>
            {
                return Some(true);
            }
            Some(_) => {}
        }
    }
    (!has_roles).then_some(false)
}

/// Whether a right that is held gives another: groups give what begins with their name.
fn covers(held: &str, right: &str) -> bool {
    let in_group = |group: &str| right.strip_prefix(group).is_some_and(|rest| rest.starts_with(' '));
    match held {
        "ALL" => true,
        "ALTER TABLE" => in_group("ALTER"),
        "ALTER COLUMN" => right.starts_with("ALTER ") && right.ends_with(" COLUMN"),
        held => held == right || in_group(held),
    }
}

#[cfg(test)]
mod tests {
    use millrace_terms::check::{Status, judge};

    use super::*;

    fn good() -> DestinationFacts {
        DestinationFacts {
            database: "shop".into(),
            user: "millrace".into(),
            engine: Some("Atomic".into()),
            read_only: false,
            rights: RIGHTS.iter().map(|right| (*right, Some(true))).collect(),
            clock: Skew::default(),
        }
    }

    fn without(names: &[&str]) -> Vec<(Right, Option<bool>)> {
        RIGHTS.iter().map(|right| (*right, Some(!names.contains(&right.name)))).collect()
    }

    #[test]
    fn each_fault_is_told_with_what_mends_it() {
        type Case = (DestinationFacts, &'static [(&'static str, Status)], &'static str);
        let cases: Vec<Case> = vec![
            (good(), &[], ""),
            (DestinationFacts { engine: None, ..good() }, &[], ""),
            // A database that is there need not be made.
            (DestinationFacts { rights: without(&["CREATE DATABASE"]), ..good() }, &[], ""),
            (
                DestinationFacts { rights: without(&["CREATE DATABASE"]), engine: None, ..good() },
                &[("destination_privilege", Status::Fail)],
                "GRANT CREATE DATABASE ON `shop`.* TO `millrace`;",
            ),
            (
                DestinationFacts { rights: without(&["INSERT", "ALTER DELETE"]), ..good() },
                &[("destination_privilege", Status::Fail)],
                "GRANT INSERT, ALTER DELETE ON `shop`.* TO `millrace`;",
            ),
            (
                DestinationFacts { rights: without(&["ALTER ADD COLUMN"]), ..good() },
                &[("alter_privilege", Status::Warn)],
                "GRANT ALTER ADD COLUMN ON `shop`.* TO `millrace`;",
            ),
            (
                DestinationFacts { rights: RIGHTS.iter().map(|right| (*right, None)).collect(), ..good() },
                &[],
                "",
            ),
            (
                DestinationFacts { engine: Some("MySQL".into()), ..good() },
                &[("destination_database", Status::Fail)],
                "another database",
            ),
            (
                DestinationFacts { engine: Some("Memory".into()), ..good() },
                &[("destination_database", Status::Warn)],
                "another database",
            ),
            (DestinationFacts { read_only: true, ..good() }, &[("read_only", Status::Fail)], "readonly = 0"),
            (
                DestinationFacts { clock: Skew::new(-9_000_000, 0, 0), ..good() },
                &[("destination_clock", Status::Warn)],
                "NTP",
            ),
        ];
        for (facts, expected, remedy) in cases {
            let told: Vec<_> =
                judge(RULES, &facts).into_iter().filter(|check| check.status != Status::Pass).collect();
            let seen: Vec<_> = told.iter().map(|check| (check.name.as_str(), check.status)).collect();
            assert_eq!(seen, expected, "{facts:?}");
            assert!(told.iter().all(|check| check.remedy.contains(remedy)), "{told:?}");
        }
    }

    #[test]
    fn grants_are_read_as_the_server_shows_them() {
        let own = ["GRANT SELECT, INSERT, CREATE TABLE, ALTER COLUMN ON shop.* TO millrace".to_owned()];
        assert_eq!(holds(&own, "INSERT", "shop"), Some(true));
        assert_eq!(holds(&own, "INSERT", "other"), Some(false));
        assert_eq!(holds(&own, "ALTER ADD COLUMN", "shop"), Some(true));
        assert_eq!(holds(&own, "ALTER DELETE", "shop"), Some(false));
        assert_eq!(holds(&own, "DROP TABLE", "shop"), Some(false));
        let all = ["GRANT ALL ON *.* TO default WITH GRANT OPTION".to_owned()];
        assert_eq!(holds(&all, "ALTER DELETE", "shop"), Some(true));
        let groups = ["GRANT CREATE, DROP, ALTER TABLE ON `shop`.* TO m".to_owned()];
        for right in ["CREATE TABLE", "CREATE DATABASE", "DROP TABLE", "ALTER DELETE"] {
            assert_eq!(holds(&groups, right, "shop"), Some(true), "{right}");
        }
        let role = ["GRANT writer TO m".to_owned()];
        assert_eq!(holds(&role, "INSERT", "shop"), None, "the role may give it");
        assert_eq!(holds(&[], "INSERT", "shop"), None);
        let revoked =
            ["GRANT ALL ON *.* TO m".to_owned(), "REVOKE INSERT, ALTER TABLE ON shop.* FROM m".to_owned()];
        assert_eq!(holds(&revoked, "INSERT", "shop"), Some(false));
        assert_eq!(holds(&revoked, "ALTER DELETE", "shop"), Some(false));
        assert_eq!(holds(&revoked, "SELECT", "shop"), Some(true));
        assert_eq!(holds(&revoked, "INSERT", "other"), Some(true));
    }
}
