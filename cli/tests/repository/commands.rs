//! The binary without a server: what it prints, and how it ends.

use std::process::{Command, Output, Stdio};

fn millrace(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
    command.args(arguments).stdin(Stdio::null());
    // This machine's settings are none of the test's, nor its user's contexts.
    command.env("XDG_CONFIG_HOME", "/nonexistent");
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MILLRACE_") {
            command.env_remove(name);
        }
    }
    command
}

/// Exit code, stdout and stderr as one text.
fn shown(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().expect("it ended by itself");
    format!("exit {code}\n{}{}", text(&output.stdout), text(&output.stderr))
}

fn run(arguments: &[&str]) -> String {
    shown(&millrace(arguments).output().expect("the binary runs"))
}

#[test]
fn an_unreachable_server_is_the_environments_fault() {
    insta::assert_snapshot!(run(&["mirror", "list", "--address", "http://127.0.0.1:1"]), @r"
    exit 3
    error: the server at http://127.0.0.1:1 is unreachable: Connection refused (os error 111)
     remedy: Start `millrace server` or `millrace dev`, or say where it is by --address, MILLRACE_ADDRESS or a context (`millrace context list`).
       code: SERVER_UNREACHABLE
    ");
}

#[test]
fn wrong_arguments_are_told_without_a_server() {
    insta::assert_snapshot!(run(&["peer", "create", "p", "--postgres", "host=h user=u port=x"]), @r"
    exit 2
    error: --postgres: port is not a number
     remedy: Correct the field that the message names.
       code: INVALID_ARGUMENT
    ");
    // A peer's certificates are no flags of the client.
    let with_tls = ["peer", "create", "p", "--postgres", "host=h user=u port=x", "--tls-ca", "/ca.pem"];
    assert!(run(&with_tls).starts_with("exit 2\nerror: --postgres: port"), "{}", run(&with_tls));
    insta::assert_snapshot!(run(&["apply", "-f", "/no/such.yaml"]), @r"
    exit 2
    error: /no/such.yaml: No such file or directory (os error 2)
     remedy: Check the path, and that this user may read the file; - stands for stdin.
       code: INVALID_ARGUMENT
    ");
    insta::assert_snapshot!(run(&["diff", "-f", "/dev/null"]), @r"
    exit 2
    error: /dev/null: there is nothing in it
     remedy: Write `peers:` and `mirrors:`; to drop everything say so by `peers: []`, with --prune and --prune-all.
       code: INVALID_ARGUMENT
    ");
}

#[test]
fn a_reference_that_is_not_set_names_file_line_and_variable() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.yaml");
    std::fs::write(&file, "peers:\n- name: a\n  postgres: {password: \"${NOT_SET_ANYWHERE}\"}\n").unwrap();
    let text = run(&["apply", "-f", file.to_str().unwrap()]);
    assert!(text.starts_with("exit 2\n"), "{text}");
    assert!(text.contains("a.yaml: line 3: the environment variable NOT_SET_ANYWHERE is not set"), "{text}");
}

#[test]
fn a_process_without_its_settings_names_flags_and_ends_with_2() {
    let text = run(&["server"]);
    assert!(text.starts_with("exit 2\n"), "{text}");
    assert!(text.contains("--catalog-url") && text.contains("--secret-keys"), "{text}");
}

#[test]
fn secrets_do_not_show_in_help() {
    let output =
        millrace(&["server", "--help"]).env("MILLRACE_CATALOG_URL", "postgresql://u:hunter2@h/d").output();
    let text = shown(&output.unwrap());
    assert!(text.contains("MILLRACE_CATALOG_URL") && !text.contains("hunter2"), "{text}");
}

#[test]
fn health_says_whether_the_url_answers() {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/healthz", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        for status in ["200 OK", "503 Service Unavailable"] {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 512];
            let size = stream.read(&mut request).unwrap();
            assert!(request[..size].starts_with(b"GET /healthz HTTP/1.0\r\n"));
            write!(stream, "HTTP/1.1 {status}\r\n\r\n").unwrap();
        }
    });
    assert!(run(&["health", &url]).starts_with("exit 0\n"));
    let sick = run(&["health", &url]);
    server.join().unwrap();
    assert!(sick.starts_with("exit 3\n") && sick.contains("status 503"), "{sick}");
    assert!(run(&["health", &url]).starts_with("exit 3\n"));
}

#[test]
fn nothing_asks_without_a_terminal() {
    for verb in [&["peer", "drop", "p"][..], &["mirror", "drop", "m"], &["table", "drop", "m", "a.b"]] {
        let text = run(&[verb, &["--address", "http://127.0.0.1:1"]].concat());
        assert!(text.starts_with("exit 3\n") && text.contains("SERVER_UNREACHABLE"), "{text}");
        assert!(!text.contains("[y/N]"), "{text}");
    }
}

