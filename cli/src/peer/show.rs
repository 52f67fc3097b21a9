//! Peers as people read them.
//!
//! Pure.

use millrace_proto::v1::{
    ListPeersResponse, ListSourceTablesResponse, Peer, SourceTable, TlsConfig, check, peer,
};

use crate::client::figures;
use crate::client::output::{Column, grid};

/// One peer.
pub(super) fn peer(peer: &Peer) -> String {
    let [kind, address, user, database, password] = parts(peer);
    let mut lines = vec![
        format!("name      {}", peer.name),
        format!("kind      {kind}"),
        format!("address   {address}"),
        format!("user      {user}"),
        format!("password  {password}"),
        format!("database  {database}"),
    ];
    if let Some(peer::Config::Postgres(config)) = &peer.config {
        lines.push(format!("tls       {}", tls(config.tls.as_ref())));
    }
    lines.push(format!("created   {}", figures::time(peer.create_time.as_ref())));
    lines.join("\n")
}

/// Many peers.
pub(super) fn peers(list: &ListPeersResponse) -> String {
    let columns = ["NAME", "KIND", "ADDRESS", "USER", "DATABASE"].map(Column::Text);
    let rows = list.peers.iter().map(|peer| {
        let [kind, address, user, database, _] = parts(peer);
        vec![peer.name.clone(), kind, address, user, database]
    });
    grid(&columns, rows)
}

/// Kind, address, user, database, and whether there is a password.
fn parts(peer: &Peer) -> [String; 5] {
    let password = |set: bool| if set { "(set)" } else { "(none)" }.to_owned();
    match &peer.config {
        Some(peer::Config::Postgres(config)) => {
            let port = if config.port == 0 { 5432 } else { config.port };
            let address = format!("{}:{port}", config.host);
            let (user, database) = (config.user.clone(), config.database.clone());
            ["postgres".into(), address, user, database, password(config.password_set)]
        }
        Some(peer::Config::Clickhouse(config)) => {
            let (user, database) = (config.user.clone(), config.database.clone());
            ["clickhouse".into(), config.url.clone(), user, database, password(config.password_set)]
        }
        None => Default::default(),
    }
}

fn tls(config: Option<&TlsConfig>) -> String {
    let mode = config.map(TlsConfig::mode).unwrap_or_default();
    match mode.as_str_name() {
        "MODE_UNSPECIFIED" => "prefer".to_owned(),
        name => name.to_lowercase().replace('_', "-"),
    }
}

/// Tables of a source.
pub(super) fn tables(list: &ListSourceTablesResponse) -> String {
    let columns = [
        Column::Text("TABLE"),
        Column::Number("ROWS"),
        Column::Number("SIZE"),
        Column::Text("KEY"),
        Column::Text("NOTE"),
    ];
    let rows = list.tables.iter().map(|table| {
        vec![
            table.source.clone(),
            rows(table),
            figures::bytes(table.bytes),
            if table.key_columns.is_empty() { "-".to_owned() } else { table.key_columns.join(", ") },
            note(table),
        ]
    });
    grid(&columns, rows)
}

/// The source's estimate, which it has not made yet for a table that was never analysed.
fn rows(table: &SourceTable) -> String {
    match table.rows_estimated {
        0 if table.bytes > 0 => "?".to_owned(),
        rows => format!("~{}", figures::count(rows)),
    }
}

/// The worst that was found about a table.
fn note(table: &SourceTable) -> String {
    let found = |status| table.checks.iter().find(|check| check.status() == status);
    let worst = found(check::Status::Fail).or_else(|| found(check::Status::Warn));
    worst.map(|check| check.message.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_proto::v1::{Check, PostgresConfig};

    #[test]
    fn a_peer_is_shown_without_its_password() {
        let config = PostgresConfig {
            host: "db".into(),
            user: "repl".into(),
            database: "shop".into(),
            password_set: true,
            ..Default::default()
        };
        let shown =
            Peer { name: "p".into(), config: Some(peer::Config::Postgres(config)), ..Default::default() };
        insta::assert_snapshot!(peer(&shown), @r"
        name      p
        kind      postgres
        address   db:5432
        user      repl
        password  (set)
        database  shop
        tls       prefer
        created   -
        ");
    }

    #[test]
    fn a_table_without_a_key_says_so() {
        let check = Check {
            status: check::Status::Fail.into(),
            message: "no primary key".into(),
            ..Default::default()
        };
        let table = SourceTable {
            source: "public.log".into(),
            rows_estimated: 12_000,
            bytes: 1 << 20,
            checks: vec![check],
            ..Default::default()
        };
        let list = ListSourceTablesResponse { tables: vec![table], ..Default::default() };
        insta::assert_snapshot!(tables(&list), @r"
        TABLE          ROWS     SIZE  KEY  NOTE
        public.log  ~12,000  1.0 MiB  -    no primary key
        ");
    }
}
