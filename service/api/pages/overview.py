"""The first page: who stands where, what moved, what is about to."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from service.api.contract import InScope
from service.api.pages.charts import distribution, movement_chart
from service.api.pages.doors import DetachedPageRoute
from service.api.pages.rendering import context, is_part, page, part, refreshed
from service.api.services import services_of

detached = APIRouter(route_class=DetachedPageRoute, include_in_schema=False)


@detached.get("")
async def overview(request: Request, scope: InScope) -> Response:
    """The page, or the part of it that refreshes itself."""
    found = await services_of(request).summaries.get(scope.org_id)
    total = sum(found.levels.values())
    values = context(
        request,
        scope,
        active="overview",
        title="Overview",
        summary=found,
        total=total,
        distribution=distribution(found.levels),
        chart=movement_chart(found.movements, found.as_of.date()),
    )
    rendered = part("_overview.html", values)
    if is_part(request):
        return refreshed(request, rendered)
    return page("overview.html", {**values, "part": rendered.html})
