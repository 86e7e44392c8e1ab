-- The auth service asks what concerns one token.
CREATE INDEX revocations_by_target ON revocations (target_kind, target_id);

-- The sessions that one run of `durward revoke` ended, in pages: `revoked_why` names the run.
CREATE INDEX sessions_by_end ON sessions (revoked_why, id) WHERE revoked_why IS NOT NULL;

-- What refers to an id is compared as the id is. Else no comparison of the two can use an index, and
-- each session that is looked at or deleted costs a walk through all refresh tokens.
ALTER TABLE user_roles ALTER COLUMN user_id TYPE TEXT COLLATE "C";
ALTER TABLE sessions ALTER COLUMN user_id TYPE TEXT COLLATE "C";
ALTER TABLE refresh_tokens ALTER COLUMN session_id TYPE TEXT COLLATE "C";
