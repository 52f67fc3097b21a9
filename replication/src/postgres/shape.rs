//! The shape of a source table, and whether it can be replicated. Pure.

use std::collections::BTreeSet;

use millrace_terms::{Code, Error, TableName};

use crate::table::{ColumnPlan, Identity};

/// A table as the source's catalog has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableShape {
    /// Its name.
    pub name: TableName,
    /// Its OID.
    pub oid: u32,
    /// What kind of relation it is.
    pub kind: TableKind,
    /// Whether its changes are in the log: neither temporary nor unlogged.
    pub logged: bool,
    /// Columns that we may not read.
    pub unreadable: Vec<String>,
    /// What the log tells of old rows.
    pub identity: SourceIdentity,
    /// Columns in order, without dropped ones.
    pub columns: Vec<ShapeColumn>,
    /// The unique indexes.
    pub indexes: Vec<UniqueIndex>,
    /// Where the rows are: the table itself, or the leaves of a partitioned table.
    pub leaves: Vec<Leaf>,
    /// Other tables that inherit from this one without being its partitions.
    pub heirs: Heirs,
    /// Rows as the statistics have them, 0 if it was never analysed.
    pub rows_estimated: u64,
    /// Bytes on disk without indexes.
    pub bytes: u64,
}

/// Tables that inherit from a table, at any level.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heirs {
    /// The tables.
    pub leaves: Vec<Leaf>,
    /// Their rows as the statistics have them.
    pub rows_estimated: u64,
    /// Their bytes on disk without indexes.
    pub bytes: u64,
}

/// The kind of a relation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableKind {
    /// An ordinary table.
    Ordinary,
    /// A partitioned table: its rows are in its leaves.
    Partitioned,
    /// A view, a foreign table and the like.
    Other,
}

/// `pg_class.relreplident`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceIdentity {
    /// The primary key, if there is one.
    Default,
    /// The index that is marked.
    Index,
    /// Every column.
    Full,
    /// Nothing.
    Nothing,
}

/// A column of a source table, planned as it is replicated by default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShapeColumn {
    /// How it is replicated if nothing else is asked for.
    pub plan: ColumnPlan,
    /// Its type as the source writes it, such as `numeric(10,2)`.
    pub type_name: String,
    /// Whether the value is computed from others.
    pub generated: Generated,
    /// Whether the binary form of its type is understood (see `types`).
    pub binary_known: bool,
}

/// Whether a value is computed from others of its row (PostgreSQL documentation, section 5.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generated {
    /// It is written.
    Never,
    /// When the row is written.
    Stored,
    /// When the row is read.
    Virtual,
}

/// A unique index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UniqueIndex {
    /// Its OID.
    pub oid: u32,
    /// Its name.
    pub name: String,
    /// Whether it is the primary key's.
    pub primary: bool,
    /// Whether it is the one marked as replica identity.
    pub marked: bool,
    /// Whether it is checked at once; a deferrable one lets two rows bear one key inside a transaction.
    pub immediate: bool,
    /// Whether it is complete.
    pub valid: bool,
    /// Whether it covers only some rows.
    pub partial: bool,
    /// Attribute numbers of the key columns, 0 for an expression.
    pub attnums: Vec<i16>,
}

/// A relation that holds rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// Its OID.
    pub oid: u32,
    /// Its name.
    pub name: TableName,
    /// Names of the key columns by its own identity, if it has a usable one.
    pub key: Option<BTreeSet<String>>,
    /// Whether it holds rows of its own: false for a foreign table.
    pub local: bool,
    /// The file that holds its rows now; 0 for none.
    pub file: u32,
}

