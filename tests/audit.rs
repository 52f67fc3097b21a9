//! The audit log: every call that changes something leaves exactly one entry, with who, what, before and
//! after, and without a secret.

use std::collections::BTreeSet;

use libtest_mimic::Trial;
use millrace_proto::descriptors;
use millrace_proto::v1::{mirror, table};
use serde_json::{Value, json};

use crate::support::bed::Bed;
use crate::support::http;
use crate::support::{stack, test};

pub fn tests() -> Vec<Trial> {
    vec![test(
        "audit::every_method_that_changes_leaves_one_entry",
        every_method_that_changes_leaves_one_entry,
    )]
}

/// Part of every secret that the test sends.
const SECRET: &str = "hunter2";

/// Methods whose names begin so change nothing.
const READS: [&str; 6] = ["Get", "List", "Watch", "Validate", "Export", "Doctor"];

/// Calls the API, and remembers which methods.
struct Auditor<'a> {
    bed: &'a Bed,
    called: BTreeSet<String>,
    calls: u32,
    /// Every entry, as the API shows it.
    written: String,
}

/// What a call left.
struct Entry(Value);

impl Entry {
    /// Compares a value of the object before and after the call; `null` is none.
    #[track_caller]
    fn shows(&self, path: &str, before: Value, after: Value) -> &Self {
        let at = |side: &str| self.0[side].pointer(path).cloned().unwrap_or_default();
        assert_eq!((at("before"), at("after")), (before, after), "{path} of {:#}", self.0);
        self
    }
}

impl Auditor<'_> {
    async fn ask(&self, verb: &str, path: &str, id: &str, body: &Value) -> http::Answer {
        let address = &stack::endpoints().http;
        let address = address.strip_prefix("http://").expect("a URL").trim_end_matches('/');
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let headers = [("content-type", "application/json"), ("x-request-id", id)];
        http::request(address, verb, path, &headers, &body).await.expect("an answer")
    }

    /// The entries of a request, newest first.
    async fn entries(&self, id: &str) -> Vec<Value> {
        let answer = self.ask("GET", "/v1/audit?page_size=200", "", &Value::Null).await.json();
        let all = answer["entries"].as_array().expect("entries").clone();
        all.into_iter().filter(|entry| entry["request_id"] == id).collect()
    }

    /// Calls a method that has to end so; gives its answer and the one entry that it left about `subject`.
    async fn ends(
        &mut self,
        code: &str,
        (method, subject): (&str, &str),
        (verb, path): (&str, &str),
        body: Value,
    ) -> (Value, Entry) {
        self.calls += 1;
        let id = format!("{}-{}", self.bed.name, self.calls);
        let answer = self.ask(verb, path, &id, &body).await;
        assert_eq!(answer.status == 200, code == "OK", "{method}: {}", answer.text());
        let mut entries = self.entries(&id).await;
        let entry = entries.pop().unwrap_or_else(|| panic!("{method} left no entry"));
        assert!(entries.is_empty(), "{method} left more than one: {entry:#} {entries:#?}");
        for (field, expected) in [
            ("caller", "anybody"),
            ("role", "ADMIN"),
            ("method", method),
            ("subject", subject),
            ("code", code),
        ] {
            assert_eq!(entry[field], expected, "{field} of {entry:#}");
        }
        assert!(entry["time"].is_string(), "{entry:#}");
        self.called.insert(method.to_owned());
        self.written.push_str(&entry.to_string());
        (answer.json(), Entry(entry))
    }

    async fn call(&mut self, method: &str, subject: &str, request: (&str, &str), body: Value) -> Entry {
        self.ends("OK", (method, subject), request, body).await.1
    }
}

