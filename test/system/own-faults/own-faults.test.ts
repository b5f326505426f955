/*
 * Fault rules that programs set for themselves (shim/include/userdma.h, src/daemon/own-faults.ts): whom they touch, how
 * they count, and when they end.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { chmodSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { before, describe, it } from 'node:test'
import { repoRoot } from '../../paths.ts'
import {
  cleanEnvironment,
  lacking,
  NOBODY,
  noGuests,
  runUserdma,
  type Scope,
  start,
  startDaemon,
  suiteScope,
  type TestDaemon,
  temporaryFolder,
} from '../programs.ts'

const GOOD = 'success'
const LOST = 'transport retry counter exceeded'
const ENOENT = '-2'

describe('fault rules of programs', { skip: lacking('cc') }, () => {
  const scope = suiteScope()
  let program = ''
  before(() => {
    const folder = temporaryFolder(scope)
    chmodSync(folder, 0o755)
    program = join(folder, 'asked')
    const source = join(repoRoot, 'test', 'system', 'own-faults', 'asked.c')
    const include = `-I${join(repoRoot, 'shim', 'include')}`
    const { status, stderr } = spawnSync(
      'cc',
      ['-g', '-Wall', '-Werror', include, '-o', program, source, '-libverbs'],
      {
        encoding: 'utf8',
      },
    )
    assert.equal(status, 0, stderr)
  })

  /** Starts the program; the function asks it a line. */
  const startAsked = async (t: Scope, env: NodeJS.ProcessEnv, uid?: number) => {
    const ids = uid === undefined ? {} : { uid, gid: uid }
    const { child, printed, ended } = start(t, program, [], { env, ...ids, stdio: ['pipe', 'pipe', 'pipe'] })
    await printed(/^ready$/m)
    const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]()
    const ask = async (line: string): Promise<string> => {
      child.stdin!.write(`${line}\n`)
      const { value } = await lines.next()
      return value as string
    }
    return Object.assign(ask, {
      end: () => {
        child.stdin!.end()
        return ended
      },
    })
  }
  const shown = async (t: Scope, { socket }: TestDaemon): Promise<string> =>
    (await runUserdma(t, ['fault', 'show', '--socket', socket])).stdout

  it('select a queue pair: tests beside each other do not meet', async t => {
    const daemon = await startDaemon(t)
    const ask = await startAsked(t, daemon.env)
    assert.equal(await ask('present'), '1')
    assert.equal(await ask(`fault qp=${await ask('qp 0')},drop=100%`), '1 ')
    assert.equal(await ask(`fault qp=${await ask('qp 1')},opcode=RC_SEND_*,drop=100%`), '2 ')
    assert.equal(await ask('write 1'), GOOD)
    assert.equal(await ask('count 2'), '0')
    assert.equal(await ask('wait 2 1 1'), '-110')
    assert.equal(await ask('write 0'), LOST)
    assert.equal(await ask('wait 1 12 60000'), '0')
    assert.match(await shown(t, daemon), /^qp=0x[0-9a-f]+,drop=1 +# process \d+: of 12 packets: dropped 12$/m)
    assert.equal(await ask('fork 1'), `${ENOENT} ${ENOENT}`)
    assert.equal(await ask('clear 1'), '0')
    assert.equal(await ask('clear 1'), ENOENT)
    assert.equal(await ask('count 1'), ENOENT)
    assert.equal(await ask('write 1'), GOOD)
    assert.equal((await ask.end()).status, 0)
    assert.equal(await shown(t, daemon), 'no faults\n')
  })

  it('are of calls, completions, links and packets that are sent', async t => {
    const daemon = await startDaemon(t, { fault: 'opcode=RC_FETCH_ADD,drop=1' })
    const ask = await startAsked(t, daemon.env)
    assert.equal(await ask('fault call=mr.create,errno=ENOMEM,nth=2'), '1 ')
    assert.equal(await ask('register'), 'ok')
    assert.equal(await ask('register'), 'Cannot allocate memory')
    assert.equal(await ask('count 1'), '1')
    assert.equal(await ask('fault link=600s'), '2 ')
    assert.equal(await ask('wait 2 1 60000'), '0')
    assert.equal(await ask('port'), 'down')
    assert.equal(await ask('clear 2'), '0')
    assert.equal(await ask('port'), 'active')
    assert.equal(await ask(`fault dir=sent,qp=${await ask('qp 0')},drop=1,count=1`), '3 ')
    assert.equal(await ask('write 0'), GOOD)
    assert.equal(await ask('count 3'), '1')
    assert.equal(await ask('fault completion=WRITE,status=REM_ACCESS_ERR'), '4 ')
    assert.equal(await ask('write 0'), 'remote access error')
  })

  it('are refused with a sentence', async t => {
    const ask = await startAsked(t, (await startDaemon(t)).env)
    assert.match(await ask('fault drp=1'), /^-22 fault "drp=1": there is no "drp"; there are call, /)
    assert.equal(await ask('fault ;'), '-22 fault ";": the text has no rule')
    assert.match(await ask('fault pid=1,call=mr.create,errno=ENOMEM'), /^-1 fault ".*": it names another process$/)
    assert.match(
      await ask(`fault ${'drop=1;'.repeat(257)}`),
      /^-22 there are 257 fault rules; 256 are allowed at most$/,
    )
    assert.match(await ask(`fault ${'drop=100%;'.repeat(500)}`), /^-7 $/)
  })

  it('touch a device that others use only with --allow-faults', async t => {
    for (const options of [[], ['--allow-faults']]) {
      const { env } = await startDaemon(t, { options })
      const [ask, askOther] = [await startAsked(t, env), await startAsked(t, env)]
      const answer = await ask('fault link=600s')
      if (options.length === 0) {
        assert.match(answer, /^-1 fault "link=600000": rxe0 is open in other programs too; .* --allow-faults$/)
        assert.match(await ask('fault cm=REQ,drop=1'), /^-1 /)
        // Opened later: the rule does not touch it.
        assert.equal(await ask('fault drop=1'), '1 ')
      } else assert.equal(answer, '1 ')
      assert.equal(await askOther('port'), options.length === 0 ? 'active' : 'down')
      if (options.length > 0) continue
      assert.equal(await askOther('write 0'), GOOD)
      assert.equal(await ask('write 0'), LOST)
    }
  })

  it('are waited for by a clock that skips in few jumps', async t => {
    const script = `{ echo 'fault drop=1'; echo 'wait 1 1 600000'; } | ${program}`
    const { stdout, stderr } = await runUserdma(t, ['run', '--private', '--clock', 'skip', '--', 'sh', '-c', script])
    assert.equal(stdout, 'ready\n1 \n-110\n')
    assert.match(stderr, /6\d\d s skipped in \d{3} jumps|59\d s skipped in \d{3} jumps/)
  })

  it('of another user touch nobody', { skip: noGuests() }, async t => {
    const daemon = await startDaemon(t, { guest: NOBODY, options: ['--allow-faults'] })
    const ask = await startAsked(t, daemon.env)
    const guest = await startAsked(t, daemon.env, NOBODY)
    assert.match(
      await guest('fault delay=10ms'),
      /^-1 .*: the daemon keeps no packets for other users; allowed are drop, corrupt, ecn$/,
    )
    for (const rules of ['link=600s', 'fatal=qps', 'gone=600s', 'gid=1', 'cm=REQ,drop=1'])
      assert.match(
        await guest(`fault ${rules}`),
        /^-1 .* is open in programs of other users; use a device that they do not open$/,
      )
    assert.match(await guest(`fault pid=${daemon.pid},call=*.*,errno=ENOMEM`), /^-1 /)
    // The numbers are those of the other user's queue pairs.
    const numbers = `${await ask('qp 0')}+${await ask('number 0')}`
    assert.equal(
      await guest(`fault dir=both,qp=${numbers},drop=1;dir=both,drop=1;completion=*,status=REM_ACCESS_ERR`),
      '1 ',
    )
    assert.equal(await guest('fault call=*.*,errno=ENOMEM'), '2 ')
    assert.equal(await guest('clear 2'), '0')
    assert.equal(await ask('write 0'), GOOD)
    assert.equal(await ask('register'), 'ok')
    assert.equal(await ask('clear 1'), ENOENT)
    assert.equal(await guest('count 1'), '0')
    assert.notEqual(await guest('write 0'), GOOD)
  })

  it('without userdma there are none', () => {
    const { stdout } = spawnSync(program, ['drop=1'], { env: cleanEnvironment(), encoding: 'utf8' })
    assert.equal(stdout, '0 -38\n')
  })
})
