// PostgreSQL's wire protocol (version 3) in front of one embedded backend. There is one session, so connections take turns:
// one holds the backend from its first message until the backend is idle again, which is after a whole transaction.
// https://www.postgresql.org/docs/current/protocol-flow.html
const SSL_REQUEST = 80_877_103;
const GSS_REQUEST = 80_877_104;
const CANCEL_REQUEST = 80_877_102;
const PROTOCOL_3 = 196_608;
const MAX_MESSAGE = 16 << 20;
const TERMINATE = "X".charCodeAt(0);
const READY_FOR_QUERY = "Z".charCodeAt(0);
const IDLE = "I".charCodeAt(0);

/** Who holds the backend, and who waits for it. */
export class Turns {
  #last = Promise.resolve();

  /** Resolves to a function that gives the turn on, once everyone before has done so. */
  take() {
    let release;
    const before = this.#last;
    this.#last = new Promise((resolve) => {
      release = resolve;
    });
    return before.then(() => release);
  }
}

export async function serveConnection(socket, database, turns) {
  socket.on("error", () => socket.destroy());
  socket.setNoDelay(true);
  let giveUp = null;
  try {
    const messages = readMessages(socket);
    for await (const message of messages) {
      if (message[0] === TERMINATE) {
        break;
      }
      giveUp ??= await turns.take();
      const answer = Buffer.from(await database.execProtocolRaw(message, { syncToFs: false }));
      socket.write(answer);
      if (isIdle(answer)) {
        giveUp();
        giveUp = null;
      }
    }
  } catch (error) {
    console.error(`connection: ${error.message}`);
  } finally {
    socket.end();
    if (giveUp !== null) {
      // It left in the middle of a transaction, or of a message sequence: neither may meet the next one.
      await database.execProtocolRaw(message("S")).catch(() => {});
      await database.execProtocolRaw(message("Q", "ROLLBACK\0")).catch(() => {});
      giveUp();
    }
  }
}

/** Answers the start of a connection itself, then yields the client's messages, whole. */
async function* readMessages(socket) {
  let buffer = Buffer.alloc(0);
  let started = false;
  for await (const chunk of socket) {
    buffer = Buffer.concat([buffer, chunk]);
    for (;;) {
      const head = started ? 1 : 0;
      if (buffer.length < head + 4) {
        break;
      }
      const length = buffer.readUInt32BE(head);
      if (length < 4 || length > MAX_MESSAGE) {
        throw new Error("a message of a length that is not PostgreSQL's");
      }
      if (buffer.length < head + length) {
        break;
      }
      const one = buffer.subarray(0, head + length);
      buffer = buffer.subarray(head + length);
      if (started) {
        yield one;
      } else {
        started = greet(socket, one.readUInt32BE(4));
      }
    }
  }
}

/** True once the client may send queries. Encryption and identity are the sidecars' work: "no" to TLS in here. */
function greet(socket, code) {
  if (code === SSL_REQUEST || code === GSS_REQUEST) {
    socket.write("N");
    return false;
  }
  if (code !== PROTOCOL_3) {
    throw new Error(code === CANCEL_REQUEST ? "cancelling is not supported" : "not PostgreSQL's protocol 3");
  }
  const parameters = {
    server_version: "17.5",
    server_encoding: "UTF8",
    client_encoding: "UTF8",
    DateStyle: "ISO, MDY",
    integer_datetimes: "on",
    standard_conforming_strings: "on",
    TimeZone: "UTC",
  };
  socket.write(
    Buffer.concat([
      message("R", Buffer.alloc(4)),
      ...Object.entries(parameters).map(([name, value]) => message("S", `${name}\0${value}\0`)),
      message("K", Buffer.alloc(8)),
      message("Z", "I"),
    ]),
  );
  return true;
}

function message(type, body = "") {
  const bytes = Buffer.from(body);
  const head = Buffer.alloc(5);
  head.write(type, 0);
  head.writeUInt32BE(bytes.length + 4, 1);
  return Buffer.concat([head, bytes]);
}

/** Whether the backend's last word is that it is idle, outside a transaction. */
function isIdle(answer) {
  let last = null;
  for (let at = 0; at + 5 <= answer.length; at += 1 + answer.readUInt32BE(at + 1)) {
    last = answer.subarray(at);
  }
  return last !== null && last[0] === READY_FOR_QUERY && last[5] === IDLE;
}
