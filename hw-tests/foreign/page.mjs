// What hw-tests/foreign/page runs: a gateway with something to show, and a browser that looks at it.
import { spawn, execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { browser, logIn as giveToken, statusPage } from './browser.mjs';

const { GATTWAY, FOLDER, AXE } = process.env;
const TOKEN = '0123456789abcdef0123';
const takesPictures = process.argv[2] === '--pictures';
// Nothing that would be shown in a picture for people.
const HOSTILE = takesPictures ? 'greenhouse' : '<img src=x onerror=alert(1)>';
const SIZE_MAX = 150000;
const at = name => path.join(FOLDER, name);
const began = Date.now();

const say = text => console.log(`${((Date.now() - began) / 1000).toFixed(1).padStart(5)} s  ${text}`);
function check(holds, what) {
  if (!holds) throw new Error('page: ' + what);
}

// The gateway.
fs.writeFileSync(at('token'), TOKEN, { mode: 0o600 });
fs.writeFileSync(at('gattway.toml'), `
[http]
listen = "127.0.0.1:0"
token-file = "token"
[databases.plant]
collections = ["_default", "readings", "settings"]
create-collections = true
[listeners.field]
address = "tcp:127.0.0.1:0"
[listeners.lan]
address = "tcp:192.0.2.7:4985"
[upstreams.central]
address = "tcp:127.0.0.1:1"
retry-wait = "2s"
[retention.year]
age = "366d"
files = "1G"
`, { mode: 0o600 });
const processes = [];
function start(args, env = {}) {
  const child = spawn(GATTWAY, args, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...env } });
  processes.push(child);
  const events = [], waiting = [];
  let said = '';
  child.stderr.setEncoding('utf8').on('data', text => { said += text; });
  createInterface({ input: child.stdout }).on('line', line => {
    events.push(JSON.parse(line));
    for (const look of waiting) look();
  });
  const event = wanted => new Promise((resolve, reject) => {
    const look = () => { const found = events.find(wanted); if (found) resolve(found); };
    waiting.push(look);
    child.on('exit', () => reject(new Error(args.join(' ') + ' has ended: ' + said)));
    look();
  });
  return { child, event, ended: new Promise(resolve => child.on('exit', code => resolve(code))), said: () => said };
}
const command = (db, args, input = '') => execFileSync(GATTWAY, ['--db', at(db), ...args], { input, encoding: 'utf8', stdio: ['pipe', 'pipe', 'pipe'] });
const gateway = start(['run', '--json'], { GATTWAY_CONFIG: at('gattway.toml'), STATE_DIRECTORY: at('state'), RUNTIME_DIRECTORY: at('run') });
const base = (await gateway.event(event => event.event === 'http_listening')).address;
const field = (await gateway.event(event => event.event === 'listening')).address;

async function ask(method, where, body, headers = {}) {
  const answer = await fetch(base + where, { method, headers: { authorization: 'Bearer ' + TOKEN, ...headers }, body: body === undefined ? undefined : JSON.stringify(body) });
  return { status: answer.status, headers: answer.headers, json: await answer.json().catch(() => null) };
}
const ok = async (...request) => {
  const answer = await ask(...request);
  check(answer.status < 300, request.slice(0, 2).join(' ') + ' gave ' + JSON.stringify(answer));
  return answer.json;
};
/** Asks until it is so. */
async function until(read, holds) {
  for (;;) {
    const value = await read();
    if (holds(value)) return value;
    await new Promise(resolve => setTimeout(resolve, 20));
  }
}

