-- Names this log: who follows it elsewhere tells it from another one that counts from 1 as well.
ALTER TABLE revocation_head ADD COLUMN log_id TEXT NOT NULL DEFAULT '';
UPDATE revocation_head SET log_id = lower(hex(randomblob(16)));
