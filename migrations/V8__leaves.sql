-- The relations that hold the rows of a table: itself, its partitions, tables that inherit. ATTACH, DETACH and DROP
-- leave no change in the log, so what is there is compared with what was known.
create table leaves (
    table_id bigint not null references mirror_tables (id) on delete cascade,
    oid oid not null,
    schema text not null,
    name text not null,
    -- When it became a part of the table, in a form that is only compared.
    attachment text not null,
    -- The copy that covers what was in it when it became a part; null while it waits for one.
    copy_no integer,
    -- An end of the log by which it was a part no more; kept until the stream has passed it.
    removed_at pg_lsn,
    primary key (table_id, oid)
);

-- Whether the copy that is due is only of the leaves that wait for one: nothing is swept at its end.
alter table mirror_tables add column partial boolean not null default false;
