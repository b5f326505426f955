/*
 * Remote procedure calls by `serve` and `connection.messages()`. Short calls and answers are one SEND each; clients read
 * long answers from the server's memory by RDMA READ. Messages keep their order, so the oldest answer belongs to the
 * oldest call, and calls need no ids.
 *
 *   node dist/examples/rpc.js [clients]
 */
import { connect, createNetwork, open, serve } from 'userdma'

const methods: Readonly<Record<string, (argument: string) => Buffer>> = {
  upper: text => Buffer.from(text.toUpperCase()),
  bulk: size => Buffer.alloc(Number(size), 'x'),
}

const network = createNetwork()
await using serverDevice = await open({ network })
await using clientDevice = await open({ network })
await using server = await serve({ address: 'rdma://0.0.0.0:0', device: serverDevice }, message => {
  const [method = '', argument = ''] = Buffer.from(message).toString().split(' ')
  return methods[method]?.(argument) ?? Buffer.from('unknown method')
})

const CALLS = 1000
const runClient = async (): Promise<boolean> => {
  const connection = await connect({ host: serverDevice.address, port: server.port }, { device: clientDevice })
  await using messages = await connection.messages()
  const call = async (method: string, argument: string): Promise<string> => {
    const [, answer] = await Promise.all([messages.send(Buffer.from(`${method} ${argument}`)), messages.receive()])
    return Buffer.from(answer).toString()
  }
  const answers = await Promise.all(Array.from({ length: CALLS }, (_, i) => call('upper', `call${i}`)))
  const isBulkRight = (await call('bulk', '1000000')) === 'x'.repeat(1e6)
  // Without it the server would see an abort: a block can be left by an error, too.
  await messages.end()
  return answers.every((answer, i) => answer === `CALL${i}`) && isBulkRight
}

const clients = Array.from({ length: Number(process.argv[2] ?? 8) }, runClient)
const successes = (await Promise.all(clients)).filter(isRight => isRight)
console.log(`${successes.length} of ${clients.length} clients got ${CALLS} answers and one of 1 MB`)
