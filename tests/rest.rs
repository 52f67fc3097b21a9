//! The API over HTTP: JSON, its documents, gRPC-Web.

use libtest_mimic::Trial;
use millrace_proto::v1::{self as api, mirror, table};
use serde_json::{Value, json};

use crate::support::bed::Bed;
use crate::support::http::{self, Answer, Lines};
use crate::support::{stack, test};

pub fn tests() -> Vec<Trial> {
    vec![
        test("rest::a_mirrors_life", a_mirrors_life),
        test("rest::json_is_that_of_the_command_line", json_is_that_of_the_command_line),
        test("rest::the_how_to_works", the_how_to_works),
        test("rest::odd_table_names_are_percent_encoded", odd_table_names_are_percent_encoded),
        test("rest::errors_have_status_code_and_remedy", errors_have_status_code_and_remedy),
        test("rest::a_watch_can_be_server_sent_events", a_watch_can_be_server_sent_events),
        test("rest::documents_describe_it", documents_describe_it),
        test("rest::grpc_web_is_on_the_grpc_port", grpc_web_is_on_the_grpc_port),
        test("rest::foreign_web_pages_may_not_ask", foreign_web_pages_may_not_ask),
    ]
}

const JSON: (&str, &str) = ("content-type", "application/json");

fn address(url: &str) -> &str {
    url.strip_prefix("http://").expect("an http URL").trim_end_matches('/')
}

/// A request with a JSON body; none for `Value::Null`.
async fn call(verb: &str, path: &str, body: Value) -> Answer {
    let http = address(&stack::endpoints().http);
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let headers: &[_] = if body.is_empty() { &[] } else { &[JSON] };
    http::request(http, verb, path, headers, &body).await.expect("an answer")
}

async fn ok(verb: &str, path: &str, body: Value) -> Value {
    let answer = call(verb, path, body).await;
    assert_eq!(answer.status, 200, "{verb} {path}: {}", answer.text());
    assert!(answer.head.to_lowercase().contains("content-type: application/json"), "{}", answer.head);
    answer.json()
}

async fn a_mirrors_life(bed: Bed) {
    bed.sql("create table t (id int primary key); insert into t select generate_series(1, 100)").await;
    let name = &bed.name;
    let mirror = json!({
        "name": name, "source": format!("{name}-pg"), "destination": format!("{name}-ch"),
        "tables": [{"source": "public.*"}], "settings": {"flush": {"min_interval": "0.010s"}},
    });
    let planned = ok("POST", "/v1/mirrors?validate_only=true", mirror.clone()).await;
    assert_eq!(planned["tables"][0]["source"], "public.t");
    assert_eq!(call("GET", &format!("/v1/mirrors/{name}"), Value::Null).await.status, 404);

    let id = uuid::Uuid::new_v4();
    let create = format!("/v1/mirrors?request_id={id}");
    let made = ok("POST", &create, mirror.clone()).await;
    assert_eq!(made["settings"]["flush"]["min_interval"], "0.010s");
    let time = made["create_time"].as_str().expect("a time");
    assert!(time.ends_with('Z') && time.len() >= 20, "{time}");
    ok("POST", &create, mirror.clone()).await;
    ok("POST", "/v1/mirrors?allow_existing=true", mirror.clone()).await;
    let again = call("POST", "/v1/mirrors", mirror).await;
    assert_eq!((again.status, again.json()["details"][0]["reason"].clone()), (409, "MIRROR_EXISTS".into()));

    let http = address(&stack::endpoints().http);
    let mut watch = Lines::get(http, &format!("/v1/mirrors/{name}:watch")).await.expect("a watch");
    while watch.next().await.expect("the mirror lives")["mirror"]["state"] != "RUNNING" {}

    let path = format!("/v1/mirrors/{name}");
    assert_eq!(ok("POST", &format!("{path}:pause"), Value::Null).await["state"], "PAUSED");
    assert_eq!(ok("POST", &format!("{path}:resume"), json!({"name": name})).await["state"], "RUNNING");
    let patch = format!("{path}?update_mask=settings.flush.max_rows");
    let patched = ok("PATCH", &patch, json!({"settings": {"flush": {"max_rows": 5000}}})).await;
    assert_eq!(patched["settings"]["flush"]["max_rows"], "5000");
    assert_eq!(patched["settings"]["flush"]["min_interval"], "0.010s");
    let events = ok("GET", &format!("{path}/events"), Value::Null).await;
    assert!(events["events"].as_array().is_some_and(|events| !events.is_empty()), "{events}");

    let dropped = ok("DELETE", &format!("{path}?drop_destination=true"), Value::Null).await;
    assert_eq!(dropped, json!({"done": true, "leftovers": []}));
    while let Some(seen) = watch.next().await {
        assert!(seen.get("error").is_none(), "{seen}");
    }
}

