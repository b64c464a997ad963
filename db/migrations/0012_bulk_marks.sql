-- Marks of large batches of records, so of a backlog, and when the latest of a row was made.

ALTER TABLE due_batch
    ADD COLUMN is_bulk boolean NOT NULL DEFAULT false,
    ADD COLUMN last_marked_at timestamptz NOT NULL DEFAULT engagement_now();
CREATE INDEX due_batch_bulk ON due_batch (last_marked_at) WHERE is_bulk;
