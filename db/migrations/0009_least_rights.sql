-- Logins that are members of one role and nothing else.

-- The API looks, as itself, whether the schema is the one it was written for.
GRANT SELECT ON schema_migrations TO engagement_api;

-- What nobody needs: the triggers refuse it row by row, this refuses it before any row is looked at.
-- Erasing is the affair of engagement_eraser.
REVOKE UPDATE, DELETE ON
    engagement_level_history, engagement_override_history, thresholds
    FROM engagement_worker;
REVOKE INSERT, UPDATE, DELETE ON schema_migrations FROM engagement_worker;
