"""The organisation as a whole: summary, thresholds and what other thresholds would do."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Depends, Request

from service.api.contract import InScope, OrgId, no_query, problems
from service.api.entry import AdminRoute, AdminWriteRoute, DetachedAdminRoute, LongAdminRoute
from service.api.models.organizations import (
    PreviewAnswer,
    PreviewRequest,
    SummaryAnswer,
    ThresholdsAnswer,
    ThresholdsBody,
    ThresholdsRequest,
)
from service.api.presenting import organizations as presenting
from service.api.services import services_of
from service.thresholds import Thresholds

VERSIONS: Final = 50

reads = APIRouter(route_class=AdminRoute)
previews = APIRouter(route_class=LongAdminRoute)
writes = APIRouter(route_class=AdminWriteRoute, dependencies=[Depends(no_query)])
detached = APIRouter(route_class=DetachedAdminRoute)


@detached.get("/summary", responses=problems(403), tags=["organisation"])
async def read_summary(org: OrgId, scope: InScope, request: Request) -> SummaryAnswer:
    """Members by level, movements of 30 days, overrides, coming falls, the last run."""
    found = await services_of(request).summaries.get(org)
    return presenting.summary(found, org, scope.standing)


@reads.get("/thresholds", responses=problems(403), tags=["thresholds"])
async def read_thresholds(org: OrgId, scope: InScope) -> ThresholdsAnswer:
    """The thresholds in force and the latest versions, newest first."""
    del org
    return presenting.thresholds_answer(await scope.organization.threshold_versions(VERSIONS))


@writes.put("/thresholds", responses=problems(403, 409, 412, 413, 422), tags=["thresholds"])
async def save_thresholds(org: OrgId, body: ThresholdsRequest, scope: InScope) -> ThresholdsAnswer:
    """Put a new version in force; members are evaluated anew within moments."""
    await scope.organization.actions.save_thresholds(
        org,
        numbers(body),
        base_version=body.base_version,
        author=scope.caller.user_id,
        note=body.note,
    )
    return presenting.thresholds_answer(await scope.organization.threshold_versions(VERSIONS))


@previews.post("/thresholds/preview", responses=problems(403, 413, 422), tags=["thresholds"])
async def preview_thresholds(org: OrgId, body: PreviewRequest, scope: InScope) -> PreviewAnswer:
    """What these thresholds would do; writes nothing."""
    return presenting.preview(
        await scope.organization.actions.preview_thresholds(org, numbers(body))
    )


def numbers(body: ThresholdsBody) -> Thresholds:
    """The numbers that were asked for."""
    return Thresholds(
        body.highly_engaged_min_events,
        body.moderate_min_events,
        body.activity_window_days,
        body.new_member_days,
        body.inactive_after_days,
    )
