/*
 * How the page of a trace looks: dense, monospaced, light and dark. Colours of the classes are told apart by hue and lightness, and none
 * says anything that a word does not say too.
 */
const DARK = `
  --bg: #0f1318; --panel: #151b22; --raised: #1c242d; --edge: #2a343f; --text: #d6dee7; --dim: #8494a5; --accent: #5cc8ff;
  --bad: #ff7b72; --bad-bg: #3a1d1f; --warn: #e3b341; --ok: #56d364; --pick: #1f3a52;
  --c-sign: #5cc8ff; --c-login: #e3b341; --c-object: #a5a0f5; --c-information: #6f8296; --c-session: #57a89a; --c-verify: #7ee0c0;
  --c-digest: #8fb8de; --c-random: #c3a86b; --c-encrypt: #d58fe0; --c-decrypt: #f58fb4; --c-mutation: #ff9e64; --c-state: #ff9e64;
  --c-other: #8494a5;`;

const LIGHT = `
  --bg: #f4f6f8; --panel: #ffffff; --raised: #eef2f5; --edge: #d3dbe3; --text: #17212b; --dim: #5b6b7b; --accent: #0b6bb5;
  --bad: #b3261e; --bad-bg: #fde7e5; --warn: #8a5a00; --ok: #1a7f37; --pick: #d6eafb;
  --c-sign: #0b6bb5; --c-login: #a86a00; --c-object: #5d55c9; --c-information: #8797a7; --c-session: #2c8273; --c-verify: #14866a;
  --c-digest: #3e76a8; --c-random: #876a22; --c-encrypt: #9333a8; --c-decrypt: #b02a62; --c-mutation: #bf4e0a; --c-state: #bf4e0a;
  --c-other: #5b6b7b;`;

const COLUMNS = "9.5ch 5ch 20ch minmax(0, 1fr) 26ch 10.5ch";

