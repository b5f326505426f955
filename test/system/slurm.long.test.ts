/*
 * A cluster of Slurm on a net of `userdma net`: MPI programs, a matrix of jobs that check programs, jobs of another
 * user, jobs that are cancelled or lose a node. After each nothing is left on the nodes.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { chownSync, copyFileSync, mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { before, describe, it } from 'node:test'
import { repoRoot } from '../paths.ts'
import { assertGood, lacking, NOBODY, noOtherUser, suiteScope, userdma } from './programs.ts'
import { type Cluster, lacksSlurm, NODES, startCluster } from './slurm.ts'

const COMPILERS = { pmix: 'mpicc.openmpi', pmi2: 'mpicc.mpich' } as const
type Pmi = keyof typeof COMPILERS

/** For UCX, and for ranks that are more than the processors. */
const VARIABLES = [
  'UCX_TLS=rc_verbs,ud_verbs,self',
  ...['pml=ucx', 'osc=ucx', 'mpi_yield_when_idle=1'].map(setting => `OMPI_MCA_${setting}`),
]
/** A rank that prints `started` and waits; after 1000 s it counts as hung. */
const WAITING = 'echo started; sleep 1000'

const skip = lacksSlurm || lacking(...Object.values(COMPILERS), 'cc')

describe('Slurm', { skip }, () => {
  const suite = suiteScope()
  let cluster: Cluster
  const check = (pmi: Pmi): string => join(cluster.folder, `check.${pmi}`)
  before(async () => {
    cluster = await startCluster(suite)
    for (const [pmi, compiler] of Object.entries(COMPILERS) as [Pmi, string][]) {
      const source = join(repoRoot, 'test', 'system', 'suites', 'mpi_check.c')
      const { status, stderr } = spawnSync(compiler, ['-o', check(pmi), source], { encoding: 'utf8' })
      assert.equal(status, 0, stderr)
    }
  })
  const srun = (...words: readonly string[]) => cluster.exec('login', 'env', ...VARIABLES, 'srun', ...words)
  /** Submits a job of four nodes, whose ranks wait. Resolves when the first has started. */
  const submitWaiting = async (): Promise<string> => {
    const job = await cluster.output(
      ...['env', ...VARIABLES, 'sbatch', '--parsable', '--no-requeue', '--nodes=4', '--gres=rdma:1'],
      `--wrap=srun --mpi=pmix sh -c '${check('pmix')} reduce; ${WAITING}'`,
    )
    await cluster.untilPrinted(/started/, 'sh', '-c', `cat slurm-${job}.out 2>/dev/null || :`)
    return job
  }

  for (const pmi of Object.keys(COMPILERS) as Pmi[])
    it(`runs MPI programs by ${pmi}: messages, all-reduce, one-sided`, async () => {
      assertGood(
        await srun('--nodes=4', '--gres=rdma:1', `--mpi=${pmi}`, check(pmi), 'messages', 'reduce', 'one-sided'),
      )
      await cluster.assertClean()
    })

  it('runs 64 ranks', async () => {
    assertGood(await srun('--nodes=4', '--ntasks=64', '--gres=rdma:1', '--mpi=pmix', check('pmix'), 'reduce'))
    await cluster.assertClean()
  })

  it('runs a program over links that lose packets, with the options of a job', async () => {
    const counted = `${check('pmix')} messages reduce && ${userdma} stat --json`
    const ended = await srun(
      ...['--nodes=2', '--gres=rdma:1', '--comment=userdma: --fault drop=1%', '--mpi=pmix'],
      ...['sh', '-c', counted],
    )
    assertGood(ended)
    const dropped = [...ended.stdout.matchAll(/"dropped": ?(\d+)/g)].map(([, count]) => Number(count))
    assert.ok(dropped.filter(count => count > 0).length >= 2, `lost packets: ${dropped.join(', ')}`)
    await cluster.assertClean()
  })

  it('checks a matrix of programs, and a program on several nodes', async () => {
    const programs = ['stale-rkey', 'lkey-no-right', 'none']
    for (const name of programs.slice(0, 2)) {
      const source = join(repoRoot, 'docs', 'findings', `${name}.c`)
      const built = spawnSync('cc', ['-g', '-o', join(cluster.folder, name), source, '-libverbs'], { encoding: 'utf8' })
      assert.equal(built.status, 0, built.stderr)
    }
    copyFileSync('/usr/bin/ibv_devinfo', join(cluster.folder, 'none'))
    const script = `set -- ${programs.join(' ')}; shift $SLURM_ARRAY_TASK_ID; ${userdma} check --sarif $1.sarif -- ./$1`
    await cluster.output('sbatch', '--wait', '--parsable', '--array=0-2', '--gres=rdma:1', `--wrap=${script}; :`)
    const rules = (file: string): string[] => {
      const { runs } = JSON.parse(readFileSync(join(cluster.folder, `${file}.sarif`), 'utf8')) as {
        readonly runs: readonly { readonly results: readonly { readonly ruleId: string }[] }[]
      }
      return runs.flatMap(({ results }) => results.map(({ ruleId }) => ruleId))
    }
    assert.deepEqual(
      programs.map(rules).map(found => found.length > 0),
      [true, true, false],
    )
    assert.ok(rules('stale-rkey').includes('stale-rkey'))
    const checked = `${userdma} check --socket $USERDMA_SOCKET --sarif rank$SLURM_PROCID.sarif -- ${check('pmi2')} reduce`
    assertGood(
      await srun('--nodes=2', '--gres=rdma:1', '--comment=userdma: --check', '--mpi=pmi2', 'sh', '-c', checked),
    )
    assert.deepEqual(
      [...rules('rank0'), ...rules('rank1')].filter(rule => rule !== 'note'),
      [],
    )
    await cluster.assertClean()
  })

  it("has no devices without the GRES, and a job's own wrong options neither start nor drain", async () => {
    const without = await srun('--nodes=1', 'sh', '-c', 'echo "[$USERDMA_SOCKET]"; find /run/userdma -name sock')
    assertGood(without)
    assert.equal(without.stdout, '[]\n')
    const wrong = await srun(
      '--nodes=4',
      '--gres=rdma:1',
      '--comment=userdma: --bogus',
      'sh',
      '-c',
      'echo "[$USERDMA_SOCKET]"',
    )
    assert.match(wrong.stdout, /^userdma daemon: unknown option '--bogus'$/m)
    assert.equal(wrong.stdout.match(/^\[\]$/gm)?.length, 4)
    assert.equal(await cluster.output('sinfo', '--noheader', '--list-reasons'), '')
    await cluster.assertClean()
  })

  it('runs a job of another user, whose daemons are his', { skip: noOtherUser() }, async () => {
    const own = join(cluster.folder, 'nobody')
    mkdirSync(own)
    chownSync(own, NOBODY, NOBODY)
    const ended = await cluster.exec(
      ...([
        'login',
        'setpriv',
        `--reuid=${NOBODY}`,
        `--regid=${NOBODY}`,
        '--clear-groups',
        'env',
        ...VARIABLES,
      ] as const),
      ...['srun', `--chdir=${own}`, '--nodes=2', '--gres=rdma:1', '--comment=userdma: --ignore-memlock'],
      ...['--mpi=pmi2', '--label'],
      ...['sh', '-c', `${check('pmi2')} reduce && stat -c %u $USERDMA_SOCKET`],
    )
    assertGood(ended)
    assert.deepEqual(ended.stdout.trim().split('\n').sort(), [`0: ${NOBODY}`, `1: ${NOBODY}`])
    await cluster.assertClean()
  })

  it('leaves nothing of a job that is cancelled, also if a daemon does not end', async () => {
    const job = await submitWaiting()
    const [daemon] = spawnSync('pgrep', ['-f', `userdma daemon .*/run/userdma/slurm/${job}/sock .*@10.77.0.2`], {
      encoding: 'utf8',
    }).stdout.split('\n')
    process.kill(Number(daemon), 'SIGSTOP')
    assertGood(await cluster.exec('login', 'scancel', job))
    await cluster.assertClean()
  })

  it('leaves nothing of a job whose node dies, and the node works again', async () => {
    await submitWaiting()
    cluster.kill('node3')
    await cluster.untilPrinted(/node3 down/, 'sinfo', '--noheader', '--Node', '--format=%N %T')
    await cluster.assertClean(NODES.filter(node => node !== 'node3'))
    assertGood(
      await cluster.exec('node3', 'setpriv', '--reuid=munge', '--regid=munge', '--clear-groups', 'munged', '--force'),
    )
    assertGood(await cluster.exec('node3', 'slurmd'))
    await cluster.untilPrinted(
      /^4$/,
      'sh',
      '-c',
      'scontrol update nodename=node3 state=resume 2>/dev/null; sinfo --noheader --states=idle --format=%D',
    )
    assertGood(await srun('--nodes=4', '--gres=rdma:1', '--mpi=pmix', check('pmix'), 'reduce'))
    await cluster.assertClean()
  })
})
