-- API keys of services. A key's row is its grant too: it has a place in the log, like a revocation.

CREATE TABLE api_keys (
    id         TEXT   COLLATE "C" NOT NULL PRIMARY KEY,     -- the public part of the key; never given twice
    sequence   BIGINT NOT NULL UNIQUE,                      -- the grant's place in the log
    issuer     TEXT   NOT NULL,
    digest     BYTEA  NOT NULL UNIQUE,                      -- SHA-256 of the whole key; the key is nowhere
    service    TEXT   NOT NULL,
    scopes     TEXT   NOT NULL,                             -- separated by spaces
    created_at BIGINT NOT NULL,
    created_by TEXT   NOT NULL,                             -- a user's id, or 'local operator'
    expires_at BIGINT,                                      -- nothing: it holds until it is revoked
    revoked_at BIGINT,
    revoked_by TEXT,
    CHECK ((revoked_at IS NULL) = (revoked_by IS NULL))
);

-- The log takes two more kinds of targets.
ALTER TABLE revocations DROP CONSTRAINT revocations_target_kind_check;
ALTER TABLE revocations ADD CONSTRAINT revocations_target_kind_check CHECK (target_kind IN
    ('token', 'session', 'user', 'client', 'signing_key', 'api_key', 'everyone'));
