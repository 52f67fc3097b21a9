-- Who may call the API, and what was done through it.

-- A token's secret is never here, only its hash. The id is the part of the token by which it is found.
create table api_tokens (
    id text primary key check (id ~ '^[0-9a-f]{12}$'),
    name text not null unique check (name ~ '^[a-z][a-z0-9-]{0,39}$'),
    role text not null,
    hash text not null,
    -- The name of the token that made it; empty for `millrace migrate`.
    created_by text not null default '',
    created_at timestamptz not null default now(),
    -- Null for one that does not expire.
    expires_at timestamptz,
    last_used_at timestamptz
);

-- Every call that changes something, or would have. No secrets: `request`, `before` and `after` are the API's
-- messages without the fields that hold them.
create table audit (
    id bigint generated always as identity primary key,
    at timestamptz not null default now(),
    caller text not null,
    role text not null,
    method text not null,
    -- The object, such as `mirrors/shop`; empty where there is none.
    subject text not null,
    request_id text not null,
    -- `OK`, or the stable code of the refusal.
    code text not null,
    request jsonb,
    before jsonb,
    after jsonb
);

create index audit_at on audit (at);
create index audit_subject on audit (subject, id);
create index audit_caller on audit (caller, id);
