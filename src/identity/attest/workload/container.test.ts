import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { type Cgroup, parseCgroups } from "../../../io/cgroup.ts";
import { type Container, findContainer } from "./container.ts";

const ID = "9bca8d63d5fa610783847915bcff0ecac1273e5b4bed3f6fa1b07350e0135961";
const OTHER = "aff34703e5e1f89443e9a1bffcc80f43f74d4808a2dd22c8f88c08547b323934";
const NODE = "8d461fa5765781bcf5f7eb192f101bc3103d4b932e26236f43feecfa20664f96";
const POD = "2c48913c-b29f-11e7-9350-020968147796";
const VICTIM = "72f7f152-440c-66ac-9084-e0fc1d8a910c";
const underscored = (uid: string) => uid.replaceAll("-", "_");

const v2 = (path: string): Cgroup[] => [{ controllers: "", path }];
const ROOT = v2("/");
const find = (path: string, own = ROOT): Container | null => findContainer(v2(path), own);
const brief = (path: string, own = ROOT): string => {
  const found = find(path, own);
  return found === null
    ? "none"
    : [found.runtime, found.id.slice(0, 4), found.podUid, found.sessionUid].join(" ").trim();
};

/** How the runtimes name control groups, with both drivers and in both versions. */
const FORMS: readonly (readonly [string, string])[] = [
  [`/docker/${ID}`, "9bca"],
  [`/system.slice/docker-${ID}.scope`, "docker 9bca"],
  [`/my-parent/${ID}`, "9bca"],
  [`/my.slice/my-sub.slice/docker-${ID}.scope`, "docker 9bca"],
  [`/system.slice/docker-${ID}.scope/init`, "docker 9bca"],
  [`/docker/${ID}/system.slice/nginx.service`, "9bca"],
  [`/machine.slice/libpod-${ID}.scope`, "libpod 9bca"],
  [`/machine.slice/libpod-${ID}.scope/container`, "libpod 9bca"],
  [`/libpod_parent/libpod-${ID}`, "libpod 9bca"],
  [`/machine.slice/libpod-conmon-${ID}.scope`, "none"],
  [`/kubepods.slice/crio-conmon-${ID}.scope`, "none"],
  [`/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-${ID}.scope/container`, "libpod 9bca  1000"],
  [`/default/${ID}`, "9bca"],
  [`/kubepods/burstable/pod${POD}/${ID}`, `9bca ${POD}`],
  [`/kubepods/pod${POD}/${ID}`, `9bca ${POD}`],
  [
    `/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod${underscored(POD)}.slice/docker-${ID}.scope`,
    `docker 9bca ${POD}`,
  ],
  [
    `/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod${underscored(POD)}.slice/cri-containerd-${ID}.scope`,
    `cri-containerd 9bca ${POD}`,
  ],
  [`/kubepods.slice/kubepods-pod${underscored(POD)}.slice/crio-${ID}.scope/container`, `crio 9bca ${POD}`],
  [
    `/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod${underscored(POD)}.slice/cri-containerd-${ID}.scope`,
    `cri-containerd 9bca ${POD}`,
  ],
  [
    `/system.slice/containerd.service/kubepods-besteffort-pod${underscored(POD)}.slice:cri-containerd:${ID}`,
    `cri-containerd 9bca ${POD}`,
  ],
  // As an agent in a cgroup namespace of its own sees them.
  [`/../../kubepods-pod${underscored(POD)}.slice/cri-containerd-${ID}.scope`, `cri-containerd 9bca ${POD}`],
  [`/../../pod${POD}/${ID}`, `9bca ${POD}`],
  [`/../crio-${ID}.scope`, "crio 9bca"],
  // Not in a container.
  ["/", "none"],
  ["/system.slice/sshd.service", "none"],
  ["/user.slice/user-1000.slice/session-3.scope", "none"],
  [`/docker/${ID.slice(1)}`, "none"],
  [`/docker/${ID}0`, "none"],
  [`/docker/${ID.toUpperCase()}`, "none"],
];

test("each runtime's control groups name its container", () => {
  for (const [path, expected] of FORMS) {
    assert.equal(brief(path).replace(/ +/g, " "), expected.replace(/ +/g, " "), path);
  }
});

