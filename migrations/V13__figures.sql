-- What a person asks of a running mirror, and was not kept.

alter table mirror_tables add column truncates bigint not null default 0;

-- A batch by itself: its number, which part of the log it covers, and how many tables.
alter table batches
    add column id bigint generated always as identity,
    add column truncates bigint not null default 0,
    add column tables integer not null default 0,
    add column start_position pg_lsn,
    add column first_commit_at timestamptz,
    add column last_commit_at timestamptz,
    add column started_at timestamptz,
    add column written_at timestamptz not null default now();
create unique index batches_listed on batches (mirror, id);

alter table streams
    -- When an attempt held the lease last.
    add column attended_at timestamptz,
    -- Every commit until then, by the source's clock, is in the destination.
    add column caught_up_at timestamptz,
    -- When the position moved last.
    add column moved_at timestamptz,
    -- Rows written per second, over the last minute.
    add column rows_per_s double precision not null default 0,
    -- The slot as housekeeping saw it last, with how fast it fills.
    add column slot_seen jsonb,
    drop column slot_retained_bytes,
    drop column slot_status,
    drop column slot_measured_at;

-- Since when it is read: how fast a copy goes.
alter table partitions add column claimed_at timestamptz;

-- What Temporal's UI was told last.
alter table mirrors add column shown jsonb;
