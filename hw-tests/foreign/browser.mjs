// Drives a headless Chromium by its DevTools protocol, over a pipe.
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';

/** How long anything may take that is waited for, in milliseconds: much longer than it does, also on a machine that is itself emulated. */
const PATIENCE = 120000;

export async function browser(folder) {
  const profile = path.join(folder, 'chromium');
  const chromium = spawn('chromium', ['--headless', '--no-sandbox', '--disable-gpu', '--hide-scrollbars', '--no-first-run', '--disable-extensions', '--remote-debugging-pipe', '--user-data-dir=' + profile, 'about:blank'], { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] });
  const waiting = new Map(), listeners = [];
  let number = 0, rest = '';
  chromium.stdio[4].setEncoding('utf8').on('data', data => {
    const messages = (rest + data).split('\0');
    rest = messages.pop();
    for (const message of messages.map(text => JSON.parse(text))) {
      const [resolve, reject] = waiting.get(message.id) || [];
      waiting.delete(message.id);
      if (resolve) message.error ? reject(new Error(JSON.stringify(message.error))) : resolve(message.result);
      else for (const listener of listeners) listener(message);
    }
  });
  const ended = new Promise(resolve => chromium.on('exit', resolve));
  ended.then(() => { for (const [, reject] of waiting.values()) reject(new Error('chromium has ended')); });
  const send = (method, params = {}, sessionId = undefined) => new Promise((resolve, reject) => {
    waiting.set(++number, [resolve, reject]);
    chromium.stdio[3].write(JSON.stringify({ id: number, method, params, sessionId }) + '\0');
  });
  return {
    send,
    on: listener => listeners.push(listener),
    async close() {
      await send('Browser.close').catch(() => {});
      await ended;
      fs.rmSync(profile, { recursive: true, force: true });
    },
  };
}

/** The status page at an address, which asks for its token. */
export async function statusPage(browser, address, size) {
  const page = await tab(browser, size);
  await page.go(address + '/');
  await page.until(`!document.querySelector('#login').hidden`);
  return page;
}
/** Gives it the token, as somebody does who looks at it. */
export const logIn = (page, token) => page.run(`document.querySelector('#token').value = '${token}'; document.querySelector('#login-button').click()`);

/** A page of this size; what goes wrong in it stands in `wrong`. */
export async function tab(browser, { width, height, dark }) {
  // One of its own: nothing is kept from another.
  const { browserContextId } = await browser.send('Target.createBrowserContext');
  const { targetId } = await browser.send('Target.createTarget', { url: 'about:blank', browserContextId });
  const { sessionId } = await browser.send('Target.attachToTarget', { targetId, flatten: true });
  const send = (method, params) => browser.send(method, params, sessionId);
  const wrong = [];
  browser.on(message => {
    if (message.sessionId !== sessionId) return;
    const { method, params } = message;
    if (method === 'Runtime.exceptionThrown') wrong.push(params.exceptionDetails.exception?.description || params.exceptionDetails.text);
    if (method === 'Log.entryAdded' && ['error', 'warning'].includes(params.entry.level)) wrong.push(params.entry.text + ' ' + (params.entry.url || ''));
    if (method === 'Runtime.consoleAPICalled' && params.type === 'error') wrong.push('console: ' + params.args.map(arg => arg.value || arg.description).join(' '));
    if (method === 'Page.javascriptDialogOpening') wrong.push('a dialog: ' + params.message);
  });
  for (const domain of ['Page', 'Runtime', 'Log']) await send(domain + '.enable');
  const size = high => send('Emulation.setDeviceMetricsOverride', { width, height: high, deviceScaleFactor: 1, mobile: width < 500 });
  await size(height);
  await send('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: dark ? 'dark' : 'light' }, { name: 'prefers-reduced-motion', value: 'reduce' }] });
  const run = async expression => {
    const { result, exceptionDetails } = await send('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true });
    if (exceptionDetails) throw new Error((exceptionDetails.exception?.description || exceptionDetails.text) + '\nin ' + expression.slice(0, 300));
    return result.value;
  };
  return {
    wrong, run,
    go: async url => {
      const loaded = new Promise(resolve => browser.on(message => message.sessionId === sessionId && message.method === 'Page.loadEventFired' && resolve()));
      await send('Page.navigate', { url });
      await loaded;
    },
    /** Waits until something holds of the page, by its changes. */
    until: condition => run(`new Promise((resolve, reject) => {
      const late = setTimeout(() => reject(new Error('this did not come: ' + ${JSON.stringify(condition)} + '; the page has ' + document.body.innerText.slice(0, 3000))), ${PATIENCE});
      const look = () => { let holds = false; try { holds = ${condition}; } catch {} if (holds) { clearTimeout(late); watch.disconnect(); resolve(true); } };
      const watch = new MutationObserver(look);
      watch.observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
      look();
    })`),
    key: async (key, modifiers = 0) => {
      const code = { Tab: 9, Enter: 13, Escape: 27 }[key];
      for (const type of ['keyDown', 'keyUp']) await send('Input.dispatchKeyEvent', { type, key, code: key, windowsVirtualKeyCode: code, modifiers, ...(key === 'Enter' && type === 'keyDown' ? { text: '\r' } : {}) });
    },
    /** A picture of so many pixels, from the top or from the element of this ID on. */
    picture: async (file, high = height, from = null) => {
      await size(high);
      if (from) await run(`document.querySelector('header').style.position = 'static', document.getElementById('${from}').scrollIntoView(), scrollTo(scrollX, document.getElementById('${from}').offsetTop - 16)`);
      const { data } = await send('Page.captureScreenshot', { format: 'png', optimizeForSpeed: false });
      await size(height);
      fs.writeFileSync(file, Buffer.from(data, 'base64'));
    },
    close: () => browser.send('Target.disposeBrowserContext', { browserContextId }),
  };
}
