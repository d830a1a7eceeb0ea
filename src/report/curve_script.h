// What curve.html does in a browser. It reads the JSON of the page, draws the measured points, and follows the budget
// that a person drags: bits of every layer, what the plan takes, and the plan itself to save. Nothing is loaded.
#pragma once

namespace bitplan {

inline constexpr char kCurveScript[] = R"js(
'use strict';
(() => {
const page = JSON.parse(document.getElementById('curve-data').textContent);
const byId = (id) => document.getElementById(id);
const chart = byId('chart'), slider = byId('budget'), axis = byId('axis');
const width = 900, height = 400, left = 64, right = 20, top = 16, bottom = 48;
let chosen = 0;

const number = (value, resource) =>
  resource.per_weight ? value.toFixed(3) : Math.round(value).toLocaleString('en');

// The whole text of a plan, from the first one and the lines that differ.
function planText(plan) {
  if (plan.text !== undefined) return plan.text;
  const lines = page.base.split('\n');
  for (const [line, text] of plan.lines) lines[line] = text;
  return lines.join('\n');
}

function svg(name, attributes, text) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  chart.appendChild(element);
  return element;
}

// Round values inside [low, high]: 1, 2 or 5 times a power of ten.
function ticks(low, high, logarithmic) {
  const found = [];
  if (logarithmic) {
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); ++power) {
      for (const step of high / low < 20 ? [1, 2, 3, 4, 5, 6, 8] : [1, 2, 5]) found.push(step * 10 ** power);
    }
  } else {
    const rough = (high - low) / 6, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
    for (let value = Math.ceil(low / step) * step; value <= high; value += step) found.push(value);
  }
  return found.filter((value) => value >= low && value <= high);
}

let x = () => 0;

function draw() {
  const r = Number(axis.value), resource = page.resources[r];
  chart.replaceChildren();
  const spent = page.front.concat(page.measured).map((plan) => plan.spent[r]);
  const positive = spent.filter((value) => value > 0);
  let low = Math.min(...spent), high = Math.max(...spent);
  const logarithmic = positive.length > 0 && high / Math.min(...positive) > 4;
  if (logarithmic) low = Math.min(...positive);
  if (low === high) high = low + 1;
  const scale = (value) => (logarithmic ? Math.log(Math.max(value, low)) : value);
  x = (value) => left + ((scale(value) - scale(low)) / (scale(high) - scale(low))) * (width - left - right);
  const ends = page.measured.flatMap((plan) => [plan.low, plan.high]).concat([page.float]);
  const margin = 0.05 * (Math.max(...ends) - Math.min(...ends)) + 0.02;
  const least = Math.min(...ends) - margin, most = Math.max(...ends) + margin;
  const y = (value) => height - bottom - ((value - least) / (most - least)) * (height - top - bottom);
  for (const value of ticks(least, most, false)) {
    svg('line', {x1: left, x2: width - right, y1: y(value), y2: y(value), class: 'grid'});
    svg('text', {x: left - 8, y: y(value) + 4, 'text-anchor': 'end'}, value.toFixed(most - least < 2 ? 1 : 0) + page.score_unit);
  }
  for (const value of ticks(low, high, logarithmic)) {
    svg('line', {x1: x(value), x2: x(value), y1: top, y2: height - bottom, class: 'grid'});
    svg('text', {x: x(value), y: height - bottom + 18, 'text-anchor': 'middle'},
        value >= 1000 ? value.toLocaleString('en', {notation: 'compact'}) : String(Number(value.toPrecision(3))));
  }
  svg('text', {x: (left + width - right) / 2, y: height - 8, 'text-anchor': 'middle'},
      resource.words === resource.unit ? resource.words : resource.words + ', ' + resource.unit);
  svg('line', {x1: left, x2: width - right, y1: y(page.float), y2: y(page.float), class: 'float'});
  svg('text', {x: left + 6, y: y(page.float) - 5}, 'float ' + page.float.toFixed(2) + page.score_unit);
  for (const plan of page.measured) {
    const kind = plan.uniform ? 'uniform' : 'ours', at = x(plan.spent[r]);
    svg('line', {x1: at, x2: at, y1: y(plan.low), y2: y(plan.high), class: kind});
    const mark = plan.uniform
      ? svg('rect', {x: at - 4, y: y(plan.score) - 4, width: 8, height: 8, class: kind})
      : svg('circle', {cx: at, cy: y(plan.score), r: 5, class: kind});
    const title = document.createElementNS('http://www.w3.org/2000/svg', 'title');
    title.textContent = `${plan.allocator}: ${number(plan.spent[r], resource)} ${resource.words}, ` +
      `${plan.score.toFixed(2)}${page.score_unit} [${plan.low.toFixed(2)}, ${plan.high.toFixed(2)}]`;
    mark.appendChild(title);
  }
  svg('line', {id: 'cursor', y1: top, y2: height - bottom, class: 'cursor'});
  follow();
}