// What it has to show: documents, devices that are paired, one that stays, a conflict, names that would like to be markup.
const reading = n => ({ _id: 'reading-' + String(n).padStart(5, '0'), sensor: ['boiler', 'cellar', 'greenhouse'][n % 3], celsius: Math.round(400 + 200 * Math.sin(n / 9)) / 10, time: new Date(began - n * 60000).toISOString().slice(0, 19) + 'Z' });
async function pair(db, name) {
  await ok('POST', '/_pair', { listen: 'tcp:127.0.0.1:0' });
  const { address, code } = await until(() => ok('GET', '/_pair'), status => status.state === 'waiting');
  command(db, ['pair', address, '--name', name, '--code-file', '-'], code);
  await until(() => ok('GET', '/_pair'), status => status.state === 'paired');
}
function sync(db, tries = 40) {
  try { command(db, ['sync', field]); } catch (error) {
    // The list of who is known is read again each second.
    if (tries === 0) throw error;
    sync(db, tries - 1);
  }
}
async function furnish() {
  await until(() => ask('GET', '/plant'), answer => answer.status === 200 && answer.json.collections['_default.settings']);
  await ok('POST', '/plant.readings/_bulk_docs', { docs: Array.from({ length: 240 }, (_, n) => reading(n)) });
  await ok('POST', '/plant.settings/_bulk_docs', { docs: [{ _id: 'setpoint', celsius: 62 }, { _id: 'alarm', above: 80, tell: ['office'] }, { _id: 'curve', slope: 1.4 }] });
  for (const [db, name] of [['pump.db', 'pump-house'], ['boiler.db', 'boiler'], ['valve.db', 'valve-7'], ['evil.db', HOSTILE]]) await pair(db, name);
  for (const db of ['pump.db', 'boiler.db', 'valve.db', 'evil.db']) for (const name of ['readings', 'settings']) command(db, ['db', 'collections', '--create', name]);
  for (const db of ['boiler.db', 'valve.db', 'evil.db']) sync(db);
  // Both sides change one.
  command('boiler.db', ['db', 'put', 'setpoint', '--collection', 'settings', '{"celsius":70}']);
  const { _rev } = await ok('GET', '/plant.settings/setpoint');
  await ok('PUT', '/plant.settings/setpoint', { _rev, celsius: 58 });
  sync('boiler.db');
  const stays = start(['--db', at('pump.db'), 'sync', field, '--continuous', '--json']);
  await stays.event(event => event.event === 'status' && event.activity === 'idle');
}

const CASES = [['wide', 1280, 860, false], ['wide, dark', 1280, 860, true], ['phone', 360, 740, false], ['phone, dark', 360, 740, true]];
const axe = fs.readFileSync(AXE, 'utf8');

async function open(browser, [, width, height, dark]) {
  return statusPage(browser, base, { width, height, dark });
}
async function logIn(page) {
  await giveToken(page, TOKEN);
  await page.until(`document.querySelectorAll('#docs li details').length > 5 && document.querySelectorAll('#neighbour-rows tbody tr').length >= 4 && document.querySelectorAll('#trust tbody tr').length >= 4 && document.querySelectorAll('#problems li').length >= 2`);
}
async function judged(page, what, width = CASES[0][1]) {
  await page.run(`window.axe || (0, eval)`).catch(() => {});
  if (!await page.run(`!!window.axe`)) await page.run(axe);
  const violations = await page.run(`axe.run(document, { resultTypes: ['violations'] }).then(told => told.violations.map(one => one.id + ': ' + one.nodes.slice(0, 3).map(node => node.target + ' ' + node.failureSummary).join(' | ')))`);
  check(violations.length === 0, `axe, ${what}: ${violations.join('\n')}`);
  // Not by what the window says: a phone shows more of a page that is too wide.
  const wide = await page.run(`document.documentElement.scrollWidth`);
  check(wide <= width, `${what}: it scrolls to the side: ${wide} of ${width} pixels`);
  // Nothing sticks out of its card either.
  const out = await page.run(`[...document.querySelectorAll('main section')].filter(one => one.checkVisibility() && one.scrollWidth > one.clientWidth + 1).map(one => one.textContent.slice(0, 80))`);
  check(out.length === 0, `${what}: these are wider than their cards: ${out}`);
}
/** Walks by keyboard until everything that can be used was reached. */
async function walk(page, what) {
  const wanted = await page.run(`(() => {
    const all = [...document.querySelectorAll('a[href], button, input, select, summary, [tabindex="0"]')].filter(one => one.checkVisibility() && !one.disabled && !one.closest('dialog:not([open])'));
    all.forEach((one, n) => { one.dataset.walk = n; });
    document.activeElement.blur();
    return all.length;
  })()`);
  const reached = new Set();
  for (let n = 0; n < wanted * 2 + 10 && reached.size < wanted; n += 1) {
    await page.key('Tab');
    const focused = () => page.run(`new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done([document.activeElement.dataset.walk ?? null, getComputedStyle(document.activeElement).outlineStyle]))))`);
    let [number, outline] = await focused();
    // What the page has just drawn anew has its focus back a frame later.
    if (number !== null && outline === 'none') [number, outline] = await focused();
    if (number === null) continue;
    check(outline !== 'none', `${what}: focus is not seen on control ${number}`);
    reached.add(number);
  }
  const missed = await page.run(`[...document.querySelectorAll('[data-walk]')].filter(one => !${JSON.stringify([...reached])}.includes(one.dataset.walk)).map(one => one.outerHTML.slice(0, 120))`);
  check(missed.length === 0, `${what}: not reached by keyboard: ${missed.join('\n')}`);
  return wanted;
}

