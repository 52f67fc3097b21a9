//! The engine's C API: the only place that calls it. Everything it hands out is safe to use.
//!
//! I/O rim.

// A C library is called. Each block says why it is sound.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::NonNull;

use millrace_terms::Error;

use super::failure::Failure;
use crate::unavailable;

/// Handle of a connection: `chdb_connection`, opaque.
type Connection = *mut c_void;
/// A `chdb_result`, opaque.
type Reply = *mut c_void;
/// A `chdb_insert_stream`, opaque.
type Stream = *mut c_void;

type Run = unsafe extern "C" fn(
    Connection,
    *const c_char,
    usize,
    *const c_char,
    usize,
    *const *const c_char,
    *const usize,
    *const *const c_char,
    *const usize,
    usize,
) -> *mut c_void;
type Number = unsafe extern "C" fn(Reply) -> u64;

/// The functions of `chdb.h` that we call (chdb 26.7.3). They are plain pointers into a library that
/// is never unloaded: its threads run until the process ends.
#[derive(Clone, Copy)]
struct Api {
    connect: unsafe extern "C" fn(c_int, *const *const c_char) -> *mut Connection,
    close: unsafe extern "C" fn(*mut Connection),
    query: Run,
    stream_query: Run,
    fetch: unsafe extern "C" fn(Connection, Reply) -> Reply,
    cancel_query: unsafe extern "C" fn(Connection, Reply),
    stream_insert: Run,
    append: unsafe extern "C" fn(Stream, *const c_void, usize) -> c_int,
    done: unsafe extern "C" fn(Stream) -> Reply,
    insert_error: unsafe extern "C" fn(Stream) -> *const c_char,
    destroy_insert: unsafe extern "C" fn(Stream),
    classify:
        unsafe extern "C" fn(Connection, *const c_char, usize, *const c_char, usize, *mut Analysis) -> c_int,
    error: unsafe extern "C" fn(Reply) -> *const c_char,
    buffer: unsafe extern "C" fn(Reply) -> *const u8,
    length: unsafe extern "C" fn(Reply) -> usize,
    rows: Number,
    bytes: Number,
    storage_rows: Number,
    storage_bytes: Number,
    rows_written: Number,
    bytes_written: Number,
    destroy: unsafe extern "C" fn(Reply),
}

impl Api {
    fn load(path: &Path) -> Result<Self, libloading::Error> {
        // SAFETY: the file is the pinned library, verified by its checksum. Its initialisers are C++
        // static constructors without requirements; the types below are those of its header.
        unsafe {
            let library = libloading::Library::new(path)?;
            // Before the first connection: the engine would take over the process's signals.
            let set_handlers: unsafe extern "C" fn(c_int) =
                *library.get(b"chdb_set_signal_handlers_enabled\0")?;
            set_handlers(0);
            let api = Self {
                connect: *library.get(b"chdb_connect\0")?,
                close: *library.get(b"chdb_close_conn\0")?,
                query: *library.get(b"chdb_query_with_params_n\0")?,
                stream_query: *library.get(b"chdb_stream_query_with_params_n\0")?,
                fetch: *library.get(b"chdb_stream_fetch_result\0")?,
                cancel_query: *library.get(b"chdb_stream_cancel_query\0")?,
                stream_insert: *library.get(b"chdb_stream_insert_with_params_n\0")?,
                append: *library.get(b"chdb_stream_append\0")?,
                done: *library.get(b"chdb_stream_done\0")?,
                insert_error: *library.get(b"chdb_stream_insert_error\0")?,
                destroy_insert: *library.get(b"chdb_destroy_insert_stream\0")?,
                classify: *library.get(b"chdb_classify_query_n\0")?,
                error: *library.get(b"chdb_result_error\0")?,
                buffer: *library.get(b"chdb_result_buffer\0")?,
                length: *library.get(b"chdb_result_length\0")?,
                rows: *library.get(b"chdb_result_rows_read\0")?,
                bytes: *library.get(b"chdb_result_bytes_read\0")?,
                storage_rows: *library.get(b"chdb_result_storage_rows_read\0")?,
                storage_bytes: *library.get(b"chdb_result_storage_bytes_read\0")?,
                rows_written: *library.get(b"chdb_result_rows_written\0")?,
                bytes_written: *library.get(b"chdb_result_bytes_written\0")?,
                destroy: *library.get(b"chdb_destroy_query_result\0")?,
            };
            std::mem::forget(library);
            Ok(api)
        }
    }
}

/// `chdb_query_analysis_v1`.
#[repr(C)]
struct Analysis {
    struct_size: u32,
    statement_count: u32,
    flags: u32,
    query_class: u32,
}

/// What a text of SQL would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outline {
    /// Number of statements; 0 if the text cannot be parsed.
    pub statements: u32,
    /// Whether none of them changes anything.
    pub is_read_only: bool,
}

