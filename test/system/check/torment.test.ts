/*
 * `--torment` and `--torment-search` with test/programs/check/torment_cases.c.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { TormentKinds, tormentKinds } from '../../../src/spec/check/torment.ts'
import { seedWith } from '../../drivers/torment-seeds.ts'
import { casesOf, longOnly } from '../../long-run.ts'
import { repoRoot } from '../../paths.ts'
import { assertValid } from '../../project/docs/json-schema.ts'
import { lacking, ownProgram, runUserdma, type Scope, temporaryFolder } from '../programs.ts'

const cases = ownProgram('torment_cases')
const late = ownProgram('late_cases')
/** Programs that fail without torment; RC, and SRD. */
const orders = ownProgram('order_cases')
const ordersOfSrd = ownProgram('order_cases_srd')
const MAX_SEED = 100
/** Exit status of `userdma check` with findings or failures. */
const EX_DATAERR = 65

/** 0 if the case passes, 1 if it fails. */
const statusOf = async (scope: Scope, name: string, options: readonly string[]): Promise<number | null> => {
  const { status, stderr } = await runUserdma(scope, ['run', '--private', ...options, '--', cases, name])
  assert.ok(status === 0 || status === 1, stderr)
  return status
}

const INFINIBAND = 'mlx5_0@127.0.0.1,driver=mlx5,layer=infiniband'

/** A program that fails by each kind: the kind, its case, a seed, options, the program if it is another. */
const decisive = [
  ['bytes', 'last-byte', 2, []],
  ['completion', 'order', 5, []],
  ['ack', 'order', 6, ['--path', 'packets']],
  ['queue', 'depth', 2, []],
  ['adapter', 'adapter', 2, []],
  ['fields', 'fields', 2, []],
  ['reuse', 'reuse', 2, []],
  ['keys', 'keys', 2, []],
  ['relaxed', 'relaxed', 2, []],
  ['relaxed', 'relaxed', 2, ['--device', 'mlx5_0@127.0.0.1,driver=mlx5']],
  ...(
    [
      ['bytes', 'last-byte', 2],
      ['completion', 'order', 2],
      ['adapter', 'adapter', 2],
      ['keys', 'keys', 2],
      ['relaxed', 'relaxed', 2],
      ['event', 'notice', 6],
      ['rnr', 'patience', 2],
      ['spurious', 'extra', 2],
      ['request', 'announced', 6],
    ] as const
  ).map(row => [...row, ['--device', INFINIBAND]] as const),
  ['ack', 'order', 6, ['--path', 'packets', '--device', INFINIBAND]],
  ['numbers', 'numbers', 2, ['--device', INFINIBAND, '--device', 'mlx5_1@127.0.0.2,driver=mlx5,layer=infiniband']],
  ['keys', 'keys', 2, ['--device', 'mlx5_0@127.0.0.1,driver=mlx5']],
  ['event', 'notice', 2, []],
  ['rnr', 'patience', 2, []],
  ['limit', 'entries', 2, []],
  ['spurious', 'extra', 2, []],
  ['request', 'announced', 6, []],
  ['numbers', 'numbers', 2, ['--device', 'rxe0@127.0.0.1', '--device', 'mlx5_0@127.0.0.2,driver=mlx5']],
  ['late', 'read', 2, [], late],
  ['skew', 'abreast', 2, ['--device', 'rxe0@127.0.0.1', '--device', 'rxe1@127.0.0.2']],
] as const