async function checkAll(browser) {
  const html = await fetch(base + '/', { headers: { accept: 'text/html' } });
  const bytes = (await html.arrayBuffer()).byteLength, policy = html.headers.get('content-security-policy') || '';
  check(html.status === 200 && bytes < SIZE_MAX, `the page has ${bytes} bytes`);
  for (const part of ["default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'", "form-action 'none'", "script-src 'nonce-"]) check(policy.includes(part), `the policy lacks ${part}: ${policy}`);
  check(!policy.includes('unsafe'), policy);
  say(`size ${bytes} bytes`);
  for (const one of CASES) {
    const [name, width] = one, page = await open(browser, one);
    await judged(page, name + ', login', width);
    await logIn(page);
    await judged(page, name, width);
    const controls = await walk(page, name);
    await page.run(`document.querySelector('[data-act=pair-open]').click()`);
    await page.until(`document.querySelector('#pair').open && document.querySelector('#pair-form')`);
    await judged(page, name + ', pairing', width);
    await page.key('Escape');
    await page.until(`!document.querySelector('#pair').open`);
    check(page.wrong.length === 0, `${name}: ${page.wrong.join('\n')}`);
    say(`${name}: axe has no violation, ${controls} controls reached by keyboard`);
    await page.close();
  }
  const page = await open(browser, CASES[0]);
  await logIn(page);
  // By the keyboard alone from here: what is denied, found and paired.
  await page.run(`window.notReloaded = true`);
  await ok('PUT', '/plant.readings/' + encodeURIComponent(HOSTILE), { sensor: HOSTILE });
  await page.until(`document.querySelector('#docs').innerText.includes(${JSON.stringify(HOSTILE)})`);
  await page.until(`document.querySelector('#neighbour-rows').innerText.includes(${JSON.stringify(HOSTILE)}) && document.querySelector('#trust').innerText.includes(${JSON.stringify(HOSTILE)})`);
  check(await page.run(`document.querySelectorAll('img, iframe, object, embed, script:not([nonce]), main [onerror]').length === 0`), 'something was taken for markup');
  await page.until(`document.querySelector('#conflicts').innerText.includes('setpoint')`);
  await page.until(`document.querySelector('#problems').innerText.includes('192.0.2.7') && document.querySelector('#problems').innerText.includes('central')`);
  say('a document came by itself, hostile names are text');

  const press = async selector => {
    await page.run(`document.querySelector(${JSON.stringify(selector)}).focus()`);
    await page.key('Enter');
  };
  const fill = (selector, text) => page.run(`document.querySelector('${selector}').value = ${JSON.stringify(text)}`);
  for (const [text, found] of [['reading-00007', 'reading-00007'], ['celsius>59.9', 'reading-'], ['{"sensor":"cellar"}', 'cellar'], ['nothing-like-it', 'Nothing was found']]) {
    await fill('#search-text', text);
    await press('#search-button');
    await page.until(`document.querySelector('#docs').innerText.includes(${JSON.stringify(found)}) && document.querySelector('#documents-note').innerText.includes('found') || document.querySelector('#documents-note').innerText.includes('first 20')`);
  }

  // A device that is paired by the page, and denied by it.
  await press('[data-act=pair-open]');
  await page.until(`document.querySelector('#pair-address')`);
  await fill('#pair-address', 'tcp:127.0.0.1:0');
  await press('#pair-form button.main');
  await page.until(`document.querySelector('#code') && document.querySelector('#pair-body').innerText.includes('tcp:127')`);
  await judged(page, 'the code');
  const code = await page.run(`document.querySelector('#code').innerText`), address = (await ok('GET', '/_pair')).address;
  command('cellar.db', ['pair', address, '--name', 'cellar', '--code-file', '-'], code);
  await page.until(`document.querySelector('#pair-body').innerText.includes('Paired with cellar')`);
  await press('[data-act=pair-close]');
  await page.until(`!document.querySelector('#pair').open && document.querySelector('#trust').innerText.includes('cellar')`);
  const cellar = async () => (await ok('GET', '/_trust'))[0].peers.find(peer => peer.name === 'cellar');
  await press(`#trust [aria-label="Deny cellar"]`);
  await page.until(`document.querySelector('#ask').open`);
  await judged(page, 'the question');
  await press('#ask-yes');
  await page.until(`document.querySelector('#trust [aria-label="Allow cellar"]')`);
  check(!(await cellar()).allowed, 'it is not denied');
  await press(`#trust [aria-label="Allow cellar"]`);
  await page.until(`document.querySelector('#trust [aria-label="Deny cellar"]')`);
  await page.run(`(select => { select.value = 'read'; select.dispatchEvent(new Event('change', { bubbles: true })); })(document.querySelector('#trust [aria-label="What cellar may do"]'))`);
  await until(cellar, peer => peer.allowed && peer.role === 'read');
  // What somebody else changes is shown as well.
  await ok('POST', '/_trust', { peer: 'valve-7', allowed: false });
  await page.until(`document.querySelector('#trust [aria-label="Allow valve-7"]')`);
  await press(`[data-act=order][data-arg=pause]`);
  await page.until(`document.querySelector('#upstreams').innerText.includes('paused')`);
  await press(`[data-act=order][data-arg=resume]`);
  await page.until(`!document.querySelector('#upstreams').innerText.includes('paused')`);
  check(await page.run(`window.notReloaded === true`), 'it was loaded anew');
  say('a device was paired and denied by the page');

  // First paint, with everything there: told, not judged.
  await page.go(base + '/');
  await page.until(`document.querySelectorAll('#docs li details').length > 5`);
  const paint = await page.run(`new Promise(resolve => new PerformanceObserver(list => {
    for (const entry of list.getEntriesByName('first-contentful-paint')) resolve(entry.startTime);
  }).observe({ type: 'paint', buffered: true }))`);
  say(`first paint after ${Math.round(paint)} ms, documents and all after ${Math.round(await page.run('performance.now()'))} ms`);
  check(page.wrong.length === 0, page.wrong.join('\n'));

  // A wrong token is refused, and asked for again.
  await page.run(`document.querySelector('#leave').click()`);
  await fill('#token', 'wrong wrong wrong wrong');
  await press('#login-button');
  await page.until(`document.querySelector('#login-error').innerText.includes('does not take this token')`);
  say('a wrong token is refused');
  // Who looks is told when the gateway has gone.
  await logIn(page);
  gateway.child.kill('SIGTERM');
  check(await gateway.ended === 0, 'the gateway ended badly: ' + gateway.said());
  await page.until(`document.querySelector('#live-text').innerText === 'connection lost'`);
  await page.close();
}

