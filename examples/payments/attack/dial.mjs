// Raw connections: what is sent is exactly what is written here.
import { connect } from "node:net";
import { connect as connectTls } from "node:tls";

const WAIT_MS = 4_000;
const SILENCE_MS = 300;

/**
 * Connects to `target` (`{host, port}`), with TLS where `identity` is given (`null` in it: without a certificate), sends
 * `chunks` and gives what came back: `{bytes, error}`. A connection that stays silent is given up after a while.
 */
export function dial({ target, tls = null, chunks, silenceMs = SILENCE_MS }) {
  return new Promise((resolve) => {
    const [host, port] = [target.host, target.port];
    const socket =
      tls === null
        ? connect(port, host)
        : connectTls({ host, port, rejectUnauthorized: false, ...tls, checkServerIdentity: () => undefined });
    let received = Buffer.alloc(0);
    let silence = null;
    const done = (error = null) => {
      clearTimeout(silence);
      clearTimeout(limit);
      socket.destroy();
      resolve({ bytes: received, error });
    };
    const limit = setTimeout(() => done("no answer"), WAIT_MS);
    socket.once(tls === null ? "connect" : "secureConnect", () => {
      for (const chunk of chunks) {
        socket.write(chunk);
      }
    });
    socket.on("data", (chunk) => {
      received = Buffer.concat([received, chunk]);
      clearTimeout(silence);
      silence = setTimeout(done, silenceMs);
    });
    socket.on("error", (error) => done(error.code ?? error.message));
    socket.on("close", () => done(received.length === 0 ? "closed" : null));
  });
}

/** A startup message of PostgreSQL: a database that lets one in answers with `R`. */
export function postgresStartup(user = "postgres") {
  const body = Buffer.from(`\0\x03\0\0user\0${user}\0database\0postgres\0\0`, "latin1");
  const head = Buffer.alloc(4);
  head.writeUInt32BE(body.length + 4);
  return Buffer.concat([head, body]);
}

export function httpRequest({ method = "GET", path = "/", host = "payment-service", headers = [], body = "" }) {
  const length = body === "" ? [] : [`content-length: ${Buffer.byteLength(body)}`];
  return [`${method} ${path} HTTP/1.1`, `host: ${host}`, ...headers, ...length, "", body].join("\r\n");
}

/** Statuses of all responses in the bytes, roughly: what an attacker would look at first. */
export function statuses(bytes) {
  return [...bytes.toString("latin1").matchAll(/HTTP\/1\.[01] (\d{3})/g)].map(([, status]) => Number(status));
}

/**
 * Judges an answer: `through` where a service may have had the request. Sidecars refuse with 400 or 403 (or 404, 421, 431 and
 * 501 before anything is passed on) in plain text; an answer in JSON is a service's.
 */
export function judge(protocol, { bytes, error }) {
  if (bytes.length === 0) {
    return { through: false, result: error ?? "nothing came back" };
  }
  if (protocol === "tcp") {
    const through = bytes[0] === "R".charCodeAt(0);
    return { through, result: through ? "the database let us in" : `${bytes.length} bytes, no database's` };
  }
  const found = statuses(bytes);
  const through =
    found.some((status) => status < 400 || status === 500) || /application\/json/i.test(bytes.toString("latin1"));
  return { through, result: found.length === 0 ? "no HTTP came back" : found.join(", ") };
}
