// The second gateway of hw-tests/rig/plant: it pairs a field device, and a browser and a client of its broker see what comes from it.
import { spawn, execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { browser, logIn, statusPage } from '../foreign/browser.mjs';

const { GATTWAY, MOSQUITTO, PICTURES, RIG_DIR, TMPDIR } = process.env;
const READINGS = Number(process.env.READINGS);
const TOKEN = '0123456789abcdef0123';
const at = name => path.join(TMPDIR, name);
const shared = name => path.join(RIG_DIR, name);
const began = Date.now();
const say = text => console.log(`${((Date.now() - began) / 1000).toFixed(1).padStart(5)} s  ${text}`);
function check(holds, what) {
  if (!holds) throw new Error(what);
}
const pause = () => new Promise(resolve => setTimeout(resolve, 200));
/** Asks until it is so, or the other machine has failed. */
async function until(read, holds) {
  for (;;) {
    const value = await read();
    if (holds(value)) return value;
    check(!fs.existsSync(shared('failed')), 'the field device has failed');
    await pause();
  }
}

fs.writeFileSync(at('token'), TOKEN, { mode: 0o600 });
fs.writeFileSync(at('gattway.toml'), `
[http]
listen = "127.0.0.1:0"
token-file = "token"
[databases.plant]
collections = ["readings"]
[bluetooth.radio]
roles = ["peripheral"]
[mqtt.home]
broker = "mqtt://127.0.0.1:1883"
topic = "plant/{sensor}"
time = "time"
`, { mode: 0o600 });
const processes = [];
function start(program, args, env = {}) {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...env } });
  processes.push(child);
  const one = { child, said: '', lines: [] };
  child.stderr.setEncoding('utf8').on('data', text => { one.said += text; });
  createInterface({ input: child.stdout }).on('line', line => one.lines.push(line));
  child.on('error', error => { one.said += error; });
  return one;
}
/** The first line of a program that tells of such an event. */
const told = (one, event) => until(() => {
  check(one.child.exitCode === null, 'it has ended: ' + one.said);
  return one.lines.map(line => JSON.parse(line)).find(line => line.event === event);
}, found => found);

