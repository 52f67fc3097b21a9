-- Where the source could not decode its log, and how many attempts in a row ended there.
alter table streams add column undecodable jsonb;
