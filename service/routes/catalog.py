"""``/passes`` and ``/architectures``: what this version can do."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from planish.contract.catalog import (
    ArchitectureCatalog,
    PassCatalog,
    architecture_catalog,
    pass_catalog,
)

router = APIRouter(tags=["catalogue"])

JSON = "application/json"


@router.get("/passes", responses={200: {"model": PassCatalog}})
async def list_passes() -> Response:
    """List the passes with their parameters, ranges, defaults, needs and sources."""
    return Response(pass_catalog().model_dump_json(), media_type=JSON)


@router.get("/architectures", responses={200: {"model": ArchitectureCatalog}})
async def list_architectures() -> Response:
    """List the architectures that bare weights can name, with the JSON Schema of their config."""
    return Response(architecture_catalog().model_dump_json(), media_type=JSON)
