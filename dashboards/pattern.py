"""One attention pattern, drawn by the browser: the map, and what the chosen position reads laid over the words.

Another position is shown without asking the server; another head replaces the map in its place. A Streamlit component with its markup,
style and script inline: no build step, nothing fetched. Words are only ever set as text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamlit.components.v2 import component

CSS = """
.pattern { font-family: var(--st-font); color: var(--st-text-color); }
.scroll { overflow-x: auto; }
svg { display: block; max-width: none; }
svg text { fill: var(--st-text-color); font-size: 11px; }
svg text.title { font-size: 14px; font-weight: 600; }
svg text.axis { font-size: 12px; }
svg .frame { fill: none; stroke: var(--st-border-color); }
svg .row { fill: none; stroke: var(--st-text-color); stroke-width: 2; }
svg image { image-rendering: pixelated; cursor: pointer; }
label { display: block; margin: 10px 0 6px; font-size: 0.875rem; }
input { width: 5.5em; font: inherit; padding: 3px 6px; margin-left: 6px; color: inherit; background: var(--st-background-color);
        border: 1px solid var(--st-text-color); border-radius: 4px; }
input:focus-visible, .scroll:focus-visible, ul:focus-visible { outline: 3px solid var(--st-primary-color); outline-offset: 1px; }
ul { list-style: none; display: flex; flex-wrap: wrap; gap: 3px; margin: 0; padding: 0; max-height: 330px; overflow-y: auto; }
li { border: 1px solid var(--st-border-color); border-radius: 3px; padding: 2px 5px; text-align: center; font-size: 13px; }
li small { display: block; font-size: 10px; font-variant-numeric: tabular-nums; }
.quiet { font-size: 0.8rem; margin: 6px 0 0; }
"""

JS = """
const SVG = 'http://www.w3.org/2000/svg';
const make = (tag, text, attributes) => {
  const one = document.createElement(tag);
  if (text) one.textContent = text;
  for (const [name, value] of Object.entries(attributes || {})) one.setAttribute(name, value);
  return one;
};
const draw = (tag, attributes, text) => {
  const one = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) one.setAttribute(name, value);
  if (text) one.textContent = text;
  return one;
};
const numbers = (packed) => {
  const raw = atob(packed), out = new Uint16Array(raw.length / 2);
  for (let i = 0; i < out.length; i++) out[i] = raw.charCodeAt(2 * i) | (raw.charCodeAt(2 * i + 1) << 8);
  return out;
};
const short = (word) => word.length > 14 ? word.slice(0, 13) + '…' : word;

