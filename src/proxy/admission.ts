/**
 * Whether the request of an inbound connection may go on: its tokens, then CUSTOM, then DENY and ALLOW. Only where a key set
 * or an authorizer has to be asked is anything waited for.
 */
import { type Claims, type Peer, peerOf } from "../core/policy/facts.ts";
import { visibleHeaders } from "../core/policy/headers.ts";
import type { ExtensionProvider } from "../core/policy/mesh-config.ts";
import type { TokenReplay } from "../core/policy/nearest/changes.ts";
import type { TokenFault } from "../core/policy/token-check.ts";
import { BAD_TOKEN, WRONG_AUDIENCE } from "../core/policy/verdict.ts";
import type { CheckResult, HeaderChange } from "./authorize/check.ts";
import { type AskedConnection, checkOf, customVerdict, tooLarge } from "./authorize/request.ts";
import { countDryRun, type ProxyContext, recordDenial } from "./context.ts";
import { type HttpFacts, type Verdict, withoutProvider } from "./enforce.ts";
import { type Answer, BAD_REQUEST, denied, PAYLOAD_TOO_LARGE, tokenRefused } from "./http/answers.ts";
import { splitTarget } from "./http/target.ts";
import { type HttpFront, PENDING } from "./http-front.ts";
import type { Facts } from "./state.ts";

/** A question to an authorizer, asked once the body it wants is here. */
interface Question {
  readonly provider: ExtensionProvider;
  readonly verdict: Verdict;
}

export class Admission implements HttpFacts {
  auth: Claims | null = null;
  method = "";
  path = "";
  host = "";
  verdict: Verdict | null = null;
  denialId: string | null = null;
  readonly #connection: AskedConnection;
  /** Of the connection, as the policy's evaluator wants it. */
  readonly #peer: Peer;
  readonly #context: ProxyContext;
  #front: HttpFront | null = null;
  /** The CUSTOM rule whose provider has allowed this request. */
  #allowedBy: string | null = null;
  #question: Question | null = null;
  #signal: AbortSignal | null = null;
  #giveUp: (() => void) | null = null;
  #pending = false;

  constructor(connection: AskedConnection, context: ProxyContext) {
    this.#connection = connection;
    this.#peer = peerOf(connection.peerFacts);
    this.#context = context;
  }