describe('userdma run --torment', { skip: lacking(cases) }, () => {
  it('fails a program that polls the last byte of a message', async t => {
    assert.equal(await statusOf(t, 'last-byte', []), 0)
    // The kind of torment `bytes`, with probability 1.
    for (let seed = seedWith('bytes', 1); seed <= MAX_SEED; seed++)
      if ((await statusOf(t, 'last-byte', ['--torment', String(seed)])) === 1) return
    assert.fail(`it passes with ${MAX_SEED} seeds`)
  })

  for (const [name, title] of [
    ['depth', 'a post beyond the requested size'],
    ['unsignaled', 'more unsignaled sends than the queue holds'],
  ] as const)
    it(`rdma-core refuses ${title}`, async t => {
      assert.equal(await statusOf(t, name, []), 0)
      // The kind of torment `queue`, with probability 1.
      const seed = seedWith('queue', 1)
      const { status, stderr } = await runUserdma(t, ['run', '--private', '--torment', `${seed}`, '--', cases, name])
      assert.equal(status, 1, stderr)
      assert.match(stderr, /^ibv_post_send: Cannot allocate memory\n$/)
    })

  it('the opcode of a completion in error is undefined', async t => {
    assert.equal(await statusOf(t, 'fields', []), 0)
    // The kind of torment `fields`, with probability 1.
    const options = ['--torment', `${seedWith('fields', 1)}`]
    assert.equal(await statusOf(t, 'fields', options), 1)
    assert.equal(await statusOf(t, 'fields-right', options), 0)
  })

  it('two devices have queue pairs with one number', async t => {
    const devices = ['--device', 'rxe0@127.0.0.1', '--device', 'mlx5_0@127.0.0.2,driver=mlx5']
    const tormented = [...devices, '--torment', `${seedWith('numbers', 1)}`]
    assert.equal(await statusOf(t, 'numbers', devices), 0)
    assert.equal(await statusOf(t, 'numbers', tormented), 1)
    assert.equal(await statusOf(t, 'numbers-right', tormented), 0)
  })

  it('a queue pair on mlx5 has the bytes inline of the smallest limit, which libmlx5 rounds up', async t => {
    const options = ['--torment', '1', '--torment-kinds', 'adapter']
    for (const device of ['rxe0@127.0.0.1', 'mlx5_0@127.0.0.1,driver=mlx5'])
      assert.equal(await statusOf(t, 'adapter-right', ['--device', device, ...options]), 0, device)
  })

  it('userdma check knows which receives have failed, whatever their opcodes', async t => {
    const options = ['--torment', `${seedWith('fields', 1)}`]
    const { status, stderr } = await runUserdma(t, ['check', ...options, '--', cases, 'fields-right'])
    assert.equal(status, 0, stderr)
    assert.match(stderr, /userdma check: no findings/)
  })

  it('userdma check finds nothing in a fenced send of what an atomic returns, which comes late', async t => {
    const script = `for name in 1 2 3 4; do ${cases} fenced-right; done`
    for (const seed of ['1', '4', '5']) {
      const { status, stderr } = await runUserdma(t, ['check', '--torment', seed, '--', 'sh', '-c', script])
      assert.equal(status, 0, stderr)
      assert.match(stderr, /userdma check: no findings/)
    }
  })

  for (const seed of casesOf(['1', '2', '3'], one => one === '1'))
    it(`correct programs pass, seed ${seed}`, async t => {
      const kinds = [
        'last-byte',
        'order',
        'event',
        'extra',
        'depth',
        'unsignaled',
        'notice',
        'announced',
        'retries',
        'entries',
      ]
      const names = kinds.map(name => `${name}-right`)
      const script = `for name in ${names.join(' ')}; do ${cases} $name || echo $name: $?; done`
      const ended = await runUserdma(t, ['run', '--private', '--torment', seed, '--', 'sh', '-c', script])
      assert.deepEqual([ended.status, ended.stdout], [0, ''], ended.stderr)
    })
})

