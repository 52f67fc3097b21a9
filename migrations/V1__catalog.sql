-- The catalog: what is replicated, how far it is, and what went wrong. Rows of users' tables are never here.
--
-- States are text with a check by the program alone: a new state must not need the release before to know it.
-- Positions of the log are pg_lsn; sums of them with a mirror's base are numeric, for they may exceed it.

-- Who made an object on a source. Made once; two installations may share a source.
create table installation (
    only_one boolean primary key default true check (only_one),
    id text not null check (id ~ '^[0-9a-f]{6}$'),
    created_at timestamptz not null default now()
);

insert into installation (id) values (left(gen_random_uuid()::text, 6));

-- Databases that we connect to. The whole description is sealed, not only the password: hosts and users
-- are nobody's business either, and a peer has no field that a query needs.
create table peers (
    name text primary key check (name ~ '^[a-z][a-z0-9-]{0,39}$'),
    kind text not null,
    sealed bytea not null,
    key_id text not null,
    request_id text not null default '',
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    etag text not null default gen_random_uuid()::text
);

create table mirrors (
    name text primary key check (name ~ '^[a-z][a-z0-9-]{0,39}$'),
    source text not null references peers (name),
    destination text not null references peers (name),
    spec jsonb not null,
    rules integer not null,
    desired_state text not null default 'RUNNING',
    workflow_started boolean not null default false,
    -- When source and destination were ready for streaming; before, the mirror is in SETUP.
    prepared_at timestamptz,
    -- When a mirror of mode `snapshot` had everything.
    completed_at timestamptz,
    error jsonb,
    request_id text not null default '',
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    etag text not null default gen_random_uuid()::text
);

-- For the refusal to drop a peer in use.
create index mirrors_source on mirrors (source);
create index mirrors_destination on mirrors (destination);
create index mirrors_unstarted on mirrors (name) where not workflow_started;

create table streams (
    mirror text not null references mirrors (name) on delete cascade,
    n integer not null,
    slot text not null,
    publication text not null,
    -- The cluster that the slot was made on: 64 unsigned bits, as IDENTIFY_SYSTEM spells them.
    system_id text,
    timeline integer,
    -- Up to here every commit is in the destination; null before the slot was made.
    position pg_lsn,
    position_at timestamptz,
    -- Grows with every attempt. Writes of an attempt bear its number and are refused when it is not this one.
    lease bigint not null default 0,
    lease_until timestamptz,
    -- Added to every position in versions; raised when the source is another cluster or timeline.
    base numeric(20) not null default 0,
    -- No row with a position from here on was sent; raised before rows are sent.
    written_below pg_lsn not null default '0/0',
    verdict text not null default 'IDLE',
    reason jsonb,
    verdict_since timestamptz not null default now(),
    last_commit_at timestamptz,
    source_wal pg_lsn,
    source_wal_at timestamptz,
    slot_retained_bytes bigint,
    slot_status text,
    slot_measured_at timestamptz,
    primary key (mirror, n)
) with (fillfactor = 50); -- written twice a second: room for the new version on the same page

create table mirror_tables (
    id bigint generated always as identity primary key,
    mirror text not null,
    stream integer not null,
    source_schema text not null,
    source_name text not null,
    oid oid not null,
    destination text not null,
    plan jsonb not null,
    state text not null default 'PENDING',
    state_since timestamptz not null default now(),
    error jsonb,
    -- Copies are numbered from 1; `copying` says whether the one with this number is to be done now.
    copy_no integer not null default 0,
    copying boolean not null default false,
    planned boolean not null default false,
    epoch pg_lsn,
    read_end pg_lsn,
    copy_started_at timestamptz,
    copy_finished_at timestamptz,
    -- Rows below this version were physically deleted. 128 bits: (base + commit) << 64 | record.
    floor numeric(39) not null default 0,
    -- Of the last copy that ended; a running one is summed up from its partitions.
    rows_copied bigint not null default 0,
    bytes_copied bigint not null default 0,
    partitions_copied integer not null default 0,
    rows_estimated bigint not null default 0,
    bytes_total bigint not null default 0,
    inserts bigint not null default 0,
    updates bigint not null default 0,
    deletes bigint not null default 0,
    bytes_streamed bigint not null default 0,
    -- The session or prepared transaction that the copy waits for, in words.
    blocked_by text,
    foreign key (mirror, stream) references streams (mirror, n) on delete cascade
) with (fillfactor = 70); -- counters change all the time, indexed columns never

-- One row for a source table that is not dropped: a dropped one may be added again beside its old row.
create unique index mirror_tables_source on mirror_tables (mirror, source_schema, source_name) where state <> 'DROPPED';
create index mirror_tables_stream on mirror_tables (mirror, stream, id);

create table partitions (
    table_id bigint not null references mirror_tables (id) on delete cascade,
    copy_no integer not null,
    no integer not null,
    leaf_schema text not null,
    leaf_name text not null,
    leaf_oid oid not null,
    -- pg_relation_filenode when planned; another one means that rows moved without a change in the log.
    filenode oid not null,
    first_block bigint not null,
    -- Exclusive; null for no bound, which is so for the last range of each leaf.
    end_block bigint,
    -- Heap bytes when planned.
    bytes_planned bigint not null,
    state text not null default 'PENDING',
    -- Who reads it, or who read it.
    lease_owner text,
    lease_until timestamptz,
    rows bigint not null default 0,
    bytes bigint not null default 0,
    read_end pg_lsn,
    finished_at timestamptz,
    primary key (table_id, copy_no, no)
) with (fillfactor = 70);

-- What is left to do, in order; empty when the copy is done.
create index partitions_undone on partitions (table_id, copy_no, no) where state <> 'DONE';

-- What is being read: a mirror has a few of these at a time.
create index partitions_leased on partitions (table_id, copy_no) where state = 'LEASED';

-- What a stream did, one row for 10 s.
create table batches (
    mirror text not null references mirrors (name) on delete cascade,
    stream integer not null,
    at timestamptz not null,
    inserts bigint not null default 0,
    updates bigint not null default 0,
    deletes bigint not null default 0,
    bytes bigint not null default 0,
    flushes bigint not null default 0,
    took_ms bigint not null default 0,
    position pg_lsn,
    primary key (mirror, stream, at)
) with (fillfactor = 70);

create index batches_at on batches (at);

-- What happened. No reference to the mirror: how its drop went must outlive it.
create table events (
    id bigint generated always as identity primary key,
    mirror text not null,
    source_table text not null default '',
    at timestamptz not null default now(),
    severity text not null,
    code text not null default '',
    message text not null,
    remedy text not null default ''
);

create index events_mirror on events (mirror, id desc);
create index events_at on events (at);

-- Specs that are checked before they are stored, for 10 minutes.
create table drafts (
    id uuid primary key,
    sealed bytea not null,
    key_id text not null,
    result jsonb,
    created_at timestamptz not null default now()
);

create index drafts_created_at on drafts (created_at);
