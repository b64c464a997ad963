-- Who is erased by an administrator or by command goes with all that is known, also with what a
-- producer whose clock is fast has dated after the database's: else the member is back at once.

-- A new owner must be allowed to create in the schema for the moment of the change.
GRANT CREATE ON SCHEMA public TO engagement_eraser;
SET LOCAL ROLE engagement_eraser;
CREATE FUNCTION erase_member_now(
    p_org_id text, p_user_id text, p_revision bigint, p_memory interval,
    OUT was_known boolean, OUT removed jsonb
)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    erased_at CONSTANT timestamptz := engagement_now();
    gone      bigint;
    ahead     bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(erasure_lock());
    SELECT m.member_id INTO gone FROM member m WHERE m.org_id = p_org_id AND m.user_id = p_user_id;
    UPDATE attendance_fact f SET recorded_at = erased_at
    WHERE f.member_id = gone AND f.recorded_at > erased_at;
    UPDATE rsvp_fact f SET recorded_at = erased_at
    WHERE f.member_id = gone AND f.recorded_at > erased_at;
    UPDATE membership_fact f SET recorded_at = erased_at
    WHERE f.member_id = gone AND f.recorded_at > erased_at;
    SELECT e.was_known, e.removed INTO was_known, removed
    FROM erase_member(p_org_id, p_user_id, erased_at, p_revision, p_memory) e;
    -- It was the user's last organisation.
    IF removed ? 'profile_updates' THEN
        DELETE FROM profile_fact f WHERE f.user_id = p_user_id;
        GET DIAGNOSTICS ahead = ROW_COUNT;
        removed := removed || jsonb_build_object(
            'profile_updates', (removed ->> 'profile_updates')::bigint + ahead);
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION erase_member_here(
    p_user_id text, p_revision bigint, p_memory interval,
    OUT was_known boolean, OUT removed jsonb
)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF coalesce(engagement_org(), '') = '' THEN
        RAISE EXCEPTION 'no organisation is set' USING ERRCODE = 'insufficient_privilege';
    END IF;
    SELECT e.was_known, e.removed INTO was_known, removed
    FROM erase_member_now(engagement_org(), p_user_id, p_revision, p_memory) e;
END
$$;

REVOKE ALL ON FUNCTION erase_member_now(text, text, bigint, interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION erase_member_now(text, text, bigint, interval) TO engagement_worker;
RESET ROLE;
REVOKE CREATE ON SCHEMA public FROM engagement_eraser;
