-- API keys of services. A key's row is its grant too: it has a place in the log, like a revocation.

CREATE TABLE api_keys (
    id         TEXT   NOT NULL PRIMARY KEY,                 -- the public part of the key; never given twice
    sequence   BIGINT NOT NULL UNIQUE,                      -- the grant's place in the log
    issuer     TEXT   NOT NULL,
    digest     BLOB   NOT NULL UNIQUE,                      -- SHA-256 of the whole key; the key is nowhere
    service    TEXT   NOT NULL,
    scopes     TEXT   NOT NULL,                             -- separated by spaces
    created_at BIGINT NOT NULL,
    created_by TEXT   NOT NULL,                             -- a user's id, or 'local operator'
    expires_at BIGINT,                                      -- nothing: it holds until it is revoked
    revoked_at BIGINT,
    revoked_by TEXT,
    CHECK ((revoked_at IS NULL) = (revoked_by IS NULL))
);

-- The log takes two more kinds of targets. A CHECK cannot be changed in place everywhere.
CREATE TABLE revocations_anew (
    sequence    BIGINT NOT NULL PRIMARY KEY,
    issuer      TEXT   NOT NULL,
    target_kind TEXT   NOT NULL CHECK (target_kind IN
                ('token', 'session', 'user', 'client', 'signing_key', 'api_key', 'everyone')),
    target_id   TEXT   NOT NULL,
    bar_kind    TEXT   NOT NULL CHECK (bar_kind IN ('always', 'epoch_below', 'issued_at_or_before')),
    bar_value   BIGINT,
    forget_at   BIGINT,                                     -- nothing covered by it is valid then
    created_at  BIGINT NOT NULL
);
INSERT INTO revocations_anew (sequence, issuer, target_kind, target_id, bar_kind, bar_value, forget_at, created_at)
    SELECT sequence, issuer, target_kind, target_id, bar_kind, bar_value, forget_at, created_at FROM revocations;
DROP TABLE revocations;
ALTER TABLE revocations_anew RENAME TO revocations;
CREATE INDEX revocations_by_forgetting ON revocations (forget_at);
