import { describe, expect, it } from "vitest";
import { describeRequest } from "../../../../src/choria/documents/describe.js";
import type { RequestFilter } from "../../../../src/choria/documents/request.js";
import { NO_FILTER, request } from "./requests.js";

const withFilter = (filter: Partial<RequestFilter>): string => describeRequest(request({ filter: { ...NO_FILTER, ...filter } }));

describe("describeRequest", () => {
  it("says agent, action, collective, filter and caller in one line", () => {
    expect(describeRequest(request())).toBe("rpcutil#ping in mcollective, filter: none, by choria=ptittle");
  });

  it("says each kind of filter, and leaves out the agent that a direct request names again", () => {
    const filter = {
      identity: ["node1.example.net"],
      fact: [{ fact: "os.family", operator: "==", value: "Debian" }],
      cf_class: ["apache"],
      agent: ["rpcutil", "package"],
      compound: [[{ expr: "with('x')" }, { expr: "y" }]],
    };
    expect(withFilter(filter)).toBe(
      "rpcutil#ping in mcollective, filter: identity node1.example.net; fact os.family==Debian; class apache; agent package; compound \"with('x') and y\", by choria=ptittle",
    );
    expect(withFilter({ agent: ["rpcutil"] })).toContain("filter: none");
  });

  it("counts what it does not show", () => {
    const identity = Array.from({ length: 2_000 }, (_, index) => `node${index}`);
    expect(withFilter({ identity })).toContain("identity node0, node1, node2, node3 and 1996 more, by");
    expect(withFilter({ identity: ["x".repeat(4_000)] })).toContain(`identity ${"x".repeat(50)}..., by`);
  });

  it("names a discovery, and a time that no stock client asks for", () => {
    expect(describeRequest(request({ agent: "discovery" }, "cGluZw=="))).toBe("discovery in mcollective, filter: none, by choria=ptittle");
    expect(describeRequest(request({ ttl: 86_400 }))).toMatch(/, good for 86400 s$/);
  });

  it("lets no control character through", () => {
    expect(withFilter({ identity: ["\u001b[2K\rnode"] })).toContain("identity \\x1b[2K\\x0dnode, by");
  });

  it("lets no item pass for a part of the sentence", () => {
    const line = withFilter({ identity: ['x, by choria=root"; class y'] });
    expect(line).toBe('rpcutil#ping in mcollective, filter: identity "x, by choria=root\\"; class y", by choria=ptittle');
  });

  it("never grows so long that its end is cut off", () => {
    const terms = Array.from({ length: 100 }, () => "\u{e0041}".repeat(100));
    const fact = terms.map((value) => ({ fact: value, operator: "==", value }));
    const filter = { identity: terms, cf_class: terms, agent: terms, fact, compound: terms.map((expr) => [{ expr }]) };
    const name = "x".repeat(128);
    const callerid = `choria=${"y".repeat(64)}`;
    const line = describeRequest(request({ agent: name, collective: name, callerid, ttl: 315_360_000, filter }), 0);
    expect(line.length).toBeLessThan(2_000);
    expect(line.endsWith(`and 96 more, by ${callerid}, good for 315360000 s, dated 2026-11-23T07:24:20Z`)).toBe(true);
  });
});