let failed = null;
const programs = {};
try {
  const broker = programs.broker = start(path.join(MOSQUITTO, 'usr/sbin/mosquitto'), ['-p', '1883']);
  await until(() => broker.said.includes('running'), ready => {
    check(broker.child.exitCode === null, 'the broker has ended');
    return ready;
  });
  const messages = programs.messages = start(path.join(MOSQUITTO, 'usr/bin/mosquitto_sub'), ['-p', '1883', '-q', '1', '-t', 'plant/#', '-v']);
  const gateway = programs.gateway = start(GATTWAY, ['run', '--json'], { GATTWAY_CONFIG: at('gattway.toml'), STATE_DIRECTORY: TMPDIR, RUNTIME_DIRECTORY: at('run') });
  const base = (await told(gateway, 'http_listening')).address;
  const ask = async (method, where, body) => {
    const answer = await fetch(base + where, { method, headers: { authorization: 'Bearer ' + TOKEN }, body: body && JSON.stringify(body) });
    const json = await answer.json();
    check(answer.status < 300, `${method} ${where}: ${JSON.stringify(json)}`);
    return json;
  };
  await until(() => fetch(base + '/healthz').then(answer => answer.status), status => status === 200);

  // Paired over Bluetooth, while the gateway runs.
  await ask('POST', '/_pair', { listen: 'ble' });
  const { code } = await until(() => ask('GET', '/_pair'), status => status.state === 'waiting');
  fs.writeFileSync(shared('code.part'), code);
  fs.renameSync(shared('code.part'), shared('code'));
  const paired = await until(() => ask('GET', '/_pair'), status => ['paired', 'failed'].includes(status.state));
  check(paired.state === 'paired', JSON.stringify(paired));
  say(`paired with ${paired.name || 'the field device'} over Bluetooth`);

  // The page, from before the first reading on.
  const chromium = await browser(TMPDIR);
  try {
    const page = await statusPage(chromium, base, { width: 1280, height: 860, dark: false });
    await logIn(page, TOKEN);
    await page.until(`document.querySelector('#trust').innerText.includes('field')`);
    const shown = () => page.run(`[...document.querySelectorAll('#docs li')].map(one => one.innerText)`);
    const first = await until(shown, docs => docs.some(doc => doc.includes('boiler')));
    say(`the page shows ${first.length} readings`);
    // They come without anybody asking for them, and who brought them is named.
    await page.until(`document.querySelector('#neighbour-rows').innerText.includes('field')`);
    const of = line => { const [topic, ...rest] = line.split(' '); return { topic, ...JSON.parse(rest.join(' ')) }; };
    const got = () => messages.lines.map(of);
    await until(got, list => list.length >= READINGS);
    const stored = await until(async () => (await ask('GET', '/plant.readings/_all_docs?limit=1000')).rows.length, count => count >= READINGS);
    say(`${got().length} readings from the broker, ${stored} stored`);
    const newest = (await ask('GET', '/plant.readings/_all_docs?limit=1000')).rows.at(-1).id;
    await until(shown, docs => docs.some(doc => doc.includes(newest)));
    if (PICTURES) await page.picture(path.join(PICTURES, 'plant.png'), 1270);
    const phone = await statusPage(chromium, base, { width: 360, height: 740, dark: true });
    await logIn(phone, TOKEN);
    await phone.until(`document.querySelector('#docs').innerText.includes('boiler')`);
    if (PICTURES) await phone.picture(path.join(PICTURES, 'plant-phone.png'), 1000);
    check(page.wrong.concat(phone.wrong).length === 0, page.wrong.concat(phone.wrong).join('\n'));
    say(`the page shows the newest readings, and the neighbour that brought them, on a desk and on a phone`);

    // What the field device has at its end is here, and went to the broker once each, in order, at the time of the reading.
    fs.writeFileSync(shared('seen'), '');
    await until(() => fs.existsSync(shared('field.ndjson')), there => there);
    const theirs = fs.readFileSync(shared('field.ndjson'), 'utf8');
    const env = { ...process.env, GATTWAY_CONFIG: at('none') };
    const ours = () => execFileSync(GATTWAY, ['--db', at('plant.db'), 'db', 'export', '--collection', 'readings'], { encoding: 'utf8', env }).split('\n').sort().filter(Boolean).join('\n') + '\n';
    await until(ours, text => text.split('\n').length >= theirs.split('\n').length);
    const sorted = theirs.split('\n').sort().filter(Boolean).join('\n') + '\n';
    check(ours() === sorted, 'the databases differ');
    const documents = sorted.trim().split('\n').map(line => JSON.parse(line));
    await until(got, list => new Set(list.map(one => one._id)).size >= documents.length);
    const list = got();
    const order = list.map(one => one.time);
    check(order.every((time, n) => n === 0 || order[n - 1] <= time), 'the broker had them in another order: ' + order);
    const times = new Map(documents.map(one => [one._id, Date.parse(one.time)]));
    check(list.every(one => one.topic === 'plant/boiler' && Date.parse(one._time) === times.get(one._id)), 'a message has another time than its reading: ' + JSON.stringify(list[0]));
    say(`${documents.length} readings in both databases, ${list.length} messages in order, each at the time of its reading`);
    fs.writeFileSync(shared('done'), '');
  } finally { await chromium.close(); }
  gateway.child.kill('SIGTERM');
  const code2 = await new Promise(resolve => gateway.child.on('exit', resolve));
  check(code2 === 0, 'the gateway ended badly: ' + gateway.said);
} catch (error) {
  failed = error;
  console.error(error.message);
  for (const [name, one] of Object.entries(programs)) console.error(name, one.lines.slice(-5).join('\n'), one.said.slice(-2000));
  fs.writeFileSync(shared('failed'), '');
}
for (const child of processes) child.kill('SIGKILL');
process.exit(failed ? 1 : 0);
