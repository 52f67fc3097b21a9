-- Comparisons of a mirror's tables with their sources: what is asked for, the ranges that workers share, and
-- the rows that differ. Bounds of ranges and keys of rows are values of users' rows: they are kept for as long
-- as the comparison itself, and nowhere else.
create table verifications (
    id uuid primary key,
    mirror text not null references mirrors (name) on delete cascade,
    request jsonb not null,
    request_id text not null default '',
    state text not null default 'RUNNING',
    error jsonb,
    created_at timestamptz not null default now(),
    finished_at timestamptz
);

create index verifications_mirror on verifications (mirror, created_at desc);
create index verifications_created_at on verifications (created_at);
create unique index verifications_request on verifications (mirror, request_id) where request_id <> '';

create table verification_tables (
    verification uuid not null references verifications (id) on delete cascade,
    table_id bigint not null references mirror_tables (id) on delete cascade,
    source text not null,
    destination text not null,
    -- Why it is not compared, or not to its end.
    skipped text,
    -- Columns that cannot be compared, each with the reason.
    incomparable jsonb not null default '[]',
    append_only boolean not null default false,
    -- Ranges that the table was cut into; of a sample some of them are compared.
    cut integer not null default 0,
    rows_estimated bigint not null default 0,
    primary key (verification, table_id)
);

create table verification_ranges (
    verification uuid not null,
    table_id bigint not null,
    no integer not null,
    bounds jsonb not null,
    state text not null default 'PENDING',
    lease_owner text,
    lease_until timestamptz,
    source_rows bigint not null default 0,
    destination_rows bigint not null default 0,
    missing bigint not null default 0,
    extra bigint not null default 0,
    different bigint not null default 0,
    mended bigint not null default 0,
    unsettled bigint not null default 0,
    held_by text,
    finished_at timestamptz,
    primary key (verification, table_id, no),
    foreign key (verification, table_id) references verification_tables (verification, table_id) on delete cascade
) with (fillfactor = 70);

create index verification_ranges_undone on verification_ranges (verification, table_id, no) where state <> 'DONE';

create table verification_differences (
    verification uuid not null,
    table_id bigint not null,
    range_no integer not null,
    n integer not null,
    told jsonb not null,
    mended boolean not null,
    primary key (verification, table_id, range_no, n),
    foreign key (verification, table_id, range_no) references verification_ranges (verification, table_id, no)
        on delete cascade
);
