// Knows the users, from the database.
import { query } from "./database.mjs";
import { serve } from "./http.mjs";

const SCHEMA = `
  CREATE TABLE IF NOT EXISTS users (name text PRIMARY KEY, email text NOT NULL);
  INSERT INTO users VALUES ('alice', 'alice@example.com'), ('bob', 'bob@example.com') ON CONFLICT DO NOTHING`;

serve({
  "GET /users": async () => [200, await query(SCHEMA, "SELECT name, email FROM users ORDER BY name")],
});
