/*
 * Traffic classes that an administrator sets by files: `tc/1/traffic_class` of mlx5, and rdma_cm's configfs.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { loopbackText } from '../../loopback.ts'
import { freePort, lacking, run, start, startDaemon, temporaryFolder, untilListening, userdma } from '../programs.ts'

const [A, B] = [loopbackText(51), loopbackText(52)] as const
const DEVICES = [`mlx5_0@${A},driver=mlx5`, `rxe0@${B}`]
const CLASS = '/sys/class/infiniband/mlx5_0/tc/1/traffic_class'
const CONFIG = '/sys/kernel/config/rdma_cm'

describe('an administrator', { skip: lacking('ibv_rc_pingpong', 'rping') }, () => {
  it('writes files, which keep the last valid number', async t => {
    const { env } = await startDaemon(t, { devices: DEVICES })
    const shell = async (script: string): Promise<string> => {
      const { stdout, stderr } = await run(t, 'sh', ['-c', script], { env })
      return stdout + stderr
    }
    assert.equal(await shell(`cat ${CLASS}`), '')
    assert.equal(await shell(`echo 106 > ${CLASS}; cat ${CLASS}`), 'Global tclass=106\n')
    assert.equal(await shell(`echo 300 > ${CLASS}; cat ${CLASS}`), 'Global tclass=106\n')
    assert.equal(await shell(`echo tclass=0 > ${CLASS}; cat ${CLASS}`), 'Global tclass=0\n')
    assert.equal(await shell(`echo -1 > ${CLASS}; cat ${CLASS}`), '')
    assert.match(await shell('cat /sys/class/infiniband/rxe0/tc/1/traffic_class'), /No such file/)

    const tos = `${CONFIG}/rxe0/ports/1/default_roce_tos`
    assert.match(await shell(`cat ${tos}`), /No such file/)
    assert.match(await shell(`mkdir ${CONFIG}/nonesuch`), /No such device/)
    assert.equal(await shell(`mkdir ${CONFIG}/rxe0; cat ${tos}`), '0\n')
    assert.match(await shell(`mkdir ${CONFIG}/rxe0`), /File exists/)
    assert.equal(await shell(`echo 104 > ${tos}; cat ${tos}; echo x > ${tos}; cat ${tos}`), '104\n104\n')
  })

  it('changes the classes of connected queue pairs of mlx5, and of identifiers of rdma_cm', async t => {
    const { env, socket } = await startDaemon(t, { devices: DEVICES })
    const calls = join(temporaryFolder(t), 'calls')
    const classesOf = async (command: readonly string[], server: readonly string[], port: string) => {
      const serving = start(t, server[0]!, server.slice(1), { env })
      await untilListening(Number(port), serving.ended)
      const client = await run(t, userdma, ['trace', '--socket', socket, '-o', calls, '--', ...command])
      serving.child.kill('SIGTERM')
      await serving.ended
      assert.equal(client.status, 0, client.stderr)
      const moves = readFileSync(calls, 'utf8').matchAll(/rc_qp\.modify\(.*state RTR, .*/g)
      return [...moves].map(([line]) => /trafficClass (\d+)/.exec(line)?.[1] ?? '0')
    }
    const pingpong = async (): Promise<string[]> => {
      const port = String(await freePort())
      const command = ['ibv_rc_pingpong', '-d', 'mlx5_0', '-g', '3', '-n', '10', '-p', port]
      return classesOf([...command, 'localhost'], command, port)
    }
    assert.deepEqual(await pingpong(), ['0'])
    await run(t, 'sh', ['-c', `echo 236 > ${CLASS}`], { env })
    assert.deepEqual(await pingpong(), ['236'])
    await run(t, 'sh', ['-c', `mkdir ${CONFIG}/rxe0 && echo 96 > ${CONFIG}/rxe0/ports/1/default_roce_tos`], { env })
    const { status, stderr } = await run(
      t,
      userdma,
      ['trace', '--socket', socket, '-o', calls, '--', 'sh', '-c', RPING],
      { env },
    )
    assert.equal(status, 0, stderr)
    const moves = readFileSync(calls, 'utf8').match(/rc_qp\.modify\(.*state RTR, .*/g) ?? []
    assert.equal(moves.length, 2)
    for (const move of moves) assert.match(move, /trafficClass 96/)
  })
})

const RPING = `rping -s -a ${B} -C 2 & for i in 1 2 3 4 5 6 7 8 9; do rping -c -a ${B} -C 2 && break; done; wait`
