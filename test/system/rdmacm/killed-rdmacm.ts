/*
 * Kills rdma_cm programs in several states of a connection. Their peers must get the right events, and nothing may be
 * left.
 */
import assert from 'node:assert/strict'
import { isEmpty, type Scope, type TestDaemon } from '../programs.ts'
import { UcmaProgram } from './ucma.ts'

/** The states in which a program (the victim) is killed, and the event that its peer (the survivor) gets; '': none. */
const victimStates = {
  'with an unread request': 'REJECTED',
  'before its request is answered': '',
  'as client of a connection': 'DISCONNECTED',
  'as server of a connection': 'DISCONNECTED',
  'stopped, with a connection that its peer ends': 'DISCONNECTED',
} as const
type VictimState = keyof typeof victimStates

interface Ports {
  /** Of the survivor's listener. */
  readonly survivor: number
  /** Of the next victim's listener. */
  nextVictim: number
}

let nextQpn = 0x1000

/**
 * Brings both programs into a state; in the last state the caller stops the victim and disconnects. Returns the
 * survivor's identifier.
 */
const prepare = async (
  survivor: UcmaProgram,
  victim: UcmaProgram,
  state: VictimState,
  ports: Ports,
): Promise<number> => {
  if (state === 'with an unread request' || state === 'as server of a connection') {
    const port = ports.nextVictim++
    const listener = await victim.create()
    await victim.bind(listener, port)
    await victim.listen(listener)
    const id = await survivor.create()
    await survivor.resolve(id, port)
    assert.ok((await survivor.connect(id, nextQpn++)) >= 0)
    if (state === 'with an unread request') return id
    const { id: request } = await victim.until('CONNECT_REQUEST')
    await victim.accept(request, nextQpn++)
    await survivor.until('CONNECT_RESPONSE')
    await survivor.accept(id)
    await victim.until('ESTABLISHED')
    return id
  }
  const victimId = await victim.create()
  await victim.resolve(victimId, ports.survivor)
  assert.ok((await victim.connect(victimId, nextQpn++)) >= 0)
  const { id } = await survivor.until('CONNECT_REQUEST')
  if (state === 'before its request is answered') return id
  await survivor.accept(id, nextQpn++)
  await victim.until('CONNECT_RESPONSE')
  await victim.accept(victimId)
  await survivor.until('ESTABLISHED')
  return id
}

/** Kills one program in each state, `rounds` times. */
export const killInEveryState = async (t: Scope, daemon: TestDaemon, rounds: number): Promise<void> => {
  const survivor = await UcmaProgram.start(t, daemon)
  const ports: Ports = { survivor: 7000, nextVictim: 7001 }
  const listener = await survivor.create()
  await survivor.bind(listener, ports.survivor)
  await survivor.listen(listener)
  for (let round = 0; round < rounds; round++) {
    const states = Object.keys(victimStates) as VictimState[]
    const victims = await Promise.all(states.map(() => UcmaProgram.start(t, daemon)))
    /** Events that identifiers of the survivor have not got yet. */
    const expected = new Map<number, string>()
    const ids: number[] = []
    for (const [i, state] of states.entries()) {
      const victim = victims[i]
      assert.ok(victim)
      const id = await prepare(survivor, victim, state, ports)
      ids.push(id)
      if (victimStates[state] !== '') expected.set(id, victimStates[state])
      if (state === 'stopped, with a connection that its peer ends') {
        victim.running.child.kill('SIGSTOP')
        await survivor.disconnect(id)
      }
    }
    for (const { running } of victims) running.child.kill('SIGKILL')
    while (expected.size > 0) {
      const event = await survivor.event()
      if (event === undefined || event.name === 'TIMEWAIT_EXIT') continue
      assert.equal(event.name, expected.get(event.id), `identifier ${event.id}`)
      expected.delete(event.id)
    }
    for (const id of ids) assert.ok((await survivor.destroy(id)) >= 0)
    for (const { running } of victims) await running.ended
  }
  const { connections } = await daemon.settled(
    ({ sessions, connections }) => sessions === 1 && connections.connections === 0,
  )
  assert.deepEqual(connections, { identifiers: 1, listeners: 1, connections: 0 })
  await survivor.close()
  await daemon.settled(stat => isEmpty(stat) && stat.connections.listeners === 0)
}
