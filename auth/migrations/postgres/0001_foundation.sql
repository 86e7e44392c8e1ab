-- The same tables as for SQLite. What is sorted by is compared byte by byte, as SQLite does it.
-- Instants are seconds since 1970-01-01T00:00:00Z. Ids are opaque ASCII.

CREATE TABLE users (
    id                  TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    username            TEXT COLLATE "C" NOT NULL UNIQUE,   -- canonical form only
    password_hash       TEXT    NOT NULL,                   -- PHC string
    epoch               BIGINT  NOT NULL DEFAULT 0,         -- only ever rises
    banned              BOOLEAN NOT NULL DEFAULT FALSE,
    banned_at           BIGINT,
    ban_reason          TEXT,
    created_at          BIGINT  NOT NULL,
    password_changed_at BIGINT  NOT NULL
);

CREATE TABLE user_roles (
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    role    TEXT NOT NULL,
    PRIMARY KEY (user_id, role)
);

CREATE TABLE sessions (
    id                TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    user_id           TEXT    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    client_id         TEXT    NOT NULL,
    client_address    TEXT    NOT NULL,
    user_agent        TEXT    NOT NULL,
    created_at        BIGINT  NOT NULL,
    last_used_at      BIGINT  NOT NULL,
    expires_at        BIGINT  NOT NULL,                     -- absolute; no refresh moves it
    access_expires_at BIGINT  NOT NULL,                     -- the latest exp among its access tokens
    revoked           BOOLEAN NOT NULL DEFAULT FALSE,       -- its refresh tokens are refused
    revoked_at        BIGINT,
    revoked_why       TEXT,
    blacklisted       BOOLEAN NOT NULL DEFAULT FALSE        -- the revocation log refuses its access tokens
);
CREATE INDEX sessions_by_user ON sessions (user_id, revoked, created_at);
CREATE INDEX sessions_by_expiry ON sessions (expires_at);

CREATE TABLE refresh_tokens (
    hash        BYTEA  NOT NULL PRIMARY KEY,                -- SHA-256 of the token; the token is nowhere
    session_id  TEXT   NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    parent      BYTEA,
    state       TEXT   NOT NULL CHECK (state IN ('valid', 'consumed', 'revoked')),
    issued_at   BIGINT NOT NULL,
    expires_at  BIGINT NOT NULL,
    consumed_at BIGINT,
    successor   BYTEA,
    nonce       BYTEA,                                      -- with the key outside SQL it gives the successor again
    CHECK ((state = 'consumed') = (consumed_at IS NOT NULL AND successor IS NOT NULL AND nonce IS NOT NULL))
);
CREATE INDEX refresh_tokens_by_session ON refresh_tokens (session_id, state);
CREATE INDEX refresh_tokens_by_expiry ON refresh_tokens (expires_at);

-- The one row whose update orders the log: it stays locked until the commit that takes a number.
CREATE TABLE revocation_head (
    id       INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    sequence BIGINT  NOT NULL
);
INSERT INTO revocation_head (id, sequence) VALUES (1, 0);

CREATE TABLE revocations (
    sequence    BIGINT NOT NULL PRIMARY KEY,
    issuer      TEXT   NOT NULL,
    target_kind TEXT   NOT NULL CHECK (target_kind IN ('token', 'session', 'user', 'client', 'everyone')),
    target_id   TEXT   NOT NULL,
    bar_kind    TEXT   NOT NULL CHECK (bar_kind IN ('always', 'epoch_below', 'issued_at_or_before')),
    bar_value   BIGINT,
    forget_at   BIGINT,                                     -- nothing covered by it is valid then
    created_at  BIGINT NOT NULL
);
CREATE INDEX revocations_by_forgetting ON revocations (forget_at);

CREATE TABLE audit (
    id     BIGINT  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at     BIGINT  NOT NULL,
    actor  TEXT    NOT NULL,                                -- a user's id, or 'local operator'
    action TEXT    NOT NULL,
    target TEXT    NOT NULL,                                -- a user's id
    detail TEXT    NOT NULL
);
CREATE INDEX audit_by_time ON audit (at);
