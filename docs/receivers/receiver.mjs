// Verifies TIW callbacks: KEYRING=keyring.json SDK_APP_ID=1400000001 PORT=8080 node receiver.mjs
import { createHash, timingSafeEqual } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'

const { KEYRING, SDK_APP_ID, PORT } = process.env, LIMIT = 1 << 20
let lastGood = []

function acceptedKeys() {
  try {
    const { accept } = JSON.parse(readFileSync(KEYRING, 'utf8'))
    if (Array.isArray(accept) && accept.length && accept.every(key => key && typeof key === 'string')) lastGood = accept
  } catch {} // missing or half-written for a moment
  return lastGood
}

function verify(text, keys) {
  const callback = JSON.parse(text)
  if (!callback || typeof callback !== 'object' || Array.isArray(callback)) return 400
  // The two numbers as they were written: to JSON.parse, 1.0 and 1e0 are integers, too.
  const numbers = /"(SdkAppId|ExpireTime)"\s*:\s*(-?\d[\d.eE+-]*)/g
  const { SdkAppId, ExpireTime } = JSON.parse(text.replace(numbers, '"$1":"$2"'))
  if (typeof callback.SdkAppId !== 'number' || SdkAppId !== SDK_APP_ID) return 401
  if (typeof callback.ExpireTime !== 'number' || typeof ExpireTime !== 'string' || !/^\d{1,15}$/.test(ExpireTime)) return 401
  if (callback.ExpireTime < Math.floor(Date.now() / 1000) || typeof callback.Sign !== 'string') return 401
  const sign = Buffer.from(callback.Sign)
  const signs = keys.map(key => Buffer.from(createHash('md5').update(key + ExpireTime).digest('hex')))
  return signs.some(wanted => wanted.length === sign.length && timingSafeEqual(wanted, sign)) ? 200 : 401
}

createServer({ keepAliveTimeout: 75_000 }, async (req, res) => { // longer than senders keep idle connections
  try {
    const chunks = []
    let size = 0
    for await (const chunk of req) if ((size += chunk.length) <= LIMIT) chunks.push(chunk)
    const keys = acceptedKeys()
    res.statusCode = req.method !== 'POST' ? 405 : size > LIMIT ? 413 : keys.length ? verify(`${Buffer.concat(chunks)}`, keys) : 503
  } catch { res.statusCode = 400 } // no JSON, or the request broke off
  res.end(`{"error_code":${res.statusCode === 200 ? 0 : 1}}`)
}).listen(PORT, '127.0.0.1')
