/*
 * How the user's configuration is found and read, on files that exist only here. That the real choria reads them the same is
 * shown in test/interop/choria-config.test.ts.
 */
import { describe, expect, it } from "vitest";
import { brokersOf, parseBroker, type SrvRecord } from "../../../../src/choria/config/brokers.js";
import { type ClientConfig, candidates, overlayPlaces, readClientConfig } from "../../../../src/choria/config/client-config.js";
import { parseConfig } from "../../../../src/choria/config/parse.js";

type Files = Readonly<Record<string, string>>;

function readFrom(files: Files, options: { cwd?: string; env?: Record<string, string>; choriaConfig?: string; home?: string | null } = {}) {
  const asked: string[] = [];
  const config = readClientConfig({
    home: "/home/joe",
    cwd: "/home/joe/work",
    env: {},
    read: async (path) => {
      asked.push(path);
      return files[path] ?? null;
    },
    ...options,
  });
  return { asked, config };
}

const settings = (text: string) => parseConfig(text).settings.map(({ key, value }) => [key, value]);

describe("the syntax", () => {
  it("is one key = value a line, whatever blanks there are", () => {
    expect(settings("a = 1\n  b=2\t\n\nc\t =  3 4 \r\n# d = 5\n  # e = 6\n")).toEqual([
      ["a", "1"],
      ["b", "2"],
      ["c", "3 4"],
    ]);
  });

  it("strips no quote and no comment behind a value, and splits at the first =", () => {
    expect(settings('a = "1"\nb = 2 # two\nc = d = e\nkey: "x=y"')).toEqual([
      ["a", '"1"'],
      ["b", "2 # two"],
      ["c", "d = e"],
      ['key: "x', 'y"'],
    ]);
  });

  it("passes over a line without = and a key without a value", () => {
    expect(parseConfig('a: "1"\nb =\n= c\n==d\n')).toMatchObject({
      ignored: [
        { text: 'a: "1"', line: 1 },
        { text: "b =", line: 2 },
        { text: "= c", line: 3 },
      ],
      settings: [{ key: "=", value: "d", line: 4 }],
    });
  });

  it("ends at a line of 64 KiB, and takes a byte order mark for a part of the key", () => {
    expect(parseConfig(`a = 1\nb = ${"x".repeat(65_536)}\nc = 3`)).toMatchObject({ settings: [{ key: "a" }], cutAt: 2 });
    expect(settings("\ufeffa = 1")).toEqual([["\ufeffa", "1"]]);
  });
});

describe("the files", () => {
  it("are looked for in choria's order", () => {
    expect(candidates("/home/joe")).toEqual([
      "/home/joe/.choriarc",
      "/home/joe/.mcollective",
      "/etc/choria/client.conf",
      "/usr/local/etc/choria/client.conf",
      "/etc/puppetlabs/mcollective/client.cfg",
    ]);
    expect(candidates(null)[0]).toBe("/etc/choria/client.conf");
    expect(overlayPlaces("/home/joe")).toEqual(["/choria.conf", "/home/choria.conf", "/home/joe/choria.conf"]);
  });

  it("end at the first that exists, and no other is asked for", async () => {
    const { asked, config } = readFrom({ "/home/joe/.mcollective": "collectives = b", "/etc/choria/client.conf": "collectives = c" });
    expect(await config).toMatchObject({ path: "/home/joe/.mcollective", collectives: ["b"], mainCollective: "b" });
    expect(asked).not.toContain("/etc/choria/client.conf");
  });

  it("are overridden by every choria.conf from the root down, even one that was named", async () => {
    const files = {
      "/opt/c.conf": "main_collective = a\ndiscovery_timeout = 4",
      "/choria.conf": "main_collective = root\ncollectives = x",
      "/home/joe/work/choria.conf": "main_collective = work\ndiscovery_timeout = soon",
    };
    expect(await readFrom(files, { choriaConfig: "/opt/c.conf" }).config).toMatchObject({
      path: "/opt/c.conf",
      overlays: ["/choria.conf", "/home/joe/work/choria.conf"],
      mainCollective: "work",
      collectives: ["x"],
      discoveryTimeout: 4,
    });
  });

  it("have plugin.d/choria.cfg beside them, except in the home directory", async () => {
    const files = { "/etc/choria/client.conf": "a = 1", "/etc/choria/plugin.d/choria.cfg": "middleware_hosts = b:1" };
    expect((await readFrom(files).config).middlewareHosts).toEqual(["b:1"]);
    const own = { "/home/joe/.choriarc": "a = 1", "/home/joe/plugin.d/choria.cfg": "middleware_hosts = b:1" };
    expect((await readFrom(own).config).middlewareHosts).toEqual([]);
  });

  it("are named when there is none, and when one cannot be read", async () => {
    await expect(readFrom({}).config).rejects.toMatchObject({
      code: "E_CHORIA_CONFIG",
      message: expect.stringContaining("/home/joe/.choriarc"),
    });
    await expect(readFrom({}, { choriaConfig: "mine.conf" }).config).rejects.toThrow("there is no /home/joe/work/mine.conf");
    const denied = readClientConfig({ home: "/h", cwd: "/", env: {}, read: () => Promise.reject(new Error("permission denied")) });
    await expect(denied).rejects.toThrow("/h/.choriarc cannot be read: permission denied");
  });
});

