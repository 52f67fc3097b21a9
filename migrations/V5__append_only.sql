-- Append-only tables: rows arrive exactly once. A number of its own counts the copies that were begun, interrupted
-- ones included; what the copy saw is left out by the stream, which begins at the held position. The cut is
-- that of the batch that was sent last: the row before it, and its number of rows.
alter table mirror_tables
    add column append_run integer not null default 0,
    add column append_snapshot text,
    add column append_seen_below pg_lsn,
    add column append_hold pg_lsn,
    add column cut_version numeric(39),
    add column cut_taken integer,
    add column cut_rows integer;

-- What is acknowledged to the source stays below while copies of append-only tables are being begun.
alter table streams add column hold pg_lsn;
