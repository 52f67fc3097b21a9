-- Rows below `purged_below` were deleted physically, last at `purged_at`. An insert that was begun before may
-- still bring some of them back, so it is repeated once when none can be alive any more; then `purged_at` is null.
alter table mirror_tables add column purged_below numeric(39);
alter table mirror_tables add column purged_at timestamptz;
create index mirror_tables_purged on mirror_tables (purged_at) where purged_at is not null;