describe("what they say", () => {
  const read = async (text: string, env: Record<string, string> = {}) => readFrom({ "/home/joe/.choriarc": text }, { env }).config;

  it("has choria's defaults", async () => {
    expect(await read("")).toMatchObject({
      provider: "puppet",
      collectives: ["mcollective"],
      mainCollective: "mcollective",
      middlewareHosts: [],
      useSrv: true,
      srvDomain: null,
      discoveryTimeout: 2,
      ttl: 60,
      certname: null,
      ca: "/home/joe/.puppetlabs/etc/puppet/ssl/certs/ca.pem",
    });
  });

  it("has the CA of each provider, with ~ expanded and no variable", async () => {
    const ca = async (text: string) => (await read(text)).ca;
    expect(await ca("plugin.security.provider = file\nplugin.security.file.ca = ~/ca.pem")).toBe("/home/joe/ca.pem");
    expect(await ca("plugin.security.provider = pkcs11\nplugin.security.file.ca = $HOME/ca.pem")).toBe("$HOME/ca.pem");
    expect(await ca("plugin.choria.ssldir = /ssl")).toBe("/ssl/certs/ca.pem");
    expect(await ca("plugin.security.provider = choria\nplugin.security.choria.ca = /c")).toBe("/c");
    expect(await ca("plugin.security.provider = certmanager")).toBeNull();
  });

  it("takes only choria's words for yes", async () => {
    for (const word of ["1", "yes", "TRUE", "y", "t"]) expect((await read(`plugin.choria.use_srv = ${word}`)).useSrv).toBe(true);
    for (const word of ["0", "no", "on", '"true"']) expect((await read(`plugin.choria.use_srv = ${word}`)).useSrv).toBe(false);
  });

  it("is overridden by the variables that choria looks at", async () => {
    const env = { MCOLLECTIVE_CERTNAME: "ptittle", CHORIA_SRV_DOMAIN: "example.net", CHORIA_FED_COLLECTIVE: "lon, syd" };
    expect(await read("", env)).toMatchObject({ certname: "ptittle", srvDomain: "example.net", federations: ["lon", "syd"] });
  });
});

describe("the brokers", () => {
  const config = async (text: string): Promise<ClientConfig> => readFrom({ "/home/joe/.choriarc": text }).config;
  const record = (name: string, priority: number, weight = 0): SrvRecord => ({ name, port: 4222, priority, weight });
  const none = () => Promise.reject(new Error("ENOTFOUND"));

  it("are those of the list, in its order and with any scheme", async () => {
    const text = "plugin.choria.middleware_hosts = nats://a.example.net:4223, choria://b:1,[::1]:5,c";
    expect(await brokersOf(await config(text), none)).toEqual([
      { host: "a.example.net", port: 4223 },
      { host: "b", port: 1 },
      { host: "::1", port: 5 },
      { host: "c", port: 4222 },
    ]);
  });

  it("are refused where a word is none", async () => {
    for (const word of ["ws://a:1", "a:b", "a b:1", "a:70000", "a:0", '"a:1"x y']) expect(parseBroker(word), word).toBeNull();
    // What a terminal or a shell would take for something else.
    for (const word of ["a\u001bc:1", "a\u009b2J:1", "a\u202eb:1", "$(id):1", "a;b:1", "a`b`:1", "[::1%a\u001b]:1"])
      expect(parseBroker(word), word).toBeNull();
    expect(parseBroker("[fe80::1%eth0]:1")).toEqual({ host: "fe80::1%eth0", port: 1 });
    await expect(brokersOf(await config("plugin.choria.middleware_hosts = https://a:1"), none)).rejects.toMatchObject({
      code: "E_CHORIA_CONFIG",
      message: "plugin.choria.middleware_hosts names https://a:1, which is no broker",
    });
  });

  it("come from SRV records where no list is, by priority and weight, the second name when the first has none", async () => {
    const asked: string[] = [];
    const resolve = async (name: string) => {
      asked.push(name);
      if (name.startsWith("_mcollective")) throw new Error("ENOTFOUND");
      return [record("c", 2), record("b.example.net.", 1, 1), record("a", 1, 5)];
    };
    const brokers = await brokersOf(await config("plugin.choria.srv_domain = example.net"), resolve, "other.net");
    expect(brokers.map(({ host }) => host)).toEqual(["a", "b.example.net", "c"]);
    expect(asked).toEqual(["_mcollective-server._tcp.example.net", "_x-puppet-mcollective._tcp.example.net"]);
  });

  it("are puppet:4222 where there is no record, or none is looked up", async () => {
    const puppet = [{ host: "puppet", port: 4222 }];
    expect(await brokersOf(await config(""), none, "example.net")).toEqual(puppet);
    const never = () => Promise.reject(new Error("looked up"));
    expect(await brokersOf(await config("plugin.choria.use_srv = false"), never, "example.net")).toEqual(puppet);
  });

  it("are a federation's where the client has one", async () => {
    const text = "plugin.choria.federation.collectives = lon\nplugin.choria.middleware_hosts = a:1\n";
    const hosts = "plugin.choria.federation_middleware_hosts = f:1";
    expect(await brokersOf(await config(text + hosts), none)).toEqual([{ host: "f", port: 1 }]);
    await expect(brokersOf(await config(text), none, "example.net")).rejects.toMatchObject({ code: "E_CHORIA_CONFIG" });
  });
});
