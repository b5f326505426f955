/*
 * Limits of a device that `--device` lowers: a query returns them, the device refuses what is beyond them with the
 * errno of its adapters, and `userdma check` says so of a program that gives up (test/programs/check/budgets.c).
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { lacking, ownProgram, run, runUserdma, type Scope, startDaemon as start } from '../programs.ts'
import { checkScript } from './checking.ts'

const program = ownProgram('budgets')
const MLX5 = 'mlx5_0@127.0.0.1,driver=mlx5'
const EFA = 'efa0@127.0.0.1,driver=efa'

const check = (t: Scope, device: string, ...words: string[]) =>
  checkScript(t, [program, device.split('@', 1)[0], ...words].join(' '), ['--device', device])

/** Objects of a device with this limit: how many of 5 there are, and the errno. */
const CASES: readonly (readonly [device: string, limit: string, object: string, result: string])[] = [
  ['rxe0@127.0.0.1', 'max_qp=3', 'qp', '3 EINVAL'],
  ['rxe0@127.0.0.1', 'max_cq=3', 'cq', '2 EINVAL'],
  ['rxe0@127.0.0.1', 'max_mr=3', 'mr', '3 EINVAL'],
  ['rxe0@127.0.0.1', 'max_ah=3', 'ah', '3 EINVAL'],
  ['rxe0@127.0.0.1', 'max_res_rd_atom=23', 'rtr', '2 EINVAL'],
  ['rxe0@127.0.0.1', 'max_pinned=50k', 'mr', '3 ENOMEM'],
  [MLX5, 'max_qp=3', 'qp', '3 ENOMEM'],
  [MLX5, 'max_mw=0', 'mw', '0 ENOMEM'],
  [MLX5, 'max_pd=3', 'pd', '2 ENOMEM'],
  [MLX5, 'max_srq=3', 'srq', '3 ENOMEM'],
  [MLX5, 'max_res_rd_atom=16', 'rtr', '2 EINVAL'],
  [EFA, 'max_qp=3', 'qp', '3 ENOMEM'],
  [EFA, 'max_mr=3', 'mr', '3 ENOMEM'],
]

