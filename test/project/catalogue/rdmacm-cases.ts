/*
 * Programs of rdmacm-utils with their options.
 */
import { bothSides, rdmacmCases, udaddy } from '../../system/rdmacm/rdmacm.ts'
import { type ProgramCase, withProperties } from './cases.ts'

const rping = (server: string, client: string): ProgramCase => ({
  server: `rping -s -p PORT ${server}`,
  client: `rping -c -p PORT ${client}`,
})

/** Receiver and sender of a multicast group; `client`: options of the sender. */
const mckey = (server: string, client = server): ProgramCase => ({
  server: `mckey ${server} -b SERVER`,
  client: `mckey ${client} -b CLIENT -s`,
})

const cmtime = (server: string, client: string): ProgramCase => ({
  server: `cmtime -p PORT ${server}`,
  client: `cmtime -p PORT ${client}`,
  isServerEndless: true,
})

/** The case with SERVER6 in place of SERVER. */
const overIpv6 = ({ server, client, ...properties }: ProgramCase): ProgramCase => ({
  ...properties,
  ...(server !== undefined && { server: server.replaceAll('SERVER', 'SERVER6') }),
  client: client.replaceAll('SERVER', 'SERVER6'),
})

const GID = '::ffff:SERVER'
/** Addresses in the format of GIDs. */
const byGid = (program: string, options: string): ProgramCase => ({
  server: `${program} -b ${GID} -f gid ${options}`,
  client: `${program} -s ${GID} -f gid ${options}`,
})

const NO_GID =
  'rsockets of datagrams create address handles without a GID, which every RoCE device requires; on rxe the result is the same'
const CMTIME_13 = 'the program of rdma-core 56 does not support IPv6'