test("names that a container, a unit or a user makes below its own part of the tree are believed by nobody", () => {
  const victim = `kubepods.slice/kubepods-pod${underscored(VICTIM)}.slice/cri-containerd-${OTHER}.scope`;
  const table: readonly (readonly [string, string])[] = [
    // From inside a container: still that container.
    [`/docker/${ID}/docker/${OTHER}`, "9bca"],
    [`/system.slice/docker-${ID}.scope/${victim}`, "docker 9bca"],
    [`/kubepods/pod${POD}/${ID}/${victim}`, `9bca ${POD}`],
    [`/kubepods/pod${POD}/${ID}/pod${VICTIM}/${OTHER}`, `9bca ${POD}`],
    // From a unit or a session that may make groups: none at all.
    [`/system.slice/web.service/${victim}`, "none"],
    [`/system.slice/web.service/docker/${OTHER}`, "none"],
    [`/system.slice/run-u12.scope/docker-${OTHER}.scope`, "none"],
    [`/user.slice/user-1000.slice/user@1000.service/app.slice/${victim}`, "none"],
    [`/user.slice/user-1000.slice/user@1000.service/docker-${OTHER}.scope`, "none"],
    // A runtime's unit counts where only root can have made it.
    [`/user.slice/user-1000.slice/user@1000.service/system.slice/containerd.service/docker/${OTHER}`, "none"],
    [`/system.slice/web.service/system.slice/containerd.service/docker/${OTHER}`, "none"],
    // Rootless Podman in a pod's clothes is no pod.
    [`/user.slice/user-1000.slice/user@1000.service/pod${VICTIM}/libpod-${OTHER}.scope`, "none"],
  ];
  for (const [path, expected] of table) {
    assert.equal(brief(path), expected, path);
  }
});

test("inside a node that is a container, what the agent is in too is not the workload's", () => {
  const inNode = (rest: string) => v2(`/docker/${NODE}${rest}`);
  const agent = inNode(`/kubepods/pod${VICTIM}/${OTHER}`);
  assert.equal(brief(`/docker/${NODE}/kubepods/pod${POD}/${ID}`, agent), `9bca ${POD}`);
  // In the agent's own pod, and in its own container.
  assert.equal(brief(`/docker/${NODE}/kubepods/pod${VICTIM}/${ID}`, agent), `9bca ${VICTIM}`);
  assert.equal(brief(`/docker/${NODE}/kubepods/pod${VICTIM}/${OTHER}`, agent), `8d46`);
  // Of an agent outside, the node is what there is.
  assert.equal(brief(`/docker/${NODE}/kubepods/pod${POD}/${ID}`, v2("/system.slice/everyhop-agent.service")), "8d46");
});

test("hierarchies of version 1 have to agree", () => {
  const text = (...paths: readonly string[]) => paths.map((path, index) => `${index}:c${index}:${path}`).join("\n");
  const of = (...paths: readonly string[]) => findContainer(parseCgroups(text(...paths)), []);
  assert.equal(of("/", `/docker/${ID}`, `/docker/${ID}`)?.id, ID);
  assert.throws(() => of(`/docker/${ID}`, `/docker/${OTHER}`), /in two containers/);
  assert.throws(() => of(`/kubepods/pod${POD}/${ID}`, `/kubepods/pod${VICTIM}/${ID}`), /in two containers/);
  // kind on macOS: one hierarchy shows the node alone.
  const kind = of(`/docker/${NODE}/system.slice/containerd.service`, `/kubepods/pod${POD}/${ID}`);
  assert.deepEqual([kind?.id, kind?.podUid], [ID, POD]);
});

test("any text has an answer or a typed error", () => {
  const part = fc.constantFrom(
    "/",
    "..",
    ":",
    "-",
    "_",
    ".scope",
    ".slice",
    ".service",
    "pod",
    "docker",
    "libpod",
    "user-1",
    "system",
    ID,
    OTHER,
    POD,
    "\n",
    "0::",
  );
  const text = fc.oneof(
    fc.string({ unit: "binary" }),
    fc.array(part, { maxLength: 40 }).map((parts) => `0::/${parts.join("")}`),
  );
  fc.assert(
    fc.property(text, text, (cgroups, own) => {
      try {
        const found = findContainer(parseCgroups(cgroups), parseCgroups(own));
        assert.ok(found === null || /^[0-9a-f]{64}$/.test(found.id));
      } catch (error) {
        assert.equal((error as { code?: string }).code, "failed-precondition");
      }
    }),
  );
  assert.equal(find(`/${"a/".repeat(2_000)}${ID}`), null);
});
