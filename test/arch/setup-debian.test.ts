/*
 * `npm run setup` where Debian packages are missing, without installing any: dpkg-query, apt-get and sudo are stand-ins on PATH,
 * and /usr/sbin is a copy in a mount namespace of its own, so that no policy-rc.d of the machine is ever touched.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";

const SETUP = fileURLToPath(new URL("../support/setup.mjs", import.meta.url));
const dir = mkdtempSync(join(tmpdir(), "tokenfwd-setup-"));
const bin = join(dir, "bin");
const log = join(dir, "log");
const POLICY = "/usr/sbin/policy-rc.d";
const missing = spawnSync("unshare", ["-m", "true"]).status === 0 ? null : "needs root, for a mount namespace";

/** Stand-ins: `state` lists the packages that are not there, until apt-get install has been called. */
const STAND_INS: Readonly<Record<string, string>> = {
  "dpkg-query": `shift 3; for p; do grep -qx "$p" "${dir}/state" && echo "not-installed $p" || echo "installed $p"; done`,
  "apt-get": `echo "apt-get $* by $(id -u), services $("${POLICY}" ssh start; echo $?)" >>"${log}"
case "$*" in *install*) : >"${dir}/state";; *update*) exit 100;; esac`,
  sudo: `echo "sudo $*" >>"${log}"; [ "$1" = -n ] && shift; exec "$@"`,
};

/** Another user id that may still read this checkout, wherever it lies. */
const MAY_READ = "--securebits +no_setuid_fixup --inh-caps=+dac_override --ambient-caps=+dac_override";

interface Done {
  readonly status: number | null;
  readonly stderr: string;
  /** What the stand-ins were called with. */
  readonly calls: readonly string[];
  /** policy-rc.d afterwards, null when there is none. */
  readonly policy: string | null;
}

/** Runs setup as `uid`, with this policy-rc.d before it. Any user id may write to the copy of /usr/sbin, as sudo could. */
function setup(packages: readonly string[], options: { uid?: number; policy?: string; sudo?: boolean } = {}): Done {
  const { uid = 0, policy = "", sudo = true } = options;
  writeFileSync(join(dir, "state"), packages.map((name) => `${name}\n`).join(""), { mode: 0o666 });
  writeFileSync(log, "", { mode: 0o666 });
  writeFileSync(join(dir, "policy"), policy);
  const path = `${bin}:${dirname(process.execPath)}:/usr/bin:/bin`;
  const script = `set -e; umask 022; chmod 666 "${dir}/state" "${log}"
mount -t tmpfs tmpfs /mnt; cp -a /usr/sbin/. /mnt/; rm -f /mnt/policy-rc.d; mount --move /mnt /usr/sbin
if [ -s "${dir}/policy" ]; then cp "${dir}/policy" ${POLICY}; chmod 755 ${POLICY}; fi
${sudo ? "" : `rm -f "${bin}/sudo"; if [ -e /usr/bin/sudo ]; then mount --bind "${dir}" /usr/bin; fi`}
set +e; setpriv --reuid=${uid} --regid=${uid} --clear-groups ${MAY_READ} env -i HOME=/nowhere PATH="${path}" "${process.execPath}" "${SETUP}"; status=$?
if [ -e ${POLICY} ]; then cp ${POLICY} "${dir}/after"; fi; exit $status`;
  rmSync(join(dir, "after"), { force: true });
  const done = spawnSync("unshare", ["-m", "sh", "-c", script], { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
  return {
    status: done.status,
    stderr: done.stderr,
    calls: readFileSync(log, "utf8").trim().split("\n").filter(Boolean),
    policy: existsSync(join(dir, "after")) ? readFileSync(join(dir, "after"), "utf8") : null,
  };
}

describe.skipIf(missing !== null)(`npm run setup with Debian packages missing${missing === null ? "" : ` (skipped: ${missing})`}`, () => {
  const FORBIDS = "#!/bin/sh\nexit 101\n";
  const ALLOWS = "#!/bin/sh\nexit 0\n";
  const apt = (what: string, uid: number, services: number): string =>
    `apt-get -o DPkg::Lock::Timeout=300 -qq ${what} by ${uid}, services ${services}`;
  const both = (packages: string, uid: number, services: number): string[] => [
    apt("update", uid, services),
    apt(`install -y --no-install-recommends ${packages}`, uid, services),
  ];

  beforeAll(() => mkdirSync(bin));
  beforeEach(() => {
    for (const [name, text] of Object.entries(STAND_INS)) writeFileSync(join(bin, name), `#!/bin/sh\n${text}\n`, { mode: 0o755 });
    spawnSync("chmod", ["755", dir, bin]);
  });
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  it("as root updates the lists, installs with every service forbidden, and takes its policy-rc.d away, though a mirror is away", () => {
    const done = setup(["fish", "openssh-server"]);
    expect(done, done.stderr).toMatchObject({ status: 0, policy: null });
    expect(done.calls).toEqual(both("openssh-server fish", 0, 101));
  });

  it("keeps a policy-rc.d that somebody else put there and that forbids sshd", () => {
    expect(setup(["openssh-server"], { policy: FORBIDS })).toMatchObject({ status: 0, policy: FORBIDS });
  });

  it("keeps one that allows sshd, and then installs anything but sshd", () => {
    const refused = setup(["openssh-server"], { policy: ALLOWS });
    expect(refused).toMatchObject({ status: 1, policy: ALLOWS, calls: [] });
    expect(refused.stderr).toContain("exists and allows ssh to start");
    expect(setup(["fish"], { policy: ALLOWS })).toMatchObject({ status: 0, policy: ALLOWS, calls: both("fish", 0, 0) });
  });

  it("takes away its own policy-rc.d that an earlier run left", () => {
    const own = "#!/bin/sh\n# tokenfwd setup: removed when the packages are installed\nexit 101\n";
    expect(setup(["fish"], { policy: own })).toMatchObject({ status: 0, policy: null });
  });

  it("goes through sudo when it is not root, and leaves no policy-rc.d", () => {
    const done = setup(["fish"], { uid: 65534 });
    expect(done, done.stderr).toMatchObject({ status: 0, policy: null });
    expect(done.calls.filter((call) => call.startsWith("apt-get"))).toEqual(both("fish", 65534, 101));
    expect(done.calls.filter((call) => call.startsWith("sudo")).every((call) => call.startsWith("sudo -n "))).toBe(true);
  });

  it("without root and sudo says what to type, and changes nothing", () => {
    const done = setup(["fish"], { uid: 65534, sudo: false });
    expect(done).toMatchObject({ status: 1, policy: null, calls: [] });
    expect(done.stderr).toMatch(/neither root nor have a sudo .*: apt-get install --no-install-recommends fish\n/);
  });
});
