-- Leaving ends an override even if the member is back before anybody has looked, and so does the end
-- of the organisation: several records may be applied at once, and only the current one is kept. So
-- when one became current that says so is noted, by the database's clock, like an override's time.
ALTER TABLE membership_fact ADD COLUMN left_at timestamptz;
ALTER TABLE organization_fact ADD COLUMN deleted_at timestamptz;
