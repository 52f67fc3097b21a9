//! Mirrors kept in a file: `apply`, `diff`, `export` and `--prune`, as a user types them.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use libtest_mimic::Trial;
use millrace_proto::v1::{mirror, peer};

use crate::support::bed::Bed;
use crate::support::cell::Cell;
use crate::support::{stack, test};

pub fn tests() -> Vec<Trial> {
    vec![
        test("files::an_export_applied_again_changes_nothing", an_export_applied_again_changes_nothing),
        test("files::a_difference_is_told_and_applied", a_difference_is_told_and_applied),
        test("files::nothing_changes_unless_all_of_it_can", nothing_changes_unless_all_of_it_can),
        test("files::a_changed_peer_reaches_the_stream", a_changed_peer_reaches_the_stream),
        test("files::prune_drops_what_is_not_held", prune_drops_what_is_not_held),
        test("files::an_imported_mirror_is_applied", an_imported_mirror_is_applied),
    ]
}

/// The command line of one user: at one server, with the secrets of one test's peers.
struct User {
    address: String,
    variables: Vec<(String, String)>,
}

impl User {
    fn new(bed: &Bed, address: &str) -> Self {
        let prefix = bed.name.to_uppercase().replace('-', "_");
        let variables = vec![
            (format!("{prefix}_PG_PASSWORD"), password_of(&bed.source_peer())),
            (format!("{prefix}_CH_PASSWORD"), password_of(&bed.destination_peer())),
        ];
        Self { address: address.to_owned(), variables }
    }

    /// Runs a command with this text on stdin.
    fn run(&self, arguments: &[&str], document: &str) -> Output {
        let mut child = Command::new(stack::binary())
            .args(arguments)
            .env("MILLRACE_ADDRESS", &self.address)
            .env("XDG_CONFIG_HOME", stack::dir())
            .env_remove("RUST_LOG")
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("millrace runs");
        child.stdin.take().expect("its stdin").write_all(document.as_bytes()).expect("it reads");
        child.wait_with_output().expect("it ends")
    }

    /// Runs a command that succeeds; gives its stdout.
    fn done(&self, arguments: &[&str], document: &str) -> String {
        let output = self.run(arguments, document);
        assert!(output.status.success(), "{arguments:?}: {}\n{document}", shown(&output));
        String::from_utf8(output.stdout).expect("text")
    }
}

