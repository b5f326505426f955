/*
 * Congestion notification with unmodified programs: packets that our own links mark are answered by CNPs, the sender
 * slows down, Linux's counters count them, and tshark shows them.
 */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import {
  freePort,
  lacking,
  type Running,
  run,
  type Scope,
  start,
  startDaemon,
  temporaryFolder,
  untilListening,
  userdma,
} from './programs.ts'

/** Opcode of a CNP (IBA annex A17), and numbers of the ECN field (RFC 3168). */
const CNP = 129
const [ECT0, CE] = [2, 3]

const DEVICES = ['rxe0@127.0.0.1,dcqcn=100gbit', 'mlx5_0@127.0.0.2,driver=mlx5,dcqcn=100gbit']

/** ECN field and opcode of the capture's packets. */
const packetsOf = async (t: Scope, pcap: string): Promise<{ ecn: number; opcode: number }[]> => {
  const fields = ['ip.dsfield.ecn', 'infiniband.bth.opcode'].flatMap(name => ['-e', name])
  const { status, stdout, stderr } = await run(t, 'tshark', ['-r', pcap, '-T', 'fields', ...fields])
  assert.equal(status, 0, stderr)
  const lines = stdout.trimEnd().split('\n')
  return lines.map(line => {
    const [ecn, opcode] = line.split('\t')
    return { ecn: Number(ecn), opcode: Number(opcode) }
  })
}

describe('congestion', { skip: lacking('ibv_rc_pingpong', 'tshark') }, () => {
  it('is notified by CNPs between an rxe and an mlx5 device over UDP', async t => {
    const daemon = await startDaemon(t, { devices: DEVICES, link: 'udp', fault: 'dir=sent,opcode=RC_SEND_*,ecn=10%' })
    const pcap = join(temporaryFolder(t), 'packets.pcapng')
    const args = ['-n', '60', '-s', '8000', '-m', '1024', '-c', '-p', String(await freePort())]
    const server: Running = start(t, 'ibv_rc_pingpong', ['-d', 'rxe0', '-g', '1', ...args], { env: daemon.env })
    await untilListening(Number(args.at(-1)), server.ended)
    const traced = ['trace', '--socket', daemon.socket, '-o', '/dev/null', '--pcap', pcap, '--']
    const client = await run(t, userdma, [
      ...traced,
      'ibv_rc_pingpong',
      '-d',
      'mlx5_0',
      '-g',
      '3',
      ...args,
      'localhost',
    ])
    assert.equal(client.status, 0, client.stdout + client.stderr)
    assert.equal((await server.ended).status, 0)

    const packets = await packetsOf(t, pcap)
    const sends = packets.filter(({ opcode }) => opcode <= 4)
    const marked = sends.filter(({ ecn }) => ecn === CE).length
    assert.ok(marked > sends.length / 20 && marked < sends.length / 5, `${marked} of ${sends.length}`)
    assert.ok(packets.every(({ ecn, opcode }) => ecn === ECT0 || (ecn === CE && opcode <= 4)))
    const cnps = packets.filter(({ opcode }) => opcode === CNP)
    assert.ok(cnps.length > 0 && cnps.length <= marked)

    const { devices } = await daemon.stat()
    const sum = (name: string): number => devices.reduce((total, { hw_counters }) => total + hw_counters[name], 0)
    assert.equal(sum('np_ecn_marked_roce_packets'), marked)
    assert.equal(sum('np_cnp_sent'), cnps.length)
    assert.equal(sum('rp_cnp_handled'), cnps.length)
    assert.equal(sum('rp_cnp_ignored'), 0)
  })

  it('is answered by a device without rate control too, which ignores CNPs; programs read the counters', async t => {
    const daemon = await startDaemon(t, { fault: 'ecn=1' })
    const args = ['-d', 'rxe0', '-g', '1', '-n', '50', '-p', String(await freePort())]
    const server: Running = start(t, 'ibv_rc_pingpong', args, { env: daemon.env })
    await untilListening(Number(args.at(-1)), server.ended)
    const client = await run(t, 'ibv_rc_pingpong', [...args, 'localhost'], { env: daemon.env })
    assert.equal(client.status, 0, client.stdout + client.stderr)
    assert.equal((await server.ended).status, 0)
    const { hw_counters } = (await daemon.stat()).devices[0]
    assert.ok(hw_counters.np_cnp_sent > 0)
    assert.deepEqual([hw_counters.rp_cnp_ignored, hw_counters.rp_cnp_handled], [hw_counters.np_cnp_sent, 0])
    const file = '/sys/class/infiniband/rxe0/ports/1/hw_counters/np_cnp_sent'
    const cat = await run(t, 'cat', [file], { env: daemon.env })
    assert.equal(cat.stdout, `${hw_counters.np_cnp_sent}\n`)
  })
})
