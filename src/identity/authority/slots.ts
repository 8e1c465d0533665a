/** The authorities a server signs with, by what each is for at the moment, and what an operator may do with each. */
import { EveryhopError } from "../../core/base/errors.ts";

/** Anything that signs for a while. */
export interface Rotated {
  readonly id: string;
  readonly issuedAtMs: number;
  readonly notAfterMs: number;
}

/** SPIRE's states: prepared is published and does not sign yet; active signs; old is published until it expires. */
export type SlotState = "prepared" | "active" | "old";

export interface Slot<A extends Rotated> {
  readonly authority: A;
  readonly state: SlotState;
  /** No longer secure: what it signed is to be replaced at once. */
  readonly tainted: boolean;
}

export function slotIn<A extends Rotated>(slots: readonly Slot<A>[], state: SlotState): Slot<A> | undefined {
  return slots.find((slot) => slot.state === state);
}

/** The one that another took over from last; several may be old where rotations were ordered one after the other. */
export function lastOld<A extends Rotated>(slots: readonly Slot<A>[]): Slot<A> | undefined {
  return slots.findLast((slot) => slot.state === "old");
}

const refuse = (message: string, hint: string): EveryhopError =>
  new EveryhopError("invalid-argument", message, { hint });
const SHOW = "`everyhop authority show` has the ids";

/**
 * The slot that `id` names, if it may become the active one. Errors, in SPIRE's words: `invalid-argument`, and
 * `failed-precondition` where it is not prepared.
 */
export function activatable<A extends Rotated>(slots: readonly Slot<A>[], id: string): Slot<A> {
  const slot = named(slots, id);
  if (slot.state !== "prepared") {
    throw new EveryhopError(
      "failed-precondition",
      `only Prepared authorities can be activated: unsupported local authority status: ${slot.state.toUpperCase()}`,
      { hint: "prepare another one first: `everyhop authority prepare`" },
    );
  }
  return slot;
}

/** The slot that `id` names, if it may be tainted. Errors, in SPIRE's words: `invalid-argument`. */
export function taintable<A extends Rotated>(slots: readonly Slot<A>[], id: string): Slot<A> {
  if (id !== "" && id === slotIn(slots, "active")?.authority.id) {
    throw refuse("unable to taint current local authority", "prepare and activate another one first");
  }
  const slot = named(slots, id);
  if (slot.state !== "old") {
    throw refuse(
      `only Old local authorities can be tainted: unsupported local authority status: ${slot.state.toUpperCase()}`,
      "activate it, and the one that is active now becomes old",
    );
  }
  return slot;
}

/** The slot that `id` names, if it may be taken out of the bundle. Errors, in SPIRE's words: `invalid-argument`. */
export function revocable<A extends Rotated>(slots: readonly Slot<A>[], id: string): Slot<A> {
  if (id === "") {
    throw refuse("invalid authority ID: no authority ID provided", SHOW);
  }
  if (id === slotIn(slots, "active")?.authority.id) {
    throw refuse("invalid authority ID: unable to use current authority", "prepare and activate another one first");
  }
  const slot = slots.find(({ authority }) => authority.id === id);
  if (slot?.state !== "old") {
    throw refuse("invalid authority ID: only Old local authority can be revoked", SHOW);
  }
  return slot;
}

function named<A extends Rotated>(slots: readonly Slot<A>[], id: string): Slot<A> {
  if (id === "") {
    throw refuse("no authority ID provided", SHOW);
  }
  const slot = slots.find(({ authority }) => authority.id === id);
  if (slot === undefined) {
    throw refuse("unexpected authority ID", SHOW);
  }
  return slot;
}
