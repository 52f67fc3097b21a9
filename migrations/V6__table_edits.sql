-- What is left to do for a table that a person added to a running mirror (JOIN) or took out of it (LEAVE, or
-- ERASE where its destination table goes, too). A table that is to join is not streamed and not copied yet.
alter table mirror_tables add column edit text;

create index mirror_tables_edit on mirror_tables (mirror) where edit is not null;
