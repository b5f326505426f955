/*
 * Memory whose access never completes, and guests that try to block the daemon in other ways: other programs continue,
 * and the daemon still ends on SIGTERM.
 */
import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import { casesOf } from '../../long-run.ts'
import { moversOf } from '../../tools.ts'
import { type StartedPair, startPair } from '../pairs/pingpong.ts'
import {
  lacking,
  NOBODY,
  noGuests,
  ownProgram,
  type Running,
  type Scope,
  start,
  startDaemon,
  type TestDaemon,
  temporaryFolder,
} from '../programs.ts'

const program = ownProgram('slow_memory')
const stalling = ownProgram('stalling')
const holding = ownProgram('holding')
const skip = lacking(program, 'ibv_rc_pingpong')
const CANNOT = /cannot: .*/

/** Output of a WRITE. 0x50c is REMOTE_SLOW of src/spec/check/causes.ts, 0x509 REMOTE_FAULT. */
const SLOW = /remote operation error, vendor_err 0x50c/
const SECOND_SLOW = /success.*\n.*remote operation error, vendor_err 0x50c/
const FAULT = /remote operation error, vendor_err 0x509/

const ENDLESS = ['-g', '1', '-n', '100000000']

/**
 * `kind`: see test/programs/memory/slow_memory.c. `isDisconnected`: whether the daemon disconnects the program. A
 * guest's memory is copied through /proc/PID/mem, where the kernel refuses userfaultfd's missing pages immediately.
 */
const cases: readonly { kind: string; guest?: number; printed: RegExp; isDisconnected: boolean }[] = [
  { kind: 'fuse', printed: SLOW, isDisconnected: true },
  { kind: 'userfaultfd', printed: SLOW, isDisconnected: true },
  { kind: 'late', printed: SECOND_SLOW, isDisconnected: true },
  { kind: 'dirty', printed: SECOND_SLOW, isDisconnected: true },
  { kind: 'argument', printed: /write: (?!done)/, isDisconnected: true },
  { kind: 'descriptor', printed: /ibv_open_xrcd: done/, isDisconnected: false },
  { kind: 'fuse', guest: NOBODY, printed: SLOW, isDisconnected: true },
  { kind: 'lock', guest: NOBODY, printed: /write: (?!done)/, isDisconnected: true },
  { kind: 'userfaultfd', guest: NOBODY, printed: FAULT, isDisconnected: false },
]

/** `npm test` has each outcome once, for each of both owners. */
const isOrdinary = ({ kind, guest }: (typeof cases)[number]): boolean =>
  kind === 'fuse' || ['argument', 'lock'].includes(kind) || (kind === 'late' && guest === undefined)

const startSlow = (t: Scope, daemon: TestDaemon, kind: string, guest?: number, path = program): Running =>
  start(t, path, guest === undefined ? [kind] : [kind, `${guest}`], {
    env: daemon.env,
    cwd: temporaryFolder(t),
    stdio: ['pipe', 'pipe', 'pipe'],
  })

/** Movers of a daemon in uninterruptible sleep (state D). */
const stuckMoversOf = (daemonPid: number): number => moversOf(daemonPid, 'D').length

/** Asserts that the daemon serves other programs, then stops it with SIGTERM. */
const assertServesAndStops = async (daemon: TestDaemon, neighbours: StartedPair): Promise<void> => {
  const { sentPackets } = (await daemon.stat()).devices[0].transport
  await daemon.settled(({ devices }) => devices[0].transport.sentPackets > sentPackets + 1000)
  assert.equal(neighbours.client.child.exitCode, null)
  daemon.running.child.kill('SIGTERM')
  assert.deepEqual((await daemon.running.ended).signal, null)
}

describe('memory whose access never completes', { skip }, () => {
  for (const { kind, printed, guest, isDisconnected } of casesOf(cases, isOrdinary)) {
    const owner = guest === undefined ? "of the daemon's own user" : 'of a guest'
    it(`${kind}, ${owner}: other programs continue, and SIGTERM works`, {
      skip: guest !== undefined && noGuests(),
    }, async t => {
      const daemon = await startDaemon(t, guest === undefined ? {} : { guest })
      const neighbours = await startPair(t, daemon, ENDLESS)
      const slow = startSlow(t, daemon, kind, guest)
      const outcome = await Promise.race([slow.printed(printed), slow.printed(CANNOT)])
      if (CANNOT.test(outcome[0])) {
        t.skip(outcome[0])
        return
      }
      if (isDisconnected)
        await daemon.running.printed(new RegExp(`process ${slow.child.pid} \\(slow_memory\\) is disconnected`))
      if (printed === SLOW) assert.match(daemon.running.output(), /kept the daemon waiting for \d+ ms/)
      await assertServesAndStops(daemon, neighbours)
      slow.child.stdin?.end()
      await slow.ended
    })
  }

  it('a guest can block at most eight movers that cannot be killed', { skip: noGuests() }, async t => {
    const daemon = await startDaemon(t, { guest: NOBODY })
    for (let i = 0; i < 12; i++) {
      const slow = startSlow(t, daemon, 'fuse', NOBODY)
      // A WRITE has completed, or the program printed an error.
      await slow.printed(/vendor_err|: /)
      const [cannot] = CANNOT.exec(slow.output()) ?? []
      if (cannot !== undefined) {
        t.skip(cannot)
        return
      }
    }
    const stuck = stuckMoversOf(daemon.pid)
    assert.ok(stuck > 0 && stuck <= 8, `${stuck} are stuck`)
  })
})

