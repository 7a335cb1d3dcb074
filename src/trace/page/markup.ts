/*
 * The body of the page of a trace before its script has run. Nothing of a trace is in it.
 */
export const MARKUP = `<header>
  <div class="brand"><b>tokenfwd</b> trace</div>
  <div id="about" class="about"></div>
  <div class="grow"></div>
  <button id="help" type="button" title="keys (?)">keys</button>
  <button id="theme" type="button" title="light or dark (t)">theme</button>
</header>
<section id="totals" class="totals" aria-label="totals"></section>
<section class="line" aria-label="timeline">
  <canvas id="timeline" tabindex="0" role="img" aria-label="calls over time, a lane for each connection; drag to choose a time"></canvas>
  <div id="tip" class="tip" hidden></div>
</section>
<section class="filters" aria-label="filters">
  <input id="search" type="search" placeholder="filter: C_Sign, CKR_, label, slot=17 ...   ( / )" aria-label="filter by text" autocomplete="off" spellcheck="false">
  <select id="kind" aria-label="kind of record"></select>
  <select id="connection" aria-label="connection"></select>
  <label>&ge; <input id="slower" type="number" min="0" step="any" inputmode="decimal" placeholder="0" aria-label="at least so many milliseconds"> ms</label>
  <label><input id="failed" type="checkbox"> failed</label>
  <button id="range" type="button" hidden></button>
  <button id="clear" type="button">clear</button>
  <output id="count" aria-live="polite"></output>
</section>
<main>
  <div id="list" class="list" tabindex="0" role="listbox" aria-label="records"><div id="space" class="space"></div></div>
  <aside id="side" class="side" aria-label="detail" tabindex="-1"></aside>
</main>
<dialog id="keys" aria-label="keys">
  <h2>Keys</h2>
  <dl class="keys">
    <dt>j k, arrows</dt><dd>next and previous record</dd>
    <dt>page up, page down, home, end</dt><dd>further</dd>
    <dt>n p</dt><dd>next and previous failure</dd>
    <dt>/</dt><dd>filter by text: all words must be there, a minus in front means not</dd>
    <dt>f</dt><dd>failures only</dd>
    <dt>c</dt><dd>the connection of this record only, or all</dd>
    <dt>s</dt><dd>the summary in place of the detail</dd>
    <dt>+ - 0</dt><dd>zoom the timeline around this record, or all of it</dd>
    <dt>t</dt><dd>light or dark</dd>
    <dt>escape</dt><dd>clear the filters</dd>
  </dl>
  <button id="keys-close" type="button" autofocus>close</button>
</dialog>
<noscript><p class="empty">This page needs its own script, which your browser does not run. It loads nothing and sends nothing.</p></noscript>`;
