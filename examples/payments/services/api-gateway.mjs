// What customers talk to. It has no data of its own: it asks payment-service and user-service, through its sidecar.
import { call, serve } from "./http.mjs";

serve({
  "GET /": async () => [200, { service: "api-gateway", try: ["POST /checkout", "POST /refund", "GET /users"] }],
  "POST /checkout": async (_request, order) => {
    const { status, value, headers } = await call("payment-service", "POST", "/api/v1/payments", order);
    return [status, value, headers];
  },
  "POST /refund": async (_request, order) => {
    const { status, value, headers } = await call("payment-service", "POST", "/api/v1/refunds", order);
    return [status, value, headers];
  },
  "GET /users": async () => {
    const { status, value, headers } = await call("user-service", "GET", "/users");
    return [status, value, headers];
  },
});
