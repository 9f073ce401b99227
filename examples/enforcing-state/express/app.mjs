// Answers each request as the state of its tenant demands: docs/enforcing-state.md.

import express from "express";
import pg from "pg";

const REGISTRY_URL = process.env.REGISTRY_URL;
if (!REGISTRY_URL) throw new Error("set REGISTRY_URL: docs/enforcing-state.md");
// A notification is a hint: what changed lately is also read this often, which shows that the connection works.
const POLL = 1000 * (process.env.POLL_SECONDS ?? 5);
// What was read before that says nothing any more: every request is refused.
const STALE = 1000 * (process.env.STALE_SECONDS ?? 30);
const READS = ["GET", "HEAD", "OPTIONS"];
// How a login of your staff is recognized, by the name that your own authentication proved.
const STAFF = /^(support|platform):/;

// HTTP status, title and detail of what a person reads.
const PROBLEMS = {
  "read-only": [403, "This account is read-only.", "You can see everything, and change nothing. Ask your administrator."],
  full: [403, "This account is full.", "Delete what you do not need any more, or ask your administrator for more room."],
  blocked: [403, "This account is suspended.", "Nothing is lost. Ask your administrator, or our support."],
  gone: [410, "This account is closed.", "If that is a mistake, ask our support soon: data is deleted after a time."],
  changing: [503, "This account is being changed.", "Try again in a moment."],
  stale: [503, "The state of this account is not known.", "Try again in a moment."],
  missing: [404, "There is no such account.", "Look at the address."],
  staff: [403, "You are not a user of this account.", "To look at it as our staff, send Tenant-Access: read-only."],
  "staff-write": [403, "Our staff changes nothing here.", "With Tenant-Access: read-only, you can only look."],
};

// The tenants' states, as the registry has them.
const byId = new Map();
let bySlug = new Map();
let present = new Map(); // of a former slug
let readAt = -Infinity;

// The name of what a tenant may do: active, trial, or a problem. Or moved, for a former slug.
function outcomeOf(slug) {
  if (performance.now() - readAt > STALE) return "stale";
  if (present.has(slug)) return "moved";
  if (!bySlug.has(slug)) return "missing";
  const { status, access } = bySlug.get(slug);
  if (["deprovisioning", "deprovisioned"].includes(status)) return "gone";
  if (["provisioning", "failed"].includes(status)) return "changing";
  if (access === "ReadWrite" && ["active", "trial"].includes(status)) return status;
  return { Blocked: "blocked", ReadOnly: "read-only", ShrinkOnly: "full" }[access] ?? "changing";
}

async function read(client, which = "true", parameters = []) {
  const query = `SELECT id::text, slug, status, access FROM tenants_public WHERE ${which}`;
  const began = performance.now();
  const { rows } = await client.query(query, parameters);
  const former = await client.query("SELECT former_slug, slug FROM former_slugs");
  for (const row of rows) byId.set(row.id, row);
  // The slug of a closed tenant may belong to another one now.
  const isOpen = (row) => Number(row.status !== "deprovisioned");
  const closedFirst = [...byId.values()].sort((a, b) => isOpen(a) - isOpen(b));
  bySlug = new Map(closedFirst.map((row) => [row.slug, row]));
  present = new Map(former.rows.map((row) => [row.former_slug, row.slug]));
  readAt = began;
}

// Reads all tenants, then what changes, until the connection breaks.
async function followOnce() {
  const client = new pg.Client({
    connectionString: REGISTRY_URL, connectionTimeoutMillis: 5000, query_timeout: STALE, keepAlive: true,
  });
  const hints = [];
  let wake = () => {};
  let broken;
  const breaks = (error) => { broken = error ?? new Error("the connection has ended"); wake(); };
  client.on("notification", ({ payload }) => { hints.push(payload); wake(); });
  client.on("error", breaks);
  client.on("end", breaks);
  try {
    await client.connect();
    // In this order: no change is missed between the two.
    await client.query("LISTEN tenantry_tenants");
    await read(client);
    let polled = performance.now();
    for (;;) {
      if (broken) throw broken;
      const left = polled + POLL - performance.now();
      if (hints.length === 0 && left > 0) {
        await new Promise((resolve) => { wake = resolve; setTimeout(resolve, left); });
      }
      if (hints.length > 0) await read(client, "id::text = ANY($1)", [hints.splice(0)]);
      if (performance.now() >= polled + POLL) {
        polled = performance.now();
        await read(client, "updated_at > now() - interval '2 minutes'");
      }
    }
  } finally {
    client.end().catch(() => {});
  }
}

// After a broken connection, all of it again.
async function follow() {
  for (;;) {
    await followOnce().catch((error) => console.warn("the registry cannot be read:", error.message));
    await new Promise((resolve) => { setTimeout(resolve, 200); });
  }
}

// Problem details, RFC 9457.
function refuse(response, name) {
  const [status, title, detail] = PROBLEMS[name];
  response.set({ "Cache-Control": "no-store", "Tenant-State": name });
  if (status === 503) response.set("Retry-After", "2");
  const body = JSON.stringify({ type: `/problems/${name}`, title, status, detail });
  response.status(status).type("application/problem+json").send(body);
}

// The problem for which a request is refused, if it is.
function refusal(outcome, request) {
  const isRead = READS.includes(request.method);
  if (!["active", "trial", "read-only", "full"].includes(outcome)) return outcome;
  // Set by the proxy or the middleware that authenticates, and never taken from a client.
  if (STAFF.test(request.get("X-Authenticated-User") ?? "")) {
    if (request.get("Tenant-Access") !== "read-only") return "staff";
    return isRead ? undefined : "staff-write";
  }
  if (isRead || ["active", "trial"].includes(outcome)) return undefined;
  return outcome === "full" && request.method === "DELETE" ? undefined : outcome;
}

function enforce(request, response, next) {
  const [slug, ...domain] = (request.get("Host") ?? "").toLowerCase().split(".");
  const outcome = outcomeOf(slug);
  if (outcome === "moved") {
    response.set({ "Cache-Control": "no-store", "Tenant-State": outcome });
    return response.redirect(308, `//${[present.get(slug), ...domain].join(".")}${request.originalUrl}`);
  }
  const refused = refusal(outcome, request);
  if (refused) return refuse(response, refused);
  response.set("Tenant-State", outcome);
  response.locals.slug = slug;
  next();
}

const app = express();
app.use(enforce);

// The application itself: in yours, with the tenant's own database.
const notes = new Map();
app.get("/notes", (_, response) => response.json(notes.get(response.locals.slug) ?? []));
app.post("/notes", express.text({ type: () => true }), (request, response) => {
  const all = [...(notes.get(response.locals.slug) ?? []), request.body];
  notes.set(response.locals.slug, all);
  response.json(all);
});
app.delete("/notes", (_, response) => response.json(notes.delete(response.locals.slug)));

follow();
app.listen(process.env.PORT ?? 8018, "127.0.0.1");
