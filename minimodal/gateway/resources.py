"""The platform's API as a table: each row is a route, an operation of the engine, and its document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from minimodal import __version__

BASE = "/api/v1"


@dataclass(frozen=True, slots=True)
class Resource:
    """`METHOD BASE+path` asks `op`. `query`: names of parameters and their JSON types."""

    method: str
    path: str
    op: str
    summary: str
    tag: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)  # fields that are always asked with
    lists: Mapping[str, str] = field(default_factory=dict)  # path parameter -> field that is a list

    @property
    def operation(self) -> str:
        """A name that no other route has."""
        words = [w.strip("{}").partition(":")[0] for w in self.path.split("/") if w]
        return "_".join([self.method.lower(), *words]).replace("-", "_")

    @property
    def writes(self) -> bool:
        return self.method != "GET"


_LIMIT = {"limit": "integer"}
_PLACE = {"app": "string", "function": "string"}
_CALLS = {**_PLACE, **_LIMIT, "states": "array", "since": "number", "until": "number"}

# fmt: off
RESOURCES = (
    Resource("GET", "/engine", "engine.info", "The engine and its backend", "engine"),
    Resource("GET", "/settings", "engine.config", "Settings and their origins", "engine"),
    Resource("GET", "/apps", "app.list", "Apps that run or are deployed", "apps"),
    Resource("GET", "/apps/{app}/history", "app.history", "All versions of an app", "apps"),
    Resource("GET", "/functions", "function.list", "Functions and their pools", "functions", query=_PLACE),
    Resource("GET", "/functions/tallies", "function.tally", "What calls came to", "functions"),
    Resource("GET", "/endpoints", "web.routes", "Web endpoints and their URLs", "functions"),
    Resource("GET", "/containers", "container.list", "Containers and what they run", "containers", query=_PLACE),
    Resource("POST", "/containers/{id}/stop", "container.stop", "Stop a container", "containers", body={"force": "boolean"}),
    Resource("POST", "/containers/{id}/kill", "container.stop", "End a container now; its calls run elsewhere", "containers", fixed={"force": True}),
    Resource("GET", "/calls", "call.list", "Calls, the newest first", "calls", query=_CALLS),
    Resource("GET", "/calls/{id}", "call.show", "A call, its attempts and output", "calls"),
    Resource("GET", "/calls/{id}/stack", "call.stack", "Where a running call is now", "calls"),
    Resource("POST", "/calls/{id}/cancel", "call.cancel", "Cancel a call", "calls"),
    Resource("GET", "/schedules", "schedule.list", "Schedules and their next runs", "schedules"),
    Resource("POST", "/schedules/{key:path}/run", "schedule.run", "Run a schedule now", "schedules"),
    Resource("POST", "/schedules/{key:path}/pause", "schedule.pause", "Pause a schedule", "schedules"),
    Resource("POST", "/schedules/{key:path}/resume", "schedule.resume", "Resume a schedule", "schedules"),
    Resource("GET", "/images", "image.builds", "Images that were built or looked up", "images"),
    Resource("GET", "/volumes", "volume.list", "Volumes, their files and bytes", "storage", fixed={"sizes": True}),
    Resource("GET", "/secrets", "secret.list", "Secrets: their names only", "storage"),
    Resource("GET", "/dicts", "dict.list", "Dicts", "storage"),
    Resource("GET", "/queues", "queue.list", "Queues", "storage"),
    Resource("GET", "/dead-letters", "dlq.list", "Calls that failed for good", "dead letters", query={"function": "string", **_LIMIT}),
    Resource("POST", "/dead-letters/{ids}/retry", "dlq.retry", "Run one again, as a new call", "dead letters", lists={"ids": "ids"}),
    Resource("DELETE", "/dead-letters/{ids}", "dlq.purge", "Drop its input", "dead letters", lists={"ids": "ids"}),
)
# fmt: on


def openapi() -> dict[str, Any]:
    """The OpenAPI 3.1 document of the table."""
    paths: dict[str, Any] = {}
    for each in RESOURCES:
        path = BASE + each.path.replace(":path}", "}")
        paths.setdefault(path, {})[each.method.lower()] = _operation(each)
    for path, what in (("/logs", "Output of functions"), ("/events", "Everything that happens")):
        paths[BASE + path] = {"get": _stream(what)}
    paths |= _files()
    problem = {
        "type": "object",
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "minimodal", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": {"Problem": problem},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


def _files() -> dict[str, Any]:
    path = f"{BASE}/volumes/{{name}}/files"
    name = _parameter("name", "path", "string", True)
    listing = {
        "summary": "A directory of a volume",
        "tags": ["storage"],
        "parameters": [name, _parameter("path", "query", "string", False)],
        "responses": {
            "200": _content("Its files", "application/json", {"type": "object"}),
            "default": _PROBLEM,
        },
    }
    download: dict[str, Any] = {
        "summary": "A file of a volume, as a stream",
        "tags": ["storage"],
        "parameters": [name, _parameter("path", "path", "string", True)],
        "responses": {
            "200": _content("Its content", "application/octet-stream", {"type": "string"}),
            "default": _PROBLEM,
        },
    }
    done = {"201": _content("It is there", "application/json", {"type": "object"})}
    content = {"application/octet-stream": {"schema": {"type": "string"}}}
    upload = {
        **download,
        "summary": "Write a file of a volume, whole or not at all; If-None-Match: * for a new one",
        "requestBody": {"content": content},
        "responses": {**done, "default": _PROBLEM},
    }
    remove = {
        **download,
        "summary": "Remove a file of a volume",
        "responses": {"204": {"description": "It is gone"}, "default": _PROBLEM},
    }
    return {
        path: {"get": listing},
        path + "/{path}": {"get": download, "put": upload, "delete": remove},
    }


def _operation(resource: Resource) -> dict[str, Any]:
    names = [part[1:-1].removesuffix(":path") for part in resource.path.split("/") if "{" in part]
    parameters = [_parameter(name, "path", "string", True) for name in names]
    parameters += [_parameter(name, "query", kind, False) for name, kind in resource.query.items()]
    operation: dict[str, Any] = {
        "summary": resource.summary,
        "tags": [resource.tag],
        "operationId": resource.operation,
        "parameters": parameters,
        "responses": {
            "200": _content("The answer", "application/json", {"type": "object"}),
            "default": _PROBLEM,
        },
    }
    if resource.body:
        properties = {name: {"type": kind} for name, kind in resource.body.items()}
        schema = {"type": "object", "properties": properties}
        operation["requestBody"] = {"content": {"application/json": {"schema": schema}}}
    return operation


def _stream(what: str) -> dict[str, Any]:
    names = ("app", "function", "call", "container")
    return {
        "summary": f"{what}, as Server-Sent Events; Last-Event-ID goes on from there",
        "tags": ["streams"],
        "parameters": [
            *(_parameter(name, "query", "string", False) for name in names),
            _parameter("after", "query", "integer", False),
            _parameter("Last-Event-ID", "header", "string", False),
        ],
        "responses": {"200": _content("Events", "text/event-stream", {"type": "string"})},
    }


def _parameter(name: str, where: str, kind: str, required: bool) -> dict[str, Any]:
    schema = {"type": kind, **({"items": {"type": "string"}} if kind == "array" else {})}
    return {"name": name, "in": where, "required": required, "schema": schema}


def _content(text: str, kind: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": text, "content": {kind: {"schema": schema}}}


_PROBLEM = _content(
    "A problem", "application/problem+json", {"$ref": "#/components/schemas/Problem"}
)