/// A user with contexts of their own.
struct User(tempfile::TempDir);

impl User {
    fn run(&self, arguments: &[&str], variables: &[(&str, &str)]) -> String {
        let mut command = millrace(arguments);
        command.env("XDG_CONFIG_HOME", self.0.path()).envs(variables.iter().copied());
        shown(&command.output().expect("the binary runs"))
    }
}

#[test]
fn a_context_names_a_server() {
    let user = User(tempfile::tempdir().unwrap());
    insta::assert_snapshot!(user.run(&["context", "list"], &[]), @r"
    exit 0
    no contexts; add one by `millrace context add NAME --address URL`
    ");
    insta::assert_snapshot!(user.run(&["context", "add", "one", "--address", "http://127.0.0.1:1", "--token-file", "/run/token"], &[]), @r"
    exit 0
    context one is stored, and in use
    ");
    user.run(&["context", "add", "two", "--address", "http://127.0.0.1:2"], &[]);
    insta::assert_snapshot!(user.run(&["context", "list"], &[]), @r"
    exit 0
       NAME  ADDRESS             TOKEN FILE
    *  one   http://127.0.0.1:1  /run/token
       two   http://127.0.0.1:2  -
    ");
    user.run(&["context", "use", "two"], &[]);
    let variable = [("MILLRACE_ADDRESS", "http://127.0.0.1:3")];
    for (arguments, variables, port) in [
        (&["mirror", "list"][..], &[][..], 2),
        (&["mirror", "list"], &variable[..], 3),
        (&["mirror", "list"], &[("MILLRACE_CONTEXT", "two")], 2),
        (&["mirror", "list", "--context", "two"], &variable[..], 2),
        (&["mirror", "list", "--context", "two", "--address", "http://127.0.0.1:4"], &variable[..], 4),
        (&["export", "--context", "two"], &[], 2),
    ] {
        let text = user.run(arguments, variables);
        assert!(
            text.contains(&format!("the server at http://127.0.0.1:{port} is unreachable")),
            "{arguments:?}: {text}"
        );
    }
    insta::assert_snapshot!(user.run(&["mirror", "list", "--context", "three"], &[]), @r"
    exit 2
    error: no context is called three
     remedy: See `millrace context list` for the names, or add it by `millrace context add`.
       code: INVALID_ARGUMENT
    ");
    assert!(user.run(&["context", "remove", "two"], &[]).starts_with("exit 0\n"));
    assert!(user.run(&["context", "use", "two"], &[]).starts_with("exit 2\n"));
    assert!(user.run(&["context", "list", "-o", "json"], &[]).contains("\"current\": false"));
}

#[test]
fn shells_and_manuals_know_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&["completion", shell]);
        assert!(script.starts_with("exit 0\n"), "{script}");
        for word in ["apply", "resync", "debezium", "drop-destination"] {
            assert!(script.contains(word), "{shell} does not know {word}");
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("man1");
    assert!(run(&["man", pages.to_str().unwrap()]).starts_with("exit 0\n"));
    let page = std::fs::read_to_string(pages.join("millrace-apply.1")).unwrap();
    assert!(page.contains("drop") && page.contains("Examples"), "{page}");
    assert!(!pages.join("millrace-embedded-clickhouse.1").exists(), "hidden commands have no page");
    assert!(run(&["man", "/dev/null/x"]).starts_with("exit 2\n"));
}

#[test]
fn an_import_writes_the_file_to_stdout_and_warnings_to_stderr() {
    let fixture = |name: &str| format!("{}/src/import/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    let output = millrace(&["import", "peerdb", &fixture("peerdb.sql")]).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stderr}");
    assert!(stdout.starts_with("# Secrets are not in it.") && !stdout.contains("warning"), "{stdout}");
    assert!(
        stderr.lines().all(|line| line.starts_with("warning: ")) && !stderr.contains('\u{1b}'),
        "{stderr}"
    );
    let both = run(&["import", "debezium", &fixture("debezium.json"), &fixture("altinity.properties")]);
    assert!(both.starts_with("exit 0\n") && both.contains("only the first one is taken over"), "{both}");
    let text = run(&["import", "debezium", &fixture("peerdb.sql")]);
    assert!(
        text.starts_with("exit 2\n") && text.contains("peerdb.sql") && !text.contains("hunter"),
        "{text}"
    );
}

#[test]
fn the_schema_is_json() {
    let text = run(&["schema"]);
    let schema: serde_json::Value = serde_json::from_str(text.strip_prefix("exit 0\n").unwrap()).unwrap();
    assert_eq!(schema["title"], "Millrace");
}

#[test]
fn a_typing_error_is_answered_with_the_nearest_word() {
    let text = run(&["mirror", "pasue", "shop"]);
    assert!(text.starts_with("exit 2\n") && text.contains("'pause'"), "{text}");
}