fn shown(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("exit {:?}\n{}{}", output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn password_of(peer: &millrace_proto::v1::Peer) -> String {
    let password = match &peer.config {
        Some(peer::Config::Postgres(config)) => config.password.clone(),
        Some(peer::Config::Clickhouse(config)) => config.password.clone(),
        None => None,
    };
    password.expect("a password")
}

/// The peers of a test as they are, and its mirror of these tables.
fn document(bed: &Bed, tables: &str) -> String {
    let Some(peer::Config::Postgres(source)) = bed.source_peer().config else { unreachable!("a source") };
    let Some(peer::Config::Clickhouse(destination)) = bed.destination_peer().config else {
        unreachable!("a destination")
    };
    let (name, prefix) = (&bed.name, bed.name.to_uppercase().replace('-', "_"));
    format!(
        "peers:
- name: {name}-pg
  postgres: {{host: {}, port: {}, user: {}, password: \"${{{prefix}_PG_PASSWORD}}\", database: {}}}
- name: {name}-ch
  clickhouse: {{url: \"{}\", user: {}, password: \"${{{prefix}_CH_PASSWORD}}\", database: {}}}
---
mirrors:
- name: {name}
  source: {name}-pg
  destination: {name}-ch
  tables: {tables}
",
        source.host,
        source.port,
        source.user,
        source.database,
        destination.url,
        destination.user,
        destination.database,
    )
}

fn shared(bed: &Bed) -> User {
    User::new(bed, &stack::endpoints().grpc)
}

async fn an_export_applied_again_changes_nothing(bed: Bed) {
    bed.sql("create table t (id int primary key, note text, total numeric(10,2)); create table \"Odd # one\" (id int primary key)").await;
    let user = shared(&bed);
    let tables = "[{source: public.t, exclude: [note], columns: {total: {type: \"Decimal(18,4)\"}}}, {source: public.*}]\n  settings: {flush: {max_rows: 777}, on_partition_removed: keep}";
    let asked = document(&bed, tables);
    let late = user.run(&["apply", "-f", "-", "--wait", "--timeout", "1ms"], &asked);
    assert_eq!(late.status.code(), Some(3), "{}", shown(&late));
    assert!(shown(&late).contains("REQUEST_TIMEOUT") && shown(&late).contains("created"), "{}", shown(&late));
    let waited = user.run(&["apply", "-f", "-", "--wait=streaming"], &asked);
    assert!(waited.status.success(), "{}", shown(&waited));
    assert!(String::from_utf8_lossy(&waited.stderr).contains("RUNNING"), "progress: {}", shown(&waited));

    let exported = user.done(&["export", &bed.name], "");
    for (_, secret) in &user.variables {
        assert!(!exported.contains(secret.as_str()), "a secret is never given back: {exported}");
    }
    assert!(exported.contains("max_rows: 777") && !exported.contains("min_interval"), "{exported}");
    let again = user.done(&["apply", "-f", "-", "--dry-run"], &exported);
    assert_eq!(again.matches("unchanged").count(), 3, "{again}\n{exported}");
    assert_eq!(again.lines().count(), 3, "{again}");
    assert_eq!(user.done(&["diff", "-f", "-"], &exported), "");
    let missing = user.run(&["export", "no-such-mirror"], "");
    assert_eq!(missing.status.code(), Some(2));
}

async fn a_difference_is_told_and_applied(bed: Bed) {
    bed.sql(
        "create table t (id int primary key); create table u (id int primary key); insert into u values (1)",
    )
    .await;
    let user = shared(&bed);
    let one = document(&bed, "[{source: public.t}]");
    let told = user.run(&["diff", "-f", "-"], &one);
    assert_eq!(told.status.code(), Some(4), "{}", shown(&told));
    assert_eq!(String::from_utf8_lossy(&told.stdout), format!("+ mirror {}\n", bed.name));
    user.done(&["apply", "-f", "-", "--wait"], &one);

    let two =
        document(&bed, "[{source: public.t}, {source: public.u}]\n  settings: {flush: {min_interval: 70ms}}");
    let told = user.run(&["diff", "-f", "-"], &two);
    let expected = format!(
        "~ mirror {}\n    settings.flush.min_interval: 50ms -> 70ms\n    tables.public.u: (none) -> (replicated)\n",
        bed.name
    );
    assert_eq!(
        (told.status.code(), String::from_utf8_lossy(&told.stdout).as_ref()),
        (Some(4), expected.as_str())
    );
    let applied = user.done(&["apply", "-f", "-", "--wait"], &two);
    let line = format!(
        "mirror {}: updated: settings.flush.min_interval 50ms -> 70ms, tables.public.u (none) -> (replicated)",
        bed.name
    );
    assert!(applied.lines().any(|found| found == line), "{applied}");
    bed.wait_equal("u", "u").await;
    assert_eq!(user.done(&["diff", "-f", "-"], &two), "");
}

async fn nothing_changes_unless_all_of_it_can(bed: Bed) {
    bed.sql("create table t (id int primary key)").await;
    let user = shared(&bed);
    let with = |table: &str| document(&bed, &format!("[{{source: {table}}}]"));
    let changed =
        with("public.no_such_table").replace("clickhouse: {", "clickhouse: {max_inserts_per_second: 7, ");
    let refused = user.run(&["apply", "-f", "-"], &changed);
    assert_eq!(refused.status.code(), Some(2), "{}", shown(&refused));
    assert!(shown(&refused).contains("SOURCE_TABLE_MISSING"), "{}", shown(&refused));
    let diff = user.run(&["diff", "-f", "-"], &with("public.t"));
    assert_eq!(
        String::from_utf8_lossy(&diff.stdout),
        format!("+ mirror {}\n", bed.name),
        "the peer is as it was"
    );
}

async fn a_changed_peer_reaches_the_stream(bed: Bed) {
    let role = format!("role_{}", bed.name.replace('-', "_"));
    bed.sql(&format!(
        "create role {role} login superuser replication password 'first'; create table t (id int primary key)"
    ))
    .await;
    let mut user = shared(&bed);
    let text = document(&bed, "[{source: public.t}]");
    let Some(peer::Config::Postgres(source)) = bed.source_peer().config else { unreachable!("a source") };
    let text = text.replacen(&format!("user: {}", source.user), &format!("user: {role}"), 1);
    user.variables[0].1 = "first".to_owned();
    user.done(&["apply", "-f", "-", "--wait"], &text);
    bed.sql(&format!("alter role {role} password 'second'")).await;
    user.variables[0].1 = "second".to_owned();
    let applied = user.done(&["apply", "-f", "-"], &text);
    assert!(applied.contains("updated: postgres.password (secret) -> (secret)"), "{applied}");
    bed.sql("insert into t select generate_series(1, 10)").await;
    bed.wait_equal("t", "t").await;

    let moved =
        text.replace(&format!("database: {}}}\n- name", source.database), "database: postgres}\n- name");
    assert_ne!(moved, text);
    let refused = user.run(&["apply", "-f", "-"], &moved);
    assert_eq!(refused.status.code(), Some(2), "{}", shown(&refused));
    assert!(
        shown(&refused).contains("PEER_IN_USE") && shown(&refused).contains(&bed.name),
        "{}",
        shown(&refused)
    );
}

/// What PeerDB was told, as its REST API takes it, replicates here with no more than another URL.
async fn an_imported_mirror_is_applied(bed: Bed) {
    bed.sql(
        "create table orders (id int, shop int, total numeric not null, note text, primary key (shop, id));
         insert into orders select n, n % 3, n / 4.0, 'n' from generate_series(1, 100) n",
    )
    .await;
    let Some(peer::Config::Postgres(source)) = bed.source_peer().config else { unreachable!("a source") };
    let Some(peer::Config::Clickhouse(destination)) = bed.destination_peer().config else {
        unreachable!("a destination")
    };
    let name = &bed.name;
    let asked = serde_json::json!([
        {"peer": {"name": format!("{name}-pg"), "type": 3, "postgres_config": {
            "host": source.host, "port": source.port, "user": source.user, "password": "********",
            "database": source.database}}},
        {"peer": {"name": format!("{name}-ch"), "type": 8, "clickhouse_config": {
            "host": "ch.internal", "port": 9000, "user": destination.user, "password": "********",
            "database": destination.database, "disable_tls": true}}},
        {"connection_configs": {
            "flow_job_name": name, "source_name": format!("{name}-pg"), "destination_name": format!("{name}-ch"),
            "table_mappings": [{
                "source_table_identifier": "public.orders", "destination_table_identifier": "shop_orders",
                "exclude": ["note"], "columns": [
                    {"source_name": "total", "destination_type": "Decimal(18,6)"},
                    {"source_name": "shop", "ordering": 1}, {"source_name": "id", "ordering": 2}]}],
            "do_initial_snapshot": true, "soft_delete_col_name": "_peerdb_is_deleted",
            "max_batch_size": 5000, "idle_timeout_seconds": 60}},
    ]);
    let user = shared(&bed);
    let imported = user.done(&["import", "peerdb", "-"], &asked.to_string());
    assert!(!imported.contains("****"), "a secret stands as a variable: {imported}");
    let file = imported.replace("http://ch.internal:8123", &destination.url);
    user.done(&["apply", "-f", "-", "--wait"], &file);
    bed.sql("delete from orders where id = 1; insert into orders values (101, 0, 0.5, 'n')").await;
    let sql = "select concat(toString(count()), ' ', toString(sum(id)), ' ', toTypeName(any(total))) as line
        from shop_orders final where _peerdb_is_deleted = 0";
    bed.wait_lines(sql, &["100 5150 Decimal(18, 6)"]).await;
    assert_eq!(user.done(&["diff", "-f", "-"], &file), "");
}

async fn prune_drops_what_is_not_held(mut bed: Bed) {
    bed.sql(
        "create table t (id int primary key); create table u (id int primary key); insert into u values (1)",
    )
    .await;
    let cell = Cell::new(&mut bed).await;
    let _worker = cell.worker().await;
    let user = User::new(&bed, &cell.grpc);
    let name = &bed.name;
    let both = format!(
        "{}- name: {name}-2\n  source: {name}-pg\n  destination: {name}-ch\n  tables: [{{source: public.u}}]\n",
        document(&bed, "[{source: public.t}]")
    );
    user.done(&["apply", "-f", "-", "--wait"], &both);
    let extra = "---\npeers:\n- name: spare\n  clickhouse: {url: \"http://127.0.0.1:1\"}\n";
    let unreachable = user.run(&["apply", "-f", "-"], &format!("{both}{extra}"));
    assert_eq!(unreachable.status.code(), Some(3), "{}", shown(&unreachable));

    let one = document(&bed, "[{source: public.t}]");
    assert_eq!(user.done(&["diff", "-f", "-"], &one), "", "without prune it is no difference");
    let told = user.run(&["diff", "-f", "-", "--prune"], &one);
    assert_eq!(
        (told.status.code(), String::from_utf8_lossy(&told.stdout).into_owned()),
        (Some(4), format!("- mirror {name}-2\n"))
    );
    let pruned = user.done(&["apply", "-f", "-", "--prune"], &one);
    assert!(pruned.contains(&format!("mirror {name}-2: deleted")), "{pruned}");
    bed.wait_state(mirror::State::Running).await;
    let left = user.done(&["mirror", "list", "-o", "json"], "");
    assert!(!left.contains(&format!("{name}-2")), "{left}");
    bed.wait_lines("select toString(count()) as line from u final", &["1"]).await;
    let slots = "select count(*) from pg_replication_slots where database = current_database()";
    assert_eq!(bed.source.query_one(slots, &[]).await.expect("slots").get::<_, i64>(0), 1);

    let all = ["apply", "-f", "-", "--prune", "--drop-destination"];
    let refused = user.run(&all, "peers: []\n");
    assert!(
        refused.status.code() == Some(2) && shown(&refused).contains("--prune-all"),
        "{}",
        shown(&refused)
    );
    user.done(&[&all[..], &["--prune-all"]].concat(), "peers: []\n");
    let exported = user.done(&["export"], "");
    assert_eq!(exported.trim(), "peers: []\nmirrors: []");
}