  get #facts(): Facts {
    return this.#context.state.facts.value as Facts;
  }

  /** HOT. */
  admit(front: HttpFront): Answer | null {
    this.#front = front;
    this.#allowedBy = null;
    return this.#judge(front, true);
  }

  #judge(front: HttpFront, mayWait: boolean): Answer | null {
    const facts = this.#facts;
    const { exchange } = front;
    const { head } = exchange;
    const target = splitTarget(head);
    const path = target === null ? null : facts.enforcer.normalize(target);
    if (path === null) {
      head.close = true;
      return BAD_REQUEST;
    }
    // INVARIANT: the path that is decided on is the path that is forwarded.
    exchange.path = path;
    this.method = head.method;
    this.path = path;
    this.host = head.host;
    this.auth = null;
    if (facts.enforcer.tokens !== null) {
      const refusal = this.#authenticate(front, facts, mayWait);
      if (refusal !== null) {
        return refusal;
      }
    }
    return this.#decide(front, facts);
  }

  #authenticate(front: HttpFront, { enforcer }: Facts, mayWait: boolean): Answer | null {
    const { exchange } = front;
    const result = enforcer.tokens?.check(exchange, this.#context.clock.now());
    if (result === undefined || result.ok) {
      this.auth = result?.claims ?? null;
      this.path = exchange.path;
      return null;
    }
    const { missingKeysOf } = result;
    if (mayWait && missingKeysOf !== null) {
      const giveUp = this.#context.keys.want(missingKeysOf, () => this.#resume());
      if (giveUp !== null) {
        return this.#wait(giveUp);
      }
    }
    return this.#refuseToken(result.status, result.fault);
  }

  #refuseToken(status: 401 | 403, fault: TokenFault): Answer {
    const verdict = status === 403 ? WRONG_AUDIENCE : BAD_TOKEN;
    const id = this.#deny(verdict);
    return tokenRefused(id, status, fault, `${this.#connection.scheme}://${this.host}${this.path.split("?", 1)[0]}`);
  }

  /** HOT. */
  #decide(front: HttpFront, facts: Facts): Answer | null {
    const verdict = facts.enforcer.http(this.#peer, this);
    if (verdict.custom !== null && customKey(verdict) !== this.#allowedBy) {
      return this.#ask(front, facts, verdict);
    }
    this.verdict = verdict;
    countDryRun(this.#context, facts, verdict, this.#connection.peer, "http");
    if (verdict.decision === "allow") {
      this.denialId = null;
      return null;
    }
    const id = this.#deny(verdict);
    const by = verdict.policy === null ? "none" : `${verdict.policy}/${verdict.rule}`;
    return denied(id, `rbac_access_denied_matched_policy[${by}]`, verdict.status);
  }

  #deny(verdict: Verdict): string {
    this.verdict = verdict;
    const { peer, peerFacts } = this.#connection;
    const replay = verdict.reason === "bad-token" ? () => this.#replay() : null;
    this.denialId = recordDenial(this.#context, this.#facts, verdict, peer, peerFacts, this, replay);
    return this.denialId;
  }

  /** The request as it came, for a look at what would have to change for its token to be taken. */
  #replay(): TokenReplay {
    const fields = Map.groupBy(this.#front?.exchange.fields() ?? [], ([name]) => name);
    const lines = new Map([...fields].map(([name, pairs]) => [name, pairs.map(([, value]) => value)]));
    const { method, path, host, remoteIp } = this;
    return {
      received: () => ({ method, path, host, remoteIp, headers: visibleHeaders(lines) ?? new Map() }),
      nowMs: this.#context.clock.now(),
      keysOf: this.#facts.enforcer.tokens?.keysOf ?? (() => null),
    };
  }

  // CUSTOM

  #ask(front: HttpFront, facts: Facts, verdict: Verdict): Answer {
    const provider = facts.enforcer.provider(verdict.custom?.provider ?? "");
    if (provider === null || this.#context.authorizers.of(provider) === null) {
      // INVARIANT: fail closed: who cannot be asked has not allowed.
      return denied(this.#deny(customVerdict(verdict, 403)), "ext_authz_error");
    }
    this.#question = { provider, verdict };
    front.collect(provider.extAuthz?.includeRequestBodyInCheck?.maxRequestBytes ?? 0);
    const controller = new AbortController();
    const pending = this.#wait(() => controller.abort());
    this.#signal = controller.signal;
    if (front.isWaiting && front.isCollected) {
      this.collected();
    }
    return pending;
  }

  /** As much of the body as the authorizer wants is here. */
  collected(): void {
    const [question, front, signal] = [this.#question, this.#front, this.#signal];
    if (question === null || front === null || signal === null) {
      return;
    }
    this.#question = null;
    const { provider, verdict } = question;
    const authorizer = this.#context.authorizers.of(provider);
    if (tooLarge(front, provider)) {
      this.#finish(
        denied(this.#deny(customVerdict(verdict, 413)), "request_payload_too_large", 413, PAYLOAD_TOO_LARGE),
      );
      return;
    }
    const { spiffeId } = this.#facts.snapshot.workload;
    const check = checkOf(front, this, this.#connection, spiffeId, provider, this.#context.clock.now());
    const asked = authorizer?.check(check, signal) ?? Promise.resolve({ kind: "failed", message: "closed" } as const);
    void asked.then((result) => {
      if (!signal.aborted && this.#signal === signal) {
        this.#signal = null;
        this.#answered(front, provider, verdict, result);
      }
    });
  }

  #answered(front: HttpFront, provider: ExtensionProvider, verdict: Verdict, result: CheckResult): void {
    const { exchange } = front;
    if (result.kind === "denied") {
      const id = this.#deny(customVerdict(verdict, result.status));
      this.#finish(denied(id, "ext_authz_denied", result.status, result.body, linesOf(result.headers)));
      return;
    }
    if (result.kind === "failed") {
      this.#warn(provider, result.message);
      if (provider.extAuthz?.failOpen !== true) {
        const status = provider.extAuthz?.statusOnError ?? 403;
        this.#finish(denied(this.#deny(customVerdict(verdict, status)), "ext_authz_error", status, ""));
        return;
      }
    } else {
      for (const name of result.remove.filter((each) => each !== "host" && !each.startsWith(":"))) {
        exchange.removeField(name);
      }
      for (const change of result.headers) {
        applyChange(front, change);
      }
      exchange.answerLines = linesOf(result.answerHeaders);
    }
    this.#allowedBy = customKey(verdict);
    // What the authorizer put into the request is seen by DENY and ALLOW.
    this.#finish(this.#decide(front, this.#facts));
  }

  #warn({ name }: ExtensionProvider, error: string): void {
    const { seldom, log } = this.#context;
    if (seldom.may(`authorizer ${name}`)) {
      log.warn("an authorizer gave no answer", { provider: name, error });
    }
  }

  // Waiting

  #wait(giveUp: () => void): Answer {
    this.#pending = true;
    this.#giveUp = giveUp;
    return PENDING;
  }

  /** Keys may have come: everything is looked at again, with the facts of now. */
  #resume(): void {
    const front = this.#front;
    if (front !== null && this.#pending) {
      this.#finish(this.#judge(front, false));
    }
  }

  #finish(answer: Answer | null): void {
    if (answer === PENDING) {
      return;
    }
    this.#pending = false;
    this.#giveUp = null;
    this.#front?.decided(answer);
  }

  /** The front no longer waits. */
  cancel(): void {
    this.#pending = false;
    this.#question = null;
    this.#signal = null;
    this.#giveUp?.();
    this.#giveUp = null;
  }

  /** The decision on the request under way as it is now; null while it is not taken yet. */
  recheck(): Verdict | null {
    if (this.#pending) {
      return null;
    }
    const verdict = this.#facts.enforcer.http(this.#peer, this);
    return customKey(verdict) === this.#allowedBy ? verdict : withoutProvider(verdict);
  }

  over(): void {
    this.verdict = null;
    this.denialId = null;
  }

  // HttpFacts

  /** Policies see a request as it will reach the service. */
  header(name: string): readonly string[] | null {
    return this.#front?.exchange.header(name) ?? this.#completed(name);
  }

  #completed(name: string): readonly string[] | null {
    switch (name) {
      case "x-request-id":
        return [this.#front?.exchange.requestId ?? ""];
      case "x-forwarded-proto":
        return [this.#connection.scheme];
      case "x-forwarded-client-cert": {
        const { clientCertificate } = this.#connection;
        return clientCertificate === null ? null : [clientCertificate];
      }
      default:
        return null;
    }
  }

  get remoteIp(): string | null {
    return this.#front?.exchange.forwardedFor() ?? null;
  }
}

const customKey = ({ custom }: Verdict): string | null => (custom === null ? null : `${custom.policy} ${custom.rule}`);

const linesOf = (headers: readonly (readonly [name: string, value: string])[]): string =>
  headers.map(([name, value]) => `${name}: ${value}\r\n`).join("");

function applyChange({ exchange }: HttpFront, { name, value, how }: HeaderChange): void {
  const isThere = exchange.header(name) !== null;
  if ((how === "add-if-absent" && isThere) || (how === "overwrite-if-exists" && !isThere)) {
    return;
  }
  if (how !== "append") {
    exchange.removeField(name);
  }
  exchange.addField(name, [value]);
}
