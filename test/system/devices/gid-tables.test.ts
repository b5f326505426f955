/*
 * The GID table of devices as programs and scripts read it: sysfs as Mellanox's script show_gids, ibv_query_gid_table,
 * ibv_query_gid_ex, ibv_devinfo and `rdma link` agree; GIDs of VLAN interfaces, their tags, and what they reach.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { parseAddress } from '../../../src/transport/wire/address.ts'
import { loopbackText } from '../../loopback.ts'
import { checkScript, faulty } from '../check/checking.ts'
import {
  freePort,
  lacking,
  ownProgram,
  run,
  start,
  startDaemon,
  temporaryFolder,
  untilListening,
  userdma,
} from '../programs.ts'

const program = ownProgram('gid_table')
const [A, B, C, D] = [loopbackText(41), loopbackText(42), loopbackText(43), loopbackText(44)] as const
/** Of RoCE v2: of the VLAN's address, the second one. */
const VLAN_INDEX = '5'

/** DEVICE PORT INDEX GID TYPE NDEV of each entry that is no zero, with | between them. */
const SHOW_GIDS = `
for device in /sys/class/infiniband/*; do
  for port in "$device"/ports/*; do
    for gid in "$port"/gids/*; do
      index=\${gid##*/}
      value=$(cat "$gid")
      case $value in 0000:0000:0000:0000:0000:0000:0000:0000|fe80:0000:0000:0000:0000:0000:0000:0000) continue;; esac
      echo "\${device##*/}|\${port##*/}|$index|$value|$(cat "$port/gid_attrs/types/$index")|$(cat "$port/gid_attrs/ndevs/$index" 2>/dev/null)"
    done
  done
done | sort -t '|' -k 1,1 -k 3,3n`

describe('the GID tables of devices', { skip: lacking(program, 'ibv_devinfo', 'ibv_rc_pingpong') }, () => {
  it('are the same in sysfs, by the library, in ibv_devinfo and in rdma', { skip: lacking('rdma', 'ip') }, async t => {
    const devices = [
      `mlx5_0@${A},driver=mlx5,vlan=7+10.0.7.1+fd00::7+100+10.0.100.1`,
      `rxe0@${B},vlan=7+10.0.7.2`,
      `efa0@${C},driver=efa`,
    ]
    const { env } = await startDaemon(t, { devices })
    const shown = (await run(t, 'sh', ['-c', SHOW_GIDS], { env })).stdout.trim().split('\n')
    const entries = shown.map(line => line.split('|') as [string, string, string, string, string, string])
    const brief = entries.map(([device, , index, gid, type, ndev]) => [device, index, gid.slice(-9), type, ndev])
    const [v1, v2] = ['IB/RoCE v1', 'RoCE v2']
    const endOf = (address: string): string =>
      Buffer.from(parseAddress(address)!.subarray(12)).toString('hex').replace(/^..../, '$&:')
    assert.deepEqual(
      brief.filter(([device, index]) => device === 'mlx5_0' && Number(index) > 1),
      [
        ...[v1, v2].map((type, i) => ['mlx5_0', `${2 + i}`, endOf(A), type, 'lo']),
        ...[v1, v2].map((type, i) => ['mlx5_0', `${4 + i}`, '0a00:0701', type, 'lo.7']),
        ...[v1, v2].map((type, i) => ['mlx5_0', `${6 + i}`, '0000:0007', type, 'lo.7']),
        ...[v1, v2].map((type, i) => ['mlx5_0', `${8 + i}`, '0a00:6401', type, 'lo.100']),
      ],
    )
    assert.deepEqual(brief.filter(([device]) => device !== 'mlx5_0').slice(0, -1), [
      ['efa0', '0', endOf(C), v1, ''],
      ['rxe0', '0', brief.find(([device]) => device === 'rxe0')![2], v2, 'lo'],
      ['rxe0', '1', endOf(B), v2, 'lo'],
    ])
    const links = (await run(t, 'rdma', ['link'], { env })).stdout
    for (const device of ['mlx5_0', 'rxe0', 'efa0']) {
      const own = entries.filter(([name]) => name === device)
      const table = await run(t, program, [device], { env })
      assert.equal(table.status, 0, table.stderr)
      const rows = table.stdout
        .trim()
        .split('\n')
        .map(line => /^(\d+) (.*) (\d+) (\S+)$/.exec(line)!.slice(1))
      assert.deepEqual(
        rows.map(([index, type, , gid]) => [index, gid, type]),
        own.map(([, , index, gid, type]) => [index, gid, type]),
      )
      // The machine has no interface of these VLANs.
      const indexOf = (name: string): string =>
        name === 'lo' ? readFileSync('/sys/class/net/lo/ifindex', 'utf8').trim() : '0'
      assert.deepEqual(
        rows.map(([, , ifindex]) => ifindex),
        own.map(([, , , , , ndev]) => indexOf(ndev)),
      )
      const listed = (await run(t, 'ibv_devinfo', ['-v', '-d', device], { env })).stdout.matchAll(/GID\[ *(\d+)\]/g)
      assert.deepEqual(
        [...listed].map(([, index]) => index),
        own.map(([, , index]) => index),
      )
      const netdev = new RegExp(`link ${device}/1 .* netdev (\\S+)`).exec(links)?.[1] ?? ''
      assert.equal(netdev, own[0]![5])
    }
  })

  it('have addresses of VLANs, whose packets have a tag and reach that VLAN only', async t => {
    const pcap = join(temporaryFolder(t), 'capture.pcapng')
    const vlans = [`${A},driver=mlx5,vlan=100+10.0.100.1`, `${B},driver=mlx5,vlan=100+10.0.100.2`]
    const other = `mlx5_2@${D},driver=mlx5,vlan=200+10.0.200.1`
    const devices = [...vlans.map((text, i) => `mlx5_${i}@${text}`), other]
    const { env, socket } = await startDaemon(t, { devices })
    const clientTo = async (device: string) => {
      const port = String(await freePort())
      const args = ['-g', VLAN_INDEX, '-n', '10', '-p', port]
      const server = start(t, 'ibv_rc_pingpong', ['-d', device, ...args], { env })
      await untilListening(Number(port), server.ended)
      const trace = ['trace', '--socket', socket, '-o', '/dev/null', '--pcap', pcap, '--']
      const client = await run(t, userdma, [...trace, 'ibv_rc_pingpong', '-d', 'mlx5_0', ...args, 'localhost'])
      server.child.kill('SIGTERM')
      await server.ended
      return client
    }
    assert.equal((await clientTo('mlx5_2')).status, 1)
    assert.equal((await clientTo('mlx5_1')).status, 0)
    const bytes = readFileSync(pcap)
    const tags = new Set<number>()
    for (let at = bytes.indexOf('\x81\x00', 0, 'latin1'); at >= 0; at = bytes.indexOf('\x81\x00', at + 1, 'latin1'))
      if (bytes.readUInt16BE(at + 4) === 0x800) tags.add(bytes.readUInt16BE(at + 2))
    assert.deepEqual([...tags], [100])
  })

  it('of RoCE v1 are refused on UDP links, with the index of the same address on v2', async t => {
    const options = ['--link', 'udp', '--device', `mlx5_0@${A},driver=mlx5`]
    const { found, status } = await checkScript(t, faulty('not-routed--v1'), options)
    assert.notEqual(status, 0)
    assert.match(
      found.find(({ id }) => id === 'refused-call')?.text ?? '',
      /EOPNOTSUPP: .*GID index 2 is of RoCE v1, whose frames \(ethertype 0x8915\) UDP sockets do not carry; GID index 3 has the same/,
    )
  })
})
