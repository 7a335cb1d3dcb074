/*
 * The user's configuration as we read it is what the real choria reads: both look at the same files, and `choria tool config`
 * says what choria made of them.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { brokersOf } from "../../src/choria/config/brokers.js";
import { readClientConfig } from "../../src/choria/config/client-config.js";
import { readHere } from "../../src/choria/config/here.js";
import { runProgram } from "../support/choria/network.js";
import { choriaAvailable, choriaProgram } from "../support/choria/program.js";

const root = mkdtempSync(join(tmpdir(), "tfwd-choria-config-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

interface Scene {
  /** Files below the scene's directory; `home` and `home/work` exist. */
  readonly files: Readonly<Record<string, string>>;
  readonly env?: Readonly<Record<string, string>>;
  /** Below the scene's directory; `home/work` by default. */
  readonly cwd?: string;
  readonly config?: string;
}

interface Read {
  readonly files: readonly string[];
  readonly values: readonly string[];
  readonly mainCollective: string;
  readonly collectives: string;
  readonly brokers: string;
  readonly srvDomain: string;
  readonly discoveryTimeout: string;
}

describe.skipIf(!(await choriaAvailable()))("choria's configuration", async () => {
  const found = await choriaProgram();
  const program = "path" in found ? found.path : "";

  /** What choria says of itself, with the first name of each block and what follows it. */
  async function asChoria(dir: string, scene: Scene): Promise<Read> {
    const home = join(dir, "home");
    const cwd = join(dir, scene.cwd ?? "home/work");
    const env = { PATH: "/usr/bin:/bin", HOME: home, USER: "joe", ...scene.env };
    const config = scene.config === undefined ? {} : { config: join(dir, scene.config) };
    const [all, timeout] = await Promise.all(
      [[], ["^discovery_timeout$"]].map((words) => runProgram(program, ["tool", "config", ...words], env, { cwd, ...config })),
    );
    const text = all?.stdout ?? "";
    const field = (name: string) => new RegExp(`^ *${name}: *(.*(?:\n {20,}\\S.*)*)$`, "m").exec(text)?.[1] ?? "";
    const loaded = text.slice(text.indexOf("include any defaults."));
    return {
      files: field("Loaded Files")
        .split(/[\n,]/)
        .map((one) => one.trim()),
      values: [...loaded.matchAll(/^ {2,}([^ ].*)$/gm)].map(([, line = ""]) => line),
      mainCollective: field("Main Collective"),
      collectives: field("Collectives"),
      brokers: field("Choria Brokers"),
      srvDomain: field("SRV Domain"),
      discoveryTimeout: /Value: (.*)/.exec(timeout?.stdout ?? "")?.[1] ?? "",
    };
  }

  async function asOurs(dir: string, scene: Scene): Promise<Read> {
    const config = await readClientConfig({
      home: join(dir, "home"),
      cwd: join(dir, scene.cwd ?? "home/work"),
      env: scene.env ?? {},
      read: readHere,
      root: true,
      ...(scene.config === undefined ? {} : { choriaConfig: join(dir, scene.config) }),
    });
    const brokers = await brokersOf(config, () => Promise.reject(new Error("no resolver")));
    const schemes = new Map(config.middlewareHosts.map((word) => [word.replace(/^.*:\/\//, ""), /^(.*):\/\//.exec(word)?.[1] ?? "nats"]));
    return {
      files: config.files.map(({ path }) => path),
      values: [...config.values].map(([key, { value }]) => `${key}: ${value}`),
      mainCollective: config.mainCollective,
      collectives: config.collectives.join(", "),
      brokers: brokers.map(({ host, port }) => `${schemes.get(`${host}:${port}`) ?? "nats"}://${host}:${port}`).join(", "),
      srvDomain: config.useSrv ? (config.srvDomain ?? "") : "not enabled",
      discoveryTimeout: String(config.discoveryTimeout),
    };
  }

  const scenes: Readonly<Record<string, Scene>> = {
    "a plain file": {
      files: {
        "home/.choriarc": [
          "collectives = lon, syd",
          "main_collective=syd",
          "plugin.security.provider = file",
          "plugin.choria.middleware_hosts = nats://a.example.net:4222, choria://b:4223,c:1",
          "plugin.choria.srv_domain = example.net",
          "discovery_timeout = 7",
        ].join("\n"),
      },
    },
    "the forms that choria passes over": {
      files: {
        "home/.choriarc": [
          'main_collective: "x"',
          "plugin.security.provider = file",
          "plugin.choria.middleware_hosts = a:1 # a comment",
          'collectives = "a", b',
          "discovery_timeout = soon",
          "plugin.choria.use_srv = on",
          "key =",
          "  = value",
          "# comment = 1",
          "a = b = c",
          "plugin.choria.middleware_hosts = b:2",
        ].join("\n"),
      },
    },
    ".mcollective where there is no .choriarc": { files: { "home/.mcollective": "plugin.security.provider = file\ncollectives = m\n" } },
    ".choriarc before .mcollective": {
      files: {
        "home/.mcollective": "plugin.security.provider = file\ncollectives = m\n",
        "home/.choriarc": "plugin.security.provider = file\ncollectives = c\n",
        "home/.config/choria/client.conf": "collectives = never\n",
      },
    },
    "a choria.conf over a named file": {
      config: "etc/client.conf",
      files: {
        "etc/client.conf": "plugin.security.provider = file\ncollectives = a\ndiscovery_timeout = 5\n",
        "etc/plugin.d/choria.cfg": "middleware_hosts = p:1\n",
        "home/choria.conf": "collectives = b\ndiscovery_timeout = 9\n",
        "home/work/choria.conf": "collectives = c\ndiscovery_timeout = x\nplugin.choria.use_srv = false\n",
      },
    },
    "no plugin.d in the home directory": {
      files: {
        "home/.choriarc": "plugin.security.provider = file\nplugin.choria.use_srv = no\n",
        "home/plugin.d/choria.cfg": "middleware_hosts = p:1\n",
      },
    },
    "variables over the file": {
      env: { CHORIA_SRV_DOMAIN: "env.example.net" },
      files: {
        "home/.choriarc":
          "plugin.security.provider = file\nplugin.choria.srv_domain = file.example.net\nplugin.choria.middleware_hosts = a:1\n",
      },
    },
    "a variable that names a federation": {
      env: { CHORIA_FED_COLLECTIVE: "lon" },
      files: {
        "home/.choriarc":
          "plugin.security.provider = file\nplugin.choria.federation_middleware_hosts = f:1\nplugin.choria.middleware_hosts = a:1\n",
      },
    },
    "a byte order mark and odd blanks": {
      files: {
        "home/.choriarc":
          "\ufeffcollectives = a\n\u00a0main_collective\u00a0=\tm \u00a0\r\nplugin.security.provider = file\nplugin.choria.use_srv = 0\n",
      },
    },
    "a line too long": {
      files: {
        "home/.choriarc": `plugin.security.provider = file\nplugin.choria.use_srv = 0\nx = ${"y".repeat(65_532)}\ncollectives = never\n`,
      },
    },
    "a line just short enough": {
      files: {
        "home/.choriarc": `plugin.security.provider = file\nplugin.choria.use_srv = 0\nx = ${"y".repeat(65_531)}\ncollectives = read\n`,
      },
    },
  };

  it.each(Object.entries(scenes))("is read as choria reads it: %s", async (name, scene) => {
    const dir = join(root, String(Object.keys(scenes).indexOf(name)));
    mkdirSync(join(dir, "home", "work"), { recursive: true });
    for (const [path, text] of Object.entries(scene.files)) {
      mkdirSync(dirname(join(dir, path)), { recursive: true });
      writeFileSync(join(dir, path), text);
    }
    const [theirs, ours] = await Promise.all([asChoria(dir, scene), asOurs(dir, scene)]);
    expect({ ...ours, values: [...ours.values].sort() }).toEqual({ ...theirs, values: [...theirs.values].sort() });
  });
});
