//! Addresses of databases as people have them: URLs, and libpq's `host=... user=...`.
//!
//! Pure. No message holds a password.

use millrace_proto::v1::tls_config::Mode;
use millrace_proto::v1::{ClickhouseConfig, PostgresConfig, TlsConfig};
use millrace_terms::{Code, Error};

/// Reads the address of a PostgreSQL database: `postgresql://user@host:5432/database?sslmode=require`
/// or `host=... port=... user=... dbname=... sslmode=...`.
///
/// # Errors
/// INVALID_ARGUMENT, naming the part that is wrong.
pub fn postgres(text: &str) -> Result<PostgresConfig, Error> {
    let url = text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://"));
    let mut config = PostgresConfig::default();
    let parameters = match url {
        Some(rest) => {
            let url = Url::parse(rest, "--postgres")?;
            config.host = url.host;
            config.port = url.port.unwrap_or_default().into();
            config.user = url.user;
            config.password = url.password;
            config.database = url.path;
            url.parameters
        }
        None => key_values(text)?,
    };
    for (key, value) in parameters {
        set_postgres(&mut config, &key, value)?;
    }
    if config.database.is_empty() {
        config.database.clone_from(&config.user);
    }
    for (what, value) in [("host", &config.host), ("user", &config.user)] {
        if value.is_empty() {
            return Err(wrong("--postgres", format!("the {what} is missing")));
        }
    }
    Ok(config)
}

fn set_postgres(config: &mut PostgresConfig, key: &str, value: String) -> Result<(), Error> {
    match key {
        "host" => config.host = value,
        "port" => {
            let port = value.parse::<u16>();
            config.port = port.map_err(|_| wrong("--postgres", "port is not a number"))?.into();
        }
        "user" => config.user = value,
        "password" => config.password = Some(value),
        "dbname" => config.database = value,
        "sslmode" => tls(config).mode = tls_mode(&value)?.into(),
        "sslrootcert" => tls(config).ca = value,
        "sslcert" => tls(config).cert = value,
        "sslkey" => tls(config).key = Some(value),
        // What libpq knows and Millrace decides by itself.
        "application_name" | "connect_timeout" | "client_encoding" => {}
        other => {
            return Err(wrong("--postgres", format!("{other} is not known")).with_remedy(
                "Use host, port, user, password, dbname, sslmode, sslrootcert, sslcert and sslkey.",
            ));
        }
    }
    Ok(())
}

fn tls(config: &mut PostgresConfig) -> &mut TlsConfig {
    config.tls.get_or_insert_default()
}

/// Reads a TLS mode, as libpq's `sslmode`.
///
/// # Errors
/// INVALID_ARGUMENT if it is none.
pub fn tls_mode(text: &str) -> Result<Mode, Error> {
    Ok(match text {
        "disable" => Mode::Disable,
        "allow" | "prefer" => Mode::Prefer,
        "require" => Mode::Require,
        "verify-ca" => Mode::VerifyCa,
        "verify-full" => Mode::VerifyFull,
        other => {
            return Err(wrong("tls mode", format!("{other} is not known"))
                .with_remedy("Use disable, prefer, require, verify-ca or verify-full."));
        }
    })
}

/// Reads the address of ClickHouse's HTTP interface: `http://user@host:8123/database`.
///
/// # Errors
/// INVALID_ARGUMENT, naming the part that is wrong.
pub fn clickhouse(text: &str) -> Result<ClickhouseConfig, Error> {
    let (scheme, rest) = text.split_once("://").unwrap_or_default();
    let default_port = match scheme {
        "http" => 8123,
        "https" => 8443,
        _ => {
            return Err(wrong("--clickhouse", "not an http:// or https:// URL")
                .with_remedy("Give the HTTP interface, such as http://host:8123 or https://host:8443."));
        }
    };
    let url = Url::parse(rest, "--clickhouse")?;
    if url.host.is_empty() {
        return Err(wrong("--clickhouse", "the host is missing"));
    }
    if let Some((key, _)) = url.parameters.first() {
        return Err(wrong("--clickhouse", format!("the parameter {key} is not known")));
    }
    let host = if url.host.contains(':') { format!("[{}]", url.host) } else { url.host };
    Ok(ClickhouseConfig {
        url: format!("{scheme}://{host}:{}", url.port.unwrap_or(default_port)),
        user: url.user,
        password: url.password,
        database: url.path,
        ..ClickhouseConfig::default()
    })
}

/// The parts of a URL behind its scheme, percent-decoded.
#[derive(Debug, Default, PartialEq, Eq)]
struct Url {
    user: String,
    password: Option<String>,
    host: String,
    port: Option<u16>,
    path: String,
    parameters: Vec<(String, String)>,
}

