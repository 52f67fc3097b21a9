-- Values that became NULL because ClickHouse cannot hold them: {"column": count}, by names on the source.
alter table mirror_tables add column nulled jsonb not null default '{}';
-- When an event told of them last.
alter table mirror_tables add column nulled_told_at timestamptz;
-- Whether the destination table is being altered by the stored plan; no physical delete is begun meanwhile.
alter table mirror_tables add column altering boolean not null default false;
-- Until when a physical delete may be under way; the destination table is not altered before.
alter table mirror_tables add column purging_until timestamptz;
