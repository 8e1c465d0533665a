import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import type { ConnectionOptions } from "node:tls";
import { EveryhopError } from "../../../core/base/errors.ts";
import { readConnection } from "./connection.ts";
import { parseConnectionString } from "./connection-string.ts";
import { postgresError } from "./errors.ts";

const dir = mkdtempSync(join(tmpdir(), "everyhop-connection-"));
after(() => rmSync(dir, { recursive: true }));
const ca = join(dir, "ca.pem");
writeFileSync(ca, "CA");

const parameters = (text: string) => {
  const parsed = parseConnectionString(text);
  return parsed.ok ? { ...parsed.parameters } : parsed.message;
};

test("both forms of libpq's strings", () => {
  const table: readonly (readonly [string, object])[] = [
    [
      "postgres://u:p@h:5433/d?sslmode=verify-full",
      { user: "u", password: "p", host: "h", port: "5433", dbname: "d", sslmode: "verify-full" },
    ],
    ["postgresql://u@h/d", { user: "u", host: "h", dbname: "d" }],
    ["postgres://u:p%40%2F%25@h/d", { user: "u", password: "p@/%", host: "h", dbname: "d" }],
    ["postgres://u@[::1]:5432/d", { user: "u", host: "::1", port: "5432", dbname: "d" }],
    ["postgres://%2Frun%2Fpg/d", { host: "/run/pg", dbname: "d" }],
    ["postgres:///d?host=/run/pg&port=5", { dbname: "d", host: "/run/pg", port: "5" }],
    ["postgres://h/d?ssl=true", { host: "h", dbname: "d", sslmode: "require" }],
    ["dbname=spire user=spire host=db port=5432", { dbname: "spire", user: "spire", host: "db", port: "5432" }],
    [String.raw`password='it\'s \\ it' user=a\ b`, { password: String.raw`it's \ it`, user: "a b" }],
    ["dbname=d password='' sslmode=disable", { dbname: "d", sslmode: "disable" }],
  ];
  for (const [text, expected] of table) {
    assert.deepEqual(parameters(text), expected, text);
  }
});

test("what is malformed, unknown or not acted on is refused, and no message has the password in it", () => {
  const table: readonly (readonly [string, RegExp])[] = [
    ["", /malformed/],
    ["geheim", /malformed/],
    ["mysql://u:geheim@h/d", /malformed/],
    ["postgres://u:ge%zzheim@h/d", /malformed/],
    ["password='geheim", /malformed/],
    ["host='a' 'geheim'", /malformed/],
    ["host=h passwort=geheim", /`passwort`.*not known/],
    ["host=a,b password=geheim", /`host` has a value/],
    ["postgres://u:geheim@a,b/d", /`host` has a value/],
    ["host=h sslmode=sometimes password=geheim", /`sslmode` has a value/],
    ["host=h target_session_attrs=standby password=geheim", /`target_session_attrs`/],
    ["host=h service=prod password=geheim", /`service`.*not known/],
  ];
  for (const [text, message] of table) {
    const parsed = parseConnectionString(text);
    assert.equal(parsed.ok, false, text);
    assert.match(parsed.ok ? "" : parsed.message, message, text);
    assert.ok(!JSON.stringify(parsed).includes("geheim"), text);
  }
});

test("sslmode means what it means to libpq; another machine has to prove itself where nothing is said", () => {
  const tls = (text: string) => {
    const { config, plaintextToo } = readConnection({ connection: text, environment: {} });
    const ssl = config.ssl as false | ConnectionOptions;
    const name = ssl === false ? null : ssl.checkServerIdentity === undefined;
    return ssl === false
      ? "none"
      : `${ssl.rejectUnauthorized ? `verified${name ? " by name" : ""}` : "unverified"}${plaintextToo ? " or none" : ""}`;
  };
  const table: readonly (readonly [string, string])[] = [
    ["host=db", "verified by name"],
    ["host=localhost", "unverified or none"],
    ["host=127.0.0.1", "unverified or none"],
    ["host=/run/pg", "none"],
    ["host=/run/pg sslmode=require", "none"],
    ["host=db sslmode=disable", "none"],
    ["host=db sslmode=prefer", "unverified or none"],
    ["host=db sslmode=require", "unverified"],
    [`host=db sslmode=require sslrootcert=${ca}`, "verified"],
    [`host=db sslmode=verify-ca sslrootcert=${ca}`, "verified"],
    [`host=db sslmode=verify-full sslrootcert=${ca}`, "verified by name"],
    ["host=db sslmode=verify-full sslrootcert=system", "verified by name"],
  ];
  for (const [text, expected] of table) {
    assert.equal(tls(text), expected, text);
  }
  assert.throws(() => tls("host=db sslmode=verify-ca"), /needs `sslrootcert`/);
  assert.throws(() => tls("host=db sslrootcert=/nowhere"), /cannot read the database's CA/);
});

test("a password comes from a file, the string or the environment, in this order", () => {
  const file = join(dir, "password");
  writeFileSync(file, "from file\n");
  const password = (text: string, passwordFile?: string) =>
    readConnection({
      connection: text,
      environment: { PGPASSWORD: "from environment" },
      ...(passwordFile === undefined ? {} : { passwordFile }),
    }).config.password;
  assert.equal(password("host=/run password=here", file), "from file");
  assert.equal(password("host=/run password=here"), "here");
  assert.equal(password("host=/run"), "from environment");
  assert.throws(() => password("host=/run", join(dir, "none")), /cannot read the database's password/);
});

test("errors say whether to come again, and never what was in a statement", () => {
  const failure = (code: string, message: string) =>
    postgresError(
      Object.assign(new Error(message), {
        code,
        ...(/^\d/.test(code) ? { severity: "ERROR", detail: "Key (digest)=(geheim)" } : {}),
      }),
      "`d` at h:5432",
    );
  const table: readonly (readonly [string, string, string])[] = [
    ["23505", "duplicate key", "already-exists"],
    ["23503", "violates", "not-found"],
    ["57P01", "terminating connection", "unavailable"],
    ["08006", "connection failure", "unavailable"],
    ["53300", "too many clients", "unavailable"],
    ["40P01", "deadlock detected", "unavailable"],
    ["25006", "read-only transaction", "unavailable"],
    ["EPIPE", "write EPIPE", "unavailable"],
    ["ECONNREFUSED", "connect ECONNREFUSED", "unavailable"],
    ["", "Connection terminated unexpectedly", "unavailable"],
    ["28P01", "password authentication failed", "storage-failed"],
    ["3D000", "database does not exist", "storage-failed"],
    ["53100", "disk full", "storage-failed"],
    ["SELF_SIGNED_CERT_IN_CHAIN", "self-signed certificate in certificate chain", "storage-failed"],
    ["42P01", "relation does not exist", "storage-failed"],
  ];
  for (const [code, message, expected] of table) {
    const error = failure(code, message);
    assert.ok(error instanceof EveryhopError);
    assert.equal(error.code, expected, code);
    assert.ok(!JSON.stringify([error.message, error.hint]).includes("geheim"));
  }
});
