import { connect } from "node:net";
import type { ProxyContext } from "./context.ts";
import { SocketPipe } from "./pipe.ts";

/** Connects to the application; `done` gets null where that fails. The function returned gives up, and `done` is not called. */
export function dialApp(context: ProxyContext, done: (pipe: SocketPipe | null) => void): () => void {
  const { app, clock, timeouts, log, seldom } = context;
  const socket = connect({ ...app, allowHalfOpen: true, noDelay: true });
  let over = false;
  const finish = (error: Error | null) => {
    if (over) {
      return;
    }
    over = true;
    stopWaiting();
    if (error === null) {
      const pipe = new SocketPipe(socket);
      socket.off("error", finish);
      done(pipe);
      return;
    }
    socket.destroy();
    if (seldom.may("app")) {
      log.warn("the application cannot be reached", { app: `${app.host}:${app.port}`, error });
    }
    done(null);
  };
  const stopWaiting = clock.after(timeouts.connectMs, () => finish(new Error(`no answer in ${timeouts.connectMs} ms`)));
  socket.on("error", finish);
  socket.once("connect", () => finish(null));
  return () => {
    over = true;
    stopWaiting();
    socket.destroy();
  };
}