async fn every_method_that_changes_leaves_one_entry(bed: Bed) {
    let mut auditor = Auditor { bed: &bed, called: BTreeSet::new(), calls: 0, written: String::new() };
    peers(&mut auditor).await;
    tokens(&mut auditor).await;
    bed.sql("create table a (id int primary key); create table b (id int primary key); create table c (id int primary key);
             insert into a values (1); insert into b select generate_series(1, 100)").await;
    mirror(&mut auditor).await;
    tables(&mut auditor).await;
    verifications(&mut auditor).await;
    apply(&mut auditor).await;
    let (name, path) = (&bed.name, format!("/v1/mirrors/{}", bed.name));
    auditor.call("DeleteMirror", &format!("mirrors/{name}"), ("DELETE", &path), Value::Null).await.shows(
        "/spec/name",
        json!(name),
        Value::Null,
    );

    let pool = descriptors::pool().expect("the API's descriptors");
    let methods = descriptors::methods(&pool);
    let changing: BTreeSet<String> = methods
        .iter()
        .map(|method| method.name().to_owned())
        .filter(|name| !READS.iter().any(|prefix| name.starts_with(prefix)))
        .collect();
    assert_eq!(auditor.called, changing, "a method is not tried here");
    assert!(!auditor.written.contains(SECRET), "a secret is in the audit log: {}", auditor.written);
}

async fn peers(auditor: &mut Auditor<'_>) {
    let name = format!("{}-spare", auditor.bed.name);
    let (subject, path) = (format!("peers/{name}"), format!("/v1/peers/{name}"));
    let tls = json!({"cert": "/public", "key": format!("{SECRET}-key")});
    let postgres = json!({"host": "one.test", "user": "u", "database": "d", "password": format!("{SECRET}-1"), "tls": tls});
    let peer = json!({"name": name, "postgres": postgres});
    let create = ("POST", "/v1/peers?skip_validation=true");
    auditor.call("CreatePeer", &subject, create, peer.clone()).await.shows(
        "/postgres/host",
        Value::Null,
        json!("one.test"),
    );
    let again = auditor.ends("PEER_EXISTS", ("CreatePeer", &subject), create, peer.clone());
    again.await.1.shows("/postgres/host", json!("one.test"), json!("one.test"));
    let update = format!("{path}?skip_validation=true&update_mask=postgres.host,postgres.password");
    let changed = json!({"postgres": {"host": "two.test", "password": format!("{SECRET}-2")}});
    auditor.call("UpdatePeer", &subject, ("PATCH", &update), changed).await.shows(
        "/postgres/host",
        json!("one.test"),
        json!("two.test"),
    );
    auditor.call("DeletePeer", &subject, ("DELETE", &path), Value::Null).await.shows(
        "/name",
        json!(name),
        Value::Null,
    );
    // A secret where none belongs is refused, and not written down either.
    let url = format!("http://user:{SECRET}@clickhouse.test:8123");
    let wrong = json!({"name": name, "clickhouse": {"url": url, "database": "d"}});
    auditor.ends("INVALID_ARGUMENT", ("CreatePeer", &subject), create, wrong).await;
    let source = format!("{}-pg", auditor.bed.name);
    let path = format!("/v1/peers/{source}:cleanup");
    auditor.call("CleanupPeer", &format!("peers/{source}"), ("POST", &path), json!({})).await.shows(
        "/name",
        json!(source),
        json!(source),
    );
}

async fn tokens(auditor: &mut Auditor<'_>) {
    let name = format!("{}-t", auditor.bed.name);
    let subject = format!("tokens/{name}");
    let token = json!({"name": name, "role": "VIEWER"});
    let (made, entry) = auditor.ends("OK", ("CreateToken", &subject), ("POST", "/v1/tokens"), token).await;
    entry.shows("/role", Value::Null, json!("VIEWER"));
    let secret = made["secret"].as_str().expect("a token");
    let path = format!("/v1/tokens/{name}");
    auditor.call("RevokeToken", &subject, ("DELETE", &path), Value::Null).await.shows(
        "/role",
        json!("VIEWER"),
        Value::Null,
    );
    assert!(!auditor.written.contains(secret), "a token is in the audit log");
}

async fn mirror(auditor: &mut Auditor<'_>) {
    let name = auditor.bed.name.clone();
    let (subject, path) = (format!("mirrors/{name}"), format!("/v1/mirrors/{name}"));
    let spec = json!({
        "name": name, "source": format!("{name}-pg"), "destination": format!("{name}-ch"),
        "tables": [{"source": "public.a"}, {"source": "public.b"}, {"source": "public.c"}],
    });
    // What only looks leaves nothing: the next entry is that of the real call.
    let trial = format!("{name}-trial");
    let planned = auditor.ask("POST", "/v1/mirrors?validate_only=true", &trial, &spec).await;
    assert_eq!(planned.status, 200, "{}", planned.text());
    assert!(auditor.entries(&trial).await.is_empty(), "a trial is in the audit log");

    auditor.call("CreateMirror", &subject, ("POST", "/v1/mirrors"), spec).await.shows(
        "/spec/name",
        Value::Null,
        json!(name),
    );
    auditor.bed.wait_state(mirror::State::Running).await;
    let update = format!("{path}?update_mask=settings.flush.max_rows");
    auditor
        .call("UpdateMirror", &subject, ("PATCH", &update), json!({"settings": {"flush": {"max_rows": 7}}}))
        .await
        .shows("/spec/settings/flush/max_rows", json!(100_000.0), json!(7.0));
    let pause = format!("{path}:pause");
    auditor.call("PauseMirror", &subject, ("POST", &pause), json!({})).await.shows(
        "/state",
        json!("RUNNING"),
        json!("PAUSED"),
    );
    let resync = format!("{path}:resync");
    let refused = auditor.ends("MIRROR_STATE", ("ResyncMirror", &subject), ("POST", &resync), json!({}));
    refused.await.1.shows("/state", json!("PAUSED"), json!("PAUSED"));
    let resume = format!("{path}:resume");
    auditor.call("ResumeMirror", &subject, ("POST", &resume), json!({})).await.shows(
        "/state",
        json!("PAUSED"),
        json!("RUNNING"),
    );
    auditor.call("ResyncMirror", &subject, ("POST", &resync), json!({})).await.shows(
        "/tables/0/source",
        json!("public.a"),
        json!("public.a"),
    );
    auditor.bed.wait_for("all tables stream", streaming).await;
}

fn streaming(mirror: &millrace_proto::v1::Mirror) -> bool {
    mirror.tables.iter().all(|table| table.state() == table::State::Streaming)
}

async fn tables(auditor: &mut Auditor<'_>) {
    let bed = auditor.bed;
    let subject = format!("mirrors/{}/tables/public.b", bed.name);
    let path = format!("/v1/mirrors/{}/tables/public.b", bed.name);
    let post = |verb: &str| format!("{path}:{verb}");
    let state = "/tables/1/state";
    auditor.call("PauseTable", &subject, ("POST", &post("pause")), json!({})).await.shows(
        state,
        json!("STREAMING"),
        json!("PAUSED"),
    );
    auditor.call("ResumeTable", &subject, ("POST", &post("resume")), json!({})).await;
    bed.wait_for("all tables stream", streaming).await;
    // A copy waits for this transaction, so it is under way for as long as the test likes.
    let open = bed.session().await;
    open.batch_execute("begin; insert into a values (5)").await.expect("a transaction");
    auditor.call("ResyncTable", &subject, ("POST", &post("resync")), json!({})).await.shows(
        state,
        json!("STREAMING"),
        json!("RESYNCING"),
    );
    auditor.call("CancelTableCopy", &subject, ("POST", &post("cancel")), json!({})).await.shows(
        "/tables/1/copy_cancelled",
        Value::Null,
        json!(true),
    );
    open.batch_execute("rollback").await.expect("its end");
    auditor.call("ResumeTable", &subject, ("POST", &post("resume")), json!({})).await.shows(
        "/tables/1/copy_cancelled",
        json!(true),
        Value::Null,
    );
    bed.wait_for("all tables stream", streaming).await;
    auditor.call("DropTable", &subject, ("DELETE", &path), Value::Null).await.shows(
        "/tables/1/source",
        json!("public.b"),
        json!("public.c"),
    );
}

async fn verifications(auditor: &mut Auditor<'_>) {
    let name = auditor.bed.name.clone();
    let subject = format!("mirrors/{name}");
    let path = format!("/v1/mirrors/{name}");
    let verify = format!("{path}:verify");
    let (begun, entry) = auditor.ends("OK", ("VerifyMirror", &subject), ("POST", &verify), json!({})).await;
    entry.shows("/spec/name", json!(name), json!(name));
    let id = begun["id"].as_str().expect("an id");
    let cancel = format!("{path}/verifications/{id}:cancel");
    let entry = auditor.call("CancelVerification", &subject, ("POST", &cancel), json!({})).await;
    assert_eq!(entry.0["request"]["id"], id, "which one: {:#}", entry.0);
}

async fn apply(auditor: &mut Auditor<'_>) {
    let name = format!("{}-file", auditor.bed.name);
    let document = format!(
        "peers:\n- name: {name}\n  clickhouse: {{url: \"http://127.0.0.1:9\", database: d, password: {SECRET}}}\n"
    );
    let body = json!({"document": document});
    // Its peer cannot be reached; what it would have changed is in the answer of a good one.
    auditor.ends("DESTINATION_UNREACHABLE", ("Apply", ""), ("POST", "/v1:apply"), body).await;
    let name = &auditor.bed.name;
    let document = format!(
        "mirrors:\n- name: {name}\n  source: {name}-pg\n  destination: {name}-ch
  tables: [{{source: public.a}}, {{source: public.c}}]\n  settings: {{flush: {{max_rows: 9}}}}\n"
    );
    let entry = auditor.call("Apply", "", ("POST", "/v1:apply"), json!({"document": document})).await;
    let done = &entry.0["after"]["objects"][0];
    assert_eq!((&done["name"], &done["action"]), (&json!(auditor.bed.name), &json!("UPDATED")), "{done:#}");
    assert_eq!(
        (&done["changes"][0]["old_value"], &done["changes"][0]["new_value"]),
        (&json!("7"), &json!("9"))
    );
}
