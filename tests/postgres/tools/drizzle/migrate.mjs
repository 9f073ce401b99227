// As an application does it at its start; the argument is the number of files that the release has.
import { mkdtempSync, mkdirSync, copyFileSync, readdirSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { drizzle } from "drizzle-orm/node-postgres";
import { migrate } from "drizzle-orm/node-postgres/migrator";
import pg from "pg";

const [source, count] = process.argv.slice(2);
const migrationsFolder = mkdtempSync(join(tmpdir(), "drizzle-"));
mkdirSync(join(migrationsFolder, "meta"));
const files = readdirSync(source).sort().slice(0, Number(count));
const entries = files.map((file, idx) => ({ idx, version: "7", when: 1700000000000 + idx, tag: file.replace(".sql", ""), breakpoints: true }));
for (const file of files) copyFileSync(join(source, file), join(migrationsFolder, file));
writeFileSync(join(migrationsFolder, "meta", "_journal.json"), JSON.stringify({ version: "7", dialect: "postgresql", entries }));

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL });
await migrate(drizzle(pool), { migrationsFolder });
await pool.end();
