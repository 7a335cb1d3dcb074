/*
 * What ping makes of answers, and of a connection that ends: with a broker's part played here, because a real one gives no wrong
 * answer. Against the real choria: test/interop/choria-ping.test.ts.
 */
import { describe, expect, it } from "vitest";
import { TokenfwdError } from "../../../../src/base/errors.js";
import { formatReply, formatSecureReply } from "../../../../src/choria/documents/reply.js";
import { parseRequest } from "../../../../src/choria/documents/request.js";
import { formatTransport, parseTransport } from "../../../../src/choria/documents/transport.js";
import { parseFilter } from "../../../../src/choria/ping/filter.js";
import type { NatsLink } from "../../../../src/choria/ping/nats.js";
import { type PingOptions, ping } from "../../../../src/choria/ping/ping.js";

const NOBODY = { facts: [], classes: [], agents: [], identities: [] };

interface Asked {
  readonly requestid: string;
  answer(sender: string, more?: { requestid?: string; agent?: string; message?: string; breakHash?: boolean }): void;
  raw(message: string): void;
  lose(why: TokenfwdError): void;
}

/** Pings with a broker that lets `asked` answer at once. */
function pinging(asked: (asked: Asked) => void, more: Partial<PingOptions> = {}, signal = new AbortController().signal) {
  const subjects: string[] = [];
  const signed: Buffer[] = [];
  let received: (message: Buffer) => void = () => {};
  let lose: (why: TokenfwdError) => void = () => {};
  const link: NatsLink = {
    async subscribe(subject, callback) {
      subjects.push(subject);
      received = callback;
    },
    async publish(subject, message) {
      subjects.push(subject, parseTransport(message).headers["reply-to"] ?? "");
      const { requestid } = parseRequest(parseTransport(message).data).envelope;
      const raw = (text: string) => received(Buffer.from(text));
      asked({
        requestid,
        raw,
        lose: (why) => lose(why),
        answer(senderid, { requestid: id = requestid, agent = "discovery", message: text = "pong", breakHash = false } = {}) {
          const secure = formatSecureReply(formatReply({ message: text, envelope: { requestid: id, senderid, agent, time: 1 } }));
          const data = Buffer.from(breakHash ? secure.replace("pong", "pang") : secure);
          raw(formatTransport({ data, headers: { mc_sender: senderid } }));
        },
      });
    },
    lost: new Promise((resolve) => {
      lose = resolve;
    }),
    close: async () => {},
  };
  const options: PingOptions = {
    caller: "choria=ptittle",
    sender: "bastion.example.net",
    collective: "mcollective",
    filter: parseFilter(NOBODY),
    ttl: 60,
    timeoutMs: 20,
    expected: null,
    link,
    async sign(request) {
      signed.push(request);
      return request;
    },
    answered: () => {},
    ...more,
  };
  return { result: ping(options, { signal }), subjects, signed };
}

describe("ping", () => {
  it("asks the discovery agent once, on the collective's subject, and listens on the caller's", async () => {
    const { result, subjects, signed } = pinging(({ answer }) => answer("a"));
    const { requestid, replies } = await result;
    const replyTo = `mcollective.reply.d0387d7194ced3797b82697dd310d5a1.${requestid}`;
    expect(subjects).toEqual([replyTo, "mcollective.broadcast.agent.discovery", replyTo]);
    expect(signed).toHaveLength(1);
    expect(parseRequest(signed[0] ?? Buffer.alloc(0))).toMatchObject({
      message: "cGluZw==",
      envelope: { requestid, callerid: "choria=ptittle", senderid: "bastion.example.net", agent: "discovery", ttl: 60 },
    });
    expect(replies).toEqual([{ sender: "a", ms: expect.any(Number) }]);
  });

  it("counts each sender once, and tells of what did not count", async () => {
    const { result } = pinging(({ answer, raw }) => {
      answer("a");
      answer("b");
      answer("a");
      answer("c", { breakHash: true });
      answer("d", { requestid: "0".repeat(32) });
      answer("e", { agent: "rpcutil" });
      answer("f", { message: "ping" });
      raw("junk");
    });
    expect(await result).toMatchObject({ replies: [{ sender: "a" }, { sender: "b" }], refused: { again: 1, broken: 3, foreign: 2 } });
  });

  it("ends when as many have answered as were expected", async () => {
    const twice = ({ answer }: Asked) => {
      answer("a");
      answer("b");
    };
    const { result } = pinging(twice, { expected: 2, timeoutMs: 60_000 });
    expect((await result).replies).toHaveLength(2);
  });

  it("ends with the cause when the connection is lost or the signature refused, and at once when nobody wants to know", async () => {
    const lost = new TokenfwdError("E_CHORIA_BROKER", "gone");
    await expect(pinging(({ lose }) => lose(lost), { timeoutMs: 60_000 }).result).rejects.toBe(lost);
    const refused = new TokenfwdError("E_REFUSED", "no");
    await expect(pinging(() => {}, { sign: () => Promise.reject(refused) }).result).rejects.toBe(refused);
    const leaving = new AbortController();
    await expect(pinging(() => leaving.abort(refused), { timeoutMs: 60_000 }, leaving.signal).result).rejects.toBe(refused);
  });
});

describe("the filter", () => {
  const fact = (word: string) => parseFilter({ ...NOBODY, facts: [word] }).fact[0];

  it("reads facts as choria does", () => {
    expect(fact("country=mt")).toEqual({ fact: "country", operator: "==", value: "mt" });
    expect(fact("a.b >= 5")).toEqual({ fact: "a.b", operator: ">=", value: "5" });
    expect(fact("a=>5")).toEqual({ fact: "a", operator: ">=", value: "5" });
    expect(fact("a=/^x/")).toEqual({ fact: "a", operator: "=~", value: "/^x/" });
    expect(fact("a!=b")).toEqual({ fact: "a", operator: "!=", value: "b" });
    for (const word of ["a", "=b", "a=", ""]) expect(() => fact(word), word).toThrow("is no fact to look for");
  });
});
