/*
 * The walk of a WRITE over mlx5 in ARCHITECTURE.md: the stacks at the reads of its queue and payload and at the send of
 * its packets have the files of the page, from the poll of the device on, and each calls only later ones.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { repoRoot } from '../../paths.ts'
import { completionsOf } from '../machine.ts'
import { machine, program, RDMA_WRITE } from './machine.ts'

const page = readFileSync(join(repoRoot, 'ARCHITECTURE.md'), 'utf8')
const walk = page.slice(page.indexOf('A WRITE over mlx5 goes down'), page.indexOf('Faults of packets act at step 5'))
const files = [...walk.matchAll(/`src\/([^`]+)\.ts`/g)].flatMap(([, file = '']) =>
  file.startsWith('daemon/') ? [] : file,
)

test('a WRITE over mlx5 goes down as ARCHITECTURE.md says, and no file calls one before it', t => {
  assert.ok(files.length > 8, walk)
  const limit = Error.stackTraceLimit
  Error.stackTraceLimit = 50
  t.after(() => {
    Error.stackTraceLimit = limit
  })
  const seen = new Set<string>()
  const note = (): void => {
    const frames = (new Error().stack ?? '').split('\n').reverse()
    const stack = frames.flatMap(frame => /\/src\/([^:]+)\.[jt]s:/.exec(frame)?.[1] ?? [])
    const places = stack.flatMap(file => (files.includes(file) ? files.indexOf(file) : []))
    assert.deepEqual(
      places,
      places.toSorted((a, b) => a - b),
      stack.join(' > '),
    )
    for (const file of stack) seen.add(file)
  }
  const m = machine(2, 'drop=0', port => {
    const { commit } = port
    port.commit = (...run) => {
      note()
      commit.apply(port, run)
    }
  })
  const [a, b] = [program(m, 0), program(m, 1)]
  const [qa, qb] = [a.queuePair('rc'), b.queuePair('rc')]
  qa.connect(qb, 1)
  qb.connect(qa, 0)
  const { view } = a.pages
  const { getUint32 } = view
  view.getUint32 = (at, isLittle) => {
    note()
    return getUint32.call(view, at, isLittle)
  }
  const { load } = Atomics
  t.mock.method(Atomics, 'load', (words: Int32Array, at: number) => {
    if (words.buffer === view.buffer) note()
    return load(words, at)
  })
  const space = a.device.memory.spaces.find(one => one?.locate !== undefined)
  assert.ok(space !== undefined)
  const { read } = space
  space.read = (...range) => {
    note()
    return read.apply(space, range)
  }
  const remote = { address: b.address, rkey: b.region.rkey }
  qa.post({ opcode: RDMA_WRITE, data: [a.element(0, 100)], remote })
  completionsOf(m, a, 1)
  // the port itself is behind `commit`
  assert.deepEqual(
    files.filter(file => !seen.has(file)),
    ['transport/phy/port'],
  )
})
