/** Turns what the sources say into Worlds: one path for a saved file, a service that comes or goes, and a kill. */
import { relative } from "node:path";
import type { Cell } from "../core/base/cell.ts";
import { configError, formatIssue, type Issue } from "../core/base/errors.ts";
import type { MeshConfig } from "../core/policy/mesh-config.ts";
import type { TrustDomain } from "../core/spiffe/id.ts";
import type { Log } from "../io/log.ts";
import type { FileSet } from "../io/watch-files.ts";
import { type Accepted, judge, NOTHING_ACCEPTED, sameFiles } from "./change.ts";
import { meshFindings } from "./findings.ts";
import type { KilledIdentity } from "./identities.ts";
import type { KeySets } from "./jwks.ts";
import type { ControlMetrics } from "./metrics.ts";
import type { Bundles } from "./opa-bundles.ts";
import { type Mesh, PolicyReader, readMeshConfig } from "./policies.ts";
import type { Service } from "./service.ts";
import { keepVersion, lastVersion } from "./version-file.ts";
import { describeWorkload, type World } from "./world.ts";

export interface LoopOptions {
  readonly trustDomain: TrustDomain;
  /** As the configuration file has it, plain data. */
  readonly meshConfig: unknown;
  /** File names in issues are relative to it. */
  readonly baseDir: string;
  readonly files: Cell<FileSet>;
  readonly services: Cell<readonly Service[]>;
  readonly kills: Cell<readonly KilledIdentity[]>;
  readonly keySets: Cell<KeySets>;
  readonly bundles: Cell<Bundles>;
  /** Where the World's version is kept over a restart. */
  readonly versionFile?: string;
  readonly log: Log;
  readonly metrics: ControlMetrics;
}

export class Loop {
  readonly #options: LoopOptions;
  readonly #unwatch: readonly (() => void)[];
  #accepted: Accepted = NOTHING_ACCEPTED;
  #problems: readonly Issue[] = [];
  #findings: readonly Issue[] | null = null;
  #world: World;
  readonly #meshConfig: MeshConfig;
  readonly #reader = new PolicyReader();
  /** Told of each new World. */
  onWorld: (world: World) => void = () => {};

  /** Errors: `config-invalid` with every issue, where the files are not valid from the start. */
  constructor(options: LoopOptions) {
    this.#options = options;
    const { trustDomain, services, kills, files, keySets, bundles } = options;
    const { json, meshConfig } = readMeshConfig(options.meshConfig);
    this.#meshConfig = meshConfig;
    this.#judge(files.value);
    if (this.#problems.length > 0) {
      throw configError(this.#problems);
    }
    this.#world = {
      version: options.versionFile === undefined ? 1 : lastVersion(options.versionFile) + 1,
      trustDomain,
      meshConfig,
      meshConfigJson: json,
      services: services.value,
      policies: this.#accepted.policies,
      kills: kills.value,
      keySets: keySets.value,
      bundles: bundles.value,
    };
    this.#keepVersion();
    this.#unwatch = [
      files.watch((next) => this.#filesChanged(next)),
      services.watch((next) => {
        this.#findings = null;
        this.#advance({ services: next });
      }),
      kills.watch((next) => this.#advance({ kills: next })),
      keySets.watch((next) => this.#advance({ keySets: next })),
      bundles.watch((next) => this.#advance({ bundles: next })),
    ];
  }

  get world(): World {
    return this.#world;
  }

  /** Why something that was saved is not in force. */
  get problems(): readonly Issue[] {
    return this.#problems;
  }

  /** Warnings and notes on what is in force. Found when first asked for: no change waits for it. */
  get findings(): readonly Issue[] {
    this.#findings ??= meshFindings(this.#accepted, this.#mesh());
    return this.#findings;
  }

  close(): void {
    for (const end of this.#unwatch) {
      end();
    }
  }

  /** Publishes the kills as they are now, if the World in force has others. */
  refreshKills(): void {
    if (this.#world.kills !== this.#options.kills.value) {
      this.#advance({ kills: this.#options.kills.value });
    }
  }

  #filesChanged(files: FileSet): void {
    const before = { accepted: this.#accepted, problems: JSON.stringify(this.#problems) };
    this.#judge(files);
    if (this.#problems.length > 0 && JSON.stringify(this.#problems) !== before.problems) {
      this.#options.metrics.refusedChanges.inc();
      for (const issue of this.#problems) {
        this.#options.log.error("refused; the last good state stays in force", { problem: formatIssue(issue) });
      }
    }
    if (!sameFiles(this.#accepted.files, before.accepted.files)) {
      this.#advance({ policies: this.#accepted.policies });
    }
  }

  #judge({ files, faults }: FileSet): void {
    const { baseDir } = this.#options;
    const named = new Map([...files].map(([path, text]) => [relative(baseDir, path), text]));
    const { accepted, refused } = judge(named, this.#accepted, { mesh: this.#mesh(), reader: this.#reader });
    this.#reader.keepOnly(new Set([...named.keys(), ...accepted.files.keys()]));
    this.#accepted = accepted;
    this.#findings = null;
    const unread = faults.map((issue) =>
      issue.file === undefined ? issue : { ...issue, file: relative(baseDir, issue.file) || "." },
    );
    this.#problems = [...unread, ...refused];
  }

  #keepVersion(): void {
    const { versionFile, log } = this.#options;
    try {
      if (versionFile !== undefined) {
        keepVersion(versionFile, this.#world.version);
      }
    } catch (error) {
      log.warn("the version could not be kept; after a restart it may begin anew", { error });
    }
  }

  #mesh(): Mesh {
    const { services, trustDomain } = this.#options;
    const workloads = services.value.map((service) => describeWorkload(service, trustDomain));
    return { trustDomain, meshConfig: this.#meshConfig, workloads };
  }

  #advance(change: Partial<World>): void {
    this.#world = { ...this.#world, ...change, version: this.#world.version + 1 };
    this.#keepVersion();
    this.#options.log.info("world changed", { version: this.#world.version, what: Object.keys(change) });
    this.onWorld(this.#world);
  }
}