/** Opens a device, and fills its memory file in two parts, the second after a line from its input. */
const FILLING = `
exec 3<> /dev/infiniband/uverbs0
for size in 32 256; do
  fallocate --offset 32GiB --length \${size}MiB /proc/self/fd/3 && echo filled $size
  read line
done
`

describe('a guest that fills the memory file of its context', {
  skip: lacking('fallocate', 'setpriv') || noGuests(),
}, () => {
  it('is disconnected', async t => {
    const daemon = await startDaemon(t, { guest: NOBODY })
    const user = `${NOBODY}`
    const args = [`--reuid=${user}`, `--regid=${user}`, '--clear-groups', 'sh', '-c', FILLING]
    const guest = start(t, 'setpriv', args, { env: daemon.env, stdio: ['pipe', 'pipe', 'pipe'] })
    await guest.printed(/filled 32/)
    // What is more than was handed out, but little, does not matter.
    assert.doesNotMatch(daemon.running.output(), /disconnected/)
    guest.child.stdin?.write('\n')
    await daemon.running.printed(
      new RegExp(
        `process ${guest.child.pid} \\(sh\\) is disconnected: the memory file of its context holds \\d+ MiB more`,
      ),
    )
    guest.child.stdin?.end()
    await guest.ended
  })
})

/**
 * Starts a program of a guest, and waits for "sent". Skips the test and returns undefined if the machine does not allow
 * it.
 */
const startGuest = async (
  t: TestContext,
  daemon: TestDaemon,
  program: string,
  kind: string,
): Promise<Running | undefined> => {
  const guest = startSlow(t, daemon, kind, NOBODY, program)
  const [outcome] = await Promise.race([guest.printed(/sent/), guest.printed(CANNOT)])
  if (!CANNOT.test(outcome)) return guest
  t.skip(outcome)
  return undefined
}

/** Arguments of test/programs/failures/stalling.c. */
const stalls = [
  'passed',
  'queued',
  'attached',
  'linger',
  'doorbell',
  'written',
  'exec',
  'shown',
  'mapped',
  'unread',
  'slot',
]
/** In `npm test`: one that waits, one that sends, one that ends, and one for each reason to disconnect. */
const ordinaryStalls = ['queued', 'doorbell', 'exec', 'shown', 'unread']
const disconnectedStalls = ['shown', 'mapped', 'unread']

describe('a guest that tries to block the daemon', { skip: lacking(stalling, 'ibv_rc_pingpong') }, () => {
  for (const kind of casesOf(stalls, one => ordinaryStalls.includes(one)))
    it(`${kind}: other programs continue, and SIGTERM works`, { skip: noGuests() }, async t => {
      const daemon = await startDaemon(t, { guest: NOBODY })
      const neighbours = await startPair(t, daemon, ENDLESS)
      const guest = await startGuest(t, daemon, stalling, kind)
      if (guest === undefined) return
      if (disconnectedStalls.includes(kind)) await daemon.running.printed(/process \d+ \(stalling\) is disconnected/)
      await assertServesAndStops(daemon, neighbours)
      guest.child.stdin?.end()
      await guest.ended
    })
})

/** Arguments of test/programs/failures/holding.c, and the device that has such memory. `npm test` has each. */
const held: readonly { kind: string; driver: string }[] = [
  { kind: 'cq', driver: 'rxe' },
  { kind: 'doorbell', driver: 'efa' },
  { kind: 'placed', driver: 'mlx5' },
  { kind: 'region', driver: 'mlx5' },
]

describe('a guest that holds the lock of a file which the daemon uses', { skip: lacking(holding) }, () => {
  for (const { kind, driver } of held)
    it(`${kind}: nothing of the daemon waits for it`, { skip: noGuests() }, async t => {
      const daemon = await startDaemon(t, {
        guest: NOBODY,
        devices: [`dev0@10.0.0.1,driver=${driver}`],
        link: 'memory',
      })
      const guest = await startGuest(t, daemon, holding, kind)
      if (guest === undefined) return
      if (kind === 'region') assert.match(guest.output(), /^success, 42$/m)
      const freed = { cq: 'cq', doorbell: 'ud_qp', placed: 'dm', region: 'none' }[kind]!
      await daemon.settled(({ devices }) => (devices[0].objects[freed] ?? 0) === 0)
      assert.equal(stuckMoversOf(daemon.pid), 0)
      daemon.running.child.kill('SIGTERM')
      assert.deepEqual((await daemon.running.ended).signal, null)
      guest.child.stdin?.end()
      await guest.ended
    })
})
