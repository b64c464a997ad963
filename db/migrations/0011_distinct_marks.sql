-- Marks of which each member has one per cause, brought together from rows of several batches.

ALTER TABLE due_batch ADD COLUMN is_distinct boolean NOT NULL DEFAULT false;
