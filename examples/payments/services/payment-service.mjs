// Takes payments and refunds, and keeps them in the database.
import { query, transaction } from "./database.mjs";
import { serve } from "./http.mjs";

const SCHEMA = `
  CREATE TABLE IF NOT EXISTS payments (
    id serial PRIMARY KEY, customer text NOT NULL, amount integer NOT NULL, currency text NOT NULL,
    refunded boolean NOT NULL DEFAULT false, created timestamptz NOT NULL DEFAULT now())`;

serve({
  "POST /api/v1/payments": async (_request, { user = "unknown", amount, currency = "EUR" }) => {
    if (!Number.isInteger(amount) || amount <= 0) {
      return [400, { error: "amount has to be a positive whole number, in cents" }];
    }
    const [payment] = await query(
      SCHEMA,
      "INSERT INTO payments (customer, amount, currency) VALUES ($1, $2, $3) RETURNING id, customer, amount, currency",
      [user, amount, currency],
    );
    return [201, payment];
  },
  "POST /api/v1/refunds": async (_request, { payment }) => {
    await query(SCHEMA, "SELECT 1");
    return transaction(async (client) => {
      const { rows } = await client.query("SELECT refunded FROM payments WHERE id = $1 FOR UPDATE", [payment]);
      if (rows[0] === undefined || rows[0].refunded) {
        return [rows[0] === undefined ? 404 : 409, { error: "no such payment, or refunded already" }];
      }
      await client.query("UPDATE payments SET refunded = true WHERE id = $1", [payment]);
      return [200, { payment, refunded: true }];
    });
  },
  "GET /api/v1/payments": async () => [200, await query(SCHEMA, "SELECT * FROM payments ORDER BY id DESC LIMIT 100")],
  // What an attacker would like: no policy lets anyone come here.
  "GET /internal/export": async () => [200, await query(SCHEMA, "SELECT * FROM payments")],
  "POST /internal/export": async () => [200, await query(SCHEMA, "SELECT * FROM payments")],
});
