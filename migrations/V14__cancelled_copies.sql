-- A copy that a user stopped. What it has copied stays, and the stream goes on writing to the table; it goes on
-- from its partitions that are done when the user says so.
alter table mirror_tables add column copy_cancelled boolean not null default false;
