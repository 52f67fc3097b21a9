//! A request of ClickHouse's HTTP interface, read from its method, URL and headers.
//!
//! Pure.

use axum::http::HeaderMap;
use axum::http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE};
use base64::Engine as _;

/// How bytes are compressed on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// Not at all.
    Plain,
    /// `Content-Encoding: lz4`: LZ4 frames.
    Lz4,
    /// `Content-Encoding: gzip`.
    Gzip,
    /// ClickHouse's own blocks (`compress=1`).
    Blocks,
}

/// Who asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Credentials {
    pub user: Option<String>,
    pub password: Option<String>,
}

/// A request, its body left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    /// The SQL, or its beginning, in the URL.
    pub query: String,
    /// The current database.
    pub database: Option<String>,
    /// The format of a result whose statement names none.
    pub format: Option<String>,
    /// The client's name for the query; may be empty.
    pub query_id: String,
    /// Settings of the statement.
    pub settings: Vec<(String, String)>,
    /// Values of `{name:Type}` in the SQL.
    pub params: Vec<(String, String)>,
    /// Whether it must not change anything: GET.
    pub is_read_only: bool,
    /// Whether nothing may be sent before the statement has ended.
    pub waits_for_end: bool,
    /// `Content-Encoding` of the body; `None` for one that is not built.
    pub body_encoding: Option<Encoding>,
    /// Whether the body, after that, consists of compressed blocks.
    pub body_in_blocks: bool,
    /// How the result goes out.
    pub output: Encoding,
    /// Boundary of a multipart body.
    pub boundary: Option<String>,
}

/// Parameters of the URL that are no settings of a statement.
const NO_SETTINGS: [&str; 12] = [
    "buffer_size",
    "client_protocol_version",
    "close_session",
    "compress",
    "decompress",
    "password",
    "quota_key",
    "role",
    "session_check",
    "session_id",
    "session_timeout",
    "user",
];

impl Request {
    /// Reads a request. `pairs` are the parameters of the URL.
    pub fn new(is_get: bool, pairs: Vec<(String, String)>, headers: &HeaderMap) -> Self {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let content_encoding = headers.get(CONTENT_ENCODING).and_then(|value| value.to_str().ok());
        let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let mut request = Self {
            query: String::new(),
            database: header("x-clickhouse-database"),
            format: header("x-clickhouse-format"),
            query_id: header("x-clickhouse-query-id").unwrap_or_default(),
            settings: Vec::new(),
            params: Vec::new(),
            is_read_only: is_get,
            waits_for_end: false,
            body_encoding: body_encoding(content_encoding),
            body_in_blocks: false,
            output: Encoding::Plain,
            boundary: content_type.and_then(boundary),
        };
        let (mut in_blocks, mut may_encode) = (false, true);
        for (name, value) in pairs {
            let is_on = value == "1" || value.eq_ignore_ascii_case("true");
            match name.as_str() {
                "query" => request.query = value,
                "database" => request.database = Some(value),
                "default_format" => request.format = Some(value),
                "query_id" => request.query_id = value,
                "compress" => in_blocks = is_on,
                "decompress" => request.body_in_blocks = is_on,
                "wait_end_of_query" => request.waits_for_end = is_on,
                "enable_http_compression" => may_encode = is_on,
                _ => match name.strip_prefix("param_") {
                    Some(param) => request.params.push((param.to_owned(), value)),
                    None if NO_SETTINGS.contains(&name.as_str()) => {}
                    None => request.settings.push((name, value)),
                },
            }
        }
        request.database = request.database.filter(|database| !database.is_empty());
        let accepted = headers.get(ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
        request.output = match in_blocks {
            true => Encoding::Blocks,
            false if may_encode => accepted_encoding(accepted),
            false => Encoding::Plain,
        };
        request
    }
}

/// `None` for an encoding that is not built.
fn body_encoding(name: Option<&str>) -> Option<Encoding> {
    match name.map(str::trim) {
        None | Some("" | "identity") => Some(Encoding::Plain),
        Some("lz4") => Some(Encoding::Lz4),
        Some("gzip" | "x-gzip") => Some(Encoding::Gzip),
        Some(_) => None,
    }
}

/// The cheapest of the accepted encodings that is built.
fn accepted_encoding(accepted: &str) -> Encoding {
    let names = || accepted.split(',').map(|item| item.split(';').next().unwrap_or_default().trim());
    if names().any(|name| name == "lz4") {
        Encoding::Lz4
    } else if names().any(|name| name == "gzip") {
        Encoding::Gzip
    } else {
        Encoding::Plain
    }
}

fn boundary(content_type: &str) -> Option<String> {
    let rest = content_type.trim().strip_prefix("multipart/form-data")?;
    let value = rest.split(';').find_map(|part| part.trim().strip_prefix("boundary="))?;
    Some(value.trim_matches('"').to_owned())
}

impl Credentials {
    /// Credentials by ClickHouse's headers, else basic ones, else those of the URL.
    pub fn of(pairs: &[(String, String)], headers: &HeaderMap) -> Self {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (user, password) = (header("x-clickhouse-user"), header("x-clickhouse-key"));
        if user.is_some() || password.is_some() {
            return Self { user, password };
        }
        if let Some(credentials) = headers.get(AUTHORIZATION).and_then(|value| basic(value.to_str().ok()?)) {
            return credentials;
        }
        let pair = |key: &str| pairs.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone());
        Self { user: pair("user"), password: pair("password") }
    }
}

