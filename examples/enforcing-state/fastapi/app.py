"""Answers each request as the state of its tenant demands: docs/enforcing-state.md."""

import asyncio
import logging
import os
import sys
import time
from contextlib import asynccontextmanager

import psycopg
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

REGISTRY_URL = os.environ.get("REGISTRY_URL")
if not REGISTRY_URL:
    sys.exit("set REGISTRY_URL: docs/enforcing-state.md")
# A notification is a hint: what changed lately is also read this often, which shows that the connection works.
POLL_SECONDS = float(os.environ.get("POLL_SECONDS", "5"))
# What was read before that says nothing any more: every request is refused.
STALE_SECONDS = float(os.environ.get("STALE_SECONDS", "30"))
READS = {"GET", "HEAD", "OPTIONS"}
# How a login of your staff is recognized, by the name that your own authentication proved.
STAFF = ("support:", "platform:")

# HTTP status, title and detail of what a person reads.
PROBLEMS = {
    "read-only": (403, "This account is read-only.", "You can see everything, and change nothing. Ask your administrator."),
    "full": (403, "This account is full.", "Delete what you do not need any more, or ask your administrator for more room."),
    "blocked": (403, "This account is suspended.", "Nothing is lost. Ask your administrator, or our support."),
    "gone": (410, "This account is closed.", "If that is a mistake, ask our support soon: data is deleted after a time."),
    "changing": (503, "This account is being changed.", "Try again in a moment."),
    "stale": (503, "The state of this account is not known.", "Try again in a moment."),
    "missing": (404, "There is no such account.", "Look at the address."),
    "staff": (403, "You are not a user of this account.", "To look at it as our staff, send Tenant-Access: read-only."),
    "staff-write": (403, "Our staff changes nothing here.", "With Tenant-Access: read-only, you can only look."),
}


class Tenants:
    """The tenants' states, as the registry has them."""

    def __init__(self):
        self.by_id, self.by_slug, self.present, self.read_at = {}, {}, {}, None

    def outcome(self, slug):
        """The name of what a tenant may do: active, trial, or a problem. Or moved, for a former slug."""
        if self.read_at is None or time.monotonic() - self.read_at > STALE_SECONDS:
            return "stale"
        if slug in self.present:
            return "moved"
        if slug not in self.by_slug:
            return "missing"
        _, _, status, access = self.by_slug[slug]
        if status in ("deprovisioning", "deprovisioned"):
            return "gone"
        if status in ("provisioning", "failed"):
            return "changing"
        if access == "ReadWrite" and status in ("active", "trial"):
            return status
        return {"Blocked": "blocked", "ReadOnly": "read-only", "ShrinkOnly": "full"}.get(access, "changing")

    async def read(self, connection, which="true", parameters=()):
        query = f"SELECT id::text, slug, status, access FROM tenants_public WHERE {which}"
        began = time.monotonic()
        async with asyncio.timeout(STALE_SECONDS):
            rows = await (await connection.execute(query, parameters)).fetchall()
            former = await (await connection.execute("SELECT former_slug, slug FROM former_slugs")).fetchall()
        self.by_id.update({row[0]: row for row in rows})
        # The slug of a closed tenant may belong to another one now.
        closed_first = sorted(self.by_id.values(), key=lambda row: row[2] != "deprovisioned")
        self.by_slug = {row[1]: row for row in closed_first}
        self.present = dict(former)
        self.read_at = began

    async def follow(self):
        """Reads all tenants, then what changes; after a broken connection, all of it again."""
        while True:
            try:
                await self.follow_once()
            except (psycopg.Error, OSError, TimeoutError) as error:
                logging.warning("the registry cannot be read: %s", error)
            await asyncio.sleep(0.2)

    async def follow_once(self):
        connecting = psycopg.AsyncConnection.connect(
            REGISTRY_URL, autocommit=True, connect_timeout=5, tcp_user_timeout=5000
        )
        async with await connecting as connection:
            # In this order: no change is missed between the two.
            await connection.execute("LISTEN tenantry_tenants")
            await self.read(connection)
            polled = time.monotonic()
            while True:
                left = max(0.0, polled + POLL_SECONDS - time.monotonic())
                ids = [hint.payload async for hint in connection.notifies(timeout=left, stop_after=1)]
                if ids:
                    await self.read(connection, "id::text = ANY(%s)", [ids])
                if time.monotonic() >= polled + POLL_SECONDS:
                    polled = time.monotonic()
                    await self.read(connection, "updated_at > now() - interval '2 minutes'")


tenants = Tenants()


@asynccontextmanager
async def lifespan(_):
    following = asyncio.create_task(tenants.follow())
    yield
    following.cancel()


app = FastAPI(lifespan=lifespan)


def problem(name):
    """Problem details, RFC 9457."""
    status, title, detail = PROBLEMS[name]
    content = {"type": f"/problems/{name}", "title": title, "status": status, "detail": detail}
    headers = {"Cache-Control": "no-store", "Tenant-State": name} | ({"Retry-After": "2"} if status == 503 else {})
    return JSONResponse(content, status, headers, media_type="application/problem+json")


def moved(place, scope):
    """The same page under the present slug. Not for a cache: a tenant can take a former slug back."""
    query = b"?" + scope["query_string"] if scope["query_string"] else b""
    location = place + (scope["raw_path"] + query).decode("ascii")
    return Response(status_code=308, headers={"Location": location, "Cache-Control": "no-store", "Tenant-State": "moved"})


def refusal(outcome, request):
    """The problem for which a request is refused, if it is."""
    if outcome not in ("active", "trial", "read-only", "full"):
        return outcome
    # Set by the proxy or the middleware that authenticates, and never taken from a client.
    if request.headers.get("X-Authenticated-User", "").startswith(STAFF):
        if request.headers.get("Tenant-Access") != "read-only":
            return "staff"
        return None if request.method in READS else "staff-write"
    if request.method in READS or outcome in ("active", "trial"):
        return None
    return None if outcome == "full" and request.method == "DELETE" else outcome


@app.middleware("http")
async def enforce(request: Request, call_next):
    slug, _, domain = request.headers.get("host", "").lower().partition(".")
    outcome = tenants.outcome(slug)
    if outcome == "moved":
        return moved(f"//{tenants.present[slug]}.{domain}", request.scope)
    refused = refusal(outcome, request)
    if refused:
        return problem(refused)
    request.state.slug = slug
    response = await call_next(request)
    response.headers["Tenant-State"] = outcome
    return response


# The application itself: in yours, with the tenant's own database.
notes = {}


@app.get("/notes")
async def read_notes(request: Request):
    return notes.get(request.state.slug, [])


@app.post("/notes")
async def add_note(request: Request):
    notes.setdefault(request.state.slug, []).append((await request.body()).decode())
    return notes[request.state.slug]


@app.delete("/notes")
async def delete_notes(request: Request):
    return notes.pop(request.state.slug, [])
