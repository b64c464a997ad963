-- What is remembered of the erased: a keyed hash, so that late records can be recognised without
-- keeping whose they are, and the revision, which never restarts.

CREATE TABLE erasure (
    subject    bytea PRIMARY KEY,
    erased_at  timestamptz NOT NULL,
    revision   bigint NOT NULL DEFAULT 0,
    forget_at  timestamptz NOT NULL
);

-- The key lives with the data on purpose: it keeps erased ids out of exports and logs, and it goes
-- when the database goes. Two keys, since the hash is nested like HMAC.
CREATE TABLE erasure_key (
    only_row  boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    inner_key bytea NOT NULL,
    outer_key bytea NOT NULL
);
INSERT INTO erasure_key (inner_key, outer_key)
VALUES (uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())
            || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()),
        uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())
            || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));

-- Subject of a member is "org_id:user_id", of a user's profile updates "user_id".
CREATE FUNCTION erasure_subject(subject text) RETURNS bytea
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN (SELECT sha256(outer_key || sha256(inner_key || convert_to(subject, 'UTF8')))
            FROM erasure_key);
