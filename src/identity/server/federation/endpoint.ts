/** Our own bundle endpoint: whoever asks gets our bundle, by which our identities can be believed elsewhere. */
import { readFileSync } from "node:fs";
import type { SecureContextOptions } from "node:tls";
import { createSecureContext } from "node:tls";
import { Cell } from "../../../core/base/cell.ts";
import type { Clock } from "../../../core/base/clock.ts";
import { EveryhopError } from "../../../core/base/errors.ts";
import { type Bundle, formatBundle } from "../../../core/spiffe/bundle.ts";
import type { X509Svid } from "../../../core/spiffe/svid.ts";
import { type HttpListener, listenHttps } from "../../../io/http.ts";
import { INTERMEDIATE_CIPHERS } from "../../../io/https-get.ts";
import { contextOptions } from "../../../io/tls.ts";

export interface BundleEndpointOptions {
  readonly listen: { readonly host: string; readonly port: number };
  /** What the endpoint presents: see `spiffeCredentials`, `webCredentials`. */
  readonly credentials: Cell<SecureContextOptions>;
  readonly bundle: Cell<Bundle>;
  /** What others are told to poll at; default as the bundle says. */
  readonly refreshHintMs?: number;
}

/** Listens. GET of `/` alone. SPEC: SPIFFE_Federation §5.1; SPIFFE_Trust_Domain_and_Bundle §4. */
export function serveBundleEndpoint(options: BundleEndpointOptions): Promise<HttpListener> {
  const { listen, credentials, bundle, refreshHintMs } = options;
  // Made once for each bundle: who asks often costs little.
  let made: { readonly of: Bundle; readonly body: string } | null = null;
  const answer = () => {
    const { value } = bundle;
    if (made?.of !== value) {
      const body = formatBundle(refreshHintMs === undefined ? value : { ...value, refreshHintMs });
      made = { of: value, body };
    }
    return { contentType: "application/json", body: made.body };
  };
  return listenHttps(listen, credentials, { "/": answer });
}

/** `https_spiffe`: the server's own SVID, as it is renewed. TLS 1.2 too: clients are of every kind. */
export function spiffeCredentials(svid: Cell<X509Svid>): Cell<SecureContextOptions> {
  const options = (value: X509Svid) => ({ ...contextOptions(value), ...CLIENTS_OF_EVERY_KIND });
  const cell = new Cell<SecureContextOptions>(options(svid.value));
  svid.watch((next) => cell.set(options(next)));
  return cell;
}

const CLIENTS_OF_EVERY_KIND = { minVersion: "TLSv1.2", ciphers: INTERMEDIATE_CIPHERS } as const;
/** How often the files are looked at. */
const RELOAD_MS = 60_000;

export interface WebCredentialsOptions {
  readonly certFile: string;
  readonly keyFile: string;
  readonly clock: Clock;
  /** Told where renewed files cannot be used; those before stay in use. */
  readonly onError: (error: unknown) => void;
}

/** `https_web`: a certificate of the public web from files, read again when they change. Errors: `file-missing`, `config-invalid`. */
export function webCredentials(options: WebCredentialsOptions): {
  readonly credentials: Cell<SecureContextOptions>;
  close(): void;
} {
  const { clock, onError } = options;
  let read = readPair(options);
  const credentials = new Cell<SecureContextOptions>({ ...read, ...CLIENTS_OF_EVERY_KIND });
  let cancel = (): void => {};
  const schedule = (): void => {
    cancel = clock.after(RELOAD_MS, () => {
      try {
        const next = readPair(options);
        if (next.cert !== read.cert || next.key !== read.key) {
          read = next;
          credentials.set({ ...read, ...CLIENTS_OF_EVERY_KIND });
        }
      } catch (error) {
        onError(error);
      }
      schedule();
    });
  };
  schedule();
  return { credentials, close: () => cancel() };
}

function readPair({ certFile, keyFile }: Pick<WebCredentialsOptions, "certFile" | "keyFile">) {
  const pair = { cert: readText(certFile), key: readText(keyFile) };
  try {
    createSecureContext(pair);
    return pair;
  } catch (cause) {
    throw new EveryhopError(
      "config-invalid",
      `\`${certFile}\` and \`${keyFile}\` are no certificate and its key: ${(cause as Error).message}`,
      { hint: "PEM is expected: the certificate with its chain, and its private key", cause },
    );
  }
}

function readText(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (cause) {
    throw new EveryhopError("file-missing", `cannot read \`${file}\`: ${(cause as Error).message}`, {
      hint: "`federation.bundleEndpoint` names the certificate and key of its `https_web` profile",
      cause,
    });
  }
}