impl TableShape {
    /// The key by which the table is replicated, as indexes into `columns` in the order of the index:
    /// an immediate, valid, unique index over NOT NULL columns, neither partial nor over expressions
    /// (each of these was seen to lose rows otherwise), that the replica identity covers. With the
    /// identity FULL and no such index it is the whole row.
    ///
    /// # Errors
    /// `TABLE_WITHOUT_KEY`, saying what is in the way.
    pub fn key(&self) -> Result<(Vec<usize>, Identity), Error> {
        let found = |identity: Identity, wanted: &dyn Fn(&UniqueIndex) -> bool| {
            self.indexes
                .iter()
                .filter(|index| wanted(index))
                .find_map(|index| self.key_of(index).ok())
                .map(|key| (key, identity))
        };
        let key = match self.identity {
            SourceIdentity::Default => found(Identity::Default, &|index| index.primary),
            SourceIdentity::Index => found(Identity::Index, &|index| index.marked),
            SourceIdentity::Full => found(Identity::Full, &|index| index.primary)
                .or_else(|| found(Identity::Full, &|_| true))
                .or_else(|| self.whole_row()),
            SourceIdentity::Nothing => None,
        };
        key.ok_or_else(|| self.without_key())
    }

    /// The table with the rows of those that inherit from it.
    pub fn with_heirs(mut self) -> Self {
        let Heirs { leaves, rows_estimated, bytes } = std::mem::take(&mut self.heirs);
        self.leaves.extend(leaves);
        self.rows_estimated += rows_estimated;
        self.bytes += bytes;
        self
    }

    /// Why those that inherit from the table cannot be one with it. To be asked before they are published: a
    /// server refuses to change the rows of a published table that have no identity.
    pub fn heirs_refusal(&self) -> Option<Error> {
        let whole = self.clone().with_heirs();
        if let Some(error) = whole.foreign_leaf() {
            return Some(error);
        }
        let (key, identity) = whole.key().ok()?;
        whole.unlike(&key, identity)
    }

    /// Why the table cannot be replicated with `excluded` columns left out, if it cannot. One that is
    /// declared `append_only` needs no key.
    pub fn refusal(&self, excluded: &[String], append_only: bool) -> Option<Error> {
        let unsupported =
            |why: String| Some(Error::new(Code::TableUnsupported, why).with("table", self.name.to_string()));
        if self.kind == TableKind::Other {
            return unsupported(format!("{} is not a table", self.name));
        }
        if !self.logged {
            return unsupported(format!(
                "{} is temporary or unlogged: its changes are not in the log",
                self.name
            ));
        }
        if let Some(error) = self.foreign_leaf() {
            return Some(error);
        }
        if append_only {
            return self.generated_refusal(&[], Identity::WholeRow, excluded);
        }
        let (key, identity) = match self.key() {
            Ok(key) => key,
            Err(error) => return Some(error),
        };
        if let Some(error) = self.generated_refusal(&key, identity, excluded) {
            return Some(error);
        }
        let names = self.names(&key);
        if let Some(column) = names.iter().find(|name| excluded.contains(name)) {
            let why = match identity {
                Identity::WholeRow => ", as every column does where there is no other key,",
                _ => "",
            };
            return unsupported(format!(
                "column {column} of {} belongs to the key{why} and is excluded",
                self.name
            ));
        }
        self.unlike(&key, identity)
    }

    /// What is wrong with a leaf whose old rows are told otherwise than the table's, if there is one. Who
    /// inherits does not inherit the key.
    fn unlike(&self, key: &[usize], identity: Identity) -> Option<Error> {
        let names = self.names(key);
        let leaf = self.leaves.iter().find(|leaf| leaf.key.as_ref() != Some(&names))?;
        let is_heir = self.kind == TableKind::Ordinary;
        let what = if is_heir { "table that inherits from" } else { "partition of" };
        let why = format!(
            "{}, a {what} {}, has another replica identity than that table's primary key or replica identity",
            leaf.name, self.name
        );
        let (table, columns) = (leaf.name.to_sql(), self.quoted(key));
        let remedy = match identity {
            Identity::WholeRow => format!("Run `ALTER TABLE {table} REPLICA IDENTITY FULL;`."),
            _ if is_heir => format!("Run `ALTER TABLE {table} ADD PRIMARY KEY ({columns});`."),
            _ => format!("Run `ALTER TABLE {table} REPLICA IDENTITY DEFAULT;`."),
        };
        Some(Error::new(Code::TableWithoutKey, why).with_remedy(remedy).with("table", self.name.to_string()))
    }

