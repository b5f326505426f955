/*
 * Programs of UCX, Open MPI and libfabric under `userdma check`: their known findings are suppressed, and there are no
 * others.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { before, describe, it, type TestContext } from 'node:test'
import { findTool } from '../../tools.ts'
import { cleanEnvironment, freePort, lacking, runUserdma, suiteScope, temporaryFolder } from '../programs.ts'
import { EX_DATAERR, faulty } from './checking.ts'

/** Long and short messages, a collective, and one-sided operations between two ranks. */
const MPI_PROGRAM = `
#include <mpi.h>
#include <stdlib.h>
int main(int argc, char **argv)
{
    enum { BYTES = 300000 };
    int rank, sum;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    char *sent = calloc(BYTES, 1), *received = calloc(BYTES, 1);
    for (int i = 0; i < 20; i++) {
        const int bytes = i % 2 ? BYTES : 100;
        MPI_Sendrecv(sent, bytes, MPI_CHAR, rank ^ 1, 0, received, BYTES, MPI_CHAR, rank ^ 1, 0, MPI_COMM_WORLD,
                     MPI_STATUS_IGNORE);
        MPI_Allreduce(&rank, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    }
    MPI_Win window;
    MPI_Win_create(received, BYTES, 1, MPI_INFO_NULL, MPI_COMM_WORLD, &window);
    MPI_Win_fence(0, window);
    MPI_Put(sent, 1000, MPI_CHAR, rank ^ 1, 0, 1000, MPI_CHAR, window);
    MPI_Win_fence(0, window);
    MPI_Win_free(&window);
    MPI_Finalize();
    free(sent);
    free(received);
    return sum == 1 ? 0 : 1;
}
`

const UCX = { UCX_TLS: 'rc,ud,self', UCX_NET_DEVICES: 'rxe0:1' }
/** By default libfabric's rxm provider requests queues for 256 peers, more than rxe allows. */
const FEW_PEERS = { FI_UNIVERSE_SIZE: '8' }

/** A script that runs `server` and, when it listens on the TCP port, `client`; its status is 0 if theirs are. */
const pair = (port: number, server: string, client: string): string =>
  `${server} & until ss -Htln "sport = :${port}" | grep -q .; do :; done; ${client} || { kill $!; exit 1; }; wait $!`

const ucx = async (test: string): Promise<string> => {
  const port = await freePort()
  const command = `ucx_perftest -p ${port}`
  return pair(port, command, `${command} -n 100 -w 10 -t ${test} 127.0.0.1`)
}

const fabric = async (provider: string, endpoint: string): Promise<string> => {
  const port = await freePort()
  const command = `fi_pingpong -p '${provider}' -e ${endpoint} -I 10`
  return pair(port, `${command} -B ${port}`, `${command} -P ${port} 127.0.0.1`)
}

describe('programs of libraries with known findings', () => {
  const suite = suiteScope()
  let mpiProgram: string
  before(() => {
    const folder = temporaryFolder(suite)
    mpiProgram = join(folder, 'ranks')
    writeFileSync(`${mpiProgram}.c`, MPI_PROGRAM)
    const compiler = findTool('mpicc')
    if (compiler === undefined) return
    const { status, stderr } = spawnSync(compiler, ['-o', mpiProgram, `${mpiProgram}.c`], { encoding: 'utf8' })
    assert.equal(status, 0, stderr)
  })

  const check = (t: TestContext, script: string, env: NodeJS.ProcessEnv, ...options: string[]) =>
    runUserdma(t, ['check', '--fail-on', 'warning', ...options, '--', 'sh', '-c', `{ ${script}; } > /dev/null`], {
      env: cleanEnvironment(env),
    })
  const assertSuppressed = async (t: TestContext, script: string, env: NodeJS.ProcessEnv, library: string) => {
    const { status, stderr } = await check(t, script, env)
    assert.equal(status, 0, stderr)
    assert.match(
      stderr,
      new RegExp(`userdma check: no findings.*\n(?:.*\n)*  \\d+ findings? in ${library} suppressed; `),
    )
  }

  for (const [test, transports] of [
    ['tag_bw -s 4096', 'rc,ud,self'],
    ['ucp_get -s 4096', 'rc,ud,self'],
    ['tag_lat -s 4096', 'ud,self'],
  ] as const)
    it(`ucx_perftest -t ${test}, ${transports}`, { skip: lacking('ucx_perftest', 'ss') }, async t => {
      await assertSuppressed(t, await ucx(test), { ...UCX, UCX_TLS: transports }, 'libuct_ib')
    })

  for (const [provider, endpoint] of [
    ['verbs', 'msg'],
    ['verbs;ofi_rxm', 'rdm'],
  ] as const)
    it(`fi_pingpong, ${provider}`, { skip: lacking('fi_pingpong', 'ss') }, async t => {
      await assertSuppressed(t, await fabric(provider, endpoint), FEW_PEERS, 'libfabric')
    })

  const mpirun = 'mpirun --allow-run-as-root --oversubscribe -np 2'
  for (const [name, options, env, library] of [
    ['UCX', '--mca pml ucx --mca osc ucx', UCX, 'libuct_ib'],
    ['libfabric', "--mca pml cm --mca mtl ofi --mca mtl_ofi_provider_include 'verbs;ofi_rxm'", FEW_PEERS, 'libfabric'],
  ] as const)
    it(`Open MPI over ${name}`, { skip: lacking('mpirun', 'mpicc') }, async t => {
      await assertSuppressed(t, `${mpirun} ${options} ${mpiProgram}`, env, library)
    })

  it('the same mistake of a program is reported, and --no-default-suppressions shows all', {
    skip: lacking('ucx_perftest', 'ss'),
  }, async t => {
    const script = await ucx('tag_lat')
    const both = await check(t, `(${script}) && ${faulty('buffer-freed')}`, UCX)
    assert.equal(both.status, EX_DATAERR, both.stderr)
    assert.match(both.stderr, /userdma check: 1 error\b.*\n(?:.*\n)* {2}\d+ findings? in libuct_ib suppressed; /)
    const all = await check(t, script, UCX, '--no-default-suppressions')
    assert.equal(all.status, EX_DATAERR, all.stderr)
    assert.match(all.stderr, /error buffer-freed: .*ucx_perftest/)
    assert.doesNotMatch(all.stderr, /suppressed/)
  })
})
