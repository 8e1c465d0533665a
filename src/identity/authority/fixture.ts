/** What tests of the authority need from outside. */
import type { IssuanceIntent, Journal } from "./journal.ts";

/** A journal in memory that also says in which order it was written. */
export class RecordingJournal implements Journal {
  readonly intents: IssuanceIntent[] = [];
  readonly records = new Map<string, Uint8Array>();
  /** Makes the next `intend` fail. */
  failNext = false;

  intend(intent: IssuanceIntent): void {
    if (this.failNext) {
      this.failNext = false;
      throw new Error("the disk is full");
    }
    this.intents.push(intent);
  }

  record(serial: string, issued: Uint8Array): void {
    if (!this.intents.some((intent) => intent.serial === serial)) {
      throw new Error("recorded before it was intended");
    }
    this.records.set(serial, issued);
  }
}