export default function ({ data, parentElement }) {
  const root = parentElement;
  const before = root.querySelector('.pattern');
  const field = before && before.querySelector('input');
  const held = field && field === root.activeElement;
  const rows = data.queries.length, columns = data.keys.length;
  let chosen = field && before.dataset.rows === String(rows) ? Number(field.value) : rows - 1;
  if (!(chosen >= 0 && chosen < rows)) chosen = rows - 1;
  const box = make('div', '', { class: 'pattern' });
  box.dataset.rows = rows;

  const named = rows <= 64 && columns <= 64;
  const side = named ? Math.max(9, Math.min(24, Math.floor(420 / Math.max(rows, columns)))) : 0;
  const wide = named ? side * columns : 480, tall = named ? side * rows : Math.max(120, Math.round(480 * rows / columns));
  const longest = (words) => Math.max(...words.map((word) => short(word).length));
  const left = named ? 20 + 7 * longest(data.queries) : 56, above = named ? 48 + 6.2 * longest(data.keys) : 62;
  const svg = draw('svg', { width: left + wide + 24, height: above + tall + 8, role: 'img',
    'aria-label': data.title + '. ' + data.note + ' Rows read, columns are read from. Choose a row below to have its weights in words.' });
  svg.append(draw('text', { x: 0, y: 14, class: 'title' }, data.title));
  svg.append(draw('text', { x: left, y: 32, class: 'axis' }, 'read from →   (down: reads)'));
  const x = (i) => left + (i + 0.5) * wide / columns, y = (i) => above + (i + 0.5) * tall / rows;
  if (named) {
    data.queries.forEach((word, i) => svg.append(draw('text', { x: left - 6, y: y(i) + 4, 'text-anchor': 'end' }, short(word))));
    data.keys.forEach((word, i) => svg.append(draw('text',
      { x: x(i) + 4, y: above - 5, transform: `rotate(-90 ${x(i) + 4} ${above - 5})` }, short(word))));
  } else {
    const ticks = (count) => [0, 0.25, 0.5, 0.75, 1].map((share) => Math.round(share * (count - 1)));
    for (const i of ticks(rows)) svg.append(draw('text', { x: left - 6, y: y(i) + 4, 'text-anchor': 'end' }, String(i)));
    for (const i of ticks(columns)) svg.append(draw('text', { x: x(i), y: above - 6, 'text-anchor': 'middle' }, String(i)));
  }
  const image = draw('image', { x: left, y: above, width: wide, height: tall, preserveAspectRatio: 'none' });
  if (data.picture.startsWith('data:image/png;base64,')) image.setAttribute('href', data.picture);
  const mark = draw('rect', { class: 'row', x: left - 1, width: wide + 2, height: Math.max(2, tall / rows) });
  svg.append(image, draw('rect', { class: 'frame', x: left, y: above, width: wide, height: tall }), mark);
  const scroll = make('div', '', { class: 'scroll', tabindex: '0', role: 'group', 'aria-label': data.title });
  scroll.append(svg);

  const label = make('label', 'Position that reads');
  const input = make('input', '', { type: 'number', min: 0, max: rows - 1, step: 1 });
  input.value = chosen;
  label.append(input);
  const words = make('ul', '', { tabindex: '0' }), said = make('p', '', { class: 'quiet', 'aria-live': 'polite' });
  const weights = data.whole ? numbers(data.weights) : null;
  const tops = data.whole ? null : [numbers(data.top_key), numbers(data.top_weight)];
  const tell = (word, key, count) => {
    const share = count / data.unit, [fill, ink] = data.shades[Math.round(share * (data.shades.length - 1))];
    const one = make('li', word, { title: `position ${key}: ${share.toFixed(4)}` });
    one.append(make('small', share >= 0.0005 ? share.toFixed(3) : '0'));
    one.style.backgroundColor = fill;
    one.style.color = ink;
    return one;
  };
  const show = (row) => {
    chosen = row;
    mark.setAttribute('y', above + row * tall / rows);
    const list = [];
    if (weights) for (let key = 0; key < columns; key++) list.push(tell(data.keys[key], key, weights[row * columns + key]));
    else {
      const each = tops[0].length / rows;
      for (let i = row * each; i < (row + 1) * each; i++) list.push(tell(`${tops[0][i]} ${data.keys[tops[0][i]]}`, tops[0][i], tops[1][i]));
    }
    words.replaceChildren(...list);
    words.setAttribute('aria-label', `What position ${row} reads`);
    const all = weights ? 'Each token with the weight it is read with.' : `The ${list.length} tokens it reads most, strongest first.`;
    said.textContent = `Position ${row}, ${data.queries[row]}. ${all}`;
  };
  input.oninput = () => {
    const row = Number(input.value);
    if (Number.isInteger(row) && row >= 0 && row < rows) show(row);
  };
  image.onclick = (event) => {
    const at = image.getBoundingClientRect();
    const row = Math.min(rows - 1, Math.max(0, Math.floor((event.clientY - at.top) / at.height * rows)));
    input.value = row;
    show(row);
  };
  show(chosen);
  box.append(scroll, label, words, said);
  if (before) before.replaceWith(box); else root.append(box);
  if (held) input.focus({ preventScroll: true });
}
"""


def pattern(view: Mapping[str, Any], key: str) -> None:
    """``view`` as ``core.charts.patterns`` makes it. Which row is chosen stays in the browser."""
    _mounted()(key=key, data=dict(view))


def _mounted() -> Any:
    """The component, declared once a process and again where a test has thrown it away."""
    return component("assay_pattern", css=CSS, js=JS)
