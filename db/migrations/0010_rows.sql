-- Every table that says whose organisation a row is of confines its rows, also those that only
-- workers use.

ALTER TABLE batch_failure ENABLE ROW LEVEL SECURITY;
ALTER TABLE batch_failure FORCE ROW LEVEL SECURITY;
CREATE POLICY everything ON batch_failure TO engagement_worker USING (true) WITH CHECK (true);
