/*
 * A service on the library, and its client, which makes a call again over a new connection, at most five times, and
 * looks at the bytes of 20 answers.
 *
 *   service.mjs serve|call rdma://ADDRESS:PORT
 */
import { setTimeout } from 'node:timers/promises'
import { connect, serve } from 'userdma'

const CALLS = 20
const ATTEMPTS = 5
const PAUSE = 200

const [role, url] = process.argv.slice(2)

const callAll = async () => {
  let messages
  const call = async (bytes, attempt = 1) => {
    try {
      messages ??= await (await connect(url)).messages()
      const [, answer] = await Promise.all([messages.send(bytes), messages.receive()])
      return Buffer.from(answer)
    } catch (error) {
      console.error(`attempt ${attempt}: ${error.message}`)
      messages = undefined
      if (attempt === ATTEMPTS) throw error
    }
    await setTimeout(PAUSE)
    return call(bytes, attempt + 1)
  }
  for (let i = 0; i < CALLS; i++) {
    const bytes = Buffer.alloc(1000, `call ${i} `)
    if (!(await call(bytes)).equals(Buffer.from(bytes).reverse())) throw new Error('wrong bytes')
  }
  await messages.end()
}

if (role === 'serve') await serve({ address: url }, message => Buffer.from(message).reverse())
else {
  await callAll()
  process.exit(0)
}
