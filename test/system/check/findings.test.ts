/*
 * `userdma check` on the programs of docs/findings: with its fault, each has its finding; without, none.
 */
import assert from 'node:assert/strict'
import { symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { longOnly } from '../../long-run.ts'
import { loopbackText } from '../../loopback.ts'
import { lacking, startDaemon, temporaryFolder } from '../programs.ts'
import {
  assertFound,
  checkScript,
  EX_DATAERR,
  faulty,
  fixed,
  isHanging,
  isOf,
  lackOf,
  NEED_MORE,
  optionsOf,
  programNames,
  serverAndClient,
  withOptions,
} from './checking.ts'

/** Findings whose programs need options, rights or another daemon: tests below run them. */
const withOwnTest = [
  'adapter-error', // host.test.ts
  ...NEED_MORE,
  ...withOptions,
]
const ids = programNames.filter(id => !withOwnTest.includes(id))

const WITHOUT = 'ok-'
/** The program without its fault, by a link whose name begins with WITHOUT. */
const without = (folder: string, name: string): string => {
  const link = join(folder, `${WITHOUT}${name}`)
  symlinkSync(fixed(name), link)
  return link
}

describe('userdma check on the programs of docs/findings', { skip: lacking(faulty('leak'), fixed('leak')) }, () => {
  // Two halves, so that none takes long on a slow machine.
  for (const half of [0, 1])
    it(`finds the fault of each program, with its line, half ${half + 1}`, async t => {
      const own = ids.filter((_, i) => i % 2 === half)
      // Programs that hang end by a signal after seconds: they run at the same time.
      const hanging = own.filter(isHanging)
      const others = own.filter(id => !hanging.includes(id))
      const script = [
        ...hanging.map(id => `${faulty(id)} >&2 &`),
        ...others.map(id => `${faulty(id)} >&2;`),
        'wait; true',
      ]
      const { found, status } = await checkScript(t, script.join(' '), ['--races'])
      // On a machine that is busy otherwise, `check` has not enough time to look up the lines of so many.
      for (const id of own)
        if (lackOf(id, found) !== undefined)
          assertFound(id, (await checkScript(t, `${faulty(id)} >&2; true`, ['--races'])).found)
      assert.equal(status, EX_DATAERR)
    })

  it('finds nothing in the same programs without their faults', async t => {
    const all = [...ids, ...withOwnTest]
    const { found, status, stderr } = await checkScript(t, `set -e; ${all.map(id => `${fixed(id)} >&2`).join('; ')}`, [
      '--races',
    ])
    assert.deepEqual(
      found.map(({ id, text }) => `${id}: ${text}`),
      [],
    )
    assert.equal(status, 0, stderr)
  })

  it('finds the faults of programs that need a device of their own, or to whose device something happens', async t => {
    const folder = temporaryFolder(t)
    for (const options of new Set(withOptions.map(name => optionsOf(name).join(' ')))) {
      const names = withOptions.filter(name => optionsOf(name).join(' ') === options)
      // A fault rule acts once. Elsewhere the programs without their faults run too: links give them names of their
      // own.
      const isRule = options.includes('--fault ')
      const scripts = isRule
        ? names.map(name => `${faulty(name)} >&2`)
        : [names.flatMap(name => [faulty(name), without(folder, name)].map(program => `${program} >&2`)).join('; ')]
      const found = []
      for (const script of scripts) found.push(...(await checkScript(t, `${script}; true`, options.split(' '))).found)
      for (const name of names) assertFound(name, found)
      assert.deepEqual(
        found.filter(({ program }) => program.command.startsWith(WITHOUT)),
        [],
      )
    }
  })

  it('a NAK of another daemon is reported without a cause', async t => {
    const peer = await startDaemon(t, { devices: [`rxe0@${loopbackText(91)}`], link: 'udp' })
    const { found } = await checkScript(
      t,
      faulty('peer-refused'),
      ['--link', 'udp', '--device', `rxe0@${loopbackText(92)}`],
      {
        PEER_SOCKET: peer.socket,
      },
    )
    assertFound('peer-refused', found)
  })

  it('memory that takes too long to access is reported', {
    skip: process.geteuid?.() !== 0 && 'needs root',
  }, async t => {
    assertFound('slow-memory', (await checkScript(t, `${faulty('slow-memory')} >&2; true`)).found)
  })

  it('uses that other adapters refuse are reported with --like', async t => {
    const folder = temporaryFolder(t)
    for (const [adapters, expected] of [
      ['mlx5,rxe', { 'adapter-limit': /^max_send_sge 32 exceeds 30 of mlx5 / }],
      ['irdma', { 'adapter-operation': /^irdma \(.*\) lacks unreliable connections/ }],
      [
        'mlx5',
        {
          'fork-unsafe': /^process \d+ forks with 1 region registered, and without ibv_fork_init$/,
          'adapter-memlock': /^1052672 bytes are registered, more than RLIMIT_MEMLOCK, 65536: /,
        },
      ],
    ] as const) {
      // Programs with and without the fault in one run: links give the latter names of their own.
      const lines = Object.keys(expected).map(id => {
        return `${faulty(id)} >&2; ${without(folder, id)} >&2`
      })
      const { found, status, stderr } = await checkScript(t, lines.join('; '), ['--like', adapters, '--ignore-memlock'])
      for (const [id, text] of Object.entries(expected)) {
        assertFound(id, found)
        assert.match(found.find(one => one.id === id)?.text ?? '', text)
        assert.deepEqual(found.filter(isOf(`ok-${id}`)), [])
      }
      assert.equal(status, 0, stderr)
    }
  })

  it('a registration beyond RLIMIT_MEMLOCK is one finding, with what to raise; what the program leaves then is a note', async t => {
    // Root may lock more by CAP_IPC_LOCK.
    const plain = process.geteuid?.() === 0 ? 'setpriv --inh-caps=-ipc_lock --bounding-set=-ipc_lock' : ''
    const { found } = await checkScript(t, `${plain} ${faulty('adapter-memlock')} 2>&1; true`)
    assert.deepEqual(
      found.map(({ id, severity }) => `${severity} ${id}`),
      ['warning refused-call', 'note leak'],
    )
    assert.match(
      found[0]?.text ?? '',
      /^ENOMEM: process \d+ may lock 65536 bytes \(RLIMIT_MEMLOCK\), has registered 0 and requests 1052672 more: /,
    )
    assert.match(found[0]?.advice ?? '', /`ulimit -l`.* LimitMEMLOCK /)
  })

  it('what works by one link only is reported with --like and the other link', async t => {
    const told = async (command: string, ...options: string[]): Promise<string[]> => {
      const { found } = await checkScript(t, await serverAndClient(command), options)
      const texts = found.filter(({ id }) => id.startsWith('adapter-')).map(({ text }) => text)
      return [...new Set(texts)].sort()
    }
    const device = ['--device', 'mlx5_0@127.0.0.1,driver=mlx5,layer=infiniband']
    assert.deepEqual(await told('ibv_rc_pingpong -g 1', '--like', 'infiniband'), [
      'sgid_index 1 exceeds 0 of infiniband (a port of InfiniBand, as of mlx5)',
    ])
    assert.deepEqual(await told('ibv_rc_pingpong', ...device, '--like', 'roce'), [
      'roce (a port of RoCE) lacks paths by a LID alone (ah_attr.is_global is 0)',
    ])
    assert.deepEqual(await told('ibv_ud_pingpong', ...device, '--like', 'roce'), [
      'roce (a port of RoCE) lacks paths by a LID alone (ah_attr.is_global is 0)',
    ])
    assert.deepEqual(await told('ibv_rc_pingpong -g 0', ...device, '--like', 'roce'), [])
    const { found } = await checkScript(t, `${faulty('adapter-limit')}`, ['--like', 'infiniband'])
    assert.deepEqual(
      found.map(({ text }) => text.split(' exceeds')[0]),
      ['sgid_index 1', 'sgid_index 1'],
    )
  })

  it('sends without a slot are refused with --like, if the adapter frees slots at polls', {
    skip: longOnly,
  }, async t => {
    const post = async (adapter: string, program: string, options: readonly string[] = []) => {
      const { found, stderr } = await checkScript(t, `${program} > /dev/null`, ['--like', adapter, ...options])
      const full = found.find(({ id }) => id === 'queue-full')
      return { isRefused: stderr.includes('Cannot allocate memory'), details: full?.details.join() }
    }
    const { isRefused, details } = await post('mlx5', faulty('sends-unpolled'))
    assert.ok(isRefused)
    assert.match(details ?? '', /^mlx5 frees slots only when completions are polled/)
    assert.deepEqual(await post('rxe', faulty('sends-unpolled')), { isRefused: false, details: undefined })
    assert.deepEqual(await post('mlx5', fixed('sends-unpolled')), { isRefused: false, details: undefined })
    // A batch, also while a fault rule may refuse posts.
    for (const options of [[], ['--fault', 'post=ENOMEM,nth=1000000']])
      assert.ok((await post('mlx5', faulty('sends-unpolled--extended'), options)).isRefused, options.join(' '))
  })
})