async fn json_is_that_of_the_command_line(bed: Bed) {
    bed.sql("create table t (id int primary key); insert into t values (1)").await;
    bed.mirror_streaming(&["public.t"]).await;
    let mirror = ok("GET", &format!("/v1/mirrors/{}", bed.name), Value::Null).await;
    let output = tokio::process::Command::new(stack::binary())
        .args(["mirror", "get", &bed.name, "-o", "json", "--address", &stack::endpoints().grpc])
        .output()
        .await
        .expect("the command line");
    let printed: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let fixed = |value: &Value| {
        let mut value = value.clone();
        // What moves by itself between two looks.
        value.as_object_mut().expect("an object").remove("streams");
        value
    };
    assert_eq!(fixed(&mirror), fixed(&printed));
    let keys = |value: &Value| -> Vec<String> {
        value["streams"][0].as_object().expect("a stream").keys().cloned().collect()
    };
    assert!(keys(&mirror).contains(&"slot".to_owned()));
    let (mut token, mut names) = (String::new(), Vec::new());
    while names.is_empty() || !token.is_empty() {
        let page = ok("GET", &format!("/v1/peers?page_size=1&page_token={token}"), Value::Null).await;
        names.push(page["peers"][0]["name"].as_str().expect("a peer").to_owned());
        token = page["next_page_token"].as_str().expect("a token").to_owned();
    }
    assert!(names.is_sorted() && names.contains(&format!("{}-ch", bed.name)), "{names:?}");
}

async fn odd_table_names_are_percent_encoded(bed: Bed) {
    bed.sql("create table \"Odd: /ä\" (id int primary key); insert into \"Odd: /ä\" values (1)").await;
    bed.sql("create table plain (id int primary key)").await;
    bed.mirror_streaming(&["public.\"Odd: /ä\"", "public.plain"]).await;
    let odd = format!("/v1/mirrors/{}/tables/public.%22Odd%3A%20%2F%C3%A4%22", bed.name);
    ok("POST", &format!("{odd}:pause"), Value::Null).await;
    bed.wait_table("public.\"Odd: /ä\"", table::State::Paused).await;
    ok("POST", &format!("{odd}:resume"), json!({})).await;
    bed.wait_table("public.\"Odd: /ä\"", table::State::Streaming).await;
    let left = ok("DELETE", &odd, Value::Null).await;
    assert_eq!(left["tables"].as_array().map(Vec::len), Some(1), "{left}");
}

async fn errors_have_status_code_and_remedy(bed: Bed) {
    let mirrors = "/v1/mirrors";
    let unreachable =
        json!({"name": "nobody", "postgres": {"host": "127.0.0.1", "port": 1, "user": "u", "database": "d"}});
    let cases = [
        ("GET", "/v1/mirrors/none", Value::Null, 404, 5, "MIRROR_NOT_FOUND"),
        ("GET", "/v1/nothing", Value::Null, 404, 12, "UNIMPLEMENTED"),
        ("PUT", mirrors, Value::Null, 405, 12, "UNIMPLEMENTED"),
        ("GET", "/v1/mirrors?page_size=many", Value::Null, 400, 3, "INVALID_ARGUMENT"),
        ("GET", "/v1/mirrors?colour=red", Value::Null, 400, 3, "INVALID_ARGUMENT"),
        ("GET", "/v1/mirrors?order_by=name", Value::Null, 400, 3, "INVALID_ARGUMENT"),
        ("POST", mirrors, json!({"nmae": "a"}), 400, 3, "INVALID_ARGUMENT"),
        ("POST", "/v1/peers", unreachable, 424, 14, "SOURCE_UNREACHABLE"),
    ];
    for (verb, path, body, http, grpc, reason) in cases {
        let answer = call(verb, path, body).await;
        let status = answer.json();
        assert_eq!(answer.status, http, "{verb} {path}: {status}");
        let info = &status["details"][0];
        assert_eq!((&status["code"], &info["reason"]), (&grpc.into(), &reason.into()), "{verb} {path}");
        assert!(info["metadata"]["remedy"].as_str().is_some_and(|text| text.ends_with('.')), "{status}");
    }
    let http = address(&stack::endpoints().http);
    let form = [("content-type", "application/x-www-form-urlencoded"), ("x-request-id", "mine-1")];
    let path = format!("/v1/mirrors/{}:pause", bed.name);
    assert_eq!(http::request(http, "POST", &path, &form, b"{}").await.expect("an answer").status, 415);
    let answer = http::request(http, "POST", &path, &form, b"").await.expect("an answer");
    assert_eq!(answer.status, 404);
    assert!(answer.head.to_lowercase().contains("x-request-id: mine-1"), "{}", answer.head);
}

