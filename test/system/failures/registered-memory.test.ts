/*
 * Regions fail when their memory is unmapped, and are limited by RLIMIT_MEMLOCK.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { lacking, ownProgram, run, type Scope, startDaemon } from '../programs.ts'

const program = ownProgram('stale_region')
const skip = lacking(program)

describe('a region whose memory was unmapped', { skip }, () => {
  /** Arguments of test/programs/memory/stale_region.c. */
  for (const kind of ['munmap', 'fixed', 'mremap', 'part', 'window', 'twice'])
    it(`fails, and memory mapped there later is unchanged (${kind})`, async t => {
      const daemon = await startDaemon(t)
      const { stdout, stderr, status } = await run(t, program, [kind], { env: daemon.env })
      if (/^cannot: /.test(stderr)) {
        t.skip(stderr.trim())
        return
      }
      const lines = [
        'success, vendor_err 0x0',
        // With the old rkey: 0x509 is REMOTE_FAULT of src/spec/check/causes.ts.
        'remote operation error, vendor_err 0x509',
        'the memory has 0',
        // With the rkey of a new region.
        'success, vendor_err 0x0',
        'the memory has 9',
      ]
      assert.deepEqual(stdout.trimEnd().split('\n'), lines)
      assert.equal(stderr, '')
      assert.equal(status, 0)
    })
})

it('deregistered regions leave a limited number of mappings in the program', { skip }, async t => {
  const daemon = await startDaemon(t, { options: ['--ignore-memlock'] })
  const { status, stdout, stderr } = await run(t, program, ['mappings', '1500'], { env: daemon.env })
  assert.equal(status, 0, stderr)
  const mappings = Number(stdout)
  // Two for each of 1024 ranges (src/daemon/memory/registered-ranges.ts), and some of the C library.
  assert.ok(mappings < 2 * 1024 + 52, `${stdout} mappings more`)
})

const REGION_BYTES = 65536

/** Arguments of sh, before the limit in KiB and a command. */
const limited = ['-c', 'ulimit -l "$0" && exec "$@"']
/** Root loses CAP_IPC_LOCK, which lifts the limit. */
const UNPRIVILEGED = process.geteuid?.() === 0 ? ['setpriv', '--bounding-set=-ipc_lock'] : []

describe('RLIMIT_MEMLOCK', { skip: skip || lacking(...UNPRIVILEGED.slice(0, 1)) }, () => {
  /** Registers up to 64 regions until one is refused; returns the program's output and the daemon's log. */
  const register = async (t: Scope, kibibytes: number, ...options: string[]) => {
    const daemon = await startDaemon(t, { options })
    const [shell, ...args] = [...UNPRIVILEGED, 'sh', ...limited, `${kibibytes}`, program, 'limit', `${REGION_BYTES}`]
    const { stdout } = await run(t, shell, args, { env: daemon.env })
    return { output: stdout, log: daemon.running.output() }
  }

  it('limits the bytes of all regions together with ENOMEM', async t => {
    const { output, log } = await register(t, 256)
    assert.equal(output, '4, then Cannot allocate memory\nafter a deregistration: registered\n')
    assert.match(
      log,
      /process \d+ may lock 262144 bytes \(RLIMIT_MEMLOCK\), has registered 262144 and requests 65536 more: raise the limit \(ulimit -l\), or start the daemon with --ignore-memlock\n$/,
    )
  })

  it('of 0 fails a registration with EPERM', async t => {
    assert.equal((await register(t, 0)).output, '0, then Operation not permitted\n')
  })

  it('does not limit with --ignore-memlock', async t => {
    assert.equal(
      (await register(t, 256, '--ignore-memlock')).output,
      '64, then stopped\nafter a deregistration: registered\n',
    )
  })

  it('does not limit with CAP_IPC_LOCK', { skip: UNPRIVILEGED.length === 0 && 'needs root' }, async t => {
    const daemon = await startDaemon(t)
    const { stdout } = await run(t, 'sh', [...limited, '256', program, 'limit', `${REGION_BYTES}`], { env: daemon.env })
    assert.equal(stdout, '64, then stopped\nafter a deregistration: registered\n')
  })
})
