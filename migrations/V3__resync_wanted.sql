-- Why a table is to be copied again although nobody asked for it: what was seen on the source or in its log. Kept
-- until the resync has begun, so that no crash forgets it.
alter table mirror_tables add column resync_wanted jsonb;