fn basic(value: &str) -> Option<Credentials> {
    let (scheme, rest) = value.split_once(' ')?;
    let bytes = base64::engine::general_purpose::STANDARD.decode(rest.trim()).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (user, password) = text.split_once(':')?;
    scheme
        .eq_ignore_ascii_case("basic")
        .then(|| Credentials { user: Some(user.to_owned()), password: Some(password.to_owned()) })
}

/// The fields of a multipart body: names and values. `None` if it is not one.
pub(super) fn form_fields(body: &[u8], boundary: &str) -> Option<Vec<(String, String)>> {
    let mark = format!("--{boundary}");
    let mut rest = body.strip_prefix(mark.as_bytes())?;
    let separator = format!("\r\n{mark}");
    let mut fields = Vec::new();
    while let Some(part) = rest.strip_prefix(b"\r\n") {
        let end = find(part, separator.as_bytes())?;
        let (field, after) = part.split_at(end);
        let head_end = find(field, b"\r\n\r\n")?;
        let head = std::str::from_utf8(&field[..head_end]).ok()?;
        let name = head.split_once("name=\"")?.1.split_once('"')?.0;
        fields.push((name.to_owned(), String::from_utf8(field[head_end + 4..].to_vec()).ok()?));
        rest = &after[separator.len()..];
    }
    rest.starts_with(b"--").then_some(fields)
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| ((*name).try_into().unwrap(), value.parse().unwrap())).collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_url_holds_settings_parameters_and_what_is_neither() {
        let url = pairs(&[
            ("query", "SELECT 1"),
            ("max_threads", "2"),
            ("param_x", "5"),
            ("session_id", "s"),
            ("compress", "1"),
            ("database", ""),
        ]);
        let request = Request::new(false, url, &headers(&[("x-clickhouse-format", "JSON")]));
        assert_eq!(request.settings, pairs(&[("max_threads", "2")]));
        assert_eq!(request.params, pairs(&[("x", "5")]));
        assert_eq!((request.output, request.database), (Encoding::Blocks, None));
        assert_eq!(request.format.as_deref(), Some("JSON"));
    }

    #[test]
    fn an_encoding_is_used_if_it_is_accepted_and_not_switched_off() {
        let accepts = headers(&[("accept-encoding", "zstd, br;q=0.5, lz4, gzip")]);
        assert_eq!(Request::new(false, Vec::new(), &accepts).output, Encoding::Lz4);
        let off = pairs(&[("enable_http_compression", "0")]);
        assert_eq!(Request::new(false, off, &accepts).output, Encoding::Plain);
        let unknown = headers(&[("content-encoding", "zstd")]);
        assert_eq!(Request::new(false, Vec::new(), &unknown).body_encoding, None);
    }

    #[test]
    fn credentials_come_in_three_ways() {
        let of = |url: &[(&str, &str)], head: &[(&'static str, &str)]| {
            let found = Credentials::of(&pairs(url), &headers(head));
            (found.user.unwrap_or_default(), found.password.unwrap_or_default())
        };
        let expected = ("u".to_owned(), "p:w".to_owned());
        assert_eq!(of(&[("user", "u"), ("password", "p:w")], &[]), expected);
        assert_eq!(of(&[], &[("x-clickhouse-user", "u"), ("x-clickhouse-key", "p:w")]), expected);
        assert_eq!(of(&[], &[("authorization", "Basic dTpwOnc=")]), expected);
    }

    #[test]
    fn a_form_holds_fields() {
        let body = "--B\r\nContent-Disposition: form-data; name=\"query\"\r\n\r\nSELECT\r\n{x:Int32}\r\n--B\r\nContent-Disposition: form-data; name=\"param_x\"\r\n\r\n5\r\n--B--\r\n";
        let fields = form_fields(body.as_bytes(), "B").unwrap();
        assert_eq!(fields, pairs(&[("query", "SELECT\r\n{x:Int32}"), ("param_x", "5")]));
        assert_eq!(form_fields(&body.as_bytes()[..60], "B"), None);
        let request =
            Request::new(false, Vec::new(), &headers(&[("content-type", "multipart/form-data; boundary=B")]));
        assert_eq!(request.boundary.as_deref(), Some("B"));
    }
}
