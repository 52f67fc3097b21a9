//! One request, from its SQL to the bytes of its answer, in a clean session of the engine.
//!
//! I/O rim; it blocks, on a thread of its own.

use std::io::{self, Read, Write};

use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;
use lz4_flex::frame::FrameDecoder;
use tokio::sync::{mpsc, oneshot};

use super::body::{BodyReader, BodyWriter, PIECES, Piece};
use super::compression::BlockReader;
use super::engine::{Engine, Figures, Session};
use super::failure::{self, Failure};
use super::output::Output;
use super::pieces::{Prefix, prefix_of};
use super::request::{Encoding, Request, form_fields};
use super::running::Running;
use super::statement::{Opening, Statement, describe, opening, translate_kill};

/// Bytes of a request's body that are handed to the engine at once.
const APPEND_BYTES: usize = 1 << 20;
/// Largest SQL text: the engine's own `max_query_size` is smaller, but an INSERT ... VALUES that it
/// takes apart itself may be large.
const SQL_BYTES_MAX: usize = 256 << 20;
/// Format of results that neither the statement nor the client names one for.
const DEFAULT_FORMAT: &str = "TabSeparated";

/// What is sent back.
pub(super) struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: AnswerBody,
}

/// The bytes that are sent back.
pub(super) enum AnswerBody {
    Whole(Bytes),
    Pieces(mpsc::Receiver<Piece>),
}

/// What all requests share.
pub(super) struct Shared {
    pub engine: Engine,
    pub running: Running,
    /// Version of the engine, such as `26.7.2.1`.
    pub version: String,
    /// The engine's time zone.
    pub timezone: String,
}

/// Answers a request. The answer is sent as soon as its status is known; its body may follow.
pub(super) fn answer(shared: &Shared, request: Request, body: BodyReader, reply: oneshot::Sender<Answer>) {
    let mut exchange =
        Exchange { shared, output: request.output, query_id: request.query_id.clone(), reply: Some(reply) };
    if let Err(failure) = exchange.run(request, body) {
        exchange.refuse(&failure);
    }
}

/// The answer to a failure.
pub(super) fn refusal(version: &str, failure: &Failure) -> Answer {
    Answer {
        status: failure.status(),
        headers: vec![
            ("x-clickhouse-exception-code", failure.code.to_string()),
            ("content-type", "text/plain; charset=UTF-8".to_owned()),
        ],
        body: AnswerBody::Whole(signed(version, failure).into()),
    }
}

/// The text of a failure as the server signs it. Clients look for this end.
fn signed(version: &str, failure: &Failure) -> String {
    format!("{} (version {version} (official build))\n", failure.text)
}

struct Exchange<'a> {
    shared: &'a Shared,
    output: Encoding,
    query_id: String,
    reply: Option<oneshot::Sender<Answer>>,
}

