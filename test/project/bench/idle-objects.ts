/*
 * The memory of idle objects (R15), measured by the benchmark `objects` in separate processes. The limits have a margin
 * for other versions of Node.
 */
import assert from 'node:assert/strict'
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { ObjectKind } from '../../../bench/object-makers.ts'
import type { ObjectsCost, ObjectsOrder } from '../../../bench/sides/objects-side.ts'

const CHILD = fileURLToPath(new URL('../../../bench/sides/objects-side.js', import.meta.url))

/** Bytes per object. */
export const bytesOf = async (kind: ObjectKind, count: number): Promise<number> => {
  const child = fork(CHILD)
  const exited = once(child, 'exit')
  child.send({ kind, count } satisfies ObjectsOrder)
  const [answer] = (await once(child, 'message')) as [ObjectsCost & { failed?: string }]
  await exited
  assert.equal(answer.failed, undefined)
  return answer.bytes
}

/** With this count, the few 100 KB that the compiler allocates meanwhile do not matter. */
const MANY = 20_000

/** Bytes per object, by the kinds of bench/object-makers.ts. "library" kinds include the library's objects. */
export const LIMITS = {
  pd: 200,
  mr: 330,
  ah: 250,
  cq: 1660,
  srq: 1280,
  rc_qp: 3000,
  'rc_qp without requests': 590,
  'rc_qp connected': 3100,
  ud_qp: 2900,
  xrc_tgt_qp: 660,
  'library pd': 260,
  'library mr': 480,
  'library cq': 2120,
  'library srq': 1720,
  'library rc_qp': 3150,
} as const satisfies Partial<Record<ObjectKind, number>>

/** Fails if an object takes more than its limit. */
export const assertSmall = async (kind: keyof typeof LIMITS): Promise<void> => {
  const limit = LIMITS[kind]
  let bytes = await bytesOf(kind, MANY)
  // The compiler's allocations vary with the load of the machine: they count less in more objects.
  for (let times = 0; bytes > limit && times < 3; times++) bytes = await bytesOf(kind, 3 * MANY)
  assert.ok(bytes <= limit, `${bytes.toFixed(0)} bytes`)
  assert.ok(bytes > 50, `${bytes.toFixed(0)} bytes: the measurement failed`)
}
