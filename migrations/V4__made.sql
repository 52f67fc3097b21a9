-- Whether the destination table was made by the mirror: set before it is made, where none was. Until a mirror is
-- prepared, only such tables are dropped with it; afterwards all of its tables are its own.
alter table mirror_tables add column made boolean not null default false;
