-- Grants of client certificates say of which, and what was taken back does not keep a name from being
-- granted anew: a digest is that of one grant at a time. A UNIQUE cannot be dropped in place everywhere.

CREATE TABLE api_keys_anew (
    id          TEXT   NOT NULL PRIMARY KEY,                -- the public part of the key; never given twice
    sequence    BIGINT NOT NULL UNIQUE,                     -- the grant's place in the log
    issuer      TEXT   NOT NULL,
    digest      BLOB   NOT NULL,                            -- SHA-256 of the whole key, which is nowhere, or of a name
    certificate TEXT,                                       -- that name, where a client certificate is granted
    service     TEXT   NOT NULL,
    scopes      TEXT   NOT NULL,                            -- separated by spaces
    created_at  BIGINT NOT NULL,
    created_by  TEXT   NOT NULL,                            -- a user's id, or 'local operator'
    expires_at  BIGINT,                                     -- nothing: it holds until it is revoked
    revoked_at  BIGINT,
    revoked_by  TEXT,
    CHECK ((revoked_at IS NULL) = (revoked_by IS NULL))
);
INSERT INTO api_keys_anew (id, sequence, issuer, digest, service, scopes, created_at, created_by, expires_at,
                           revoked_at, revoked_by)
    SELECT id, sequence, issuer, digest, service, scopes, created_at, created_by, expires_at, revoked_at, revoked_by
    FROM api_keys;
DROP TABLE api_keys;
ALTER TABLE api_keys_anew RENAME TO api_keys;
CREATE UNIQUE INDEX api_keys_by_digest ON api_keys (digest) WHERE revoked_at IS NULL;

-- So far only the audit says which names were granted: 'SERVICE [SCOPES] NAME'.
UPDATE api_keys SET certificate = made.name
    FROM (SELECT target, substr(detail, instr(detail, '] ') + 2) AS name FROM audit
          WHERE action = 'api_key_made' AND instr(detail, '] ') > 0) AS made
    WHERE made.target = api_keys.id;
