// Readings in a gattway database, for Node 18 or newer, without packages: writes one each second and shows what comes, from here or from
// another device.
//
//   gattway --db plant.db serve --listen ble &
//   node readings.mjs plant.db boiler

import http from 'node:http'
import path from 'node:path'
import readline from 'node:readline'

const [directory, sensor = 'boiler', every = '1000', count = 'Infinity'] = process.argv.slice(2)
if (!directory) {
  console.error('node readings.mjs DATABASE [SENSOR [MILLISECONDS [COUNT]]]')
  process.exit(2)
}
process.on('uncaughtException', (error) => {
  console.error(error.message)
  process.exit(1)
})
// The path of a socket has 107 bytes at most, that of the directory may be longer.
process.chdir(path.resolve(directory))

/** Asks the process that has the database open; gives the answer, of which nothing is read yet. */
function open(method, target, body) {
  return new Promise((resolve, reject) => {
    const headers = body === undefined ? {} : { 'content-type': 'application/json' }
    const request = http.request({ socketPath: 'http', method, path: target, headers }, resolve)
    request.on('error', (error) =>
      reject(new Error(`${directory}: ${error.code}; is the database open in gattway run, serve or sync?`)))
    request.end(body === undefined ? undefined : JSON.stringify(body))
  })
}

/** Asks, and gives what was answered as JSON. */
async function ask(method, target, body) {
  const answer = await open(method, target, body)
  let text = ''
  for await (const part of answer.setEncoding('utf8')) text += part
  const told = text ? JSON.parse(text) : null
  if (answer.statusCode >= 400) {
    throw Object.assign(new Error([told.reason, told.advice].filter(Boolean).join('; ')), { status: answer.statusCode })
  }
  return told
}

const readings = '/_db.readings'

/** Changes after a sequence, and those to come, each with its document. */
async function* changes(since) {
  const answer = await open('GET', `${readings}/_changes?feed=continuous&include_docs=true&heartbeat=20000&since=${since}`)
  for await (const line of readline.createInterface({ input: answer })) {
    const row = line ? JSON.parse(line) : {}
    if (row.id) yield row
  }
}

async function write() {
  for (let n = 0; n < Number(count); n++) {
    const time = new Date().toISOString()
    const reading = { sensor, time, celsius: Math.round(700 + 20 * Math.sin(n / 10)) / 10 }
    await ask('PUT', `${readings}/${encodeURIComponent(`${sensor}:${time}:${n}`)}`, reading)
    await new Promise((resolve) => setTimeout(resolve, Number(every)))
  }
  const selector = { sensor }
  const { rows } = await ask('POST', `${readings}/_query`, { selector, aggregate: { n: 'count', highest: { max: 'celsius' } } })
  console.log(`${rows[0].n} readings of ${sensor}, ${rows[0].highest} at most`)
}

// A collection that is there is left as it is.
await ask('PUT', readings).catch((error) => { if (error.status !== 409 && error.status !== 412) throw error })
const from = (await ask('GET', `${readings}/_changes?since=now`)).last_seq
const written = write().then(() => process.exit(0))
for await (const { doc, deleted } of changes(from)) {
  if (!deleted) console.log(`${doc.time} ${doc.sensor} ${doc.celsius}`)
}
await written
