-- The auth service asks what concerns one token.
CREATE INDEX revocations_by_target ON revocations (target_kind, target_id);

-- The sessions that one run of `durward revoke` ended, in pages: `revoked_why` names the run.
CREATE INDEX sessions_by_end ON sessions (revoked_why, id) WHERE revoked_why IS NOT NULL;
