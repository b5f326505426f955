/*
 * `check` and walks in a shell with `eval "$(userdma env)"`: their own daemon has the devices, link and faults of the
 * daemon that the environment names. test/system/ci.test.ts walks in jobs.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { longOnly } from '../long-run.ts'
import { loopbackText } from '../loopback.ts'
import { cleanEnvironment, lacking, runUserdma, startDaemon, type TestDaemon, userdma } from '../system/programs.ts'

const runIn = ({ socket }: TestDaemon, t: Parameters<typeof runUserdma>[0], ...args: readonly string[]) =>
  runUserdma(t, args, { env: cleanEnvironment({ USERDMA_SOCKET: socket }) })

/** What a program sees: faults, and names, drivers and addresses of devices. */
const LOOK = ['--', 'sh', '-c', `${userdma} fault show; ${userdma} devices | tail -n +2 | awk '{ print $1, $4, $7 }'`]

describe('in a shell with `userdma env`', { skip: lacking('awk', 'ibv_devinfo') }, () => {
  const [first, second] = [loopbackText(4), loopbackText(5)]
  const devices = [`mlx5_0@${first},driver=mlx5`, `rxe1@${second},dcqcn=25gbit`]
  const seen = `mlx5_0 mlx5 ${first}\nrxe1 rxe ${second}\n`

  it('check has the devices, faults and options of the daemon, and says how to join it', async t => {
    const daemon = await startDaemon(t, { devices, fault: 'drop=1%,seed=7' })
    const checked = await runIn(daemon, t, 'check', '--fault', 'dup=1%', ...LOOK)
    assert.match(checked.stdout, /^drop=0\.01,seed=7 .*\ndup=0\.01 .*\n/)
    assert.equal(checked.stdout.split('\n').slice(2).join('\n'), seen)
    const [line, ...others] = checked.stderr.split('\n')
    const settings = `devices, link and faults of the daemon at ${daemon.socket} (${devices.join(', ')}, faults drop=0.01,seed=7)`
    assert.ok(line?.startsWith(`userdma check: starts a daemon of its own with the ${settings}; `), line)
    assert.ok(line.endsWith(`\`--socket ${daemon.socket}\` would join that one, if it ran with --check`), line)
    assert.equal(others[0], 'userdma check: no findings')
    assert.match(
      others[1] ?? '',
      /^ {2}accesses of the program's own threads to memory are seen by sanitizers: `userdma help how-to\/debuggers`; .*`--races`; .*`--torment`$/,
    )
    // --device names all devices, and JSON on standard error is JSON only.
    const own = await runIn(daemon, t, 'check', '--device', 'rxe7@127.0.0.1', '--races', '--torment', '1', ...LOOK)
    assert.equal(own.stdout, 'no faults\nrxe7 rxe 127.0.0.1\n')
    assert.match(own.stderr, /^userdma check: no findings\n {2}accesses of [a-z' ]+ are seen by sanitizers: .*\n$/)
    assert.equal((await runIn(daemon, t, 'check', '--json', '--', 'true')).stderr, '')
    if (longOnly) return
    const searched = await runIn(daemon, t, 'check', '--torment-search', '1', '--', 'ibv_devinfo', '-d', 'mlx5_0')
    assert.match(searched.stderr, /no failure with 1 seeds, 1 to 1\n$/)
  })

  it('walks borrow devices whose addresses are bound, run after run', async t => {
    const daemon = await startDaemon(t, { devices, link: 'udp' })
    const isSame = `${userdma} run ${devices.map(device => `--device ${device}`).join(' ')} --link udp -- true`
    const walked = await runIn(daemon, t, 'walk', '--', 'sh', '-c', isSame)
    assert.match(walked.stderr, /nothing to fail\n$/)
    assert.ok(
      walked.stderr.includes(`(${devices.join(', ')}, link udp); \`userdma run --socket ${daemon.socket}\` joins`),
    )
    assert.match(
      (await runIn(daemon, t, 'walk', '--jobs', '2', '--', 'true')).stderr,
      /\nuserdma: --jobs 2 needs --link memory: over udp only one daemon at a time can have the devices' addresses\n$/,
    )
    await daemon.settled(stat => stat.devices.length === devices.length)
  })
})