impl Exchange<'_> {
    fn run(&mut self, mut request: Request, body: BodyReader) -> Result<(), Failure> {
        let encoding = request.body_encoding.ok_or_else(|| {
            Failure::new(
                failure::UNKNOWN_COMPRESSION,
                "UNKNOWN_COMPRESSION_METHOD",
                "Unknown Content-Encoding",
            )
        })?;
        let mut rest = decoded(body, encoding, request.body_in_blocks);
        if let Some(boundary) = request.boundary.take() {
            let form = read_rest(&mut rest, Vec::new())?;
            take_form(&mut request, &form, &boundary)?;
        }
        let _running = self.shared.running.enter(&self.query_id)?;
        let mut session = prepare(self.shared, &request)?;
        let mut text = request.query.clone().into_bytes();
        if !text.is_empty() {
            text.push(b'\n');
        }
        match read_opening(&mut text, &mut rest)? {
            Opening::Insert { head, format, data } if !request.is_read_only => {
                let (sql, first) = (&text[..head], &text[data..]);
                let figures = insert(&mut session, sql, &format, &request.params, first, &mut rest)?;
                self.reply_whole("", &figures, Bytes::new());
                Ok(())
            }
            _ => {
                let text = read_rest(&mut rest, text)?;
                self.statement(&mut session, &request, text)
            }
        }
    }

    fn statement(&mut self, session: &mut Session, request: &Request, text: Vec<u8>) -> Result<(), Failure> {
        let outline = session.outline(&text);
        if outline.statements > 1 {
            return Err(Failure::new(
                failure::SYNTAX_ERROR,
                "SYNTAX_ERROR",
                "Multi-statements are not allowed",
            ));
        }
        if request.is_read_only && outline.statements == 1 && !outline.is_read_only {
            let message =
                "Cannot execute query in readonly mode. For queries over HTTP, method GET implies readonly";
            return Err(Failure::new(failure::READONLY, "READONLY", message));
        }
        let statement = describe(&text);
        let text = if statement.is_kill { translate_kill(&text) } else { text };
        let default = request.format.as_deref().unwrap_or(DEFAULT_FORMAT);
        let format = statement.format.clone().unwrap_or_else(|| default.to_owned());
        if let Some(prefix) = in_pieces(&statement, &format, request)
            && self.stream(session, request, &text, default, &format, prefix)?
        {
            return Ok(());
        }
        let output = session.query(&text, default, &request.params)?;
        self.reply_whole(&format, &output.figures(), Bytes::copy_from_slice(output.bytes()));
        Ok(())
    }

    /// Sends a result piece by piece. `false` if it must be asked for as a whole instead: it is empty
    /// (and needs its beginning all the same), or not a statement that comes in pieces.
    fn stream(
        &mut self,
        session: &mut Session,
        request: &Request,
        text: &[u8],
        default: &str,
        format: &str,
        prefix: Prefix,
    ) -> Result<bool, Failure> {
        let mut rows = match session.select(text, default, &request.params) {
            Err(failure) if failure.text.contains("Streaming query is not supported") => return Ok(false),
            other => other?,
        };
        let Some(first) = rows.next()? else { return Ok(false) };
        let Some(second) = rows.next()? else {
            self.reply_whole(format, &first.figures(), Bytes::copy_from_slice(first.bytes()));
            return Ok(true);
        };
        let (pieces, receiver) = mpsc::channel(PIECES);
        let tag = exception_tag();
        let mut headers = self.headers(format, &first.figures());
        headers.push(("x-clickhouse-exception-tag", tag.clone()));
        self.send(Answer { status: 200, headers, body: AnswerBody::Pieces(receiver) });
        let mut output = Output::new(self.output, BodyWriter::new(pieces.clone()));
        let sent = (|| {
            output.write_all(first.bytes())?;
            let mut next = Some(second);
            while let Some(piece) = next {
                output.write_all(prefix.strip(piece.bytes()))?;
                next = match rows.next() {
                    Ok(next) => next,
                    Err(failure) => return self.break_off(&mut output, &tag, &failure),
                };
            }
            Ok(())
        })();
        if sent.and_then(|()| output.finish()).is_err() {
            // The client has gone; dropping the rows cancels the query.
            let _gone = pieces.blocking_send(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Ok(true)
    }

    /// Tells a failure in the midst of a body that began as a success (ClickHouse 25.11 and later,
    /// `WriteBufferFromHTTPServerResponse.cpp`).
    fn break_off(&self, output: &mut impl Write, tag: &str, failure: &Failure) -> io::Result<()> {
        let text = signed(&self.shared.version, failure);
        // On its own in the last piece: clients look only there.
        output.flush()?;
        write!(output, "\r\n__exception__\r\n{tag}\r\n{text}{} {tag}\r\n__exception__\r\n", text.len())
    }

    fn headers(&self, format: &str, figures: &Figures) -> Vec<(&'static str, String)> {
        let mut headers = vec![
            ("x-clickhouse-query-id", self.query_id.clone()),
            ("x-clickhouse-timezone", self.shared.timezone.clone()),
            ("x-clickhouse-summary", summary(figures)),
            ("content-type", content_type(format).to_owned()),
        ];
        if !format.is_empty() {
            headers.push(("x-clickhouse-format", format.to_owned()));
        }
        match self.output {
            Encoding::Lz4 => headers.push(("content-encoding", "lz4".to_owned())),
            Encoding::Gzip => headers.push(("content-encoding", "gzip".to_owned())),
            Encoding::Plain | Encoding::Blocks => {}
        }
        headers
    }

    fn reply_whole(&mut self, format: &str, figures: &Figures, body: Bytes) {
        let headers = self.headers(format, figures);
        let body = if self.output == Encoding::Plain { Ok(body) } else { self.encoded(&body) };
        match body {
            Ok(body) => self.send(Answer { status: 200, headers, body: AnswerBody::Whole(body) }),
            Err(error) => self.refuse(&Failure::internal(&error.to_string())),
        }
    }

    fn encoded(&self, plain: &[u8]) -> io::Result<Bytes> {
        let mut bytes = Vec::new();
        let mut output = Output::new(self.output, &mut bytes);
        output.write_all(plain)?;
        output.finish()?;
        Ok(bytes.into())
    }

    fn refuse(&mut self, failure: &Failure) {
        let mut answer = refusal(&self.shared.version, failure);
        answer.headers.push(("x-clickhouse-query-id", self.query_id.clone()));
        answer.headers.push(("x-clickhouse-timezone", self.shared.timezone.clone()));
        self.send(answer);
    }

    fn send(&mut self, answer: Answer) {
        if let Some(reply) = self.reply.take() {
            // A client that has gone gets no answer.
            let _gone = reply.send(answer);
        }
    }
}

/// A session with the request's database and settings.
fn prepare(shared: &Shared, request: &Request) -> Result<Session, Failure> {
    let mut session = shared.engine.session()?;
    if let Some(database) = &request.database {
        session.query(format!("USE {}", quoted(database, '`')).as_bytes(), DEFAULT_FORMAT, &[])?;
    }
    // Inserts wait in memory otherwise (the default of new versions), and there is no server here
    // whose shutdown would flush them.
    let ours =
        [("async_insert".to_owned(), "0".to_owned()), ("log_comment".to_owned(), request.query_id.clone())];
    let settings = ours.iter().chain(&request.settings);
    let list: Vec<String> =
        settings.map(|(name, value)| format!("{} = {}", setting(name), quoted(value, '\''))).collect();
    session.query(format!("SET {}", list.join(", ")).as_bytes(), DEFAULT_FORMAT, &[])?;
    Ok(session)
}

/// A setting's name, which comes from a URL, as SQL takes it.
fn setting(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.chars().all(is_plain) { name.to_owned() } else { quoted(name, '`') }
}

fn quoted(text: &str, quote: char) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push(quote);
    for c in text.chars() {
        if c == quote || c == '\\' {
            out.push('\\');
        }
        out.push(c);
    }
    out.push(quote);
    out
}

