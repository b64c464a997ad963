"""Who may enter an organisation, and as what. Looked up in each request, never remembered."""

from __future__ import annotations

from typing import Final

from service.api.problems import Problem, not_found
from service.api.values import OrganizationStatus, Standing

ADMIN_ONLY: Final = "Only administrators of this organisation can do this."
SUSPENDED: Final = (
    "The organisation is suspended: it can be read, and members can be erased, but not changed."
)


def is_member(standing: Standing, *, implicit_membership: bool) -> bool:
    """Whether the person belongs to the organisation now. `left` beats activity."""
    if standing.org_status is OrganizationStatus.DELETED:
        return False
    if standing.membership is not None:
        return standing.membership == "active"
    return implicit_membership and standing.has_activity


def is_admin(standing: Standing) -> bool:
    """Whether an active membership record of this organisation says so."""
    return (
        standing.org_status is not OrganizationStatus.DELETED
        and standing.membership == "active"
        and standing.role == "admin"
    )


def admit(standing: Standing, *, admin: bool, implicit_membership: bool) -> None:
    """Let in, or raise Problem: 404 for who is no member, 403 for a member who is no admin."""
    if not is_member(standing, implicit_membership=implicit_membership):
        raise not_found()
    if admin and not is_admin(standing):
        raise Problem(403, "forbidden", ADMIN_ONLY)


def admit_writing(standing: Standing) -> None:
    """Refuse changes while the organisation is suspended. Raises Problem."""
    if standing.org_status is OrganizationStatus.SUSPENDED:
        raise Problem(409, "suspended", SUSPENDED)
