/*
 * `tokenfwd choria signer` with the real choria: a client whose TLS certificate is the bastion's own and whose requests the token
 * signs, on a network of a broker and two servers. What choria shows of a refusal is what a person gets to read.
 */
import { execFile } from "node:child_process";
import { createPrivateKey, randomBytes, sign } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { request as httpRequest } from "node:http";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { publicKeyOf } from "../../src/choria/signer/secrets.js";
import { type ChoriaNetwork, startChoriaNetwork } from "../support/choria/network.js";
import { choriaAvailable } from "../support/choria/program.js";
import { fileProvider, requestSigner, type Setting } from "../support/choria/settings.js";
import { createShimModule, type ShimModule } from "../support/shim-module.js";
import { createSoftHsm } from "../support/softhsm.js";
import { type ServerProcess, startAgent, startStockServer } from "./agent-process.js";
import { type CliProcess, runCli, startCli } from "./cli-process.js";

const execute = promisify(execFile);

interface Ready {
  readonly v: number;
  readonly url: string;
  readonly tokenFile: string;
  readonly seedFile: string;
}

describe.skipIf(!(await choriaAvailable()))("choria signer with the real choria", () => {
  let network: ChoriaNetwork;
  let shim: ShimModule;
  let agent: ServerProcess;
  let signer: CliProcess;
  let ready: Ready;
  let number = 0;

  /** Starts a signer and waits for its line. */
  async function startSigner(words: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<{ signer: CliProcess; ready: Ready }> {
    const all = ["choria", "signer", "--secrets", join(network.dir, `secrets${++number}`), ...words];
    const started = startCli(all, { env: { ...process.env, ...env } });
    const line = await started.until(() => /^(.*)\n/.exec(started.stdout().toString())?.[1]);
    return { signer: started, ready: JSON.parse(line) as Ready };
  }

  beforeAll(async () => {
    network = await startChoriaNetwork();
    shim = await createShimModule(network.token.modulePath);
    const token = { modulePath: shim.modulePath, env: { ...network.token.env, ...shim.env }, pin: network.token.pin };
    agent = await startAgent({ token, pin: "file" });
    ({ signer, ready } = await startSigner(["--socket", agent.socket]));
  });
  afterEach(() => shim?.control());
  afterAll(async () => {
    await signer?.end();
    await agent?.dispose();
    await shim?.dispose();
    await network?.dispose();
  });

  /** The bastion's own certificate for TLS, and our signer for the requests. */
  const config = (more: readonly Setting[] = [], use: Ready = ready) =>
    network.clientConfig(`signer${++number}`, [
      ...fileProvider(network.bastion, network.pki.ca),
      ...requestSigner(use.url, use.tokenFile, use.seedFile),
      ...more,
    ]);
  const uses = () => agent.stderr().match(/^tokenfwd: used .*$/gm) ?? [];

  interface Answer {
    readonly sender: string;
    readonly statuscode: number;
  }

  async function ping(words: readonly string[] = [], options: { more?: readonly Setting[]; use?: Ready; certname?: string } = {}) {
    const before = uses().length;
    const env = options.certname === undefined ? {} : { MCOLLECTIVE_CERTNAME: options.certname };
    const run = await network.runChoria(["req", "rpcutil", "ping", "--json", ...words], {
      config: await config(options.more, options.use),
      env,
    });
    const replies = (JSON.parse(run.stdout || "{}") as { replies?: Answer[] }).replies ?? [];
    return {
      ...run,
      senders: replies
        .filter(({ statuscode }) => statuscode === 0)
        .map(({ sender }) => sender)
        .sort(),
      uses: uses().slice(before),
    };
  }
  const BOTH = ["node1.example.net", "node2.example.net"];
  const said = (what: string) => expect.stringMatching(new RegExp(`, for choria-request: ${what}, by choria=ptittle$`));

  test("says where it is in one line, and keeps its secrets to itself", () => {
    expect(ready).toEqual({
      v: 1,
      url: expect.stringMatching(/^http:\/\/127\.0\.0\.1:\d+\/choria\/v1\/sign$/),
      tokenFile: expect.stringMatching(/\/signer\.token$/),
      seedFile: expect.stringMatching(/\/signer\.seed$/),
    });
    expect(signer.stdout().toString().split("\n")).toHaveLength(2);
    const modes = [join(ready.tokenFile, ".."), ready.tokenFile, ready.seedFile].map((path) => statSync(path).mode & 0o777);
    expect(modes).toEqual([0o700, 0o600, 0o600]);
    expect(signer.stderr()).toContain("signing Choria requests as choria=ptittle on 127.0.0.1:");
  });

  test("both servers answer, and the workstation is told of each of the two requests", async () => {
    const done = await ping();
    expect(done, done.stderr).toMatchObject({ code: 0, senders: BOTH });
    expect(done.uses).toEqual([said("discovery in mcollective, filter: agent rpcutil"), said("rpcutil#ping in mcollective, filter: none")]);
  });

  test("whoever choria thinks it runs for, the servers see the certificate's name", async () => {
    for (const certname of ["root", "joe.mcollective"]) {
      const done = await ping(["-I", "node1.example.net"], { certname });
      expect(done, done.stderr).toMatchObject({ code: 0, senders: ["node1.example.net"] });
      expect(done.uses).toEqual([said("rpcutil#ping in mcollective, filter: none")]);
    }
  });

  test.each([
    [["ping"], /node[12]\.example\.net[\s\S]*node[12]/, ["discovery in mcollective, filter: none"]],
    [
      ["discover", "-F", "os.family=Debian"],
      /node[12]\.example\.net\nnode[12]/,
      ["discovery in mcollective, filter: fact os.family==Debian; agent rpcutil"],
    ],
    [
      ["discover", "-C", "tokenfwd"],
      /node[12]\.example\.net\nnode[12]/,
      ["discovery in mcollective, filter: class tokenfwd; agent rpcutil"],
    ],
    [
      ["facts", "os.family"],
      /Debian found 2 times/,
      ["discovery in mcollective, filter: agent rpcutil", "rpcutil#get_fact in mcollective, filter: none"],
    ],
  ] as const)("choria %j works", async (words, shows, requests) => {
    const before = uses().length;
    const done = await network.runChoria([...words], { config: await config() });
    expect(done, done.stderr).toMatchObject({ code: 0 });
    expect(done.stdout).toMatch(shows);
    expect(uses().slice(before)).toEqual(requests.map(said));
  });

  test("a request in batches is signed once for each, though its id is the same", async () => {
    const done = await ping(["--batch", "1"]);
    expect(done, done.stderr).toMatchObject({ code: 0, senders: BOTH });
    expect(done.uses).toHaveLength(3);
  });

  test("many at once are all signed", async () => {
    const all = await Promise.all(Array.from({ length: 6 }, () => ping(["-I", "node1.example.net"])));
    for (const done of all) expect(done, done.stderr).toMatchObject({ code: 0, senders: ["node1.example.net"] });
  });

  test("a token that takes seconds is waited for, and whoever is to touch it is told what for", async () => {
    const SECONDS = 5;
    await shim.control(`C_Sign sleep ${SECONDS * 1_000}`);
    const done = await ping(["-I", "node1.example.net"], { more: [["discovery_timeout", 10]] });
    expect(done, done.stderr).toMatchObject({ code: 0, senders: ["node1.example.net"] });
    expect(done.ms).toBeGreaterThan(SECONDS * 1_000);
    expect(agent.stderr()).toContain(
      "the token operator has been waiting: touch it, to sign rpcutil#ping in mcollective, filter: none, by choria=ptittle",
    );
  });

  test("choria shows why a request was not signed, and the token was not asked", async () => {
    const done = await ping([], { more: [["ttl", 86_400]] });
    expect(done).toMatchObject({ code: 1, uses: [] });
    expect(done.stderr + done.stdout).toContain(
      "error from remote signer: not signed: the request's ttl is 86400 s, and 300 s are the most here; whoever sees the request can send it again as long (a request in batches may need more: --max-ttl takes 30 to 18000)",
    );
    expect(signer.stderr()).toContain("not signed: the request's ttl is 86400 s");
  });

  test("who has not the token, or not the seed, is 401 and nothing more", async () => {
    const other = join(network.dir, "other");
    mkdirSync(other, { recursive: true });
    writeFileSync(join(other, "token"), randomBytes(32).toString("base64url"));
    writeFileSync(join(other, "seed"), randomBytes(32).toString("hex"));
    for (const use of [
      { ...ready, tokenFile: join(other, "token") },
      { ...ready, seedFile: join(other, "seed") },
    ]) {
      const done = await ping([], { use });
      expect(done).toMatchObject({ code: 1, uses: [] });
      expect(done.stderr + done.stdout).toContain("could not perform remote signing request: 401 Unauthorized");
    }
    expect(signer.stderr()).toContain("warning: turned away somebody at the signer's port: another token");
    expect(signer.stderr()).toContain("warning: turned away somebody at the signer's port: another seed");
  });

  test.skipIf(process.getuid?.() !== 0)("another user of the machine can read neither file, and gets 401 for a guess", async () => {
    const before = uses().length;
    const script = `
      const fs = require("node:fs");
      const why = process.argv.slice(2).map((file) => { try { fs.readFileSync(file); return "read"; } catch (error) { return error.code; } });
      const body = JSON.stringify({ token: "a guess", request: "e30=", signature: "0".repeat(128) });
      fetch(process.argv[1], { method: "POST", headers: { "content-type": "application/json" }, body }).then(async (answer) =>
        console.log(JSON.stringify({ why, status: answer.status, text: await answer.text() })));`;
    // fetch says that it is one, as a browser does; so it is turned away before its token is looked at.
    const tried = (text: string) =>
      execute(process.execPath, ["-e", text, ready.url, ready.tokenFile, ready.seedFile], { uid: 65_534, gid: 65_534, cwd: "/" });
    const { stdout } = await tried(script);
    expect(JSON.parse(stdout)).toEqual({ why: ["EACCES", "EACCES"], status: 400, text: "" });
    const plain = script.replace(
      /fetch[\s\S]*/,
      `const call = require("node:http").request(process.argv[1],
      { method: "POST", headers: { "content-type": "application/json" } },
      (answer) => answer.setEncoding("utf8").toArray().then((text) => console.log(JSON.stringify({ why, status: answer.statusCode, text: text.join("") }))));
      call.end(body);`,
    );
    expect(JSON.parse((await tried(plain)).stdout)).toEqual({ why: ["EACCES", "EACCES"], status: 401, text: "" });
    expect(uses()).toHaveLength(before);
  });

  test("who has token and seed is told why, and what is refused costs the token nothing", async () => {
    const token = readFileSync(ready.tokenFile, "utf8");
    const d = Buffer.from(readFileSync(ready.seedFile, "utf8"), "hex").toString("base64url");
    const x = publicKeyOf({ token: Buffer.from(token), seed: readFileSync(ready.seedFile) }).export({ format: "jwk" }).x ?? "";
    const seed = createPrivateKey({ key: { kty: "OKP", crv: "Ed25519", d, x }, format: "jwk" });
    const ask = (document: string): Promise<{ status: number | undefined; error: string }> =>
      new Promise((resolve, reject) => {
        const bytes = Buffer.from(document);
        const body = { token, request: bytes.toString("base64"), signature: sign(null, bytes, seed).toString("hex") };
        const headers = { "content-type": "application/json" };
        const call = httpRequest(ready.url, { method: "POST", headers }, async (answer) => {
          const { error } = JSON.parse((await answer.setEncoding("utf8").toArray()).join("")) as { error: string };
          resolve({ status: answer.statusCode, error });
        });
        call.once("error", reject);
        call.end(JSON.stringify(body));
      });
    const now = Math.floor(Date.now() / 1000);
    const request = (envelope: object = {}) => {
      const filter = { fact: [], cf_class: [], agent: [], identity: [], compound: [] };
      const requestid = randomBytes(16).toString("hex");
      const who = {
        requestid,
        senderid: "bastion",
        callerid: "choria=root",
        collective: "mcollective",
        agent: "rpcutil",
        ttl: 60,
        time: now,
      };
      const message = '{"agent":"rpcutil","action":"ping","data":{}}';
      return JSON.stringify({ protocol: "choria:request:1", message, envelope: { ...who, filter, ...envelope } });
    };
    const once = request();
    expect(await ask(once)).toEqual({ status: 200, error: "" });
    const before = uses().length;
    for (const [document, text] of [
      [once, /^not signed: a request with this requestid was signed already/],
      [request({ time: now - 3_600 }), /^not signed: the request was made \d+ s ago, and 60 s are the most/],
      [request({ time: now + 3_600 }), /^not signed: the request was made \d+ s in the future/],
      [request({ ttl: 86_400 }), /^not signed: the request's ttl is 86400 s/],
      [request({ ttl: 5 }), /^not signed: the request\.envelope\.ttl must be from 30 to/],
      ['{"protocol":"io.choria.protocol.v2.request"}', /^not signed: it is a document of protocol v2/],
      ["junk", /^not signed: the request is not JSON/],
    ] as const) {
      const { status, error } = await ask(document);
      expect({ status, error }).toEqual({ status: 200, error: expect.stringMatching(text) });
    }
    expect(uses()).toHaveLength(before);
  });

  test.each(["ec", "ed25519"] as const)("a certificate of type %s signs nothing, and the servers live", async (type) => {
    const token = await createSoftHsm({ objects: "none", label: type });
    const leaf = network[type];
    await token.importKey({ id: "01", label: type, keyFile: leaf.key, certificateFile: leaf.certificate });
    const other = await startAgent({ token, pin: "file" });
    try {
      const secrets = join(network.dir, type);
      const refused = await runCli(["choria", "signer", "--socket", other.socket, "--secrets", secrets]);
      expect(refused).toMatchObject({ code: 50, stdout: Buffer.alloc(0) });
      expect(refused.stderr).toMatch(
        /has a key of type (EC \(P-256\)|EdDSA \(Ed25519\)), and Choria's protocol v1 takes plain RSA alone; a server that meets another ends itself \[E_CHORIA_CERT 50\]/,
      );
      expect(existsSync(secrets)).toBe(false);
      expect(other.stderr()).not.toContain(" used ");
    } finally {
      await other.dispose();
      await token.dispose();
    }
    expect(network.servers.map(({ daemon }) => daemon.running())).toEqual([true, true]);
    expect((await ping()).senders).toEqual(BOTH);
  });

  test("the same through a stock p11-kit server, with the PIN from this side", async () => {
    const server = await startStockServer(network.token);
    const pin = join(network.dir, "pin");
    writeFileSync(pin, network.token.pin, { mode: 0o600 });
    const other = await startSigner(["--socket", server.socket, "--pin-source", `file:${pin}`]);
    try {
      const done = await ping([], { use: other.ready });
      expect(done, done.stderr).toMatchObject({ code: 0, senders: BOTH });
      expect(other.signer.stderr()).toContain("signed: rpcutil#ping in mcollective, filter: none, by choria=ptittle");
    } finally {
      await other.signer.end();
      await server.dispose();
      rmSync(pin);
    }
  });

  test("an agent that has gone is the reason that choria shows, and the signer goes on", async () => {
    const token = { modulePath: network.token.modulePath, env: network.token.env, pin: network.token.pin };
    const going = await startAgent({ token, pin: "file" });
    const other = await startSigner(["--socket", going.socket]);
    try {
      await going.stop();
      const done = await ping([], { use: other.ready });
      expect(done.code).toBe(1);
      expect(done.stderr + done.stdout).toMatch(/error from remote signer: .*(the connection to the agent was lost|does not exist)/);
      expect(other.signer.child.exitCode).toBeNull();
    } finally {
      await other.signer.end();
      await going.dispose();
    }
  });

  test("its secrets stay for the next one, and its port goes with it", async () => {
    const secrets = join(network.dir, "kept");
    const start = async () => {
      const started = startCli(["choria", "signer", "--socket", agent.socket, "--secrets", secrets]);
      return { started, line: await started.until(() => /^(.*)\n/.exec(started.stdout().toString())?.[1]) };
    };
    const one = await start();
    await one.started.end();
    expect(await one.started.exited).toMatchObject({ code: 0, signal: null });
    const gone = await ping([], { use: JSON.parse(one.line) as Ready });
    expect(gone.stderr + gone.stdout).toMatch(/could not perform signing request: Post .*connection refused/);
    const two = await start();
    try {
      const { url, ...same } = JSON.parse(two.line) as Ready;
      expect(JSON.parse(one.line)).toMatchObject(same);
      expect((await ping([], { use: { url, ...same } })).senders).toEqual(BOTH);
    } finally {
      await two.started.end();
    }
  });
});
