//! The binary without a server: what it prints, and how it ends.

use std::process::{Command, Output, Stdio};

fn millrace(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
    command.args(arguments).stdin(Stdio::null());
    // This machine's settings are none of the test's.
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
     remedy: Start `millrace server` or `millrace dev`, or pass its URL by --address or MILLRACE_ADDRESS.
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
    insta::assert_snapshot!(run(&["apply", "-f", "/no/such.yaml"]), @r"
    exit 2
    error: /no/such.yaml: No such file or directory (os error 2)
     remedy: Correct the field that the message names.
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