describe('userdma check --torment SEED:only=', { skip: lacking(cases) }, () => {
  it('makes one decision, which fails the program, and says which did not occur', async t => {
    // the seed has long waits
    const deciding = 'bytes/rxe0/torment_cases/rc_qp2/byte0'
    for (const [only, status] of [
      [deciding, 1],
      ['bytes/*', 1],
      ['bytes/rxe0/torment_cases/rc_qp2/*', 1],
      ['packet/*', 0],
    ] as const)
      assert.equal(await statusOf(t, 'last-byte', ['--torment', `2:only=${only}`]), status, only)
    const none = deciding.replace('qp2', 'qp9')
    const checked = await runUserdma(t, ['check', '--torment', `2:only=${none}`, '--', cases, 'last-byte'])
    assert.equal(checked.status, 0, checked.stderr)
    assert.ok(checked.stderr.includes(`1 decision of --torment did not occur: ${none}\n`), checked.stderr)
  })
  for (const device of ['rxe0@127.0.0.1', 'mlx5_0@127.0.0.1,driver=mlx5'])
    it(`holds a completion until another was polled, ${device}`, async t => {
      const name = device.split('@')[0]!
      const completion = (thing: string): string => `${name}/torment_cases/rc_qp1/${thing}`
      const status = (held: string, other: string): Promise<number | null> =>
        statusOf(t, 'order', [
          ...['--device', device, '--torment'],
          `1:only=completion/${completion(held)}~${completion(other)}`,
        ])
      assert.equal(await status('send1', 'receive1'), 1)
      assert.equal(await status('receive1', 'send1'), 0)
    })
  it('refuses what is no kind and no identity', async t => {
    for (const [options, message] of [
      [['--torment', '1:only=lost'], /--torment "1:only=lost": "lost" is not the identity of a decision: write KIND/],
      [['--torment', '1', '--torment-kinds', 'lost'], /--torment-kinds "lost" is not one of delays, /],
      [['--torment-kinds', 'bytes'], /--torment-kinds is for --torment SEED or --torment-search N/],
    ] as const) {
      const { status, stderr } = await runUserdma(t, ['check', ...options, '--', 'true'])
      assert.match(stderr, message)
      assert.equal(status, 2)
    }
  })
  it('names a process by its place in the tree of forks', async t => {
    const script = `${cases} event-right & ${cases} event-right & wait`
    const { stderr } = await runUserdma(t, ['trace', '--private', '--torment', '5', '--', 'sh', '-c', script])
    const names = new Set([...stderr.matchAll(/ torment \d+, \w+\/rxe0\/([\w.-]+)\//g)].map(([, name]) => name))
    assert.deepEqual([...names].filter(name => name !== '-').sort(), ['sh.torment_cases', 'sh.torment_cases-2'])
  })
})

describe('userdma trace --torment', { skip: lacking(cases) }, () => {
  it('prints each decision, in the order of the calls', async t => {
    const { status, stderr } = await runUserdma(t, ['trace', '--private', '--torment', '5', '--', cases, 'event-right'])
    assert.equal(status, 0, stderr)
    const lines = stderr.split('\n')
    let outcomes = 0
    const decisions = lines.flatMap(line => {
      const [, number, kind, process, outcome] =
        /^\[(?:rxe0|all) torment (\d+), (\w+)\/(?:rxe0|all)\/([\w.-]+)\/[\w-]+\/[\w.-]+\] (goes on after \d+ µs)?/.exec(
          line,
        ) ?? []
      if (kind === undefined) return []
      if (outcome !== undefined) outcomes++
      assert.ok(process === 'torment_cases' || process === '-', line)
      return outcome === undefined ? [{ number: Number(number), kind }] : []
    })
    assert.ok(outcomes > 0, stderr)
    assert.ok(decisions.length > 5, stderr)
    for (const [i, { number, kind }] of decisions.entries()) {
      assert.equal(number, i + 1)
      assert.ok(Object.hasOwn(TormentKinds, kind), kind)
    }
    const lastDestroy = lines.findLastIndex(line => line.includes('cq.destroy'))
    const firstDecision = lines.findIndex(line => line.includes('torment 1,'))
    assert.ok(firstDecision < lastDestroy, 'decisions are printed between the calls')
  })
})

/** A READ that comes after what the program posts later to another queue pair. */
const lateRead = (opcode: string): readonly string[] => ['--path', 'packets', '--fault', `opcode=${opcode},delay=3ms`]
const lateReads = [
  ['rxe0', 'rc', orders, ['--device', 'rxe0@127.0.0.1', ...lateRead('RC_READ_REQUEST')]],
  ['mlx5_0', 'rc', orders, ['--device', 'mlx5_0@127.0.0.1,driver=mlx5', ...lateRead('RC_READ_REQUEST')]],
  ['efa0', 'driver', ordersOfSrd, ['--device', 'efa0@127.0.0.1,driver=efa', ...lateRead('SRD_READ')]],
] as const

describe('userdma run --torment SEED:only=request/…/post*~', { skip: lacking(orders, ordersOfSrd) }, () => {
  for (const [device, service, program, options] of lateReads)
    it(`holds each post until those of another queue pair are done, ${device}`, async t => {
      const qp = (n: number): string => `${device}/${program.slice(program.lastIndexOf('/') + 1)}/${service}_qp${n}`
      const status = async (used: readonly string[], held?: number, until?: string) => {
        const hold = held === undefined ? [] : ['--torment', `1:only=request/${qp(held)}/post*~${until}`]
        const ended = await runUserdma(t, ['run', '--private', ...used, ...hold, '--', program, 'two'])
        assert.ok(ended.status === 0 || ended.status === 1, ended.stderr)
        return ended.status
      }
      // On a busy machine the program may be slower than the READ.
      let fails = false
      for (let i = 0; i < 5 && !fails; i++) fails = (await status(options)) === 1
      assert.ok(fails)
      assert.equal(await status(options, 3, `${qp(1)}/posts-done`), 0)
      const opposite = `1:only=request/${qp(1)}/post*~${qp(3)}/next-done`
      const traced = ['trace', '--private', ...options.slice(0, 2), '--torment', opposite, '--', program, 'two']
      const { stderr } = await runUserdma(t, traced)
      assert.match(stderr, new RegExp(`request/${qp(1)}/post1\\] goes on after \\d+ µs; passed by .*${qp(3)}/send1`))
    })
})

describe('userdma check --torment-search without torment', { skip: lacking(orders, ordersOfSrd) }, () => {
  const search = (scope: Scope, options: readonly string[], program: string, name: string) =>
    runUserdma(scope, ['check', '--torment-search', '2', ...options, '--', program, name])
  for (const [device, service, program, options] of lateReads)
    it(`tells the order that cures, ${device}`, { skip: device !== 'rxe0' && longOnly }, async t => {
      const file = join(temporaryFolder(t), 'found.sarif')
      const trySearch = () => search(t, [...options, '--json', '--sarif', file], program, 'two')
      let { status, stderr } = await trySearch()
      // On a busy machine the opposite order may pass, too: then no order is named.
      for (let i = 0; i < 3 && stderr === ''; i++) ({ status, stderr } = await trySearch())
      assert.equal(status, EX_DATAERR, stderr)
      const { torment } = JSON.parse(stderr)
      assertValid('check', { torment })
      assert.ok(torment.isCure && torment.isProven, stderr)
      assert.match(torment.later.text, /^each SEND of QP 0x\w+ of order_cases.* \(.*:\d+\)$/)
      assert.match(torment.earlier.text, /^each READ (?:posted before )?of QP 0x\w+ of order_cases.* \(.*:\d+\)$/)
      assert.match(torment.clause, /requests of different queue pairs have no order/)
      assert.match(torment.later.id, new RegExp(`^request/${device}/[\\w.]+/${service}_qp3/post\\*$`))
      assert.match(readFileSync(file, 'utf8'), /the program fails without torment; it passes if each SEND of QP /)
    })
  it('tells which completion must come first', async t => {
    const { status, stderr } = await search(t, ['--path', 'packets'], orders, 'answer')
    assert.equal(status, EX_DATAERR, stderr)
    assert.match(
      stderr,
      /: it passes if the completion of each SEND of QP 0x\w+ .* waits until the completion of each receive of QP 0x\w+ .* has come; nothing orders them \(IBA 10\.8\.3\.3: completions of the send queue and of the receive queue /,
    )
    assert.match(
      stderr,
      /only=completion\/rxe0\/order_cases\/rc_qp1\/send\*~rxe0\/order_cases\/rc_qp1\/as-many-receives'/,
    )
  })
  it('is what check itself names, if the program fails without a finding', async t => {
    for (const [name, words] of [
      ['wrong', '`--torment-search 10` looks for one that cures'],
      ['two-right', '`--torment`'],
    ] as const) {
      const { stderr } = await runUserdma(t, ['check', '--private', '--', orders, name])
      assert.ok(stderr.endsWith(`came in one of the orders that are allowed: ${words}\n`), stderr)
    }
  })
  it('reduces a found seed, or says how far it came', { skip: longOnly }, async t => {
    const { stderr } = await search(t, ['--torment-search', '10'], orders, 'one')
    assert.match(stderr, /fails with [123] decisions?:\n|\nuserdma check: of \d+ decisions; |no failure with/)
  })
  it('says what was tried if no order cures', async t => {
    const wrong = await search(t, [], orders, 'wrong')
    assert.match(wrong.stderr, /: the program fails without torment, in 3 of 3 further runs, so no seed was tried\n/)
    assert.match(wrong.stderr, /: no order is proven to cure it: (\d+) of \1 were tried\n/)
    assert.doesNotMatch(wrong.stderr, /it passes if/)
    assert.equal(wrong.status, EX_DATAERR)
  })
  it('finds nothing in a program that waits for its READs', { skip: longOnly }, async t => {
    for (const name of ['two-right', 'one-right', 'written-right', 'answer-right']) {
      const { status, stderr } = await search(t, lateReads[0][3], orders, name)
      assert.equal(stderr, 'userdma check: no failure with 2 seeds, 1 to 2\n')
      assert.equal(status, 0)
    }
  })
})

describe('userdma check --torment-search', { skip: lacking(cases) }, () => {
  const search = (scope: Scope, options: readonly string[], ...program: readonly string[]) =>
    runUserdma(scope, ['check', ...options, '--', ...program])

  it('prints the one decision that makes it fail, and how to repeat it', async t => {
    const options = ['--torment-search', '2', '--torment', '2', '--torment-kinds', 'bytes']
    const { status, stderr } = await search(t, options, cases, 'last-byte')
    assert.equal(status, EX_DATAERR, stderr)
    const [, text, id] =
      /\d of 2 seeds fail; seed (\d+) fails with 1 decision:\n {2}(bytes\/rxe0\/torment_cases\/rc_qp2\/byte\d+): 4096 bytes for QP /.exec(
        stderr,
      ) ?? []
    assert.ok(id !== undefined, stderr)
    assert.match(stderr, /exit status 1\n {2}round \d: the last byte has arrived, byte \d+ has not\n/)
    assert.match(
      stderr,
      /: that an order decides is not proven; a correct program tolerates .*:\n {2}bytes: IBA 9\.5, /,
    )
    assert.match(stderr, /\nuserdma check: run again, it fails [23] of 3 times\n/)
    const setting = `--torment ${text}:kinds=bytes:only=${id}`
    assert.ok(stderr.includes(`repeat it: userdma check ${setting} -- ${cases} last-byte\n`), stderr)
    assert.ok(stderr.includes(`userdma trace --private ${setting} -- ${cases} last-byte\n`), stderr)
  })
  it('prints that no run has failed', async t => {
    const { status, stderr } = await search(t, ['--torment-search', '2', '--torment', '40'], cases, 'order-right')
    assert.equal(stderr, 'userdma check: no failure with 2 seeds, 40 to 41\n')
    assert.equal(status, 0)
  })
  /** A shell script in which `$n` is the number of the run. Runs 0 to 2 are without torment. */
  const countingScript = (scope: Scope, script: string): readonly string[] => {
    const file = join(temporaryFolder(scope), 'runs')
    return ['sh', '-c', `n=$(cat ${file} || echo 0) 2> /dev/null; echo $((n + 1)) > ${file}; ${script}`]
  }
  it('prints how often the failure repeats', async t => {
    // runs 3 and 4 are of the seed, runs 5 to 7 repeat it
    const { status, stderr } = await search(
      t,
      ['--torment-search', '1'],
      ...countingScript(t, '[ $n -lt 3 ] || [ $n = 6 ]'),
    )
    assert.match(
      stderr,
      /1 of 1 seeds fail; seed 1 fails with its 0 decisions\n.*exit status 1\n.*run again, it fails 2 of 3 times\n/,
    )
    assert.equal(status, EX_DATAERR)
  })
  it('takes no run for a hang that only takes longer than those before', async t => {
    // All but the first three runs wait for longer than the shortest limit.
    const { status, stderr } = await search(
      t,
      ['--torment-search', '2'],
      ...countingScript(t, '[ $n -lt 3 ] || sleep 3'),
    )
    assert.equal(stderr, 'userdma check: no failure with 2 seeds, 1 to 2\n')
    assert.equal(status, 0)
  })
  it('prints what was found when it is interrupted', async t => {
    const interrupted = await search(
      t,
      ['--torment-search', '50'],
      ...countingScript(t, '[ $n -lt 3 ] && exit; [ $n -lt 5 ] || { kill -INT $PPID; sleep 60; }; exit 3'),
    )
    assert.match(
      interrupted.stderr,
      /check: 2 of 2 seeds until SIGINT fail; seed 1 fails with its 0 decisions\n.*status 3\n/,
    )
    assert.equal(interrupted.signal, 'SIGINT')
    const interruptedAtOnce = await search(t, ['--torment-search', '50'], 'sh', '-c', 'kill -TERM $PPID; sleep 60')
    assert.equal(interruptedAtOnce.stderr, 'userdma check: no failure with 0 seeds until SIGTERM\n')
    assert.equal(interruptedAtOnce.signal, 'SIGTERM')
  })
  it('of each kind is in the table of decisions that fail a program, or has a test of its own', () => {
    const kinds = new Set<string>([...decisive.map(([kind]) => kind), 'packet'])
    assert.deepEqual(
      tormentKinds.filter(kind => !kinds.has(kind)),
      [],
    )
  })
  for (const [kind, name, seed, options, program = cases] of decisive)
    it(`tells the decision of kind ${kind} that fails \`${[name, ...options].join(' ')}\``, {
      skip: longOnly || lacking(program),
    }, async t => {
      const wanted = ['--torment-search', '1', '--torment', `${seed}`, '--torment-kinds', kind, ...options]
      const { status, stderr } = await search(t, wanted, program, name)
      assert.match(stderr, new RegExp(`seed ${seed} fails with \\d decisions?:\\n {2}${kind}/[\\w./-]+: .`))
      assert.equal(status, EX_DATAERR)
    })
  it('tells packets that fail `retries`', { skip: longOnly }, async t => {
    const options = ['--torment-search', '1', '--torment', '5', '--torment-kinds', 'packet', '--path', 'packets']
    const { status, stderr } = await search(t, options, cases, 'retries')
    assert.match(stderr, /fails with \d decisions?:\n {2}packet\/rxe0\/torment_cases\/rc_qp[12]\/.*RC_/)
    assert.match(stderr, /a correct program tolerates what the devices did:\n {2}packet: IBA 9\.7\.1, /)
    assert.equal(status, EX_DATAERR)
  })
  for (const [device, seed, options] of [
    ['rxe0', 5, []],
    ['mlx5_0', 2, ['--device', 'mlx5_0@127.0.0.1,driver=mlx5']],
  ] as const)
    it(`proves which order decides, ${device}`, { skip: longOnly }, async t => {
      const file = join(temporaryFolder(t), 'found.sarif')
      // the seeds have waits of up to 20 ms
      const wanted = ['--torment-search', '1', '--torment', `${seed}`, '--torment-kinds', 'completion', '--json']
      const { stderr } = await search(t, [...wanted, '--sarif', file, ...options], cases, 'order')
      const { torment } = JSON.parse(stderr)
      assertValid('check', { torment })
      const [id, other] = ['send', 'receive'].map(thing => `${device}/torment_cases/rc_qp1/${thing}`)
      assert.ok(torment.isProven, stderr)
      assert.match(torment.later.id, new RegExp(`^completion/${id}\\d$`))
      assert.match(torment.earlier.id, new RegExp(`^${other}\\d$`))
      assert.match(torment.later.text, /^the completion of SEND wr_id 1 \(.*pair\.h:\d+\)$/)
      assert.match(torment.earlier.text, /^the completion of receive wr_id 2 \(.*pair\.h:\d+\)$/)
      assert.match(torment.clause, /^IBA 10\.8\.3\.3: completions of the send queue and of the receive queue /)
      assert.ok(torment.command.includes(`:only=${torment.later.id}~${torment.earlier.id}'`), torment.command)
      assert.match(readFileSync(file, 'utf8'), /the program fails if the completion of SEND wr_id 1 /)
    })
  it('ends after --search-time', async t => {
    const { status, stderr } = await search(t, ['--torment-search', '50', '--search-time', '1'], 'sleep', '60')
    assert.equal(stderr, 'userdma check: no failure with 0 seeds\n')
    assert.equal(status, 0)
  })
  it('prints JSON and writes SARIF', { skip: longOnly }, async t => {
    const file = join(temporaryFolder(t), 'found.sarif')
    const options = ['--torment-search', '1', '--torment', '2', '--torment-kinds', 'bytes', '--json', '--sarif', file]
    const { status, stderr } = await search(t, options, cases, 'last-byte')
    assert.equal(status, EX_DATAERR, stderr)
    const { torment } = JSON.parse(stderr)
    assertValid('check', { torment })
    assert.match(String(torment.only), /^bytes\/rxe0\/torment_cases\/rc_qp2\/byte\d+$/)
    assert.deepEqual(
      [torment.seed, torment.command],
      [2, `userdma check --torment 2:kinds=bytes:only=${torment.only} -- ${cases} last-byte`],
    )
    const [result] = JSON.parse(readFileSync(file, 'utf8')).runs[0].results
    assert.deepEqual([result.ruleId, result.properties], ['torment', { torment }])
  })
  it('finds races with --races', { skip: longOnly }, async t => {
    const race = join(repoRoot, 'build', 'findings', 'race')
    const { status, stderr } = await search(
      t,
      ['--torment-search', '1', '--races', '--fail-on', 'warning'],
      'sh',
      '-c',
      `${race}; true`,
    )
    assert.match(stderr, /finding race: /)
    assert.match(stderr, /repeat it: userdma check --races --fail-on warning -- /)
    assert.equal(status, EX_DATAERR)
  })
  it('counts signals, the time limit and findings as failures, also without torment', { skip: longOnly }, async t => {
    const oneSeed = ['--torment-search', '1']
    const killed = await search(t, oneSeed, 'sh', '-c', 'kill -SEGV $$')
    assert.match(
      killed.stderr,
      /: the program fails without torment, in 3 of 3 further runs, so no seed was tried\n.*: signal SIGSEGV\n/,
    )
    assert.match(killed.stderr, /-- sh -c 'kill -SEGV \$\$'\n/)
    const late = await search(t, [...oneSeed, '--time-limit', '10'], 'sh', '-c', 'echo here; sleep 1000 & wait')
    assert.match(late.stderr, /no end within 10 s\n {2}here\n/)
    const found = await search(t, oneSeed, 'sh', '-c', `${join(repoRoot, 'build', 'findings', 'stale-rkey')}; true`)
    assert.match(found.stderr, /finding stale-rkey: /)
    for (const { status } of [killed, late, found]) assert.equal(status, EX_DATAERR)
  })
  it('refuses wrong values and combinations of options', async t => {
    const refused: readonly (readonly [options: readonly string[], message: RegExp])[] = [
      [['--torment-search', '0'], /--torment-search "0": give an integer from 1 to 4294967295/],
      [['--torment-search', '2', '--torment', '4294967295'], /give an integer from 1 to 1/],
      [['--torment-search', '2', '--time-limit', 'long'], /--time-limit "long": give an integer from 1 to 86400/],
      [['--torment-search', '2', '--gen-suppressions'], /--torment-search and --gen-suppressions exclude each other/],
      [['--search-time', '5'], /--search-time is for --torment-search/],
    ]
    for (const [options, message] of refused) {
      const { status, stderr } = await search(t, options, 'true')
      assert.match(stderr, message)
      assert.equal(status, 2)
    }
  })
})