export const rdmacmPrograms: readonly ProgramCase[] = [
  ...rdmacmCases.filter(({ client }) => !client.startsWith('ib_') && !client.startsWith('cmtime')),
  rping('-a SERVER -C 5 -v', '-I CLIENT -a SERVER -C 5 -v'),
  rping('-a SERVER6 -C 5 -v', '-a SERVER6 -C 5 -v'),
  rping('-a ::0 -C 5 -v', '-a SERVER6 -C 5 -v'),
  rping('-a 0.0.0.0 -C 5 -d', '-a SERVER -C 5 -d'),
  rping('-C 2 -S 65535 -V', '-a SERVER -C 2 -S 65535 -V'),
  rping('-C 3 -S 23 -V', '-a SERVER -C 3 -S 23 -V'),
  withProperties(rping('-P -q', '-a SERVER -C 3 -V -q'), { isServerEndless: true }),
  { server: 'ucmatose -p PORT', client: 'ucmatose -s SERVER -p PORT -b CLIENT' },
  overIpv6(bothSides('ucmatose', '')),
  overIpv6(bothSides('ucmatose', '-f ipv6')),
  bothSides('ucmatose', '-f ip'),
  bothSides('ucmatose', '-f name'),
  bothSides('ucmatose', '-P tcp'),
  bothSides('ucmatose', '-P ib'),
  byGid('ucmatose', '-p PORT'),
  byGid('ucmatose', '-p PORT -P ib'),
  bothSides('ucmatose', '-a 14'),
  bothSides('ucmatose', '-S 0 -C 3'),
  bothSides('ucmatose', '-C 0'),
  bothSides('ucmatose', '-c 100 -C 2'),
  { server: 'udaddy', client: 'udaddy -s SERVER -b CLIENT' },
  overIpv6(udaddy('')),
  udaddy('-p 0x111'),
  udaddy('-p 0x2'),
  udaddy('-P udp'),
  udaddy('-P ipoib'),
  udaddy('-t 32'),
  udaddy('-f ip'),
  byGid('udaddy', ''),
  mckey('-m 239.77.0.1'),
  mckey('-m 239.77.0.1 -C 3 -S 500'),
  mckey('-m 239.77.0.1 -c 3'),
  mckey('-m 239.77.0.1 -p 0x2'),
  mckey('-m 239.77.0.1 -p 0x111'),
  mckey('-M ::ffff:239.77.0.1'),
  withProperties(mckey('-M 239.77.0.1'), {
    fails:
      'mckey reads the group of `-M` as an IPv6 address: an IPv4 address becomes ::, which cannot be joined (EINVAL)',
  }),
  mckey('-m 239.77.0.1', '-m 239.77.0.1 -o'),
  { server: 'mckey -m ff0e::7701 -b SERVER6', client: 'mckey -m ff0e::7701 -b SERVER6 -s' },
  withProperties(mckey('-m 239.77.0.1 -l'), {
    fails:
      'it requests a queue pair that does not receive its own multicast datagrams (BLOCK_SELF_MCAST_LB), which rxe refuses too',
  }),
  { server: 'rdma_server -p PORT', client: 'rdma_client -s SERVER -p PORT' },
  { server: 'rdma_server', client: 'rdma_client' },
  overIpv6({ server: 'rdma_server -s SERVER -p PORT', client: 'rdma_client -s SERVER -p PORT' }),
  { server: 'rdma_xserver -p PORT -c r', client: 'rdma_xclient -s SERVER -p PORT -c r' },
  { server: 'rdma_xserver -p PORT -c x', client: 'rdma_xclient -s SERVER -p PORT -c x' },
  cmtime('-b SERVER -c 20', '-s SERVER -b CLIENT -c 20'),
  cmtime('-c 20', '-s SERVER -b CLIENT -c 20 -r 5 -t 1000'),
  withProperties(cmtime('-b SERVER6 -c 20', '-s SERVER6 -c 20'), { fails: { 'Debian 13': CMTIME_13 } }),
  // In its last round cmtime creates no queue pairs, and counts QPNs up from `-q` (default 1000). Both sides use one
  // device here: as on Linux, their QPNs must differ.
  withProperties(cmtime('-b SERVER -c 20 -q 5000', '-s SERVER -c 20 -q 1000'), { onlyIn: 'Debian 13' }),
  withProperties(cmtime('-b SERVER -c 20 -n 4', '-s SERVER -b CLIENT -c 20 -n 4'), { onlyIn: 'Debian 13' }),
  { server: 'rcopy -p PORT', client: 'rcopy FILE SERVER:COPY -p PORT', isServerEndless: true },
  { server: 'rstream -p PORT -S 65536 -C 20', client: 'rstream -s SERVER -p PORT -S 65536 -C 20' },
  bothSides('rstream', '-S all -C 20 -I 2'),
  bothSides('rstream', '-S 4096 -C 50 -T v'),
  bothSides('rstream', '-S 4096 -C 50 -T r'),
  bothSides('rstream', '-S 4096 -C 50 -k 5'),
  bothSides('rstream', '-S 4096 -C 50 -B 8192 -i 64'),
  overIpv6(bothSides('rstream', '-S 4096 -C 50')),
  bothSides('rstream', '-f ip -S 4096 -C 50'),
  byGid('rstream', '-p PORT -S 4096 -C 50'),
  bothSides('LD_PRELOAD=RSOCKETS rstream', '-T s -S 4096 -C 50'),
  bothSides('riostream', '-S all -I 2 -C 5'),
  bothSides('riostream', '-S 4096 -I 20 -C 5 -T a'),
  bothSides('riostream', '-S 4096 -I 20 -C 5 -T b'),
  bothSides('riostream', '-S 4096 -I 20 -C 5 -T n'),
  bothSides('riostream', '-S 4096 -I 20 -C 5 -T v'),
  overIpv6(bothSides('riostream', '-S 4096 -I 20 -C 5')),
  withProperties(bothSides('udpong', '-S 512 -C 20'), { isServerEndless: true, fails: NO_GID }),
  withProperties(bothSides('udpong', '-S 512 -C 20 -T e'), { isServerEndless: true, fails: NO_GID }),
]
