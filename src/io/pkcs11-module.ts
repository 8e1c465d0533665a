/**
 * A PKCS#11 library, called through its C functions. Structures are laid out by hand, as on 64-bit Linux: CK_ULONG has 8 octets and
 * nothing is packed. SPEC: PKCS#11 2.40.
 */
import koffi from "koffi";
import { EveryhopError } from "../core/base/errors.ts";

/** One attribute of an object, by its CKA number. */
export type Attribute = readonly [type: number, value: Buffer];

const FUNCTIONS = {
  initialize: ["C_Initialize", ["void *"]],
  slots: ["C_GetSlotList", ["uint8_t", "void *", "void *"]],
  tokenInfo: ["C_GetTokenInfo", ["ulong", "void *"]],
  openSession: ["C_OpenSession", ["ulong", "ulong", "void *", "void *", "void *"]],
  closeSession: ["C_CloseSession", ["ulong"]],
  login: ["C_Login", ["ulong", "ulong", "void *", "ulong"]],
  generate: ["C_GenerateKeyPair", ["ulong", "void *", "void *", "ulong", "void *", "ulong", "void *", "void *"]],
  findInit: ["C_FindObjectsInit", ["ulong", "void *", "ulong"]],
  find: ["C_FindObjects", ["ulong", "void *", "ulong", "void *"]],
  findFinal: ["C_FindObjectsFinal", ["ulong"]],
  attributes: ["C_GetAttributeValue", ["ulong", "ulong", "void *", "ulong"]],
  signInit: ["C_SignInit", ["ulong", "void *", "ulong"]],
  sign: ["C_Sign", ["ulong", "void *", "ulong", "void *", "void *"]],
  destroy: ["C_DestroyObject", ["ulong", "ulong"]],
} as const;

type Name = keyof typeof FUNCTIONS;
type Argument = number | bigint | Buffer | null;

export interface Module {
  /** Calls it. Errors: as `failure`, but for the codes in `fine`. The answer is CKR_OK or one of those. */
  call(name: Name, args: readonly Argument[], fine?: readonly number[]): number;
}

/** Errors: `file-missing` where the library cannot be loaded or is none of PKCS#11. */
export function loadModule(path: string): Module {
  const functions = new Map<Name, (...args: Argument[]) => number | bigint>();
  try {
    const library = koffi.load(path);
    for (const [name, [symbol, types]] of Object.entries(FUNCTIONS)) {
      functions.set(
        name as Name,
        library.func(symbol, "ulong", [...types]) as (...args: Argument[]) => number | bigint,
      );
    }
  } catch (cause) {
    throw new EveryhopError(
      "file-missing",
      `the PKCS#11 library \`${path}\` cannot be loaded: ${(cause as Error).message}`,
      {
        cause,
        hint: "`keyManager.module` names it; SoftHSM's is `/usr/lib/softhsm/libsofthsm2.so` on Debian",
      },
    );
  }
  return {
    call(name, args, fine = []) {
      const code = Number(functions.get(name)?.(...args));
      if (code !== 0 && !fine.includes(code)) {
        throw failure(FUNCTIONS[name][0], code);
      }
      return code;
    },
  };
}

export const ulong = (value: number | bigint): Buffer => {
  const buffer = Buffer.alloc(8);
  buffer.writeBigUInt64LE(BigInt(value));
  return buffer;
};

/** An array of CK_ATTRIBUTE. The values have to be held by the caller while it is used. */
export function template(attributes: readonly Attribute[]): Buffer {
  return Buffer.concat(
    attributes.flatMap(([type, value]) => [ulong(type), ulong(koffi.address(value)), ulong(value.length)]),
  );
}

/** The lengths that a call has put into a template. */
export function lengthsIn(filled: Buffer): bigint[] {
  return Array.from({ length: filled.length / 24 }, (_, index) => filled.readBigUInt64LE(24 * index + 16));
}

/** A CK_MECHANISM without parameters. */
export const mechanism = (type: number): Buffer => Buffer.concat([ulong(type), ulong(0), ulong(0)]);

/** What went wrong, by its CKR number, where more can be said than the number. */
const REASONS: Readonly<Record<number, readonly ["permission-denied" | "storage-failed", string, string]>> = {
  48: ["storage-failed", "the token reports a fault of its own", "look at the token"],
  50: ["storage-failed", "the token was taken out", "put it back: the signer is started again by itself"],
  160: [
    "permission-denied",
    "the PIN is wrong",
    "put the right one into `keyManager.pinFile`: a token locks itself after a few",
  ],
  163: ["permission-denied", "the PIN has expired", "set a new one with the token's own tool"],
  164: ["permission-denied", "the PIN is locked after too many wrong ones", "unlock it with the token's own tool"],
  176: ["storage-failed", "the session was closed", "the signer is started again by itself"],
  179: ["storage-failed", "the session was lost", "the signer is started again by itself"],
  224: ["storage-failed", "there is no token in the slot", "put it back: the signer is started again by itself"],
  112: ["storage-failed", "the token does not know this type of key", "choose another `ca.keyType`, or another token"],
  257: ["storage-failed", "the session is not logged in any more", "the signer is started again by itself"],
};

/** Whatever a token refuses leaves a signer without keys, so it is `storage-failed` unless it is the PIN. */
function failure(call: string, code: number): EveryhopError {
  const [kind, why, hint] = REASONS[code] ?? ["storage-failed", "it refused", "look at the token and its library"];
  return new EveryhopError(kind, `the PKCS#11 token: ${why} (${call}: 0x${code.toString(16)})`, { hint });
}