    fn quoted(&self, columns: &[usize]) -> String {
        let names = columns.iter().filter_map(|at| self.columns.get(*at));
        names.map(|column| millrace_terms::quote_ident(&column.plan.name)).collect::<Vec<_>>().join(", ")
    }

    /// Every column that is written. What is computed from them tells no rows apart.
    fn whole_row(&self) -> Option<(Vec<usize>, Identity)> {
        let written = |at: &usize| self.columns[*at].generated == Generated::Never;
        let columns: Vec<usize> = (0..self.columns.len()).filter(written).collect();
        (!columns.is_empty()).then_some((columns, Identity::WholeRow))
    }

    /// What a table that can be replicated should yet be told of, if something: equal rows.
    pub fn warning(&self, append_only: bool) -> Option<Error> {
        if append_only {
            return Some(self.long_read());
        }
        let Ok((_, Identity::WholeRow)) = self.key() else { return None };
        let why = format!(
            "{} has no key: rows that are equal, even for a moment inside a transaction, are one row in ClickHouse, and go together when one of them is changed or deleted",
            self.name
        );
        let remedy =
            format!("If equal rows matter, run `ALTER TABLE {} ADD PRIMARY KEY (...);`.", self.name.to_sql());
        let error = Error::new(Code::TableWithoutKey, why).with_remedy(remedy);
        Some(error.with("table", self.name.to_string()))
    }

    fn long_read(&self) -> Error {
        let why = format!(
            "{} is append_only: its first copy, and each resync, is one transaction on the source for as long as it takes, and an interrupted one begins anew",
            self.name
        );
        let remedy = "Give a large table a primary key instead: it is copied in parts.";
        Error::new(Code::TableWithoutKey, why).with_remedy(remedy).with("table", self.name.to_string())
    }

    /// A generated column may not be in the log. It is read from the source by the row's key then, so
    /// it must be stored, and the key must be known without it.
    fn generated_refusal(&self, key: &[usize], identity: Identity, excluded: &[String]) -> Option<Error> {
        self.columns.iter().enumerate().find_map(|(at, column)| {
            let (name, table) = (&column.plan.name, &self.name);
            let why = match column.generated {
                Generated::Never => return None,
                _ if key.contains(&at) => "belongs to the key",
                _ if excluded.contains(name) => return None,
                Generated::Virtual => "is computed when it is read, and never in the log",
                Generated::Stored if identity == Identity::WholeRow => {
                    "may not be in the log, and rows without a key cannot be looked up"
                }
                Generated::Stored => return None,
            };
            let remedy = if key.contains(&at) {
                format!("Run `ALTER TABLE {} ADD PRIMARY KEY (...);` with other columns.", table.to_sql())
            } else {
                format!("Exclude the column: `exclude: [{name}]`.")
            };
            let why = format!("column {name} of {table} is generated and {why}");
            let error = Error::new(Code::TableUnsupported, why).with_remedy(remedy);
            Some(error.with("table", table.to_string()).with("column", name))
        })
    }

    /// Why the table cannot be copied, if a part of it is on another server.
    pub fn foreign_leaf(&self) -> Option<Error> {
        let leaf = self.leaves.iter().find(|leaf| !leaf.local)?;
        let (table, name) = (self.name.to_sql(), leaf.name.to_sql());
        let (what, remedy) = match self.kind {
            TableKind::Ordinary => (
                "table that inherits from",
                format!(
                    "Run `ALTER TABLE {name} NO INHERIT {table};`, or replicate the other tables as tables of their own."
                ),
            ),
            _ => (
                "partition of",
                format!(
                    "Run `ALTER TABLE {table} DETACH PARTITION {name};`, or replicate the other partitions as tables of their own."
                ),
            ),
        };
        let why = format!("{}, a {what} {}, is a foreign table", leaf.name, self.name);
        Some(Error::new(Code::TableUnsupported, why).with_remedy(remedy).with("table", self.name.to_string()))
    }

