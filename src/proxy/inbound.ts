/** The listener others reach the service by: who is it, may it, then on to the application. */
import { createHash } from "node:crypto";
import type { Socket } from "node:net";
import type { SecureContext, TLSSocket } from "node:tls";
import { KILLED, KILLED_TCP, PLAINTEXT_REFUSED } from "../core/policy/verdict.ts";
import { principalOf, type SpiffeId } from "../core/spiffe/id.ts";
import type { X509Svid } from "../core/spiffe/svid.ts";
import { plainIp } from "../io/net.ts";
import { logConnection, logExchange } from "./access-lines.ts";
import { Admission } from "./admission.ts";
import { dialApp } from "./app-dialer.ts";
import type { AskedConnection } from "./authorize/request.ts";
import { askAboutConnection } from "./authorize/tcp.ts";
import type { Cause, Tracked } from "./connections.ts";
import { countClosed, countDryRun, isHttp, ownParty, type ProxyContext, peerParty, recordDenial } from "./context.ts";
import { type PeerFacts, type Verdict, withoutProvider } from "./enforce.ts";
import { serverContext, shakeHands } from "./handshake.ts";
import { type Answer, APP_DOWN } from "./http/answers.ts";
import { HttpBack } from "./http-back.ts";
import { HttpFront, type HttpGate } from "./http-front.ts";
import { type Proof, verifyPeer } from "./peer.ts";
import { SocketPipe } from "./pipe.ts";
import { Splice } from "./splice.ts";
import type { Facts } from "./state.ts";
import type { HttpSeries, Security, TcpSeries } from "./telemetry.ts";

const TLS_HANDSHAKE = 0x16;
const XFCC = "x-forwarded-client-cert: ";

/** Accepts for one service. One TLS context for each SVID: a rotation concerns new handshakes only. */
export class Inbound {
  readonly context: ProxyContext;
  #tls: { svid: X509Svid; context: SecureContext } | null = null;

  constructor(context: ProxyContext) {
    this.context = context;
  }

  accept(socket: Socket): void {
    // INVARIANT: registered before anything is checked.
    const connection = new InboundConnection(this, socket);
    this.context.connections.add(connection);
    connection.start();
  }

  tlsContext(): { svid: X509Svid; context: SecureContext } | null {
    const svid = this.context.state.svid.value;
    if (svid !== null && this.#tls?.svid !== svid) {
      this.#tls = { svid, context: serverContext(svid) };
    }
    return svid === null ? null : this.#tls;
  }
}

class InboundConnection implements Tracked, HttpGate {
  peer: SpiffeId | null = null;
  proof: Proof | null = null;
  /** Every forwarded request says who sent it; null for plaintext. */
  append: Buffer | null = null;

  /** What a decision knows of the connection; made when all of it is proven. */
  #peerFacts: PeerFacts;
  /** Made with the front; null on TCP. */
  #admission: Admission | null = null;
  readonly #inbound: Inbound;
  readonly #context: ProxyContext;
  readonly #raw: Socket;
  /** Which of our SVIDs the peer was shown; null for plaintext. */
  #own: X509Svid | null = null;
  readonly #startedMs: number;
  #socket: Socket;
  #established = false;
  #closed = false;
  #front: HttpFront | null = null;
  #splice: Splice | null = null;
  #idle: HttpBack | null = null;
  #verdict: Verdict | null = null;
  #denialId: string | null = null;
  #http: HttpSeries | null = null;
  #tcp: TcpSeries | null = null;
  #cause: Cause | null = null;
  #cancelDial: (() => void) | null = null;

