/*
 * The Node that runs us. That it is new enough was looked at before anything of ours ran; what it is belongs into every report.
 */
import { version } from "../../base/version.js";
import { defineCheck, pass } from "../check.js";

const LEAST = 20;

export const nodeCheck = defineCheck<unknown>()({
  id: "node",
  title: "Node.js",
  looks: "Which Node.js runs tokenfwd, and whether it is one that tokenfwd supports.",
  causes: {
    "too-old": {
      status: "fail",
      code: null,
      meaning: `tokenfwd needs Node.js ${LEAST} or newer. An older one cannot run it, and bin/tokenfwd.js says so before anything else.`,
      mend: `install Node.js ${LEAST} or newer, or put one first on PATH`,
    },
  },
  async run(_context, { broken }) {
    const { node } = process.versions;
    if (Number(node.split(".")[0]) < LEAST) return broken("too-old", `this is Node.js ${node}`);
    return pass(`Node.js ${node} on ${process.platform} ${process.arch}, tokenfwd ${version()}`);
  },
});
