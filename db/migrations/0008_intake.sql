-- Intake by surrogate keys, and marks by the hundred.

-- Goes up whenever a member's row changes or goes, which only an erasure does. Whoever remembers
-- member_ids forgets them then. A sequence, since it must be seen by transactions of any snapshot.
CREATE SEQUENCE member_epoch;
GRANT SELECT ON member_epoch TO engagement_worker;

CREATE FUNCTION raise_member_epoch() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM nextval('member_epoch');
    RETURN NULL;
END
$$;
CREATE TRIGGER raise_epoch AFTER UPDATE OR DELETE ON member
    FOR EACH STATEMENT EXECUTE FUNCTION raise_member_epoch();

-- Marks that a batch of records makes: one row for up to 200 members, short enough to stay inline.
CREATE TABLE due_batch (
    mark_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    marked_at  timestamptz NOT NULL DEFAULT engagement_now(),
    cause      text COLLATE "C" NOT NULL,
    member_ids bigint[] NOT NULL
);
ALTER TABLE due_batch ALTER COLUMN member_ids SET STORAGE MAIN;
GRANT SELECT, INSERT, UPDATE, DELETE ON due_batch TO engagement_worker;