/** Documents come and go for some minutes, so that there is something to see. */
async function work(minutes) {
  const end = Date.now() + minutes * 60000;
  for (let n = 240; Date.now() < end; n += 1) {
    const many = Math.max(1, Math.round(6 + 5 * Math.sin(n / 8) + Math.random() * 4));
    await ok('POST', '/plant.readings/_bulk_docs', { docs: Array.from({ length: many }, (_, m) => reading(n * 20 + m)) });
    if (n % 25 === 0) for (const db of ['boiler.db', 'valve.db']) sync(db);
    await new Promise(resolve => setTimeout(resolve, 4000));
  }
}
async function pictures(browser, folder, minutes) {
  await work(minutes);
  fs.mkdirSync(folder, { recursive: true });
  for (const [file, one, high, from] of [['page', CASES[0], 1270], ['page-documents', CASES[0], 1200, 'documents'], ['page-dark', CASES[1], 860], ['page-phone', CASES[2], 1000]]) {
    const page = await open(browser, one);
    await logIn(page);
    await page.picture(path.join(folder, file + '.png'), high, from);
    await page.close();
  }
}

let failed = null;
try {
  await furnish();
  const chromium = await browser(FOLDER);
  try {
    if (takesPictures) await pictures(chromium, process.argv[3], Number(process.argv[4] || 1));
    else await checkAll(chromium);
  } finally { await chromium.close(); }
  say('done');
} catch (error) {
  failed = error;
  console.error(error.stderr ? error.message + error.stderr : error.message);
}
for (const child of processes) child.kill('SIGKILL');
process.exit(failed ? 1 : 0);