describe('limits of a device that are lowered', { skip: lacking(program) }, () => {
  it('refuse what is beyond them, with the errno of the adapter, and give back what is destroyed', async t => {
    for (const [device, limit, object, result] of CASES) {
      const { env } = await start(t, { devices: [`${device},${limit}`] })
      const name = device.split('@', 1)[0]!
      // Of two processes, the second finds the whole budget again.
      for (const words of [[], limit.endsWith('=0') ? [] : ['cope']]) {
        const { stdout, stderr } = await run(t, program, [name, object, '5', ...words], { env })
        assert.deepEqual([stdout.trim(), stderr], [result, ''], `${device} ${limit}`)
      }
    }
  })

  it('a query returns them', async t => {
    const limits =
      'max_qp=7,max_cq=8,max_mr=9,max_pd=10,max_mw=11,max_ah=12,max_srq=13,max_res_rd_atom=14,max_qp_wr=128'
    const sizes = 'max_sge=4,max_srq_wr=64,max_srq_sge=3,max_cqe=63,max_qp_rd_atom=5'
    const { env } = await start(t, { devices: [`rxe0@127.0.0.1,${limits},${sizes}`] })
    const { stdout } = await run(t, 'ibv_devinfo', ['-v'], { env })
    for (const pair of [...limits.split(','), ...sizes.split(',')]) {
      const [name, value] = pair.split('=')
      assert.match(stdout, new RegExp(`\\b${name}:\\s+${value}\\b`))
    }
  })

  it('the GUID of a node may be 0', async t => {
    const { env } = await start(t, { devices: [`${MLX5},node_guid=0`] })
    const { stdout } = await run(t, 'ibv_devinfo', ['-v'], { env })
    assert.match(stdout, /node_guid:\s+0000:0000:0000:0000/)
    assert.match((await run(t, 'ibv_devices', [], { env })).stdout, /mlx5_0\s+0{16}/)
  })

  it('a program that gives up learns which limit was used up, by how many; one that copes is told nothing', async t => {
    const failed = await check(t, 'rxe0@127.0.0.1,max_qp=3', 'qp', '5')
    const refused = failed.found.find(({ id }) => id === 'refused-call')
    assert.match(refused?.text ?? '', /^EINVAL: ibv_create_qp: device rxe0: 3 queue pairs are in use, of 3 \(max_qp\)/)
    assert.match(refused?.advice ?? '', /ibv_query_device/)
    const left = failed.found.filter(({ id }) => id === 'leak')
    assert.deepEqual(new Set(left.map(({ follows }) => follows)), new Set([refused?.number]))

    const connected = await check(t, `${MLX5},max_res_rd_atom=16`, 'rtr', '5')
    const responses = connected.found.find(({ id }) => id === 'refused-call')
    assert.match(
      responses?.text ?? '',
      /^EINVAL: ibv_modify_qp: .* 16 responder resources .* are in use, of 16 \(max_res_rd_atom\).*; 8 more are needed/,
    )
    assert.match(responses?.advice ?? '', /smaller max_dest_rd_atomic/)

    for (const [device, count] of [
      ['rxe0@127.0.0.1,max_qp=3', '5'],
      ['rxe0@127.0.0.1,max_qp=3', '3'],
    ] as const) {
      const { found, status } = await check(t, device, 'qp', count, 'cope')
      assert.deepEqual([found.filter(({ severity }) => severity !== 'note'), status], [[], 0])
    }
  })

  it('--like tells what all programs of the device have together, and the adapter has not', async t => {
    const told = async (adapter: string, ...words: string[]) => {
      const { found } = await checkScript(t, [program, 'mlx5_0', ...words].join(' '), [
        ...['--device', MLX5],
        ...['--like', adapter],
      ])
      return [...new Set(found.filter(({ id }) => id.startsWith('adapter-')).map(({ text }) => text))]
    }
    assert.deepEqual(await told('ionic', 'rtr', '3', 'cope'), ['max_res_rd_atom 24 exceeds 16 of ionic (AMD Pensando)'])
    assert.deepEqual(await told('ionic', 'rtr', '2', 'cope'), [])
    assert.deepEqual(await told('apple', 'qp', '11', 'cope'), [
      'apple (Apple, RDMA over Thunderbolt 5) lacks reliable connections (RC)',
      'max_qp 11 exceeds 10 of apple (Apple, RDMA over Thunderbolt 5)',
    ])
    // A PD more or less: what is destroyed counts no more.
    assert.deepEqual(await told('apple', 'pd', '40', 'cope'), [])
  })

  it('a program that goes on with descriptor -1 learns which call had none left; one that tries again is told nothing', async t => {
    for (const [what, text] of [
      ['open', /^descriptor -1 is used: open: EMFILE: .*RLIMIT_NOFILE/],
      ['socket', /^descriptor -1 is used: socket: EMFILE: .*RLIMIT_NOFILE/],
      ['connect', /^descriptor -1 is used: socket: EMFILE: .*RLIMIT_NOFILE/],
      ['bind', /^descriptor -1 is used: socket: EMFILE: .*RLIMIT_NOFILE/],
      ['send', /^descriptor -1 is used: socket: EMFILE: .*RLIMIT_NOFILE/],
      ['channel', /^ibv_create_comp_channel: EMFILE: .*RLIMIT_NOFILE/],
    ] as const) {
      const { found } = await check(t, 'rxe0@127.0.0.1', what, 'use')
      assert.match(found.find(({ id }) => id === 'refused-call')?.text ?? '', text)
      assert.match(found[0]?.advice ?? '', /ulimit -n/)
    }
    for (const what of ['open', 'socket', 'connect']) {
      const { found } = await check(t, 'rxe0@127.0.0.1', what, 'cope')
      assert.deepEqual(
        found.filter(({ id }) => id !== 'leak'),
        [],
        what,
      )
    }
  })

  it('a limit can only be lowered, and only one that the driver has', async t => {
    for (const [device, message] of [
      ['rxe0@127.0.0.1,max_qp=131073', /max_qp=131073 is above 131072, the limit of the device itself/],
      [`${EFA},max_srq=1`, /max_srq= cannot be set for driver efa, but max_qp, .* can/],
      ['rxe0@127.0.0.1,max_qp=0', /max_qp="0": give a number from 1 to 2147483647/],
      ['rxe0@127.0.0.1,max_pinned=4x', /max_pinned="4x": give a number of bytes, such as 65536, 64k, 16m or 2g/],
    ] as const) {
      const { stderr, status } = await runUserdma(t, ['run', '--private', '--device', device, '--', 'true'])
      assert.match(stderr, message)
      assert.notEqual(status, 0)
    }
  })
})
