-- Names this log: who follows it elsewhere tells it from another one that counts from 1 as well.
ALTER TABLE revocation_head ADD COLUMN log_id TEXT COLLATE "C" NOT NULL DEFAULT '';
UPDATE revocation_head SET log_id = replace(gen_random_uuid()::TEXT, '-', '');