    /// Names of columns by their indexes.
    pub(super) fn names(&self, columns: &[usize]) -> BTreeSet<String> {
        columns.iter().filter_map(|at| self.columns.get(*at)).map(|column| column.plan.name.clone()).collect()
    }

    /// The index's columns, or why it cannot be a key.
    fn key_of(&self, index: &UniqueIndex) -> Result<Vec<usize>, String> {
        let name = &index.name;
        if !index.immediate {
            return Err(format!("{name} is deferrable"));
        }
        if !index.valid {
            return Err(format!("{name} is not valid"));
        }
        if index.partial {
            return Err(format!("{name} covers only some rows"));
        }
        let place = |attnum: &i16| {
            let at = self.columns.iter().position(|column| column.plan.attnum == *attnum);
            let at = at.ok_or_else(|| format!("{name} is over an expression"))?;
            let column = &self.columns[at].plan;
            if column.nullable {
                Err(format!("column {} of {name} allows NULL", column.name))
            } else {
                Ok(at)
            }
        };
        index.attnums.iter().map(place).collect()
    }

    fn without_key(&self) -> Error {
        let table = self.name.to_sql();
        let obstacles: Vec<String> =
            self.indexes.iter().filter_map(|index| self.key_of(index).err()).collect();
        let mut why = match self.identity {
            SourceIdentity::Nothing => {
                format!(
                    "{} has no usable primary key or replica identity: REPLICA IDENTITY is NOTHING",
                    self.name
                )
            }
            _ => format!("{} has no usable primary key or replica identity", self.name),
        };
        if !obstacles.is_empty() {
            why.push_str(&format!(" ({})", obstacles.join("; ")));
        }
        let usable = self.indexes.iter().find(|index| self.key_of(index).is_ok());
        let remedy = match usable {
            Some(index) if index.primary => format!("Run `ALTER TABLE {table} REPLICA IDENTITY DEFAULT;`."),
            Some(index) => format!(
                "Run `ALTER TABLE {table} REPLICA IDENTITY USING INDEX {};`.",
                millrace_terms::quote_ident(&index.name)
            ),
            None => format!(
                "Run `ALTER TABLE {table} ADD PRIMARY KEY (...);`, or make a unique, immediate, complete index over NOT NULL columns and run `ALTER TABLE {table} REPLICA IDENTITY USING INDEX ...;`."
            ),
        };
        Error::new(Code::TableWithoutKey, why).with_remedy(remedy).with("table", self.name.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{SourceColumn, TypeCatalog};

    fn column(attnum: i16, name: &str, nullable: bool) -> ShapeColumn {
        let source =
            SourceColumn { name: name.into(), attnum, type_oid: 23, typmod: -1, dimensions: 0, nullable };
        let plan = TypeCatalog::default().plan_column(source);
        ShapeColumn { plan, type_name: "integer".into(), generated: Generated::Never, binary_known: true }
    }

    fn index(name: &str, attnums: &[i16]) -> UniqueIndex {
        UniqueIndex {
            oid: 1,
            name: name.into(),
            primary: false,
            marked: false,
            immediate: true,
            valid: true,
            partial: false,
            attnums: attnums.to_vec(),
        }
    }

    fn table(identity: SourceIdentity, indexes: Vec<UniqueIndex>) -> TableShape {
        let name = TableName::new("public", "t");
        let mut shape = TableShape {
            name: name.clone(),
            oid: 7,
            kind: TableKind::Ordinary,
            logged: true,
            unreadable: Vec::new(),
            identity,
            columns: vec![column(1, "a", false), column(3, "b", false), column(4, "c", true)],
            indexes,
            leaves: Vec::new(),
            heirs: Heirs::default(),
            rows_estimated: 0,
            bytes: 0,
        };
        let key = shape.key().ok();
        let key = key.map(|(key, _)| shape.names(&key));
        shape.leaves = vec![Leaf { oid: 7, name, key, local: true, file: 1 }];
        shape
    }

    #[test]
    fn the_key_is_the_one_that_the_identity_covers() {
        let primary = UniqueIndex { primary: true, ..index("t_pkey", &[1]) };
        let marked = UniqueIndex { marked: true, ..index("t_b_a", &[3, 1]) };
        let key = |identity, indexes: &[&UniqueIndex]| {
            table(identity, indexes.iter().map(|index| (*index).clone()).collect()).key()
        };
        use SourceIdentity::{Default, Full, Index, Nothing};
        assert_eq!(key(Default, &[&marked, &primary]), Ok((vec![0], Identity::Default)));
        assert_eq!(key(Index, &[&primary, &marked]), Ok((vec![1, 0], Identity::Index)));
        assert_eq!(key(Full, &[&marked, &primary]), Ok((vec![0], Identity::Full)));
        assert_eq!(key(Full, &[&marked]), Ok((vec![1, 0], Identity::Full)));
        assert_eq!(key(Full, &[]), Ok((vec![0, 1, 2], Identity::WholeRow)));
        for (identity, indexes) in
            [(Default, vec![&marked]), (Index, vec![&primary]), (Nothing, vec![&primary])]
        {
            let error = key(identity, &indexes).unwrap_err();
            assert_eq!(error.code(), Code::TableWithoutKey);
            assert!(error.message().contains("primary key") && error.message().contains("replica identity"));
        }
    }

    #[test]
    fn indexes_that_lose_rows_are_no_keys() {
        let primary = UniqueIndex { primary: true, ..index("i", &[1]) };
        for bad in [
            UniqueIndex { immediate: false, ..primary.clone() },
            UniqueIndex { valid: false, ..primary.clone() },
            UniqueIndex { partial: true, ..primary.clone() },
            UniqueIndex { attnums: vec![0], ..primary.clone() },
            UniqueIndex { attnums: vec![1, 4], ..primary },
        ] {
            assert!(table(SourceIdentity::Default, vec![bad.clone()]).key().is_err(), "{bad:?}");
            let full = table(SourceIdentity::Full, vec![bad.clone()]);
            assert_eq!(full.key(), Ok((vec![0, 1, 2], Identity::WholeRow)), "{bad:?}");
            assert!(full.warning(false).unwrap().message().contains("rows that are equal"));
        }
    }

    #[test]
    fn remedies_name_the_statement() {
        let unmarked = table(SourceIdentity::Default, vec![index("by a", &[1])]).key().unwrap_err();
        assert_eq!(
            unmarked.remedy(),
            "Run `ALTER TABLE \"public\".\"t\" REPLICA IDENTITY USING INDEX \"by a\";`."
        );
    }

    #[test]
    fn generated_columns_must_be_stored_and_outside_the_key() {
        let primary = UniqueIndex { primary: true, ..index("i", &[1]) };
        let mut shape = table(SourceIdentity::Default, vec![primary]);
        assert_eq!((shape.refusal(&[], false), shape.warning(false)), (None, None));
        shape.columns[2].generated = Generated::Stored;
        assert_eq!(shape.refusal(&[], false), None);
        shape.columns[0].generated = Generated::Stored;
        assert!(shape.refusal(&[], false).unwrap().message().contains("belongs to the key"));
        shape.columns[0].generated = Generated::Never;
        let whole = TableShape { identity: SourceIdentity::Full, indexes: Vec::new(), ..shape.clone() };
        assert!(whole.refusal(&[], false).unwrap().message().contains("cannot be looked up"));

        shape.columns[2].generated = Generated::Virtual;
        let error = shape.refusal(&[], false).unwrap();
        assert_eq!(error.code(), Code::TableUnsupported);
        assert!(error.message().contains("column c") && error.remedy().contains("[c]"));
        assert_eq!(shape.refusal(&["c".into()], false), None);
        assert!(shape.refusal(&["a".into(), "c".into()], false).is_some(), "the key cannot be excluded");
    }
}