// Shows the plan that is chosen.
function follow() {
  const plan = page.front[chosen], r = Number(axis.value), before = page.front[follow.shown ?? chosen];
  slider.value = chosen;
  document.body.dataset.plan = chosen;
  const cursor = byId('cursor');
  cursor.setAttribute('x1', x(plan.spent[r]));
  cursor.setAttribute('x2', x(plan.spent[r]));
  const facts = page.resources.map((one, i) => [one.words, number(plan.spent[i], one)]);
  facts.push(['predicted rise', `${Number(plan.rise.toPrecision(4))} ${page.rise_unit}`]);
  const same = page.measured.find((one) => JSON.stringify([one.bits, one.activation_bits]) ===
                                           JSON.stringify([plan.bits, plan.activation_bits]));
  facts.push(['measured', same === undefined ? 'not at this budget'
    : `${same.score.toFixed(2)}${page.score_unit} [${same.low.toFixed(2)}, ${same.high.toFixed(2)}]`]);
  byId('facts').replaceChildren(...facts.flatMap(([name, value]) => {
    const term = document.createElement('dt'), text = document.createElement('dd');
    term.textContent = name;
    text.textContent = value;
    return [term, text];
  }));
  const rows = byId('layers').tBodies[0].rows;
  for (let l = 0; l < rows.length; ++l) {
    const bits = plan.bits[l], cells = rows[l].cells;
    cells[2].firstChild.style.width = `${(Math.min(bits, 8) / 8) * 8}rem`;
    cells[2].lastChild.textContent = bits > 8 ? ' float' : ` ${bits}`;
    if (cells[3]) cells[3].textContent = plan.activation_bits[l] > 16 ? 'float' : plan.activation_bits[l];
    rows[l].classList.toggle('changed', before.bits[l] !== bits ||
                                        before.activation_bits[l] !== plan.activation_bits[l]);
  }
  follow.shown = chosen;
  byId('plan').textContent = planText(plan);
}

function choose(index) {
  chosen = Math.max(0, Math.min(page.front.length - 1, index));
  follow();
}

function chooseAt(event) {
  const box = chart.getBoundingClientRect(), r = Number(axis.value);
  const at = ((event.clientX - box.left) / box.width) * width;
  let best = 0;
  page.front.forEach((plan, i) => {
    if (Math.abs(x(plan.spent[r]) - at) < Math.abs(x(page.front[best].spent[r]) - at)) best = i;
  });
  choose(best);
}

for (const [i, resource] of page.resources.entries()) axis.add(new Option(resource.words, i));
for (const layer of page.layers) {
  const row = byId('layers').tBodies[0].insertRow();
  for (const text of [layer.name, layer.weights.toLocaleString('en')]) row.insertCell().textContent = text;
  const bits = row.insertCell(), bar = document.createElement('span');
  bits.className = 'drawn';
  bar.className = 'bar';
  bits.append(bar, '');
  if (page.activations) row.insertCell();
}
slider.max = page.front.length - 1;
slider.addEventListener('input', () => choose(Number(slider.value)));
axis.addEventListener('change', draw);
chart.addEventListener('pointerdown', (event) => { chart.setPointerCapture(event.pointerId); chooseAt(event); });
chart.addEventListener('pointermove', (event) => { if (event.buttons !== 0) chooseAt(event); });
byId('save').addEventListener('click', () => {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([planText(page.front[chosen])], {type: 'text/yaml'}));
  link.download = 'plan.yaml';
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
});
chosen = page.start;
draw();
})();
)js";

}  // namespace bitplan
