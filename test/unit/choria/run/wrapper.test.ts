/* The wrapper that stands for choria on a bastion: what it starts, with what, and what it makes of the ending. */
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, realpathSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { loginFile, wrapperScript } from "../../../../src/choria/run/wrapper.js";
import { TRY_WORD } from "../../../../src/forward/remote/command-files-script.js";

let directory: string;
let wrapper: string;
let work: string;
beforeEach(() => {
  directory = realpathSync(mkdtempSync(join(tmpdir(), "tfwd wrap ")));
  wrapper = join(directory, "it's ours");
  work = join(directory, "work", "below");
  mkdirSync(wrapper);
  mkdirSync(work, { recursive: true });
  mkdirSync(join(directory, "bin"));
  writeFileSync(join(wrapper, "choria"), wrapperScript(wrapper, "ptittle", join(directory, "elsewhere")), { mode: 0o700 });
  writeFileSync(join(wrapper, "client.conf"), "");
  writeFileSync(join(wrapper, "login"), loginFile("joe", "secret"), { mode: 0o600 });
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

/** What stands for the real choria. */
function program(text: string): void {
  writeFileSync(join(directory, "bin", "choria"), `#!/bin/sh\n${text}\n`, { mode: 0o755 });
}
const environment = () => ({
  PATH: `${wrapper}:${join(directory, "bin")}:/usr/bin:/bin`,
  INSECURE_YES_REALLY: "true",
  command: "ping",
});

function run(shell: readonly string[], args: readonly string[], input = "") {
  const [file = "", ...more] = [...shell, join(wrapper, "choria"), ...args];
  const { status, stdout, stderr } = spawnSync(file, more, { cwd: work, env: environment(), input, encoding: "utf8", timeout: 20_000 });
  return { status, stdout, stderr };
}

const TELLS = `for a do printf '<%s>' "$a"; done
echo
echo "$INSECURE_DISABLE_TLS $MCOLLECTIVE_CERTNAME $MCOLLECTIVE_NATS_USERNAME $MCOLLECTIVE_NATS_PASSWORD [$INSECURE_YES_REALLY]"
cat
exit 7`;

const SHELLS = [["dash"], ["bash", "--posix"], ["busybox", "sh"], ["ksh"], ["mksh"]].filter(
  ([shell]) => spawnSync("sh", ["-c", `command -v ${shell}`]).status === 0,
);

describe.each(SHELLS)("under %s %s", (...shell) => {
  const words = shell.filter((word) => word !== undefined);

  it("the next choria runs with our configuration behind its command, every byte of the rest, stdin, and its status", () => {
    program(TELLS);
    const args = ["--debug", "req", "rpcutil", "ping", "a  b", "'\"\\\n*", ""];
    const { status, stdout, stderr } = run(words, args, "from stdin");
    const [flag, command, ...rest] = args;
    const told = [flag, command, "--config", join(wrapper, "client.conf"), ...rest].map((word) => `<${word}>`).join("");
    expect(stdout).toBe(`${told}\ntrue ptittle joe secret []\nfrom stdin`);
    expect(stderr).toBe("");
    expect(status).toBe(7);
    expect(readdirSync(wrapper).sort()).toEqual(["choria", "client.conf", "login"]);
  });

  it("it can be tried without anything being started", () => {
    program("echo ran");
    expect(run(words, [TRY_WORD])).toEqual({ status: 0, stdout: "", stderr: "" });
  });

  it.each([[["req", "--config", "/mine", "x"]], [["ping", "--config=/mine"]], [["buildinfo"]], [["--help"]], [[]]])(
    "%j is left as it is, with nothing of ours in its environment",
    (args) => {
      program(TELLS);
      expect(run(words, args).stdout).toBe(`${args.map((word) => `<${word}>`).join("")}\n    [true]\n`);
    },
  );

  it("the alarm about TLS is not shown, log lines are text, and whatever else comes on stderr is whole", () => {
    program(`cat >&2 <<'E'
time="2026-11-27T16:19:57Z" level=warning msg="Disabling TLS via environment override"
{"component":"client","connection":"a","level":"warning","msg":"Disabling TLS due to configuration override","time":"t"}
{"component":"client","connection":"a","level":"warning","msg":"Initial connection failed: \\"x\\"","security":"file","time":"t"}
  plain \\ text
E
printf 'no end' >&2; exit 1`);
    const { status, stderr } = run(words, ["ping"]);
    expect(stderr).toBe('choria: warning: Initial connection failed: \\"x\\"\n  plain \\ text\nno end\n');
    expect(status).toBe(1);
  });

  it("a signal reaches choria, and its ending is the wrapper's", async () => {
    program(`trap 'echo got >&2; exit 9' TERM\necho up\nwhile :; do sleep 0.05; done`);
    const [file = "", ...more] = [...words, join(wrapper, "choria"), "ping"];
    const child = spawn(file, more, { cwd: work, env: environment(), stdio: ["ignore", "pipe", "pipe"] });
    let stderr = "";
    child.stderr.on("data", (chunk) => {
      stderr += String(chunk);
    });
    child.stdout.once("data", () => child.kill("SIGTERM"));
    expect(await new Promise((resolve) => child.once("close", resolve))).toBe(9);
    expect(stderr).toBe("got\n");
  });

  it("a signal that comes as soon as there is a choria reaches it too, and nobody waits for what it would have said", () => {
    program("kill -TERM $PPID; exec sleep 4");
    const { status, stdout, stderr } = run(words, ["ping"]);
    expect({ status, stdout }).toEqual({ status: 143, stdout: "" });
    // Some shells say so themselves.
    expect(stderr.replace("Terminated\n", "")).toBe("");
    expect(readdirSync(wrapper).sort()).toEqual(["choria", "client.conf", "login"]);
  });

  it("a choria.conf above the way by which a link leads there stops it too: choria goes by PWD, as a shell does", () => {
    program("echo ran");
    mkdirSync(join(directory, "links"));
    symlinkSync(work, join(directory, "links", "here"));
    writeFileSync(join(directory, "links", "choria.conf"), "");
    const [file = "", ...more] = [...words, join(wrapper, "choria"), "ping"];
    const from = (cwd: string) => spawnSync(file, more, { cwd, env: { ...environment(), PWD: cwd }, encoding: "utf8" });
    expect(from(work)).toMatchObject({ status: 0, stdout: "ran\n" });
    expect(from(join(directory, "links", "here"))).toMatchObject({ status: 50, stdout: "" });
  });

  it("a choria.conf there or above stops it, because that would override ours, and is named", () => {
    program("echo ran");
    writeFileSync(join(directory, "work", "choria.conf"), "");
    const { status, stdout, stderr } = run(words, ["ping"]);
    expect({ status, stdout }).toEqual({ status: 50, stdout: "" });
    expect(stderr).toContain(`${join(directory, "work", "choria.conf")} would override`);
  });
});

it("no choria on the PATH is made up for by the one that was found, and said where there is none; so is a connection that has ended", () => {
  expect(run(["sh"], ["ping"])).toMatchObject({ status: 50, stderr: "tokenfwd: there is no choria on the PATH\n" });
  writeFileSync(join(directory, "elsewhere"), "#!/bin/sh\necho elsewhere\n", { mode: 0o755 });
  expect(run(["sh"], ["ping"]).stdout).toBe("elsewhere\n");
  program("echo ran");
  rmSync(join(wrapper, "client.conf"));
  expect(run(["sh"], ["ping"]).stderr).toContain("has ended");
  expect(existsSync(join(wrapper, "choria"))).toBe(true);
});