export const STYLE = `
:root {${LIGHT}
  color-scheme: light; --mono: ui-monospace, "SFMono-Regular", "JetBrains Mono", "DejaVu Sans Mono", Menlo, Consolas, monospace; }
@media (prefers-color-scheme: dark) { :root:not([data-theme="light"]) {${DARK}
  color-scheme: dark; } }
:root[data-theme="dark"] {${DARK}
  color-scheme: dark; }
* { box-sizing: border-box; }
[hidden] { display: none !important; }
html, body { height: 100%; margin: 0; }
body { display: flex; flex-direction: column; background: var(--bg); color: var(--text); font: 12.5px/1.45 var(--mono); font-variant-ligatures: none; }
header { display: flex; align-items: center; gap: 14px; padding: 8px 14px; background: var(--panel); border-bottom: 1px solid var(--edge); }
.brand { white-space: nowrap; letter-spacing: .01em; }
.brand b { color: var(--accent); }
.about { color: var(--dim); overflow: hidden; text-overflow: ellipsis; white-space: nowrap; min-width: 0; }
.about .flag { color: var(--warn); }
.grow { flex: 1; }
button, select, input { font: inherit; color: inherit; background: var(--raised); border: 1px solid var(--edge); border-radius: 4px; padding: 3px 8px; }
button { cursor: pointer; }
button:hover { border-color: var(--accent); }
input[type="checkbox"] { accent-color: var(--accent); vertical-align: -2px; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 1px; }
.list:focus-visible, canvas:focus-visible { outline-offset: -2px; }
.totals { display: flex; flex-wrap: wrap; gap: 6px 26px; padding: 9px 14px; border-bottom: 1px solid var(--edge); }
.totals div { display: flex; gap: 7px; align-items: baseline; white-space: nowrap; }
.totals b { font-size: 15px; font-weight: 600; }
.totals .bad b { color: var(--bad); }
.totals span { color: var(--dim); }
.share { display: inline-block; width: 110px; height: 8px; border-radius: 2px; background: var(--c-information); overflow: hidden; align-self: center; }
.share i { display: block; height: 100%; background: var(--accent); }
.line { position: relative; border-bottom: 1px solid var(--edge); background: var(--panel); }
canvas { display: block; width: 100%; cursor: crosshair; }
.tip { position: absolute; pointer-events: none; padding: 3px 8px; background: var(--raised); border: 1px solid var(--edge); border-radius: 4px; white-space: nowrap; z-index: 2; max-width: 60ch; overflow: hidden; text-overflow: ellipsis; }
.filters { display: flex; flex-wrap: wrap; align-items: center; gap: 8px; padding: 8px 14px; border-bottom: 1px solid var(--edge); }
#search { flex: 1 1 32ch; min-width: 20ch; }
#slower { width: 9ch; }
.filters label { color: var(--dim); white-space: nowrap; }
output { color: var(--dim); margin-left: auto; white-space: nowrap; }
main { flex: 1; display: flex; min-height: 0; }
.list { flex: 1; overflow: auto; position: relative; min-width: 0; contain: strict; }
.space { position: relative; }
.row { position: absolute; left: 0; right: 0; height: 24px; display: grid; grid-template-columns: ${COLUMNS}; gap: 12px; align-items: center; padding: 0 14px 0 11px; border-left: 3px solid var(--mark, transparent); cursor: default; }
.row > * { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.row:hover { background: var(--raised); }
.row.bad { background: var(--bad-bg); }
.row.picked { background: var(--pick); }
.row .t, .row .ms { text-align: right; font-variant-numeric: tabular-nums; }
.row .t, .row .c { color: var(--dim); }
.row .name { color: var(--mark, var(--text)); font-weight: 600; }
.row .args { color: var(--dim); }
.row.picked .args { color: var(--text); }
.row .rv { text-align: left; }
.row.bad .rv, .bad-text { color: var(--bad); }
.row .ms { position: relative; align-self: stretch; line-height: 22px; }
.row .ms i { position: absolute; right: 0; bottom: 0; height: 2px; background: var(--mark, var(--accent)); }
.row.plain .name { font-weight: 400; color: var(--dim); }
.row.plain.bad .name { color: var(--bad); }
.side { width: min(36%, 540px); overflow: auto; border-left: 1px solid var(--edge); background: var(--panel); padding: 12px 16px 24px; }
.side h2 { margin: 0 0 2px; font-size: 15px; overflow-wrap: anywhere; }
.side h3 { margin: 18px 0 6px; font-size: 11px; font-weight: 600; letter-spacing: .06em; text-transform: uppercase; color: var(--dim); }
.side .sub { color: var(--dim); margin-bottom: 10px; }
.result { display: inline-block; padding: 1px 8px; border-radius: 4px; background: var(--raised); border: 1px solid var(--edge); margin-right: 8px; }
.result.bad { color: var(--bad); border-color: var(--bad); }
.result.good { color: var(--ok); }
.fields { display: grid; grid-template-columns: minmax(8ch, max-content) minmax(0, 1fr); gap: 3px 14px; margin: 0; }
.fields dt { color: var(--dim); overflow-wrap: anywhere; }
.fields dd { margin: 0; overflow-wrap: anywhere; }
.fields dd > .fields { padding-left: 10px; border-left: 1px solid var(--edge); margin: 2px 0; }
.hex { display: block; margin-top: 3px; padding: 6px 8px; background: var(--raised); border-radius: 4px; max-height: 16em; overflow: auto; overflow-wrap: anywhere; color: var(--text); }
.quiet { color: var(--dim); }
.secret { color: var(--warn); }
table { border-collapse: collapse; width: 100%; }
th { text-align: right; color: var(--dim); font-weight: 400; padding: 3px 0 5px 12px; border-bottom: 1px solid var(--edge); }
td { text-align: right; padding: 2px 0 2px 12px; font-variant-numeric: tabular-nums; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
td button { background: none; border: 0; padding: 0; color: var(--accent); }
td button:hover { text-decoration: underline; }
.empty { padding: 40px; text-align: center; color: var(--dim); }
dialog { background: var(--panel); color: inherit; border: 1px solid var(--edge); border-radius: 8px; padding: 16px 22px; max-width: 72ch; }
dialog::backdrop { background: rgb(0 0 0 / 45%); }
dialog h2 { margin: 0 0 10px; font-size: 15px; }
.keys { display: grid; grid-template-columns: max-content 1fr; gap: 4px 18px; margin: 0 0 14px; }
.keys dt { color: var(--accent); }
.keys dd { margin: 0; }
@media (max-width: 900px) {
  main { flex-direction: column; }
  .side { width: auto; border-left: 0; border-top: 1px solid var(--edge); max-height: 45%; }
  .row { grid-template-columns: 9ch 4ch minmax(14ch, 1fr) minmax(10ch, auto) 9ch; }
  .row .args { display: none; }
}
@media print { .filters, .line, header button { display: none; } }
`;
