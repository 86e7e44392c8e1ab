-- Grants of client certificates say of which, and what was taken back does not keep a name from being
-- granted anew: a digest is that of one grant at a time.

ALTER TABLE api_keys ADD COLUMN certificate TEXT;           -- its name, where a client certificate is granted
ALTER TABLE api_keys DROP CONSTRAINT api_keys_digest_key;
CREATE UNIQUE INDEX api_keys_by_digest ON api_keys (digest) WHERE revoked_at IS NULL;

-- So far only the audit says which names were granted: 'SERVICE [SCOPES] NAME'.
UPDATE api_keys SET certificate = made.name
    FROM (SELECT target, substr(detail, strpos(detail, '] ') + 2) AS name FROM audit
          WHERE action = 'api_key_made' AND strpos(detail, '] ') > 0) AS made
    WHERE made.target = api_keys.id;