fn take_form(request: &mut Request, form: &[u8], boundary: &str) -> Result<(), Failure> {
    let fields = form_fields(form, boundary)
        .ok_or_else(|| Failure::new(failure::CUT, "CANNOT_READ_ALL_DATA", "The multipart body is damaged"))?;
    for (name, value) in fields {
        match name.strip_prefix("param_") {
            Some(param) => request.params.push((param.to_owned(), value)),
            None if name == "query" => request.query.push_str(&value),
            None => {}
        }
    }
    Ok(())
}

fn decoded(body: BodyReader, encoding: Encoding, in_blocks: bool) -> Box<dyn Read> {
    let body: Box<dyn Read> = match encoding {
        Encoding::Lz4 => Box::new(FrameDecoder::new(body)),
        Encoding::Gzip => Box::new(MultiGzDecoder::new(body)),
        Encoding::Plain | Encoding::Blocks => Box::new(body),
    };
    if in_blocks { Box::new(BlockReader::new(body)) } else { body }
}

/// Reads as much as decides what the request is.
fn read_opening(text: &mut Vec<u8>, rest: &mut dyn Read) -> Result<Opening, Failure> {
    let mut piece = vec![0; 64 << 10];
    loop {
        let found = opening(text, false);
        if found != Opening::NeedMore {
            return Ok(found);
        }
        let count = rest.read(&mut piece).map_err(|e| unreadable(&e))?;
        if count == 0 {
            return Ok(opening(text, true));
        }
        text.extend_from_slice(&piece[..count]);
        if text.len() > SQL_BYTES_MAX {
            return Err(too_large());
        }
    }
}

