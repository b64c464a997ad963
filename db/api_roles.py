"""Whether the role that confines the API exists and confines."""

from __future__ import annotations

from typing import Final

from db.pool import Connection

API_ROLE: Final = "engagement_api"

SELECT_ROLE: Final = """
SELECT r.rolsuper, r.rolbypassrls,
       pg_has_role(current_user, r.oid, 'SET') AS usable,
       EXISTS (SELECT FROM pg_roles p WHERE p.oid <> r.oid AND pg_has_role(r.oid, p.oid, 'MEMBER'))
           AS member_of_others
FROM pg_roles r WHERE r.rolname = $1"""

# Every table that the role may touch and that says whose a row is: confined for everybody, and by
# no policy that is open to the role but the one of this schema.
SELECT_UNCONFINED: Final = """
SELECT c.relname
FROM pg_class c
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
  AND has_table_privilege($1, c.oid, 'SELECT, INSERT, UPDATE, DELETE')
  AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND NOT a.attisdropped
              AND a.attname IN ('org_id', 'member_id', 'user_id'))
  AND c.relname <> 'http_session'
  AND NOT (c.relrowsecurity AND c.relforcerowsecurity
           AND pg_get_userbyid(c.relowner) <> $1
           AND NOT EXISTS (SELECT FROM pg_policy p
                           WHERE p.polrelid = c.oid AND p.polname <> 'one_organization'
                             AND (p.polroles && ARRAY[0::oid, to_regrole($1)::oid])))
ORDER BY c.relname"""


async def role_problems(connection: Connection) -> list[str]:
    """What keeps the API from starting, in words; empty when the role is there and confined."""
    role = await connection.fetchrow(SELECT_ROLE, API_ROLE)
    if role is None:
        return [f"role {API_ROLE} is missing: run `engagement migrate`"]
    problems = []
    if role["rolsuper"] or role["rolbypassrls"]:
        problems.append(f"role {API_ROLE} bypasses row-level security: ALTER ROLE it")
    if role["member_of_others"]:
        problems.append(f"role {API_ROLE} is a member of other roles: REVOKE them")
    if not role["usable"]:
        problems.append(
            f"the login may not SET ROLE {API_ROLE}: GRANT {API_ROLE} TO it WITH SET TRUE"
        )
    unconfined = [row["relname"] for row in await connection.fetch(SELECT_UNCONFINED, API_ROLE)]
    if unconfined:
        problems.append(f"row-level security is off or opened on {', '.join(unconfined)}")
    return problems
