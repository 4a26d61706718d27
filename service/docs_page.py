"""``/docs`` without the Internet: Swagger UI from the package fastapi-offline, no CDN."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from fastapi import APIRouter
from starlette.responses import FileResponse, RedirectResponse, Response

from planish.contract.errors import NotFound

router = APIRouter(include_in_schema=False)

ASSETS = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}
_CACHE = {"cache-control": "public, max-age=86400"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Planish API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
_START = """SwaggerUIBundle({
  url: "/openapi.json", dom_id: "#swagger-ui", deepLinking: true, persistAuthorization: false,
  presets: [SwaggerUIBundle.presets.apis], layout: "BaseLayout", validatorUrl: null
});
"""


@router.get("/")
async def root() -> Response:
    """Go to the documentation."""
    return RedirectResponse("/docs", 307)


@router.get("/docs")
async def docs() -> Response:
    """Show the API's documentation."""
    headers = {"content-security-policy": _POLICY}
    return Response(_PAGE, headers=headers, media_type="text/html")


@router.get("/docs/start.js")
async def start() -> Response:
    """Start Swagger UI."""
    return Response(_START, headers=_CACHE, media_type="text/javascript")


@router.get("/docs/{name}")
async def asset(name: str) -> Response:
    """Send a file of Swagger UI."""
    if name not in ASSETS:
        raise NotFound(f"there is nothing at '/docs/{name[:100]}'")
    return FileResponse(_folder() / name, headers=_CACHE, media_type=ASSETS[name])


def _folder() -> Path:
    spec = find_spec("fastapi_offline")
    if spec is None or spec.origin is None:
        raise NotFound("the page needs the package fastapi-offline; /openapi.json has it all")
    return Path(spec.origin).parent / "static"