fn read_rest(rest: &mut dyn Read, mut text: Vec<u8>) -> Result<Vec<u8>, Failure> {
    rest.take(SQL_BYTES_MAX as u64 + 1).read_to_end(&mut text).map_err(|e| unreadable(&e))?;
    if text.len() > SQL_BYTES_MAX { Err(too_large()) } else { Ok(text) }
}

fn too_large() -> Failure {
    Failure::new(failure::TOO_LARGE, "QUERY_IS_TOO_LARGE", "The SQL text is too large")
}

fn unreadable(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::ConnectionAborted | io::ErrorKind::UnexpectedEof => {
            Failure::new(failure::CUT, "CANNOT_READ_ALL_DATA", "The body ended early")
        }
        _ => Failure::new(failure::CANNOT_DECOMPRESS, "CANNOT_DECOMPRESS", &error.to_string()),
    }
}

/// Hands the data to the engine as they come. A body that ends early writes nothing more.
fn insert(
    session: &mut Session,
    sql: &[u8],
    format: &str,
    params: &[(String, String)],
    first: &[u8],
    rest: &mut dyn Read,
) -> Result<Figures, Failure> {
    let mut insert = session.insert(sql, format, params)?;
    let mut is_wanted = first.is_empty() || insert.append(first);
    let mut data = vec![0; APPEND_BYTES];
    while is_wanted {
        let count = rest.read(&mut data).map_err(|e| unreadable(&e))?;
        if count == 0 {
            break;
        }
        is_wanted = insert.append(&data[..count]);
    }
    let figures = insert.finish()?.figures();
    if is_wanted { Ok(figures) } else { Err(Failure::internal("the engine stopped reading")) }
}

fn in_pieces(statement: &Statement, format: &str, request: &Request) -> Option<Prefix> {
    (statement.is_select && !request.waits_for_end).then(|| prefix_of(format)).flatten()
}

fn summary(figures: &Figures) -> String {
    let Figures { read_rows, read_bytes, written_rows, written_bytes, result_rows, result_bytes } = figures;
    format!(
        "{{\"read_rows\":\"{read_rows}\",\"read_bytes\":\"{read_bytes}\",\"written_rows\":\"{written_rows}\",\
         \"written_bytes\":\"{written_bytes}\",\"total_rows_to_read\":\"0\",\
         \"result_rows\":\"{result_rows}\",\"result_bytes\":\"{result_bytes}\"}}"
    )
}

fn content_type(format: &str) -> &'static str {
    match format {
        "JSON" | "JSONCompact" | "JSONStrings" | "JSONObjectEachRow" => "application/json; charset=UTF-8",
        "JSONEachRow" | "JSONLines" | "NDJSON" | "JSONCompactEachRow" => {
            "application/x-ndjson; charset=UTF-8"
        }
        "CSV" | "CSVWithNames" | "CSVWithNamesAndTypes" => "text/csv; charset=UTF-8",
        name if name.starts_with("TabSeparated") || name.starts_with("TSV") => {
            "text/tab-separated-values; charset=UTF-8"
        }
        "Native" | "RowBinary" | "RowBinaryWithNames" | "RowBinaryWithNamesAndTypes" | "Parquet" => {
            "application/octet-stream"
        }
        _ => "text/plain; charset=UTF-8",
    }
}

/// A word that no data hold by accident.
fn exception_tag() -> String {
    /// Length that ClickHouse uses.
    const LENGTH: usize = 16;
    uuid::Uuid::new_v4().simple().to_string().chars().take(LENGTH).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_from_a_url_cannot_leave_its_quotes() {
        assert_eq!(quoted(r"a'b\", '\''), r"'a\'b\\'");
        assert_eq!(quoted("a`b", '`'), r"`a\`b`");
        assert_eq!(setting("max_threads"), "max_threads");
        assert_eq!(setting("x = 1, y"), "`x = 1, y`");
    }
}
