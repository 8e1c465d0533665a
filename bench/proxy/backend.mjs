// A service that costs next to nothing: answers each request head with the same 40 bytes. Bodies are not read; the load has none.
import { createServer } from "node:net";

const ANSWER = Buffer.from(
  `HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 40\r\n\r\n${"x".repeat(39)}\n`,
);
const END = Buffer.from("\r\n\r\n");

createServer({ noDelay: true }, (socket) => {
  let rest = Buffer.alloc(0);
  socket.on("error", () => socket.destroy());
  socket.on("data", (chunk) => {
    const bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    let from = 0;
    for (let at = bytes.indexOf(END); at !== -1; at = bytes.indexOf(END, from)) {
      from = at + END.length;
      socket.write(ANSWER);
    }
    rest = bytes.subarray(from);
  });
}).listen(Number(process.env.PORT), process.env.HOST ?? "127.0.0.1", function listening() {
  console.log(JSON.stringify({ port: this.address().port }));
});
