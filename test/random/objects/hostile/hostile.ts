/*
 * Sends mutated messages of plausible calls, and checks that nothing throws, that traffic between honest programs goes
 * on, and that a closed context leaves no object and no ring.
 */
import assert from 'node:assert/strict'
import { closeContext, closeDescriptor, stat } from '../../../../src/core/index.ts'
import { errnoName } from '../../../../src/spec/errno.ts'
import { ioctlRequest } from '../../../../src/uapi/index.ts'
import { assertNothingLeft, connectQps, machine, program } from '../../../drivers/rxe/machine.ts'
import { type End, exchange, makeEnd } from '../../../drivers/rxe/pair.ts'
import { mutate } from '../../fuzz/mutate.ts'
import { createRandomSource, type RandomSource } from '../../model/random.ts'
import {
  clientStateOf,
  correctLengths,
  createHostileClient,
  type DialectName,
  linuxMessage,
  type Message,
  objectMessage,
  runOne,
  splits,
} from './hostile-client.ts'

export type { DialectName }

interface Results {
  /** Number of calls by result: ok, or the errno by name. */
  readonly [outcome: string]: number
}

/** Number of messages after which a context is closed. */
const MESSAGES_PER_CONTEXT = 250

/** The message, mutated with a probability of 65 %; `last` is the previous message, from which bytes are copied. */
const changed = (dialect: DialectName, message: Message, last: Uint8Array, random: RandomSource): Message => {
  if (random.hits(0.35)) return message
  const bytes = mutate(message.bytes, last, splits[dialect], random)
  let { request } = message
  if (dialect === 'object' && random.hits(0.05)) request = ioctlRequest(random.int(128))
  else if (random.hits(0.01)) request = random.u32()
  const mutated = random.hits(0.8) ? correctLengths(dialect, bytes) : bytes
  return { ...message, request, bytes: mutated.length === 0 ? message.bytes : mutated }
}

const setUp = () => {
  const m = machine()
  const honest: readonly [End, End] = [makeEnd(m, 0), makeEnd(m, 1)]
  connectQps(honest[0].qp, honest[1].qp)
  const programs = [program(m, 0), program(m, 1)]
  return { m, honest, programs }
}

/** Sends `count` messages of a dialect; an error's text has the seed and the message. */
export const hostileRun = (dialect: DialectName, seed: number, count: number): Results => {
  const random = createRandomSource(seed)
  const { m, honest, programs } = setUp()
  const tally: Record<string, number> = {}
  let last: Uint8Array = new Uint8Array(24)
  let message: Message | undefined
  try {
    for (let done = 0; done < count; ) {
      const client = createHostileClient(m, random.pick(programs), random.hits(0.95))
      const { name: device } = client.context.device
      const { objects: before } = stat(m.core).devices[device]
      for (let inContext = 0; inContext < MESSAGES_PER_CONTEXT && done < count; inContext++) {
        const state = clientStateOf(client, random)
        const plausible =
          dialect === 'object' ? objectMessage(state) : linuxMessage(state, dialect, client.context.device.schema)
        if (plausible === undefined) continue
        message = changed(dialect, plausible, last, random)
        last = plausible.bytes
        const { ret } = runOne(client, message)
        const outcome = ret < 0 ? errnoName(-ret) : 'ok'
        tally[outcome] = (tally[outcome] ?? 0) + 1
        done++
        if (client.fds.size > 0 && random.hits(0.1)) {
          const [fd, descriptor] = random.pick([...client.fds])
          client.fds.delete(fd)
          closeDescriptor(m.core, descriptor)
        }
        if (done % 16 === 0) m.settle()
      }
      message = undefined
      closeContext(client.context)
      m.settle()
      exchange(m, ...(random.hits(0.5) ? honest : ([honest[1], honest[0]] as const)), seed)
      const { objects } = stat(m.core).devices[device]
      assert.deepEqual([objects, client.rings.live.size], [before, 0], 'objects are left')
    }
    for (const p of [...programs, ...honest.map(({ p }) => p)]) p.close()
    assertNothingLeft(m)
  } catch (error) {
    const shown = message === undefined ? '' : `${message.title} 0x${message.request.toString(16)} ${hex(message)}`
    throw new Error(`${dialect}, seed ${seed}: ${shown}: ${(error as Error).stack}`, { cause: error })
  }
  return tally
}
const hex = ({ bytes, memory }: Message): string =>
  [bytes, ...memory.map(buffer => buffer.bytes)].map(part => Buffer.from(part).toString('hex')).join(' ')
