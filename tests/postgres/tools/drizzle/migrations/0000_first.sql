CREATE EXTENSION IF NOT EXISTS citext;
--> statement-breakpoint
CREATE TABLE "users" ("id" bigserial PRIMARY KEY, "email" citext NOT NULL UNIQUE);
--> statement-breakpoint
CREATE TABLE "settings" ("key" text PRIMARY KEY, "value" jsonb NOT NULL);
--> statement-breakpoint
SELECT tenantry.meter('users', 'users');
