/*
 * Programs of perftest with their options.
 */
import { type MatrixCase, reliableCases, unreliableCases } from '../../system/pairs/matrix.ts'
import type { ProgramCase } from './cases.ts'

/** On rxe0 with GID 1 (-x) if the options name no device. Addresses are exchanged over TCP, with -z over rdma_cm. */
const perftest = (program: string, options: string, properties: Partial<ProgramCase> = {}): ProgramCase => {
  const device = / -d /.test(options) ? '' : ' -d rxe0 -x 1'
  const line = `${program} -F -p PORT${device} ${options}`
  return { server: line, client: `${line} localhost`, ...properties }
}

/** The server's address selects the device. */
const overRdmacm = (program: string, options: string, properties: Partial<ProgramCase> = {}): ProgramCase => ({
  server: `${program} -F -p PORT -R ${options}`,
  client: `${program} -F -p PORT -R ${options} SERVER`,
  listensTwice: true,
  ...properties,
})

const CONNECTED_BW = ['ib_send_bw', 'ib_write_bw', 'ib_read_bw', 'ib_atomic_bw'] as const
const LATENCY = ['ib_send_lat', 'ib_write_lat', 'ib_read_lat', 'ib_atomic_lat'] as const
/** Atomics have no option for the message size. */
const sizeOption = (program: string, bytes: number): string => (program.includes('atomic') ? '' : ` -s ${bytes}`)
/** Whether the program has -e. */
const hasEvents = (program: string): boolean => !program.includes('write')

const BANDWIDTH_OPTIONS = [
  ...['-b', '-q 4', '-m 512', '-t 16 -Q 4', '-N', '--report_gbits', '-l 5', '--mr_per_qp -q 2'],
  ...['-S 3 --tclass=96', '-u 16', '-z', '-D 1'],
]
const bandwidth = CONNECTED_BW.flatMap(program => {
  const basic = `-n 50${sizeOption(program, 4096)}`
  return [
    overRdmacm(program, basic),
    overRdmacm(program, `${basic} -q 4 -b`),
    overRdmacm(program, `${basic} -T 32`),
    ...(hasEvents(program) ? [overRdmacm(program, `${basic} -e`)] : []),
    ...BANDWIDTH_OPTIONS.map(options => perftest(program, `${basic} ${options}`)),
  ]
})

const latency = LATENCY.flatMap(program => {
  const basic = `-n 10${sizeOption(program, 64)}`
  return [
    overRdmacm(program, basic),
    ...(hasEvents(program) ? [overRdmacm(program, `${basic} -e`)] : []),
    ...['-H', '-U', '-C', '-z', '-m 512'].map(options => perftest(program, `${basic} ${options}`)),
  ]
})

const NO_CM = 'the program does not support it over rdma_cm'
const GROUP_IPV6 =
  'its default group is an IPv6 address, which the program refuses with an IPv4 address (-M names another group)'

const asCase = ({ program, args }: MatrixCase): ProgramCase => perftest(program, args.join(' '))

export const perftestPrograms: readonly ProgramCase[] = [
  ...[...reliableCases, ...unreliableCases].filter(({ program }) => program.startsWith('ib_')).map(asCase),
  ...bandwidth,
  ...latency,
  perftest('ib_send_bw', '-n 5 -a'),
  perftest('ib_write_bw', '-n 5 -a'),
  perftest('ib_read_bw', '-n 5 -a'),
  overRdmacm('ib_write_bw', '-n 5 -a'),
  overRdmacm('ib_send_bw', '-n 50 -s 1000 -c UD'),
  overRdmacm('ib_send_lat', '-n 10 -s 1000 -c UD'),
  overRdmacm('ib_send_bw', '-n 50 -s 1000 -c UD -e'),
  overRdmacm('ib_send_bw', '-n 50 -s 4096 --use-srq'),
  perftest('ib_send_bw', '-n 50 -s 4096 -r 16'),
  perftest('ib_write_lat', '-n 10 -s 64 -I 64'),
  perftest('ib_read_bw', '-n 50 -s 4096 -o 1'),
  perftest('ib_send_bw', '-n 50 --rate_limit=1 --rate_limit_type=SW'),
  perftest('ib_write_bw', '-n 50 --perform_warm_up'),
  perftest('ib_write_bw', '-n 50 -s 4096 --use_old_post_send'),
  perftest('ib_write_bw', '-n 50 -s 4096 -d rxe2 -x 1 --ipv6'),
  perftest('ib_write_bw', '-n 50 -s 4096 --write_with_imm', { onlyIn: 'Debian 13' }),
  perftest('ib_write_lat', '-n 10 -s 64 --write_with_imm', { onlyIn: 'Debian 13' }),
  perftest('ib_send_bw', '-n 50 -s 1000 -c UD -g', { fails: GROUP_IPV6 }),
  perftest('ib_send_bw', '-n 50 -s 1000 -c UD -g -M 0:0:0:0:0:0:0:0:0:0:255:255:239:1:2:3'),
  overRdmacm('ib_send_bw', '-n 50 -s 1000 -c UD -g', { fails: NO_CM }),
  overRdmacm('ib_write_bw', '-n 50 -s 4096 -c UC', { fails: NO_CM }),
  overRdmacm('ib_write_bw', '-n 50 -s 4096 -c XRC', { fails: NO_CM }),
  perftest('ib_write_bw', '-n 50 -s 4096 -e', { fails: 'the program has no events for WRITEs' }),
  perftest('ib_send_bw', '-n 50 -s 4096 --odp'),
  perftest('ib_send_bw', '-n 50 -s 4096 -c DC', { fails: 'queue pairs of mlx5 only' }),
  perftest('ib_send_bw', '-n 50 -s 4096 -c SRD', { fails: 'queue pairs of efa only' }),
]
