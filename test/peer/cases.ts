/*
 * What userdma and Linux's own soft device do with each other: programs of Debian on both sides, each once as the
 * server and once as the client.
 */
import assert from 'node:assert/strict'
import { before, describe, it } from 'node:test'
import {
  type Finished,
  isEmpty,
  type Running,
  type Scope,
  startDaemon,
  suiteScope,
  type TestDaemon,
} from '../system/programs.ts'
import { inCi } from '../tools.ts'
import { GUEST, type Guest, HOST, startGuest, untilListeningThere } from './guest.ts'

export interface PeerCase {
  readonly program: string
  readonly args: readonly string[]
}

export const peerCase = (program: string, ...args: string[]): PeerCase => ({ program, args })

const assertGood = (where: string, { status, signal, stdout, stderr }: Finished): void => {
  assert.equal(status, 0, `${where}: status ${status}, signal ${signal}\n${stdout}${stderr}`)
  assert.doesNotMatch(stdout + stderr, /invalid data in page|Failed|Completion with error/, where)
}

let lastPort = 18600

/** Runs a case with the guest as server, or as client. */
const runCase = async (
  t: Scope,
  guest: Guest,
  daemon: TestDaemon,
  { program, args }: PeerCase,
  version: 4 | 6,
  guestServes: boolean,
): Promise<void> => {
  const port = ++lastPort
  const isPerftest = program.startsWith('ib_')
  const options = (gid: number): string[] => [
    ...['-d', 'rxe0', ...(isPerftest ? ['-F', '-x'] : ['-g']), String(gid), '-p', String(port), ...args],
  ]
  const here = options(1)
  // The guest's table: 0 is link-local, 1 IPv4, 2 IPv6.
  const there = options(version === 4 ? 1 : 2)
  let server: Running
  let client: Running
  if (guestServes) {
    server = guest.start(t, program, there)
    await guest.untilListening(t, port)
    client = guest.startHere(t, program, [...here, GUEST], daemon.env)
  } else {
    server = guest.startHere(t, program, here, daemon.env)
    const listens = await untilListeningThere(server.child.pid ?? 0, port, server.ended)
    assert.ok(listens, `${program} ended before it listened:\n${server.output()}`)
    client = guest.start(t, program, [...there, HOST[4]])
  }
  const finished = await client.ended
  if (finished.status !== 0) server.child.kill('SIGTERM')
  const served = await server.ended
  assertGood(`client ${guestServes ? 'here' : 'in the guest'}`, finished)
  assertGood(`server ${guestServes ? 'in the guest' : 'here'}`, served)
}

/** Tests with one guest and a daemon for each version of IP. */
export const peerSuite = (
  name: string,
  skip: string | false,
  cases: Readonly<Partial<Record<4 | 6, readonly PeerCase[]>>>,
): void => {
  void describe(name, { skip }, () => {
    const suite = suiteScope()
    let guest: Guest
    /** Why there is none, on a machine where it could not be built. */
    let problem: string | undefined
    before(async () => {
      try {
        guest = await startGuest(suite)
      } catch (error) {
        if (inCi()) throw error
        problem = String(error)
      }
    })

    for (const version of [4, 6] as const)
      if (cases[version])
        void describe(`IPv${version}`, () => {
          const all = suiteScope()
          let daemon: TestDaemon
          let accepted: number
          before(async () => {
            if (problem !== undefined) return
            const device = `rxe0@${HOST[version]}`
            daemon = await startDaemon(all, { devices: [device], link: 'udp', netns: guest.netns })
            accepted = await guest.acceptedPackets(all)
          })

          for (const one of cases[version] ?? [])
            for (const guestServes of [true, false])
              it(`${one.program} ${one.args.join(' ')}: ${guestServes ? 'Linux serves userdma' : 'userdma serves Linux'}`, t =>
                problem === undefined ? runCase(t, guest, daemon, one, version, guestServes) : t.skip(problem))

          it('each side took every packet of the other, ICRCs included', async t => {
            if (problem !== undefined) return t.skip(problem)
            const { devices } = await daemon.settled(isEmpty)
            const { sentPackets, icrcErrors, dropped } = devices[0].port
            assert.deepEqual({ icrcErrors, dropped }, { icrcErrors: 0, dropped: 0 })
            assert.equal((await guest.acceptedPackets(t)) - accepted, sentPackets)
          })
        })
  })
}