impl Url {
    fn parse(rest: &str, flag: &str) -> Result<Self, Error> {
        let decode = |text: &str| {
            percent_decode(text).ok_or_else(|| wrong(flag, "a % is not followed by two hexadecimal digits"))
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        // A password may hold an unescaped @; a host may not.
        let (credentials, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = match credentials.split_once(':') {
            Some((user, password)) => (user, Some(decode(password)?)),
            None => (credentials, None),
        };
        let (host, port) = split_port(host).ok_or_else(|| wrong(flag, "the port is not a number"))?;
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let parameters = pairs.map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(key)?, decode(value)?))
        });
        Ok(Self {
            user: decode(user)?,
            password,
            host: decode(host)?,
            port,
            path: decode(path)?,
            parameters: parameters.collect::<Result<_, Error>>()?,
        })
    }
}

/// Host and port of `host`, `host:port` or `[v6]:port`.
fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    let (host, rest) = match text.strip_prefix('[') {
        Some(v6) => v6.split_once(']')?,
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    match rest.strip_prefix(':') {
        Some(port) => Some((host, Some(port.parse().ok()?))),
        None if rest.is_empty() => Some((host, None)),
        None => None,
    }
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

/// libpq's pairs: `key=value key='va\'lue'` (PostgreSQL documentation, section 34.1.1.1).
fn key_values(text: &str) -> Result<Vec<(String, String)>, Error> {
    let shape = || {
        wrong("--postgres", "neither a URL nor key=value pairs")
            .with_remedy("Give postgresql://user@host:5432/database, or host=... user=... dbname=...")
    };
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=').ok_or_else(shape)?;
        let key = key.trim_end();
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err(shape());
        }
        let (value, after) = take_value(after.trim_start()).ok_or_else(shape)?;
        pairs.push((key.to_owned(), value));
        rest = after.trim_start();
    }
    Ok(pairs)
}

/// A value, quoted or up to the next space, and what follows it.
fn take_value(text: &str) -> Option<(String, &str)> {
    let (quoted, text) = match text.strip_prefix('\'') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((index, c)) = chars.next() {
        match c {
            '\\' => value.push(chars.next()?.1),
            '\'' if quoted => return Some((value, &text[index + 1..])),
            c if !quoted && c.is_whitespace() => return Some((value, &text[index..])),
            c => value.push(c),
        }
    }
    if quoted { None } else { Some((value, "")) }
}

fn wrong(flag: &str, what: impl std::fmt::Display) -> Error {
    Error::new(Code::InvalidArgument, format!("{flag}: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn postgres_addresses_are_read_as_libpq_reads_them() {
        let url = postgres(
            "postgresql://re%20pl:p%40s:s@db.internal:6432/shop?sslmode=verify-full&sslrootcert=/ca.pem",
        )
        .unwrap();
        assert_eq!((url.host.as_str(), url.port, url.user.as_str()), ("db.internal", 6432, "re pl"));
        assert_eq!((url.password.as_deref(), url.database.as_str()), (Some("p@s:s"), "shop"));
        let tls = url.tls.unwrap();
        assert_eq!((tls.mode().as_str_name(), tls.ca.as_str()), ("VERIFY_FULL", "/ca.pem"));

        let pairs = postgres(r"host=::1 user = repl password='it\'s \\ here' dbname=shop").unwrap();
        assert_eq!((pairs.host.as_str(), pairs.port), ("::1", 0));
        assert_eq!(pairs.password.as_deref(), Some(r"it's \ here"));
        assert_eq!(postgres("postgres://u@[::1]:5/").unwrap().host, "::1");
        assert_eq!(postgres("postgres://u@h").unwrap().database, "u");
    }

    #[test]
    fn wrong_addresses_are_refused_without_showing_a_password() {
        let bad = [
            "",
            "shop",
            "host=h",
            "user=u",
            "host=h user=u password='hunter2",
            "host=h user=u port=x",
            "postgresql://u:hunter2@h:x/d",
            "postgresql://u:hunter2%4@h/d",
            "host=h user=u color=hunter2",
            "postgresql://u:hunter2@h/d?sslmode=maybe",
        ];
        for text in bad {
            let error = postgres(text).unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument, "{text}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
        for text in ["", "host:8123", "tcp://h:9000", "http://", "http://h?x=1", "http://h:x"] {
            assert_eq!(clickhouse(text).unwrap_err().code(), Code::InvalidArgument, "{text}");
        }
    }

    #[test]
    fn clickhouse_addresses_lose_credentials_and_database() {
        let config = clickhouse("http://default:pw@127.0.0.1:8124/shop").unwrap();
        assert_eq!((config.url.as_str(), config.user.as_str()), ("http://127.0.0.1:8124", "default"));
        assert_eq!((config.password.as_deref(), config.database.as_str()), (Some("pw"), "shop"));
        assert_eq!(clickhouse("https://ch").unwrap().url, "https://ch:8443");
        assert_eq!(clickhouse("http://[::1]:1/").unwrap().url, "http://[::1]:1");
    }
}