/// The engine on its directory. There can be one in a process.
pub(super) struct Engine {
    api: Api,
    path: CString,
    /// The engine shuts down when its last connection is closed, so one is held.
    _keeper: Session,
}

impl Engine {
    /// Loads the library and opens the directory.
    pub fn open(library: &Path, dir: &Path) -> Result<Self, Error> {
        let api = Api::load(library)
            .map_err(|e| unavailable(format!("{} cannot be loaded: {e}", library.display())))?;
        let path = [b"--path=", dir.as_os_str().as_bytes()].concat();
        let path = CString::new(path).map_err(|e| unavailable(format!("{}: {e}", dir.display())))?;
        let keeper = Session::open(api, &path)
            .ok_or_else(|| unavailable(format!("the engine cannot open {}", dir.display())))?;
        Ok(Self { api, path, _keeper: keeper })
    }

    /// A clean session. It takes 70 microseconds, so that each request has one of its own.
    pub fn session(&self) -> Result<Session, Failure> {
        Session::open(self.api, &self.path)
            .ok_or_else(|| Failure::internal("the engine refuses another session"))
    }
}

/// A session: settings, current database, one statement at a time.
pub(super) struct Session {
    api: Api,
    owner: NonNull<Connection>,
}

// SAFETY: the library's functions lock the connection themselves, and none keeps state of the
// calling thread. It is not `Sync`, so calls do not overlap.
unsafe impl Send for Session {}
// SAFETY: of the shared sessions (the engine's keeper) nothing but the existence is used.
unsafe impl Sync for Engine {}
// SAFETY: as for `Session`; the rest of it is plain data.
unsafe impl Send for Engine {}

impl Session {
    fn open(api: Api, path: &CStr) -> Option<Self> {
        let args = [c"clickhouse".as_ptr(), path.as_ptr()];
        // SAFETY: two strings that end in NUL and outlive the call, which copies them.
        let owner = unsafe { (api.connect)(2, args.as_ptr()) };
        NonNull::new(owner).map(|owner| Self { api, owner })
    }

    fn handle(&self) -> Connection {
        // SAFETY: `owner` came from chdb_connect and is closed only by `drop`.
        unsafe { *self.owner.as_ptr() }
    }

    fn run(&self, function: Run, sql: &[u8], format: &str, params: &[(String, String)]) -> *mut c_void {
        let names: Vec<_> = params.iter().map(|(name, _)| name.as_ptr().cast()).collect();
        let name_lengths: Vec<_> = params.iter().map(|(name, _)| name.len()).collect();
        let values: Vec<_> = params.iter().map(|(_, value)| value.as_ptr().cast()).collect();
        let value_lengths: Vec<_> = params.iter().map(|(_, value)| value.len()).collect();
        // SAFETY: each pointer goes with its length, the arrays have `params.len()` elements each, all
        // outlive the call, and the library copies what it keeps.
        unsafe {
            function(
                self.handle(),
                sql.as_ptr().cast(),
                sql.len(),
                format.as_ptr().cast(),
                format.len(),
                names.as_ptr(),
                name_lengths.as_ptr(),
                values.as_ptr(),
                value_lengths.as_ptr(),
                params.len(),
            )
        }
    }

    /// Runs a statement to its end.
    pub fn query(
        &mut self,
        sql: &[u8],
        format: &str,
        params: &[(String, String)],
    ) -> Result<Output, Failure> {
        Output::new(self.api, self.run(self.api.query, sql, format, params))
    }

    /// Begins a SELECT whose result comes in pieces.
    pub fn select(
        &mut self,
        sql: &[u8],
        format: &str,
        params: &[(String, String)],
    ) -> Result<Rows<'_>, Failure> {
        let query = Output::new(self.api, self.run(self.api.stream_query, sql, format, params))?;
        Ok(Rows { session: self, query, is_over: false })
    }

    /// Begins an INSERT whose data come in pieces. `sql` ends before its FORMAT clause.
    pub fn insert(
        &mut self,
        sql: &[u8],
        format: &str,
        params: &[(String, String)],
    ) -> Result<Insert<'_>, Failure> {
        let stream = self.run(self.api.stream_insert, sql, format, params);
        let stream = NonNull::new(stream).ok_or_else(|| Failure::internal("the engine refuses an insert"))?;
        let insert = Insert { api: self.api, stream, session: PhantomData };
        match insert.error() {
            Some(error) => Err(error),
            None => Ok(insert),
        }
    }

    /// What a text would do, without doing it.
    pub fn outline(&mut self, sql: &[u8]) -> Outline {
        /// `CHDB_QUERY_READ_ONLY`.
        const READ_ONLY: u32 = 0;
        let mut analysis = Analysis {
            struct_size: size_of::<Analysis>() as u32,
            statement_count: 0,
            flags: 0,
            query_class: u32::MAX,
        };
        // SAFETY: `sql` goes with its length; the database may be null; `analysis` bears its size.
        let failed = unsafe {
            (self.api.classify)(
                self.handle(),
                sql.as_ptr().cast(),
                sql.len(),
                std::ptr::null(),
                0,
                &raw mut analysis,
            )
        };
        let statements = if failed == 0 { analysis.statement_count } else { 0 };
        Outline { statements, is_read_only: analysis.query_class == READ_ONLY }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // SAFETY: it came from chdb_connect, and is not used again.
        unsafe { (self.api.close)(self.owner.as_ptr()) }
    }
}

