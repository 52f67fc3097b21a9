-- Until when holders of a stream's lease that were replaced may still be sending. In a column of its own: a
-- holder that gives its own lease back must not wipe out the time of the one that it replaced.
alter table streams add column fenced_until timestamptz;