  constructor(inbound: Inbound, socket: Socket) {
    this.#inbound = inbound;
    this.#context = inbound.context;
    this.#raw = socket;
    this.#socket = socket;
    this.#startedMs = this.#context.time.nowMs;
    const sourceIp = plainIp(socket.remoteAddress);
    this.#peerFacts = {
      principal: null,
      sourceIp,
      remoteIp: sourceIp,
      destinationIp: plainIp(socket.localAddress),
      destinationPort: 0,
      sni: null,
    };
  }

  start(): void {
    const raw = this.#raw;
    raw.on("error", () => raw.destroy());
    raw.once("close", () => this.#gone());
    raw.once("readable", () => this.#detect());
  }

  get #known(): Facts | null {
    return this.#context.state.facts.value;
  }

  /** The first byte tells TLS from plaintext. */
  #detect(): void {
    const first: Buffer | null = this.#raw.read();
    const facts = this.#known;
    if (first === null || facts === null) {
      // INVARIANT: no snapshot, no service.
      this.#raw.destroy();
      return;
    }
    this.#peerFacts = { ...this.#peerFacts, destinationPort: facts.snapshot.workload.port };
    this.#raw.unshift(first);
    if (first[0] === TLS_HANDSHAKE) {
      this.#handshake();
    } else if (facts.enforcer.mtls === "STRICT") {
      this.#refusePlaintext(facts);
    } else {
      this.#establish(facts);
    }
  }

  #refusePlaintext(facts: Facts): void {
    const { telemetry, log } = this.#context;
    telemetry.refusals(null, ownParty(this.#context)).plaintext.value++;
    this.#denialId = recordDenial(this.#context, facts, PLAINTEXT_REFUSED, null, this.#peerFacts, null);
    log.debug("plaintext refused", { sourceIp: this.#peerFacts.sourceIp, denial: this.#denialId });
    this.#verdict = PLAINTEXT_REFUSED;
    this.#logConnection("DENY", "plaintext_refused", 0, 0);
    this.#raw.destroy();
  }

  #handshake(): void {
    const own = this.#inbound.tlsContext();
    if (own === null) {
      this.#refuseHandshake("own-identity-missing", "this service has no identity yet");
      return;
    }
    this.#socket = shakeHands(
      this.#raw,
      own.context,
      (socket) => this.#proven(socket, own.svid),
      (reason, message) => this.#refuseHandshake(reason, message),
    );
  }

  #refuseHandshake(reason: string, message: string): void {
    const { telemetry, log } = this.#context;
    const series = telemetry.refusals(null, ownParty(this.#context));
    series.connectionError.value++;
    if (reason === "no-certificate") {
      series.noCertificate.value++;
    } else if (reason !== "handshake-failed" && reason !== "handshake-aborted" && reason !== "own-identity-missing") {
      series.verifyError.value++;
    }
    log.debug("handshake refused", { sourceIp: this.#peerFacts.sourceIp, reason, message });
    this.#logConnection("TLS_FAILURE", reason, 0, 0);
    this.#socket.destroy();
    this.#raw.destroy();
  }

  #proven(socket: TLSSocket, own: X509Svid): void {
    this.#own = own;
    const { state, clock } = this.#context;
    const facts = this.#known;
    if (facts === null) {
      socket.destroy();
      return;
    }
    const verified = verifyPeer(socket, state.bundles.value, clock.now());
    if (!verified.ok) {
      this.#refuseHandshake(verified.reason, verified.message);
      return;
    }
    this.peer = verified.id;
    this.proof = { chain: verified.chain, provenAtMs: clock.now() };
    const servername = (socket as TLSSocket & { servername?: string | false }).servername;
    const sni = typeof servername === "string" ? servername : null;
    this.#peerFacts = { ...this.#peerFacts, principal: principalOf(verified.id), sni };
    const hash = createHash("sha256")
      .update(verified.chain[0] as Uint8Array)
      .digest("hex");
    this.append = Buffer.from(`${XFCC}By=${own.id};Hash=${hash};URI=${verified.id}\r\n`);
    if (facts.killed.has(verified.id) || facts.killed.has(facts.snapshot.workload.spiffeId)) {
      const verdict = isHttp(facts.snapshot.workload) ? KILLED : KILLED_TCP;
      this.#verdict = verdict;
      this.#denialId = recordDenial(this.#context, facts, verdict, this.peer, this.#peerFacts, null);
      this.#logConnection("DENY", "identity_killed", 0, 0);
      socket.destroy();
      return;
    }
    this.#establish(facts);
  }

  #establish(facts: Facts): void {
    this.#established = true;
    const { telemetry, time, timeouts } = this.#context;
    const source = peerParty(facts, this.peer);
    const security: Security = this.peer === null ? "none" : "mutual_tls";
    const pipe = new SocketPipe(this.#socket);
    if (isHttp(facts.snapshot.workload)) {
      this.#http = telemetry.http("destination", source, ownParty(this.#context), security);
      this.#admission = new Admission(this.#asked(), this.#context);
      this.#front = new HttpFront(pipe, this, time.read, timeouts);
      return;
    }
    pipe.pause();
    const verdict = facts.enforcer.tcp(this.#peerFacts);
    if (verdict.custom === null) {
      this.#connect(pipe, facts, verdict);
      return;
    }
    this.#cancelDial = askAboutConnection(this.#context, facts, verdict, this.#asked(), (decided) => {
      this.#cancelDial = null;
      this.#connect(pipe, facts, decided);
    });
  }

  #asked(): AskedConnection {
    const certificate = this.append;
    return {
      peer: this.peer,
      peerFacts: this.#peerFacts,
      scheme: this.scheme,
      clientCertificate:
        certificate === null ? null : certificate.toString("latin1", XFCC.length, certificate.length - 2),
    };
  }

  #connect(pipe: SocketPipe, facts: Facts, verdict: Verdict): void {
    this.#verdict = verdict;
    countDryRun(this.#context, facts, verdict, this.peer, "tcp");
    if (verdict.decision === "deny") {
      this.#denialId = recordDenial(this.#context, facts, verdict, this.peer, this.#peerFacts, null);
      this.#logConnection("DENY", "policy_denied", 0, 0);
      this.#socket.destroy();
      return;
    }
    const { telemetry } = this.#context;
    const source = peerParty(facts, this.peer);
    const security: Security = this.peer === null ? "none" : "mutual_tls";
    this.#tcp = telemetry.tcp("destination", source, ownParty(this.#context), security);
    const tcp = this.#tcp;
    tcp.opened.value++;
    this.#dial((upstream) => {
      if (upstream === null) {
        this.#logConnection("UF", "upstream_connect_failure", 0, 0);
        tcp.closed.value++;
        this.#tcp = null;
        pipe.destroy();
        return;
      }
      this.#splice = new Splice(pipe, upstream, this.#context.time.read, () => this.#spliceOver());
    });
  }

  #spliceOver(): void {
    const splice = this.#splice;
    const tcp = this.#tcp;
    if (splice !== null && tcp !== null) {
      tcp.closed.value++;
      tcp.sent.value += splice.sent;
      tcp.received.value += splice.received;
      this.#logConnection("-", this.#cause ?? "via_upstream", splice.received, splice.sent);
    }
  }

  #dial(done: (pipe: SocketPipe | null) => void): void {
    this.#cancelDial = dialApp(this.#context, (pipe) => {
      this.#cancelDial = null;
      done(pipe);
    });
  }

  // HttpGate

  /** HOT. */
  admit(front: HttpFront): Answer | null {
    if (this.#own !== null && this.#own !== this.#context.state.svid.value) {
      // After a rotation the peer is asked to come again: what it believes of us must not outlive the authority it rests on.
      front.retire();
    }
    return (this.#admission as Admission).admit(front);
  }

  collected(_front: HttpFront): void {
    this.#admission?.collected();
  }

  get scheme(): "http" | "https" {
    return this.peer === null ? "http" : "https";
  }

  take(_front: HttpFront): HttpBack | null {
    const back = this.#idle;
    this.#idle = null;
    if (back !== null && (back.pipe.destroyed || this.#context.time.nowMs - back.idleSinceMs >= back.idleLimitMs)) {
      back.pipe.destroy();
      return null;
    }
    return back;
  }

  open(front: HttpFront): void {
    this.#dial((pipe) => (pipe === null ? front.unavailable(APP_DOWN) : front.opened(new HttpBack(pipe))));
  }

  cancel(_front: HttpFront): void {
    this.#admission?.cancel();
    this.#cancelDial?.();
    this.#cancelDial = null;
  }

  /** The connection to the application belongs to this client's connection alone: no answer can reach another identity. */
  release(back: HttpBack): void {
    back.idleSinceMs = this.#context.time.nowMs;
    this.#idle = back;
  }

  finished(front: HttpFront): void {
    const durationMs = performance.now() - front.exchange.startedAt;
    this.#http?.record(
      front.exchange.status,
      front.exchange.flags,
      durationMs,
      front.exchange.received,
      front.exchange.sent,
    );
    logExchange(this.#context, front, {
      durationMs,
      direction: "inbound",
      sourcePrincipal: this.peer,
      sourceIp: this.#peerFacts.sourceIp,
      destination: null,
      verdict: this.#admission?.verdict ?? null,
      denialId: this.#admission?.denialId ?? null,
      cause: this.#cause,
    });
    this.#admission?.over();
  }

  closed(_front: HttpFront): void {
    this.#idle?.pipe.destroy();
    this.#idle = null;
  }

  // Tracked

  recheck(): Cause | null {
    const facts = this.#known;
    if (facts === null || !this.#established) {
      return null;
    }
    if (this.peer === null && facts.enforcer.mtls === "STRICT") {
      return "plaintext-refused";
    }
    if ((this.peer !== null && facts.killed.has(this.peer)) || facts.killed.has(facts.snapshot.workload.spiffeId)) {
      return "identity-killed";
    }
    const { workload } = facts.snapshot;
    if (isHttp(workload) !== (this.#front !== null) || workload.port !== this.#peerFacts.destinationPort) {
      return "policy-changed";
    }
    if (this.#front === null) {
      const asked = this.#verdict;
      const now = facts.enforcer.tcp(this.#peerFacts);
      // What its provider allowed when the connection came stands for as long as it is the same rule that asks.
      const allowed = asked?.custom?.policy === now.custom?.policy && asked?.custom?.rule === now.custom?.rule;
      return asked === null ? null : this.#denies(facts, allowed ? now : withoutProvider(now));
    }
    // Requests are decided one by one; the one under way is decided again.
    const verdict = this.#front.exchange.active ? (this.#admission?.recheck() ?? null) : null;
    return verdict === null ? null : this.#denies(facts, verdict);
  }

  #denies(facts: Facts, verdict: Verdict): Cause | null {
    if (verdict.decision === "allow") {
      return null;
    }
    const id = recordDenial(this.#context, facts, verdict, this.peer, this.#peerFacts, this.#admission);
    if (this.#admission === null) {
      this.#verdict = verdict;
      this.#denialId = id;
    } else {
      this.#admission.verdict = verdict;
      this.#admission.denialId = id;
    }
    return "policy-changed";
  }

  close(cause: Cause): void {
    if (this.#closed) {
      return;
    }
    this.#cause = cause;
    countClosed(this.#context, cause);
    this.#cancelDial?.();
    this.#front?.destroy();
    this.#splice?.close();
    this.#socket.destroy();
    this.#raw.destroy();
  }

  tick(nowMs: number): void {
    if (this.#established) {
      this.#front?.tick(nowMs);
      this.#splice?.tick(nowMs, this.#context.timeouts.idleMs);
    } else if (nowMs - this.#startedMs > this.#context.timeouts.headMs) {
      this.close("head-timeout");
    }
  }

  drain(): void {
    this.#front?.drain();
  }

  #gone(): void {
    this.#closed = true;
    this.#cancelDial?.();
    if (this.#tcp !== null && this.#splice === null) {
      this.#tcp.closed.value++;
      this.#logConnection("DC", this.#cause ?? "closed_before_connected", 0, 0);
    }
    this.#context.connections.delete(this);
  }

  #logConnection(flags: string, details: string, received: number, sent: number): void {
    logConnection(this.#context, {
      direction: "inbound",
      startedMs: this.#startedMs,
      sourcePrincipal: this.peer,
      sourceIp: this.#peerFacts.sourceIp,
      destination: null,
      flags,
      details,
      received,
      sent,
      verdict: this.#verdict,
      denialId: this.#denialId,
      cause: this.#cause,
    });
  }
}