async fn a_watch_can_be_server_sent_events(bed: Bed) {
    bed.sql("create table t (id int primary key)").await;
    bed.mirror_streaming(&["public.t"]).await;
    let http = address(&stack::endpoints().http).to_owned();
    let path = format!("/v1/mirrors/{}:watch", bed.name);
    let events = tokio::spawn(async move {
        http::request(&http, "GET", &path, &[("accept", "text/event-stream")], b"").await
    });
    bed.wait_state(mirror::State::Running).await;
    let delete = api::DeleteMirrorRequest { name: bed.name.clone(), ..Default::default() };
    bed.mirrors().delete_mirror(delete).await.expect("deleted");
    let answer = events.await.expect("no panic").expect("the watch ends with the mirror");
    assert!(answer.head.to_lowercase().contains("content-type: text/event-stream"), "{}", answer.head);
    assert!(answer.text().contains("data: {\"mirror\":{"), "{}", answer.text());
}

async fn documents_describe_it(_bed: Bed) {
    let document = ok("GET", "/openapi.json", Value::Null).await;
    assert_eq!(document["openapi"], "3.1.0");
    let create = &document["paths"]["/v1/mirrors"]["post"];
    assert_eq!(
        (&create["operationId"], &create["tags"][0]),
        (&"CreateMirror".into(), &"MirrorService".into())
    );
    let page = call("GET", "/docs", Value::Null).await;
    assert_eq!(page.status, 200);
    let html = page.text();
    assert!(html.contains("<title>Millrace API</title>"));
    assert!(!html.contains("https://"), "the page loads nothing from elsewhere");
    let version = ok("GET", "/v1/version", Value::Null).await;
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
}

/// GetVersion, as a browser's client sends it: framed in the body of a POST over HTTP/1.1.
async fn grpc_web_is_on_the_grpc_port(_bed: Bed) {
    let headers = [("content-type", "application/grpc-web+proto"), ("x-grpc-web", "1")];
    let path = "/millrace.v1.SystemService/GetVersion";
    let grpc = address(&stack::endpoints().grpc);
    let answer = http::request(grpc, "POST", path, &headers, &[0; 5]).await.expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.head);
    let text = answer.text();
    assert!(text.contains(env!("CARGO_PKG_VERSION")) && text.contains("grpc-status:0"), "{text}");
}

async fn foreign_web_pages_may_not_ask(_bed: Bed) {
    let stack = stack::endpoints();
    let origin = [("origin", "https://evil.example")];
    for (url, path) in [(&stack.http, "/v1/mirrors"), (&stack.grpc, "/millrace.v1.SystemService/GetVersion")]
    {
        let answer = http::request(address(url), "POST", path, &origin, b"").await.expect("an answer");
        assert_eq!(answer.status, 403, "{}", answer.head);
    }
    let own = [("origin", stack.http.trim_end_matches('/'))];
    let answer = http::request(address(&stack.http), "GET", "/v1/peers", &own, b"").await.expect("an answer");
    assert_eq!(answer.status, 200, "the documentation's own page may");
}

/// The peers of the how-to.
const PG_OF_PAGE: &str =
    r#"{"host": "db.internal", "port": 5432, "user": "millrace", "password": "...", "database": "shop"}"#;
const CH_OF_PAGE: &str =
    r#"{"url": "http://ch.internal:8123", "user": "millrace", "password": "...", "database": "shop"}"#;

/// The commands of the how-to, on this stack: only names, addresses and passwords are put in.
async fn the_how_to_works(bed: Bed) {
    bed.sql("create table orders (id int primary key); insert into orders values (1)").await;
    let page = include_str!("../docs/how-to/use-the-api-with-curl.md");
    let commands = page.split("```sh\n").skip(1).map(|block| block.split("```").next().expect("an end"));
    let mut script = format!("set -eu\n{}", commands.collect::<String>());
    let (Some(api::peer::Config::Postgres(pg)), Some(api::peer::Config::Clickhouse(ch))) =
        (bed.source_peer().config, bed.destination_peer().config)
    else {
        panic!("two peers");
    };
    let (pg, ch) = (serde_json::to_value(pg).expect("JSON"), serde_json::to_value(ch).expect("JSON"));
    let password = format!("{{\"postgres\": {{\"password\": {}}}}}", pg["password"]);
    let (mirror, source, destination) = (&bed.name, format!("{}-src", bed.name), format!("{}-dst", bed.name));
    let stands_for = [
        ("http://127.0.0.1:8113", stack::endpoints().http.trim_end_matches('/').to_owned()),
        (PG_OF_PAGE, pg.to_string()),
        (CH_OF_PAGE, ch.to_string()),
        (r#"{"postgres": {"password": "..."}}"#, password),
        ("shop-pg", source),
        ("warehouse", destination),
        ("0d1f6f0e-3c5a-4f43-9c3e-1f6f3a9d4b11", uuid::Uuid::new_v4().to_string()),
        (r#""name": "shop""#, format!(r#""name": "{mirror}""#)),
        ("/mirrors/shop", format!("/mirrors/{mirror}")),
    ];
    for (word, here) in stands_for {
        assert!(script.contains(word), "{word} is in the page");
        script = script.replace(word, &here);
    }
    let output = tokio::process::Command::new("bash").arg("-c").arg(&script).output().await.expect("bash");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
}
