// The database of the mesh, speaking PostgreSQL's wire protocol. By default an embedded PostgreSQL (PGlite) whose files are
// in this service's state folder; with DATABASE_URL=postgres://host:port every connection is passed on to that one.
import { connect, createServer } from "node:net";
import { join } from "node:path";
import { record } from "./record.mjs";

const server = process.env.DATABASE_URL ? passOn(new URL(process.env.DATABASE_URL)) : await embedded();
server.maxConnections = 100;
server.listen(Number(process.env.PORT), process.env.HOST);

async function embedded() {
  const { PGlite } = await import("@electric-sql/pglite");
  const { serveConnection, Turns } = await import("./postgres-wire.mjs");
  const dataDir = join(process.env.EVERYHOP_STATE_DIR ?? ".", "database");
  const database = await PGlite.create({ dataDir }).catch((error) => {
    console.error(
      `cannot open the database in ${dataDir}: ${error.message}; delete the folder to start with an empty one`,
    );
    process.exit(1);
  });
  process.on("SIGTERM", () => database.close().finally(() => process.exit(0)));
  const turns = new Turns();
  return createServer((socket) => {
    socket.on("data", record);
    serveConnection(socket, database, turns);
  });
}

function passOn(url) {
  process.on("SIGTERM", () => process.exit(0));
  return createServer((socket) => {
    socket.on("data", record);
    const upstream = connect(Number(url.port || 5432), url.hostname);
    socket.pipe(upstream).pipe(socket);
    for (const [one, other] of [
      [socket, upstream],
      [upstream, socket],
    ]) {
      one.on("error", () => other.destroy());
      one.on("close", () => other.destroy());
    }
  });
}