/// A result, or a piece of one.
pub(super) struct Output {
    api: Api,
    reply: NonNull<c_void>,
}

/// Figures of a result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Figures {
    pub read_rows: u64,
    pub read_bytes: u64,
    pub written_rows: u64,
    pub written_bytes: u64,
    pub result_rows: u64,
    pub result_bytes: u64,
}

impl Output {
    fn new(api: Api, reply: Reply) -> Result<Self, Failure> {
        let reply = NonNull::new(reply).ok_or_else(|| Failure::internal("the engine gave no result"))?;
        let output = Self { api, reply };
        // SAFETY: a result of the library, not yet destroyed; the text lives as long as it.
        match unsafe { text((api.error)(reply.as_ptr())) } {
            Some(error) => Err(Failure::of_engine(&error)),
            None => Ok(output),
        }
    }

    /// The bytes, in the format asked for.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the buffer belongs to the result and has that length; it is null only if empty.
        unsafe {
            let length = (self.api.length)(self.reply.as_ptr());
            let buffer = (self.api.buffer)(self.reply.as_ptr());
            if buffer.is_null() || length == 0 { &[] } else { std::slice::from_raw_parts(buffer, length) }
        }
    }

    /// What it cost.
    pub fn figures(&self) -> Figures {
        // SAFETY: the functions read numbers of a result that is not yet destroyed.
        let number = |function: Number| unsafe { function(self.reply.as_ptr()) };
        Figures {
            read_rows: number(self.api.storage_rows),
            read_bytes: number(self.api.storage_bytes),
            written_rows: number(self.api.rows_written),
            written_bytes: number(self.api.bytes_written),
            result_rows: number(self.api.rows),
            result_bytes: number(self.api.bytes),
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // SAFETY: a result of the library, destroyed once.
        unsafe { (self.api.destroy)(self.reply.as_ptr()) }
    }
}

/// A running SELECT. Dropping it cancels it.
pub(super) struct Rows<'s> {
    session: &'s Session,
    query: Output,
    is_over: bool,
}

impl Rows<'_> {
    /// The next piece of the result, `None` at its end. Blocks.
    pub fn next(&mut self) -> Result<Option<Output>, Failure> {
        if self.is_over {
            return Ok(None);
        }
        // SAFETY: the session outlives this, and the query is not yet destroyed.
        let reply = unsafe { (self.session.api.fetch)(self.session.handle(), self.query.reply.as_ptr()) };
        let piece = Output::new(self.session.api, reply).inspect_err(|_| self.is_over = true)?;
        self.is_over = piece.bytes().is_empty();
        Ok((!self.is_over).then_some(piece))
    }
}

impl Drop for Rows<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            // SAFETY: as for `next`.
            unsafe { (self.session.api.cancel_query)(self.session.handle(), self.query.reply.as_ptr()) }
        }
    }
}

/// A running INSERT. Dropping it without [`Insert::finish`] cancels it.
pub(super) struct Insert<'s> {
    api: Api,
    stream: NonNull<c_void>,
    session: PhantomData<&'s mut Session>,
}

impl Insert<'_> {
    /// Hands over data. Blocks while the engine is busy. `false` if it does not want any more:
    /// [`Insert::finish`] tells why.
    pub fn append(&mut self, data: &[u8]) -> bool {
        // SAFETY: the stream is not yet destroyed; the data go with their length and are copied.
        unsafe { (self.api.append)(self.stream.as_ptr(), data.as_ptr().cast(), data.len()) == 0 }
    }

    /// Ends the data and waits until all is written.
    pub fn finish(self) -> Result<Output, Failure> {
        // SAFETY: the stream is not yet destroyed.
        Output::new(self.api, unsafe { (self.api.done)(self.stream.as_ptr()) })
    }

    fn error(&self) -> Option<Failure> {
        // SAFETY: the stream is not yet destroyed, and the text lives as long as it.
        unsafe { text((self.api.insert_error)(self.stream.as_ptr())) }.map(|error| Failure::of_engine(&error))
    }
}

impl Drop for Insert<'_> {
    fn drop(&mut self) {
        // SAFETY: destroyed once; an unfinished one is cancelled by it.
        unsafe { (self.api.destroy_insert)(self.stream.as_ptr()) }
    }
}

/// A C string's text, `None` for null.
///
/// # Safety
/// `pointer` is null or a string that ends in NUL.
unsafe fn text(pointer: *const c_char) -> Option<String> {
    // SAFETY: the caller's promise.
    (!pointer.is_null()).then(|| unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned())
}
